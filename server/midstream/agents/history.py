"""What stands before a stage's own words: the runs of the thread before this one, and what was asked of this one."""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from midstream.agents.budget.contract import Entry
from midstream.agents.conversation import AssistantMessage, Message, Text, UserMessage
from midstream.agents.records import OutcomeRecord, PlanRecord, ResumedRecord, StageEndRecord, StageRecord
from midstream.agents.tools.shown import MAX_RESULT_CHARS, bounded, in_text
from midstream.agents.transcript import Transcript, input_parts
from midstream.log import JournalRecord
from midstream.runs.contract import CorrectionRecord, StartRecord

UNFINISHED: Final = "[That was not finished. What it came to until then:]"

Journal = Sequence[JournalRecord]


def history(journals: Iterable[Journal]) -> list[Entry]:
    """What earlier runs said, oldest first. Of a planned one: what was asked, and what it came to."""
    return [Entry(message=message, kind="history") for journal in journals for message in _said(journal)]


def request(journal: Journal) -> list[Entry]:
    """What this run was asked; of one that goes on with another, first what that one was asked."""
    entries: list[Entry] = []
    for record in journal:
        if record.kind == "start":
            entries.append(Entry(message=_asked(record), kind="request"))
        elif record.kind == "resumed":
            resumed = msgspec.json.decode(record.data, type=ResumedRecord)
            entries[:0] = [Entry(message=message, kind="request") for message in resumed.asked]
    return entries


def asked_in(journal: Journal) -> tuple[Message, ...]:
    """All that people said in a run, for the one that goes on with it."""
    asked = [entry.message for entry in request(journal)]
    return (*asked, *_corrections(journal))


def messages(entries: Iterable[Entry]) -> tuple[Message, ...]:
    return tuple(entry.message for entry in entries)


def _said(journal: Journal) -> Iterable[Message]:
    if any(record.kind == "plan" for record in journal):
        yield from asked_in(journal)
        yield from _outcome(journal)
        return
    transcript = Transcript(before=request(journal))
    transcript.read(journal)
    yield from transcript.messages()


def _asked(record: JournalRecord) -> Message:
    start = msgspec.json.decode(record.data, type=StartRecord)
    return UserMessage(parts=input_parts(start.input))


def _corrections(journal: Journal) -> list[Message]:
    texts = (msgspec.json.decode(r.data, type=CorrectionRecord).text for r in journal if r.kind == "correction")
    return [UserMessage(parts=(Text(text=text),)) for text in texts]


def _outcome(journal: Journal) -> Iterable[Message]:
    found = [record for record in journal if record.kind == "outcome"]
    if found:
        result = msgspec.json.decode(found[-1].data, type=OutcomeRecord).result
        text = in_text(result)
    else:
        parts = [f"## {title}\n{text}" for title, text in _finished(journal)]
        text = "\n\n".join([UNFINISHED, *parts]) if parts else ""
    if text:
        yield AssistantMessage(parts=(Text(text=bounded(text, MAX_RESULT_CHARS)),))


def _finished(journal: Journal) -> list[tuple[str, str]]:
    """(title, text) of each stage that was completed."""
    titles: dict[str, str] = {}
    todo_of: dict[str, str] = {}
    texts: dict[str, str] = {}
    for record in journal:
        if record.kind == "plan":
            plan = msgspec.json.decode(record.data, type=PlanRecord)
            titles |= {todo.id: todo.title for todo in plan.todos}
        elif record.kind == "stage":
            todo_of[record.key] = msgspec.json.decode(record.data, type=StageRecord).todo_id
        elif record.kind == "stage_end":
            end = msgspec.json.decode(record.data, type=StageEndRecord)
            if end.ok and end.verdict in ("go", "finish"):
                texts[todo_of.get(record.key, record.key)] = end.text
    return [(titles.get(todo_id, todo_id), text) for todo_id, text in texts.items()]
