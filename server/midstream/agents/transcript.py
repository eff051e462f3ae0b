"""The conversation of one stage with its model, as the journal has it.

It is a fold of journal records, so a program that begins again reads what the one before it said. Its entries say what
each message is, so that the budget knows what may go.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from midstream.agents.budget.contract import Entry, Kind
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
)
from midstream.agents.records import NoteRecord, StageRecord, TurnRecord
from midstream.agents.tools.shown import MAX_RESULT_CHARS, bounded, in_text
from midstream.log import JournalRecord
from midstream.runs.contract import CallRecord, CorrectionRecord, ResultRecord
from midstream_protocol.commands import FileBlock, ImageBlock, InputBlock, TextBlock

BUDGET_EXHAUSTED: Final = "budget_exhausted"
"""The code of a call that was not run because a limit of calls was reached."""

GO_ON: Final = "Go on."


class Transcript:
    """`stage` is "" in a run without a plan. `before` is what stands before the stage's own words: the thread's history
    and the request.

    `last` is the stage's newest message with its id and how it ended; None once something came after it that is to be
    answered. `used` counts the calls that were run since the last renewal of the limit.
    """

    def __init__(self, *, stage: str = "", before: Sequence[Entry] = ()) -> None:
        self._stage = stage
        self._entries = list(before)
        self._calls: dict[str, Call] = {}
        self._ran_with: dict[str, dict[str, Any]] = {}
        self._answered: set[str] = set()
        self._fresh: list[str] = []
        self.heard: set[str] = set()
        self.brief = ""
        self.last: AssistantMessage | None = None
        self.last_id = ""
        self.stop_reason = ""
        self.partial = ""
        """The newest text that the model said."""
        self.turns = 0
        self.used = 0
        self.renewals = 0
        self.refused = False
        """Whether a call was refused for a limit, and the model was not told yet how to go on."""
        self.last_answer = False
        """Whether the model was told to answer without tools."""
        self.fixes = 0
        self.simpler = False

    def read(self, journal: Sequence[JournalRecord]) -> None:
        """Add what a program before this one said and heard in this stage."""
        turns = {r.key: msgspec.json.decode(r.data, type=TurnRecord) for r in journal if r.kind == "turn"}
        corrections = {
            r.key: msgspec.json.decode(r.data, type=CorrectionRecord).text for r in journal if r.kind == "correction"
        }
        for record in journal:
            self._add(record, turns, corrections)

    def _add(self, record: JournalRecord, turns: dict[str, TurnRecord], corrections: dict[str, str]) -> None:
        match record.kind:
            case "stage" if record.key == self._stage:
                stage = msgspec.json.decode(record.data, type=StageRecord)
                self.briefed(stage.brief, heard=stage.heard)
            case "message":
                turn = turns.get(record.key, _NO_TURN)
                if turn.stage != self._stage:
                    return
                message = decode_message(record.data)
                if isinstance(message, AssistantMessage):
                    for heard in turn.heard:
                        # In a run without a plan they entered where the journal has them.
                        self.corrected(heard, corrections.get(heard, ""))
                    self.said(record.key, message, stop_reason=turn.stop_reason)
            case "call":
                self._ran_with[record.key] = msgspec.json.decode(record.data, type=CallRecord).args
            case "result":
                result = msgspec.json.decode(record.data, type=ResultRecord)
                if self.answered(record.key, result) and result.error != BUDGET_EXHAUSTED:
                    self.used += 1
            case "correction" if not self._stage:
                self.corrected(record.key, corrections[record.key])
            case "note":
                note = msgspec.json.decode(record.data, type=NoteRecord)
                if note.stage == self._stage:
                    self.noted(note)

    # -- what is said

    def briefed(self, text: str, *, heard: Iterable[str] = ()) -> None:
        """What the stage is to do. The corrections `heard` are in it."""
        self.brief = text
        self._tell(text, "brief")
        self.heard.update(heard)

    def said(self, message_id: str, message: AssistantMessage, *, stop_reason: str) -> None:
        self._entries.append(Entry(message=message, kind="turn"))
        self.last, self.last_id, self.stop_reason = message, message_id, stop_reason
        self.partial = text_of(message) or self.partial
        self.turns += 1
        self._fresh.clear()
        for call in calls_of(message):
            self._calls[call.id] = call

    def answered(self, call_id: str, record: ResultRecord, *, ran_with: dict[str, Any] | None = None) -> bool:
        """A result enters, if it is the first of a call of this stage. `ran_with`: the arguments it ran with, where
        they may differ from the model's.
        """
        call = self._calls.get(call_id)
        # The same result may be journalled twice (by the run and by its program): the first counts.
        if call is None or call_id in self._answered:
            return False
        self._answered.add(call_id)
        self.refused |= record.error == BUDGET_EXHAUSTED
        if ran_with is None:
            ran_with = self._ran_with.get(call_id)
        content = _content(record)
        if ran_with is not None and call.args is not None and ran_with != call.args:
            content = f"[The user changed the arguments of this call to {in_text(ran_with)}]\n{content}"
        result = Result(call_id=call_id, provider_id=call.provider_id, content=content, failed=not record.ok)
        self._entries.append(Entry(message=UserMessage(parts=(result,)), kind="result"))
        return True

    def corrected(self, correction_id: str, text: str) -> None:
        """A correction is heard. Once: it may be found in several places of a journal."""
        if correction_id in self.heard:
            return
        self.heard.add(correction_id)
        self._fresh.append(correction_id)
        self._tell(text, "correction")

    def noted(self, note: NoteRecord) -> None:
        """The loop tells the model something."""
        match note.kind:
            case "simpler":
                self.simpler = True
                return
            case "tool_limit":
                self.used, self.refused = 0, False
                self.renewals += 1
            case "last_answer":
                self.refused, self.last_answer = False, True
            case "validation":
                self.fixes += 1
        self._tell(note.text, "note")

    def _tell(self, text: str, kind: Kind) -> None:
        # An answer comes after: what was said before it is not the end any more.
        self.last, self.last_id, self.stop_reason = None, "", ""
        self._entries.append(Entry(message=UserMessage(parts=(Text(text=text),)), kind=kind))

    # -- what it comes to

    def messages(self) -> list[Message]:
        """All of it, as it was said."""
        return [entry.message for entry in self._entries]

    def fresh(self) -> tuple[str, ...]:
        """Ids of the corrections that no message has answered yet."""
        return tuple(self._fresh)

    def unanswered(self) -> list[Call]:
        """Calls of the last message that have no answer yet, in order."""
        if self.last is None:
            return []
        return [call for call in calls_of(self.last) if call.id not in self._answered]

    def entries(self, *, note: str | None = None) -> list[Entry]:
        """For the next model call: they end with something to answer. `note` is said last, and not remembered."""
        entries = list(self._entries)
        if note is not None:
            entries.append(Entry(message=UserMessage(parts=(Text(text=note),)), kind="note"))
        elif self.stop_reason != "pause_turn" and isinstance(entries[-1].message, AssistantMessage):
            # Interrupted for a correction that was then revoked: a model answers nothing but a user's word.
            entries.append(Entry(message=UserMessage(parts=(Text(text=GO_ON),)), kind="note"))
        return entries


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


_NO_TURN: Final = TurnRecord(stop_reason="")


def _content(record: ResultRecord) -> str:
    if record.ok:
        return bounded(in_text(record.value), MAX_RESULT_CHARS) or "(no output)"
    return bounded(f"{record.error}: {record.text or 'the call failed'}", MAX_RESULT_CHARS)
