"""Erasing an ended run, and making one smaller: everything that was kept of it, wherever it stands.

What is to be erased is written down first (record kind `erasing`) and crossed out last, so that what was cut off is
finished when the store is opened next.
"""

import asyncio
from typing import Final

import msgspec

from midstream.clock import Clock
from midstream.log import Loaded, LogError, Store
from midstream.logs import Logger
from midstream.runs.compacting import Folding
from midstream.runs.dead_letters import DeadLetters
from midstream.runs.late import LateReceipts
from midstream.runs.listing import RunList
from midstream.runs.replay import Views, own_event, pages
from midstream.runs.retention import COMPACTED, ENDED, Ended, about_ended
from midstream.runs.starting import CORRECTS
from midstream.runs.supervisor import Supervisor, start_record
from midstream.tasks import spawn, stop
from midstream_protocol.codec import parse_iso
from midstream_protocol.errors import NotFound, RunActive
from midstream_protocol.events import TERMINAL_STATUSES

_ERASING: Final = "erasing"
_WEBHOOK: Final = "webhook"
"""Record kind of what is still to be told of a run; its id is the store key."""

_PAUSE_S: Final = 0.01
"""Between two pieces of giving room back: live runs are written first."""

_log = Logger("midstream.runs")


class Erasing:
    """For one event loop. `open` once the store is open; `aclose` before it closes."""

    def __init__(
        self,
        *,
        store: Store,
        living: Supervisor,
        views: Views,
        late: LateReceipts,
        dead_letters: DeadLetters,
        clock: Clock,
    ) -> None:
        self._store = store
        self._living = living
        self._views = views
        self._late = late
        self._dead = dead_letters
        self._list = RunList(store.records)
        self._clock = clock
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._shrinking: asyncio.Task[None] | None = None
        self._erased = False

    async def open(self) -> None:
        """Finish what was begun. Raises `LogError`."""
        while left := await self._store.records.list(_ERASING):
            for record in left:
                await self._erase(msgspec.json.decode(record.data, type=Ended))

    async def aclose(self) -> None:
        await stop(*self._under_way.values(), self._shrinking)

    async def delete(self, run: str) -> None:
        """Erase that run (store key). Its readers are told that it is gone.

        Raises `NotFound`, `RunActive`, `LogError`; then what was begun is finished later.
        """
        task = self._under_way.get(run)
        if task is None:
            # Not the caller's: who asked may go away meanwhile.
            task = self._under_way[run] = spawn(
                self._delete(run), name=f"run:{run}/delete", expected=(LogError, NotFound, RunActive)
            )
            task.add_done_callback(lambda _: self._under_way.pop(run, None))
        await asyncio.shield(task)

    async def delete_ended(self, ended: Ended) -> None:
        """The same for what a record says is due. One that is gone already is no error."""
        loaded = await self._store.log.load(ended.run)
        if loaded is not None and start_record(loaded).created_ms == ended.created_ms:
            await self.delete(ended.run)
        # Another run may have its id by now. The record itself is crossed out in any case.
        await self._cross_out(ended)

    async def compact(self, ended: Ended) -> None:
        """Replace the run's events by its snapshot; not while somebody reads them. Raises `LogError`."""
        loaded = await self._store.log.load(ended.run)
        if loaded is None or start_record(loaded).created_ms != ended.created_ms:
            await self._cross_out(ended)
            return
        head = loaded.header.head_seq
        if loaded.header.first_seq < head:
            if self._living.read(ended.run):
                return
            folding = Folding(loaded, run_id=ended.run_id)
            async for events in pages(self._store.log, ended.run, after=0, head=head):
                folding.take(list(map(own_event, events)))
                # A long log takes a while: live runs have their turn.
                await asyncio.sleep(0)
            await self._store.log.compact(ended.run, first_seq=head, snapshot=folding.remains())
            self._shrink_soon()
        await self._store.records.put(COMPACTED, ended.id, msgspec.json.encode(ended))
        await self._store.records.delete(ENDED, ended.id)

    async def _delete(self, run: str) -> None:
        header = await self._living.header(run)
        if header.status not in TERMINAL_STATUSES:
            raise RunActive("the run has not ended: cancel it, and delete it when it has")
        # Whoever makes it, or passes its end on, is done first: nothing of theirs may come after.
        await self._living.left(run)
        loaded = await self._store.log.load(run)
        if loaded is None:
            raise NotFound("there is no such run")
        ended_ms = 0
        async for (last,) in pages(self._store.log, run, after=header.head_seq - 1, head=header.head_seq):
            ended_ms = parse_iso(own_event(last).ts)
        ended = about_ended(start_record(loaded), run, ended_ms)
        await self._store.records.put(_ERASING, run, msgspec.json.encode(ended))
        await self._erase(ended)

    async def _erase(self, ended: Ended) -> None:
        """In an order in which each step can be done again, and nothing is needed that an earlier one erased."""
        run, records = ended.run, self._store.records
        loaded = await self._store.log.load(run)
        if loaded is not None:
            await self._erase_starts(loaded, ended)
            await self._living.threads.forget(ended.space, ended.thread_id, ended.run_id)
            if await self._living.threads.find(ended.space, ended.thread_id) is None:
                await self._living.grants.forget_thread(ended.space, ended.thread_id)
            await self._dead.forget_run(ended.space, ended.run_id, created_ms=ended.created_ms, ended_ms=ended.ended_ms)
            await self._list.remove(ended.space, run_id=ended.run_id, created_ms=ended.created_ms)
            await records.delete(_WEBHOOK, run)
            await self._store.log.delete(run)
        self._views.forget(run)
        self._living.forget(run)
        # Only now: no command finds the run any more that could be refused for its end.
        await self._late.forget(run)
        await self._cross_out(ended)
        await records.delete(_ERASING, run)
        self._shrink_soon()

    async def _erase_starts(self, loaded: Loaded, ended: Ended) -> None:
        """What remembers that a command started this run, or corrected it instead of starting another."""
        kind = f"start.{ended.space}"
        ours = (ended.run.encode(), f"{CORRECTS}{ended.run_id}".encode())
        for receipt in loaded.receipts:
            found = await self._store.records.get(kind, receipt.command_id)
            if found is not None and found.data in ours:
                await self._store.records.delete(kind, receipt.command_id)

    async def _cross_out(self, ended: Ended) -> None:
        for kind in (ENDED, COMPACTED):
            await self._store.records.delete(kind, ended.id)

    def _shrink_soon(self) -> None:
        self._erased = True
        if self._shrinking is None or self._shrinking.done():
            self._shrinking = spawn(self._shrink(), name="runs/shrink")

    async def _shrink(self) -> None:
        """Give back the room, a piece at a time, until there is none left to give."""
        try:
            while self._erased:
                self._erased = False
                while await self._store.shrink():
                    await self._clock.sleep(_PAUSE_S)
        except LogError as error:
            _log.warning("the store was not made smaller", error=str(error))
