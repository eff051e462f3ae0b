"""A conversation in the pieces that go or stay as one: an assistant message with all its results, or a user's words."""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from midstream.agents.budget.contract import Entry, Kind
from midstream.agents.conversation import (
    AssistantMessage,
    Message,
    Result,
    Text,
    UserMessage,
    calls_of,
    repaired,
)

LEFT_OUT: Final = UserMessage(parts=(Text(text="[Earlier messages were left out.]"),))


class Block(Struct, kw_only=True, frozen=True):
    """`results` are those of the message's calls, one for each. `entries`: of how many messages it was made."""

    message: Message
    results: tuple[Result, ...] = ()
    kind: Kind
    critical: bool
    entries: int


def blocks_of(entries: Sequence[Entry]) -> list[Block]:
    """What `repaired` would make of them, in pieces."""
    blocks: list[Block] = []
    begun: Entry | None = None
    answers: list[Entry] = []
    said: list[Block] = []
    for entry in entries:
        match entry.message:
            case AssistantMessage(parts=parts):
                if parts:
                    _close(blocks, begun, answers, said)
                    begun, answers, said = entry, [], []
            case UserMessage(parts=parts):
                rest = tuple(part for part in parts if not isinstance(part, Result))
                if len(rest) < len(parts):
                    answers.append(entry)
                if rest:
                    words = UserMessage(parts=rest)
                    said.append(Block(message=words, kind=entry.kind, critical=entry.critical, entries=1))
    _close(blocks, begun, answers, said)
    return blocks


def _close(blocks: list[Block], begun: Entry | None, answers: list[Entry], said: list[Block]) -> None:
    if begun is not None:
        calls = {call.id for call in calls_of(begun.message)}
        whole = repaired([begun.message, *(answer.message for answer in answers)])
        results = tuple(part for part in whole[1].parts if isinstance(part, Result)) if len(whole) > 1 else ()
        block = Block(
            message=begun.message,
            results=results,
            kind=begun.kind,
            critical=begun.critical,
            entries=1 + sum(_only_results_of(calls, answer.message) for answer in answers),
        )
        blocks.append(block)
    blocks += said


def _only_results_of(calls: set[str], message: Message) -> bool:
    return all(isinstance(part, Result) and part.call_id in calls for part in message.parts)


def joined(blocks: Sequence[Block | None]) -> tuple[Message, ...]:
    """The conversation of these blocks: it begins with the user, and alternates. None stands for what was left out."""
    messages: list[Message] = []
    for block in blocks:
        if block is None:
            messages.append(LEFT_OUT)
            continue
        messages.append(block.message)
        if block.results:
            messages.append(UserMessage(parts=block.results))
    if not messages or isinstance(messages[0], AssistantMessage):
        messages.insert(0, LEFT_OUT)
    out: list[Message] = []
    for message in repaired(messages):
        if isinstance(message, AssistantMessage) and out and isinstance(before := out[-1], AssistantMessage):
            # The model went on without a word of the user's: one message of it, as the API sees it too.
            out[-1] = AssistantMessage(parts=(*before.parts, *message.parts))
        else:
            out.append(message)
    return tuple(out)
