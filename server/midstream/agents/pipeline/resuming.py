"""A run that goes on with one that failed: what was asked there and what its stages came to, taken over once."""

from midstream.agents.history import asked_in
from midstream.agents.journal import journal_record
from midstream.agents.pipeline.attempts import Attempts
from midstream.agents.records import ResumedRecord
from midstream.log import JournalRecord
from midstream.runs.port import Port


async def with_resumed(port: Port) -> list[JournalRecord]:
    """The run's journal, with what it took over from the planned run that it goes on with, if any. Raises `RunFailure`,
    `Stopping`.
    """
    journal = list(port.journal)
    if port.start.resume is None or any(record.kind == "resumed" for record in journal):
        return journal
    before = await port.resumed()
    if before is None or all(record.kind != "plan" for record in before):
        return journal
    kept = ResumedRecord(asked=asked_in(before), ends=Attempts(before).completed())
    record = journal_record("resumed", port.start.resume, kept)
    await port.record(journal=[record])
    return [*journal, record]
