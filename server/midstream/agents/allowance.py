"""How many tool calls and turns are left: of a stage, and of the whole run. Pure counting."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgspec

from midstream.agents.records import NoteRecord
from midstream.agents.transcript import BUDGET_EXHAUSTED
from midstream.log import JournalRecord
from midstream.runs.contract import ResultRecord
from midstream_protocol.commands import RunLimits


class Allowance:
    """Calls that may be run: `limit` (None: any number), then as many again after each renewal."""

    def __init__(self, limit: int | None, *, used: int = 0, renewals: int = 0) -> None:
        self._limit = limit
        self._used = used
        self.renewals = renewals

    @property
    def left(self) -> int | None:
        return None if self._limit is None else max(0, self._limit - self._used)

    @property
    def none(self) -> bool:
        """Whether no call was ever allowed."""
        return self._limit == 0

    @property
    def exhausted(self) -> bool:
        return self.left == 0

    def take(self, count: int) -> None:
        self._used += count

    def renew(self) -> None:
        self._used = 0
        self.renewals += 1


class RunAllowance:
    """What the caller allowed the run as a whole, however many stages use it up."""

    def __init__(self, limits: RunLimits | None, journal: Sequence[JournalRecord]) -> None:
        used = renewals = 0
        answered: set[str] = set()
        for record in journal:
            if record.kind == "result" and record.key not in answered:
                answered.add(record.key)
                used += msgspec.json.decode(record.data, type=ResultRecord).error != BUDGET_EXHAUSTED
            elif record.kind == "note":
                note = msgspec.json.decode(record.data, type=NoteRecord)
                if note.kind == "tool_limit" and note.of_run:
                    used, renewals = 0, renewals + 1
        self.calls = Allowance(limits.max_tool_calls if limits is not None else None, used=used, renewals=renewals)
        self._max_turns = limits.max_turns if limits is not None else None
        self._turns = sum(1 for record in journal if record.kind == "message")
        self._under_way = 0

    @property
    def last_turn(self) -> bool:
        """Whether the turn that is asked for now is the last one."""
        return self._max_turns is not None and self._turns + self._under_way >= self._max_turns

    @property
    def no_turns(self) -> bool:
        """Whether no turn is left."""
        return self._max_turns is not None and self._turns >= self._max_turns

    @contextmanager
    def turn(self) -> Iterator[None]:
        """While inside: a turn is under way, so that stages side by side do not both count on the last one."""
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1

    def said(self) -> None:
        self._turns += 1


def granted(wanted: int, *of: Allowance) -> int:
    """How many of so many calls may be run, and take them."""
    count = min([wanted, *(each.left for each in of if each.left is not None)])
    for each in of:
        each.take(count)
    return count
