"""A thread is a conversation of runs: one at a time, unless asked otherwise. Its record is changed by compare-and-swap
through `decide_thread`, which is pure.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final, Literal

import msgspec
from msgspec import Struct

from midstream.log import Log, Records, RecordWrite, VersionConflict
from midstream_protocol.errors import Busy
from midstream_protocol.events import TERMINAL_STATUSES

_TRIES = 20

_REMEMBERED: Final = 4_096
"""Threads that this server keeps in memory as it has seen them, of about 500 bytes each."""


class Title(Struct, kw_only=True, frozen=True):
    """A thread's title, and the run that gave it."""

    text: str
    run_id: str


class Thread(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """`active` writes the conversation now, `queue` waits for it, `head` was the last to end. All are run ids."""

    active: str | None = None
    queue: tuple[str, ...] = ()
    head: str | None = None
    runs: tuple[str, ...] = ()
    """Ended runs in the order they ended, newest last, as many as a conversation is made of."""
    title: Title | None = None


class Place(Struct, kw_only=True, frozen=True):
    """Where a start ended up. `previous` are the runs whose conversation it continues, `title` is the thread's."""

    kind: Literal["active", "queued", "parallel", "correct"]
    active: str | None = None
    previous: tuple[str, ...] = ()
    title: str | None = None


def decide_thread(thread: Thread, run_id: str, *, if_busy: str, active_ended: bool) -> tuple[Thread, Place]:
    """Find a place for a run. Raises `Busy`. The same run again finds the place it has."""
    after, place = _place(thread, run_id, if_busy=if_busy, active_ended=active_ended)
    title = None if thread.title is None else thread.title.text
    return after, msgspec.structs.replace(place, title=title)


def _place(thread: Thread, run_id: str, *, if_busy: str, active_ended: bool) -> tuple[Thread, Place]:
    if thread.active == run_id:
        return thread, Place(kind="active", previous=thread.runs)
    if run_id in thread.queue:
        return thread, Place(kind="queued", active=thread.active, previous=_before(thread, run_id))
    if thread.active is None or active_ended:
        # A lost release heals here: the run that holds the thread has ended.
        before = ended(thread, thread.active, keep=KEEP) if thread.active is not None else thread
        return msgspec.structs.replace(before, active=run_id), Place(kind="active", previous=before.runs)
    match if_busy:
        case "queue":
            place = Place(kind="queued", active=thread.active, previous=_before(thread, run_id))
            return msgspec.structs.replace(thread, queue=(*thread.queue, run_id)), place
        case "parallel":
            return thread, Place(kind="parallel", previous=thread.runs)
        case "correct":
            return thread, Place(kind="correct", active=thread.active)
        case _:
            raise Busy("a run of this thread is under way: wait for it, or say if_busy: queue, correct or parallel")


def _before(thread: Thread, run_id: str) -> tuple[str, ...]:
    """The conversation that a queued run continues: all that will have run when its turn comes."""
    at = thread.queue.index(run_id) if run_id in thread.queue else len(thread.queue)
    active = () if thread.active is None else (thread.active,)
    return (*thread.runs, *active, *thread.queue[:at])[-KEEP:]


KEEP = 50
"""Ended runs a thread remembers for its conversation."""


def ended(thread: Thread, run_id: str, *, keep: int = KEEP) -> Thread:
    """The thread after a run of it has ended. A run that was queued only leaves the queue."""
    if run_id in thread.queue:
        return msgspec.structs.replace(thread, queue=tuple(r for r in thread.queue if r != run_id))
    if run_id in thread.runs:
        return thread
    active = None if thread.active == run_id else thread.active
    runs = (*thread.runs, run_id)[-keep:]
    return msgspec.structs.replace(thread, active=active, head=run_id, runs=runs)


def promoted(thread: Thread) -> tuple[Thread, str | None]:
    """Give a free thread to the first in its queue."""
    if thread.active is not None or not thread.queue:
        return thread, None
    first, *rest = thread.queue
    return msgspec.structs.replace(thread, active=first, queue=tuple(rest)), first


def titled(thread: Thread, run_id: str, text: str) -> tuple[Thread, bool]:
    """The thread with this title, if it has none from another run, and whether it has it."""
    if thread.title is not None and thread.title.run_id != run_id:
        return thread, False
    return msgspec.structs.replace(thread, title=Title(text=text, run_id=run_id)), True


def forgotten(thread: Thread, run_id: str) -> Thread:
    """The thread without this run, which is erased, and without the title that it gave."""
    runs = tuple(run for run in thread.runs if run != run_id)
    return Thread(
        active=None if thread.active == run_id else thread.active,
        queue=tuple(run for run in thread.queue if run != run_id),
        head=(runs[-1] if runs else None) if thread.head == run_id else thread.head,
        runs=runs,
        title=None if thread.title is not None and thread.title.run_id == run_id else thread.title,
    )


class Making:
    """Runs (store keys) that are being made at this moment: they have a place, and no actor yet. Nobody may wake one,
    for then it would have two.
    """

    def __init__(self) -> None:
        self._starts: dict[str, int] = {}
        self._made: dict[str, asyncio.Event] = {}

    def __len__(self) -> int:
        return len(self._starts)

    def of(self, space: str) -> int:
        """How many of one principal's."""
        return sum(run.startswith(space) for run in self._starts)

    def __contains__(self, run: str) -> bool:
        return run in self._starts

    @contextmanager
    def start(self, run: str) -> Iterator[None]:
        """While inside, the run is being made; the same start may be under way twice."""
        self._starts[run] = self._starts.get(run, 0) + 1
        made = self._made.setdefault(run, asyncio.Event())
        try:
            yield
        finally:
            self._starts[run] -= 1
            if not self._starts[run]:
                del self._starts[run], self._made[run]
                made.set()

    async def over(self, run: str) -> None:
        """Wait until nobody makes the run any more."""
        while (made := self._made.get(run)) is not None:
            await made.wait()


class Seen(Struct, kw_only=True, frozen=True):
    """A thread and the version of its record (0: there is none)."""

    version: int
    thread: Thread


class Threads:
    """The thread records of every principal.

    What this server wrote last it remembers, for the threads that were used last: a change that rests on what another
    server has changed since is refused by the store, and decided again.
    """

    def __init__(self, *, records: Records, log: Log) -> None:
        self.making: Final = Making()
        self._records = records
        self._log = log
        self._seen: OrderedDict[tuple[str, str], Seen] = OrderedDict()

    async def get(self, space: str, thread_id: str) -> Thread:
        return (await self.see(space, thread_id)).thread

    async def find(self, space: str, thread_id: str) -> Thread | None:
        """The thread as it is now; None: no run was ever started in it. Raises `LogError`."""
        thread = (await self.see(space, thread_id, fresh=True)).thread
        if thread.active is not None and await self.over(f"{space}.{thread.active}"):
            thread = ended(thread, thread.active)
        return None if thread == Thread() else thread

    async def over(self, run: str) -> bool:
        """Whether the run (store key) that holds a thread does so in vain: it has ended, or was never made."""
        # Asked before the look: a run may be made while it lasts, and is not to be taken for one that never was.
        being_made = run in self.making
        header = (await self._log.read(run, after=0, max_events=1)).header
        if header is None:
            return not being_made and run not in self.making
        return header.status in TERMINAL_STATUSES

    async def see(self, space: str, thread_id: str, *, fresh: bool = False) -> Seen:
        """The thread, out of the store or as this server remembers it; `fresh`: not from memory."""
        before = self._seen.get((space, thread_id))
        if before is not None and not fresh:
            return before
        record = await self._records.get(f"thread.{space}", thread_id)
        now = self._seen.get((space, thread_id))
        if now is not before and now is not None:
            # It was written while this was read, so what was read may be what was there before that.
            return now
        if record is None:
            self.forget_seen(space, thread_id)
            return Seen(version=0, thread=Thread())
        return self.written(space, thread_id, msgspec.json.decode(record.data, type=Thread), version=record.version)

    def written(self, space: str, thread_id: str, thread: Thread, *, version: int) -> Seen:
        """Remember it as it is in the store now."""
        seen = self._seen[space, thread_id] = Seen(version=version, thread=thread)
        self._seen.move_to_end((space, thread_id))
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return seen

    def forget_seen(self, space: str, thread_id: str) -> None:
        self._seen.pop((space, thread_id), None)

    @staticmethod
    def change(space: str, thread_id: str, after: Thread, seen: Seen) -> RecordWrite:
        """What makes `after` of the thread that was seen, if it is that still."""
        data = msgspec.json.encode(after)
        return RecordWrite(kind=f"thread.{space}", id=thread_id, data=data, expect_version=seen.version)

    async def update(self, space: str, thread_id: str, change: Callable[[Thread], Thread]) -> Thread:
        """Compare-and-swap until it holds. `change` may be called again, and may raise."""
        for tried in range(_TRIES):
            # The second look is at the store: what is remembered may be out of date.
            seen = await self.see(space, thread_id, fresh=tried > 0)
            after = change(seen.thread)
            if after == seen.thread and seen.version:
                return after
            # Not there again before it is certain how it went.
            self.forget_seen(space, thread_id)
            try:
                record = await self._records.put(
                    f"thread.{space}", thread_id, msgspec.json.encode(after), expect_version=seen.version
                )
            except VersionConflict:
                continue
            self.written(space, thread_id, after, version=record.version)
            return after
        raise Busy("this thread is changing too fast: try again")

    async def forget(self, space: str, thread_id: str, run_id: str) -> None:
        """A run of it is erased; a thread without runs goes too. Raises `Busy`, `LogError`."""
        kind = f"thread.{space}"
        if await self._records.get(kind, thread_id) is None:
            return
        await self.update(space, thread_id, lambda thread: forgotten(thread, run_id))
        self.forget_seen(space, thread_id)
        left = await self._records.get(kind, thread_id)
        if left is not None and msgspec.json.decode(left.data, type=Thread) == Thread():
            with suppress(VersionConflict):
                # Otherwise it has a run again.
                await self._records.delete(kind, thread_id, expect_version=left.version)


def queue_position(thread: Thread, run_id: str) -> int | None:
    """1 is the next to run; None: not queued."""
    queue: Sequence[str] = thread.queue
    return queue.index(run_id) + 1 if run_id in queue else None
