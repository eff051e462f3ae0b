"""What a model is shown: the conversation as data, in no vendor's words. It is what the journal keeps.

The invariant every provider relies on, owned by `repaired`: each call of an assistant message is answered by exactly
one result, in the very next message, before anything else - so an interruption can never poison a conversation.
"""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct


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


def calls_of(message: Message) -> list[Call]:
    return [part for part in message.parts if isinstance(part, Call)] if isinstance(message, AssistantMessage) else []


def repaired(messages: Sequence[Message]) -> list[Message]:
    """The same conversation with the invariant holding.

    Results come first in the message after their calls; a call without one gets `NOT_RUN`; a result without its call
    is dropped; empty messages are dropped; neighbouring user messages become one.
    """
    out: list[Message] = []
    owed: dict[str, Call] = {}
    for message in messages:
        if isinstance(message, AssistantMessage):
            _settle(out, owed)
            if message.parts:
                out.append(message)
                owed = {call.id: call for call in calls_of(message)}
            continue
        results = {part.call_id: part for part in message.parts if isinstance(part, Result) and part.call_id in owed}
        rest = tuple(part for part in message.parts if not isinstance(part, Result))
        for call_id in results:
            del owed[call_id]
        if rest:
            # Something else follows: whatever is still owed must be answered before it.
            late = tuple(_not_run(call) for call in owed.values())
            owed = {}
            _add_user(out, (*results.values(), *late, *rest))
        elif results:
            _add_user(out, tuple(results.values()))
    _settle(out, owed)
    return out


def _settle(out: list[Message], owed: dict[str, Call]) -> None:
    if owed:
        _add_user(out, tuple(_not_run(call) for call in owed.values()))
        owed.clear()


def _not_run(call: Call) -> Result:
    return Result(call_id=call.id, provider_id=call.provider_id, content=NOT_RUN, failed=True)


def _add_user(out: list[Message], parts: tuple[UserPart, ...]) -> None:
    if out and isinstance(out[-1], UserMessage):
        before = out[-1].parts
        # A result may come in a later batch than its siblings; it still stands before any text.
        results = tuple(p for p in (*before, *parts) if isinstance(p, Result))
        rest = tuple(p for p in (*before, *parts) if not isinstance(p, Result))
        out[-1] = UserMessage(parts=(*results, *rest))
    else:
        out.append(UserMessage(parts=parts))


def encode_message(message: Message) -> bytes:
    return msgspec.json.encode(message)


def decode_message(data: bytes) -> Message:
    return msgspec.json.decode(data, type=Message)  # type: ignore[no-any-return]
