"""How long ended runs are kept: which are due to be compacted or deleted, by the records that runs leave when they end.

An `ended` record is written with a run's terminal event, in one step; its id begins with the time, so what is due comes
first. When the run is compacted, the record moves to `compacted`. Deciding is pure; erasing.py acts.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Literal

import msgspec
from msgspec import Struct

from midstream.clock import Clock
from midstream.log import LogError, Record, Records, RecordWrite
from midstream.logs import Logger
from midstream.runs.contract import Limits, StartRecord
from midstream_protocol.errors import ProtocolError

ENDED: Final = "ended"
"""Record kind: a run that has ended and has all its events, by the time of its end."""

COMPACTED: Final = "compacted"
"""Record kind: the same once its events were replaced by a snapshot."""

_AT_ONCE: Final = 8
"""Runs of either kind erased or compacted side by side, so that they share commits."""

_PAUSE_S: Final = 0.01
"""Between two such pieces: live runs are written first."""

_log = Logger("midstream.runs")


class Ended(Struct, kw_only=True, frozen=True):
    """What such a record holds: enough to find everything that belongs to the run."""

    space: str
    run_id: str
    thread_id: str
    created_ms: int
    ended_ms: int

    @property
    def run(self) -> str:
        """Its store key."""
        return f"{self.space}.{self.run_id}"

    @property
    def id(self) -> str:
        return f"{self.ended_ms:013d}.{self.run}"


class Due(Struct, kw_only=True, frozen=True):
    """What is to be done about one ended run."""

    what: Literal["delete", "compact"]
    ended: Ended


def about_ended(start: StartRecord, run: str, ended_ms: int) -> Ended:
    return Ended(
        space=run.partition(".")[0],
        run_id=start.run_id,
        thread_id=start.thread_id,
        created_ms=start.created_ms,
        ended_ms=ended_ms,
    )


def ended_record(start: StartRecord, run: str, ended_ms: int) -> RecordWrite:
    """What is written with the terminal event of `run` (store key), in one batch. `ended_ms`: that event's `ts`."""
    about = about_ended(start, run, ended_ms)
    return RecordWrite(kind=ENDED, id=about.id, data=msgspec.json.encode(about))


def due(whole: Sequence[Record], compacted: Sequence[Record], *, limits: Limits, now_ms: int) -> list[Due]:
    """What is due of these records (of either kind, oldest first), oldest first."""
    found: list[Due] = []
    for records, compactable in ((compacted, False), (whole, True)):
        for record in records:
            about = msgspec.json.decode(record.data, type=Ended)
            age_s = (now_ms - about.ended_ms) / 1000
            if limits.run_ttl_s and age_s >= limits.run_ttl_s:
                found.append(Due(what="delete", ended=about))
            elif compactable and limits.compact_after_s and age_s >= limits.compact_after_s:
                found.append(Due(what="compact", ended=about))
            else:
                break
    return sorted(found, key=lambda each: each.ended.id)


class Retention:
    """Looks every `retention_interval_s` for what is due, and has it done, a piece at a time."""

    def __init__(
        self,
        *,
        records: Records,
        limits: Limits,
        clock: Clock,
        delete: Callable[[Ended], Awaitable[None]],
        compact: Callable[[Ended], Awaitable[None]],
    ) -> None:
        self._records = records
        self._limits = limits
        self._clock = clock
        self._acts = {"delete": delete, "compact": compact}

    async def keep_looking(self) -> None:
        """Until it is cancelled; returns at once if everything is kept for ever."""
        while self._limits.run_ttl_s or self._limits.compact_after_s:
            try:
                await self.sweep()
            except LogError as error:
                _log.warning("cannot look for runs to erase", error=str(error))
            await self._clock.sleep(self._limits.retention_interval_s)

    async def sweep(self) -> int:
        """Do all that is due now; how many runs that were. Raises `LogError`."""
        done = 0
        after: dict[str, str | None] = {ENDED: None, COMPACTED: None}
        while True:
            whole = await self._records.list(ENDED, after=after[ENDED], limit=_AT_ONCE)
            compacted = await self._records.list(COMPACTED, after=after[COMPACTED], limit=_AT_ONCE)
            found = due(whole, compacted, limits=self._limits, now_ms=self._clock.now_ms())
            if not found:
                return done
            outcomes = await asyncio.gather(*map(self._do, found))
            done += sum(outcomes)
            if not all(outcomes):
                # Those are left for the next look; what stands behind them is not.
                after = {
                    kind: records[-1].id if records else after[kind]
                    for kind, records in ((ENDED, whole), (COMPACTED, compacted))
                }
            await self._clock.sleep(_PAUSE_S)

    async def _do(self, each: Due) -> bool:
        try:
            await self._acts[each.what](each.ended)
        except (LogError, ProtocolError) as error:
            _log.warning("an ended run was not erased", run=each.ended.run, what=each.what, error=str(error))
        except Exception:  # noqa: BLE001 - the edge: one damaged run must not keep all others for ever
            _log.exception("an ended run cannot be erased", run=each.ended.run, what=each.what)
        else:
            return True
        return False
