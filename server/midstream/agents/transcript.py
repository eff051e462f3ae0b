"""The conversation as the journal has it: what was said, called and answered, ready for the next model call.

It is a fold of journal records, so a program that begins again reads what the one before it said, and so does the next
run of the thread.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from midstream.agents.conversation import (
    AssistantMessage,
    Call,
    Media,
    Message,
    Result,
    Text,
    UserMessage,
    UserPart,
    calls_of,
    decode_message,
    repaired,
)
from midstream.agents.tools.shown import MAX_RESULT_CHARS, bounded, in_text
from midstream.log import JournalRecord
from midstream.runs.contract import CallRecord, CorrectionRecord, ResultRecord, StartRecord
from midstream_protocol.commands import FileBlock, ImageBlock, InputBlock, TextBlock


class TurnRecord(Struct, kw_only=True, frozen=True):
    """Journal kind `turn`, key = message_id: how a message of the model ended. `interrupted` is a stop reason too."""

    stop_reason: str


class Transcript:
    """`last` is the newest assistant message of the run that is being read, with its id and how it ended."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._calls: dict[str, Call] = {}
        self._ran_with: dict[str, dict[str, Any]] = {}
        self._answered: set[str] = set()
        self.last: AssistantMessage | None = None
        self.last_id = ""
        self.stop_reason = ""
        self.turns = 0
        self.calls = 0

    def read(self, journal: Iterable[JournalRecord]) -> None:
        """Add one run."""
        self.last, self.last_id, self.stop_reason = None, "", ""
        self.turns = self.calls = 0
        self._calls, self._ran_with, self._answered = {}, {}, set()
        for record in journal:
            self._add(record)

    def _add(self, record: JournalRecord) -> None:
        match record.kind:
            case "start":
                start = msgspec.json.decode(record.data, type=StartRecord)
                self._messages.append(UserMessage(parts=input_parts(start.input)))
            case "message":
                message = decode_message(record.data)
                if isinstance(message, AssistantMessage):
                    self.said(record.key, message, stop_reason="")
            case "turn" if record.key == self.last_id:
                self.stop_reason = msgspec.json.decode(record.data, type=TurnRecord).stop_reason
            case "call":
                self._ran_with[record.key] = msgspec.json.decode(record.data, type=CallRecord).args
            case "result":
                self.answered(record.key, msgspec.json.decode(record.data, type=ResultRecord))
            case "correction":
                self.corrected(msgspec.json.decode(record.data, type=CorrectionRecord).text)

    def said(self, message_id: str, message: AssistantMessage, *, stop_reason: str) -> None:
        self._messages.append(message)
        self.last, self.last_id, self.stop_reason = message, message_id, stop_reason
        self.turns += 1
        for call in calls_of(message):
            self._calls[call.id] = call
            self.calls += 1

    def answered(self, call_id: str, record: ResultRecord, *, ran_with: dict[str, Any] | None = None) -> None:
        """A result enters. `ran_with`: the arguments it ran with, where they may differ from the model's."""
        call = self._calls.get(call_id)
        # The same result may be journalled twice (by the run and by its program): the first counts.
        if call is None or call_id in self._answered:
            return
        self._answered.add(call_id)
        if ran_with is None:
            ran_with = self._ran_with.get(call_id)
        content = _content(record)
        if ran_with is not None and call.args is not None and ran_with != call.args:
            content = f"[The user changed the arguments of this call to {in_text(ran_with)}]\n{content}"
        result = Result(call_id=call_id, provider_id=call.provider_id, content=content, failed=not record.ok)
        self._messages.append(UserMessage(parts=(result,)))

    def corrected(self, text: str) -> None:
        # An answer comes after: what was said before it is not the end any more.
        self.last, self.last_id, self.stop_reason = None, "", ""
        self._messages.append(UserMessage(parts=(Text(text=text),)))

    def unanswered(self) -> list[Call]:
        """Calls of the last message that have no answer yet, in order."""
        if self.last is None:
            return []
        return [call for call in calls_of(self.last) if call.id not in self._answered]

    def messages(self, *, note: str | None = None) -> tuple[Message, ...]:
        """For the model: repaired, and ending with something to answer. `note` is said last, and not remembered."""
        whole = list(self._messages)
        if note is not None:
            whole.append(UserMessage(parts=(Text(text=note),)))
        elif self.stop_reason != "pause_turn" and isinstance(whole[-1], AssistantMessage):
            # Interrupted for a correction that was then revoked: a model answers nothing but a user's word.
            whole.append(UserMessage(parts=(Text(text="Go on."),)))
        return tuple(repaired(whole))


def input_parts(given: str | Sequence[InputBlock]) -> tuple[UserPart, ...]:
    if isinstance(given, str):
        return (Text(text=given),)
    parts: list[UserPart] = []
    for block in given:
        match block:
            case TextBlock():
                parts.append(Text(text=block.text))
            case ImageBlock():
                parts.append(Media(kind="image", media_type=block.media_type, data=block.data, url=block.url))
            case FileBlock():
                parts.append(Media(kind="file", media_type=block.media_type, data=block.data, url=block.url))
    return tuple(parts)


def input_text(given: str | Sequence[InputBlock]) -> str:
    """The text of an input, without what is not text."""
    return "\n".join(part.text for part in input_parts(given) if isinstance(part, Text))


def text_of(message: AssistantMessage) -> str:
    return "".join(part.text for part in message.parts if isinstance(part, Text))


def _content(record: ResultRecord) -> str:
    if record.ok:
        return bounded(in_text(record.value), MAX_RESULT_CHARS) or "(no output)"
    return bounded(f"{record.error}: {record.text or 'the call failed'}", MAX_RESULT_CHARS)
