"""What a model is shown: the conversation as data, in no vendor's words. It is what the journal keeps.

The invariant every provider relies on, owned by `repaired`: each call of an assistant message is answered by exactly
one result, in the very next message, before anything else - so an interruption can never poison a conversation.
"""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

from midstream_protocol.ids import new_id


class Text(Struct, kw_only=True, frozen=True, tag="text"):
    text: str


class Media(Struct, kw_only=True, frozen=True, omit_defaults=True, tag="media"):
    """An image or file from the user: exactly one of `data` (base64) and `url`."""

    kind: Literal["image", "file"]
    media_type: str
    data: str | None = None
    url: str | None = None


class Reasoning(Struct, kw_only=True, frozen=True, tag="reasoning"):
    """Hidden thinking, given back to the model word for word as the provider sent it (`raw`), never shown."""

    raw: dict[str, Any]


class Call(Struct, kw_only=True, frozen=True, omit_defaults=True, tag="call"):
    """The model wants a tool run. `id` is ours; `provider_id` stays between us and the provider.

    `args` is None when the model's JSON was not an object; then `raw` is what it wrote.
    """

    id: str
    provider_id: str
    tool: str
    args: dict[str, Any] | None
    raw: str | None = None


class Opaque(Struct, kw_only=True, frozen=True, tag="opaque"):
    """A block that only the provider understands, given back as it came."""

    raw: dict[str, Any]


class Result(Struct, kw_only=True, frozen=True, omit_defaults=True, tag="result"):
    """The answer to a call. `content` is text for the model."""

    call_id: str
    provider_id: str
    content: str
    failed: bool = False


AssistantPart = Text | Reasoning | Call | Opaque
UserPart = Text | Media | Result


class UserMessage(Struct, kw_only=True, frozen=True, tag="user"):
    parts: tuple[UserPart, ...]


class AssistantMessage(Struct, kw_only=True, frozen=True, tag="assistant"):
    parts: tuple[AssistantPart, ...]


Message = UserMessage | AssistantMessage

NOT_RUN = "This call was not run: the run was interrupted before it started."


def new_call_id() -> str:
    return new_id("call")


def calls_of(message: Message) -> list[Call]:
    return [part for part in message.parts if isinstance(part, Call)] if isinstance(message, AssistantMessage) else []


def repaired(messages: Sequence[Message]) -> list[Message]:
    """The same conversation with the invariant holding. Idempotent.

    Neighbouring user messages become one, with the results first, in the order of their calls; a call without a
    result gets `NOT_RUN`; a result without its call is dropped, and so is a second result of one call and a message
    without parts.
    """
    out: list[Message] = []
    calls: list[Call] = []
    said: list[UserPart] = []
    for message in messages:
        if isinstance(message, UserMessage):
            said += message.parts
        elif message.parts:
            _answer(out, calls, said)
            out.append(message)
            calls, said = calls_of(message), []
    _answer(out, calls, said)
    return out


def _answer(out: list[Message], calls: list[Call], said: list[UserPart]) -> None:
    """Add what the user's side said after `calls`. The first result of a call stands: a model may have seen it."""
    given: dict[str, Result] = {}
    for part in said:
        if isinstance(part, Result):
            given.setdefault(part.call_id, part)
    results = [given.get(call.id) or _not_run(call) for call in calls]
    rest = [part for part in said if not isinstance(part, Result)]
    if results or rest:
        out.append(UserMessage(parts=(*results, *rest)))


def _not_run(call: Call) -> Result:
    return Result(call_id=call.id, provider_id=call.provider_id, content=NOT_RUN, failed=True)


def encode_message(message: Message) -> bytes:
    return msgspec.json.encode(message)


def decode_message(data: bytes) -> Message:
    return msgspec.json.decode(data, type=Message)  # type: ignore[no-any-return]
