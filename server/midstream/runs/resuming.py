"""What a start with `resume` goes on with: a run of the same thread and agent that failed or was cancelled."""

from typing import Final

import msgspec
from msgspec import Struct

from midstream.log import Log
from midstream.runs.contract import StartRecord
from midstream.runs.keys import store_key
from midstream_protocol.commands import RunStart
from midstream_protocol.errors import Conflict, NotFound

RESUMABLE: Final = frozenset({"failed", "cancelled"})


class Resumed(Struct, kw_only=True, frozen=True):
    """The run before, and what a run that goes on with it has of it."""

    run_id: str
    thread_id: str
    agent: str


async def resumed_by(ask: RunStart, *, principal_id: str, log: Log) -> Resumed | None:
    """The run that this start resumes; None: it resumes none. Raises `NotFound`, `Conflict`, `LogError`."""
    if ask.resume is None:
        return None
    run_id = ask.resume.run_id
    loaded = await log.load(store_key(principal_id, run_id))
    if loaded is None:
        raise NotFound("there is no such run to resume, or it is not yours")
    record = msgspec.json.decode(loaded.journal[0].data, type=StartRecord)
    status = loaded.header.status
    if status == "completed":
        raise Conflict("the run to resume has completed: start a new run in its thread, without resume")
    if status not in RESUMABLE:
        raise Conflict("the run to resume has not ended: follow it, or cancel it first")
    if ask.thread_id not in (None, record.thread_id):
        raise Conflict("the run to resume is in another thread: leave thread_id out")
    if ask.agent not in (None, record.agent):
        raise Conflict("the run to resume is another agent's: leave agent out")
    return Resumed(run_id=run_id, thread_id=record.thread_id, agent=record.agent)
