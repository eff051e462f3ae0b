"""Which waiting runs leave the memory, and how the log says that a run was left in order. Pure.

A run is parked by being handed over: its program returns at the question it waits at, a mark is written, and nothing of
the run is left in this process but the feed of those who read it. It comes back like one whose server died.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Struct

from midstream.log import JournalRecord
from midstream.runs.contract import Limits

PARKED: Final = "parked"
"""Journal kind: the run's actor left it in order, with all said that was to be said. Void once anything follows."""


class ParkedRecord(Struct, kw_only=True, frozen=True):
    """`seq` was the head then."""

    seq: int


def parked_record(run_id: str, seq: int) -> JournalRecord:
    return JournalRecord(kind=PARKED, key=run_id, data=msgspec.json.encode(ParkedRecord(seq=seq)))


def left_in_order(journal: Sequence[JournalRecord], head: int) -> bool:
    """Whether the mark is the last thing that was written."""
    last = journal[-1]
    return last.kind == PARKED and msgspec.json.decode(last.data, type=ParkedRecord).seq == head


def without_marks(journal: Sequence[JournalRecord]) -> Sequence[JournalRecord]:
    """The journal as programs know it."""
    if not any(record.kind == PARKED for record in journal):
        return journal
    return [record for record in journal if record.kind != PARKED]


def patience_s(live: int, limits: Limits) -> float | None:
    """How long a run waits in memory before it is parked; None: for ever. Less when more than half of the runs that may
    live do, so that waiting ones do not keep new ones out.
    """
    if not limits.park_after_s:
        return None
    room = 2 * (1 - live / limits.max_live_runs)
    return limits.park_after_s * min(1.0, max(0.0, room))
