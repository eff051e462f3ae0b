"""Any sequence of calls, restarts and crashes: the SQLite store answers as the one in memory does."""

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec.structs import replace

from midstream.log import (
    Batch,
    Created,
    Header,
    Inbound,
    JournalRecord,
    Lease,
    Loaded,
    LogError,
    MemoryStore,
    Page,
    RecordWrite,
    Reset,
    SqliteStore,
    Store,
    StoredReceipt,
    sqlite_erasing,
    sqlite_transaction,
)
from tests.log.conftest import StillClock

RUNS = st.sampled_from(["a.one", "a.two", "b.one"])
OWNERS = st.sampled_from(["north", "south"])
KINDS = st.sampled_from(["thread", "grant"])
IDS = st.sampled_from(["a", "b", "ab", "é", "Z"])
LINE = st.binary(max_size=6).map(lambda line: line.replace(b"\n", b""))
WRITES = st.lists(
    st.builds(
        RecordWrite,
        kind=KINDS,
        id=IDS,
        data=st.none() | st.binary(max_size=9),
        expect_version=st.none() | st.none() | st.integers(0, 2),
    ),
    max_size=3,
    unique_by=lambda write: (write.kind, write.id),
).map(tuple)
BATCHES = st.builds(
    Batch,
    batch_id=st.uuids(version=4).map(lambda made: made.hex),
    status=st.sampled_from(["queued", "running", "running", "waiting", "waiting", "completed"]),
    events=st.lists(LINE, max_size=5).map(tuple),
    journal=st.lists(st.builds(JournalRecord, kind=KINDS, key=IDS, data=st.binary(max_size=9)), max_size=2).map(tuple),
    receipts=st.lists(
        st.builds(StoredReceipt, command_id=IDS, fingerprint=IDS, data=st.binary(max_size=9)), max_size=2
    ).map(tuple),
    mailbox=st.none() | st.integers(0, 3),
    wake_at=st.none() | st.integers(0, 10_000),
    snapshot=st.none() | st.binary(max_size=9),
    records=st.just(()) | WRITES,
)

Call = Callable[[Store], Awaitable[Any]]


class Stores(RuleBasedStateMachine):
    """`self.leases` holds what the callers hold, lost ones too; `self.sent` the last append of each run."""

    def __init__(self) -> None:
        super().__init__()
        # So that small batches take several rows.
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(sqlite_transaction, "EVENT_ROW_BYTES", 8)
        self.patch.setattr(sqlite_erasing, "PIECE_ROWS", 2)
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp(prefix="midstream-model-"))
        self.lives = 0
        self.clock = StillClock()
        self.clock.ms = 0
        self.model = MemoryStore(clock=self.clock)
        self.store = self.next_store()
        self.leases: list[Lease] = []
        self.sent: dict[str, dict[str, Any]] = {}
        self.runner.run(self.open_both())

    def next_store(self) -> SqliteStore:
        self.lives += 1
        return SqliteStore(self.folder / f"life-{self.lives}.db", clock=self.clock, readers=1)

    async def open_both(self) -> None:
        await self.model.open()
        await self.store.open()

    def teardown(self) -> None:
        self.runner.run(self.store.aclose())
        self.runner.close()
        shutil.rmtree(self.folder)
        self.patch.undo()

    def both(self, *calls: Call) -> list[Any]:
        """Make the calls at once on each store, and see the same answers."""
        expected = self.runner.run(outcomes(self.model, calls))
        actual = self.runner.run(outcomes(self.store, calls))
        assert actual == expected
        return actual

    @initialize(run=RUNS, batch=BATCHES)
    def a_first_run(self, run: str, batch: Batch) -> None:
        self.create(run, "request", batch, "north")

    @rule(run=RUNS, fingerprint=st.sampled_from(["request", "request", "another"]), batch=BATCHES, owner=OWNERS)
    def create(self, run: str, fingerprint: str, batch: Batch, owner: str) -> None:
        async def call(store: Store) -> Created:
            return await store.log.create(run, fingerprint=fingerprint, batch=batch, owner=owner, lease_ms=1_000)

        for answer in self.both(call, call):
            if isinstance(answer, Created) and answer.lease is not None:
                self.leases.append(answer.lease)

    @rule(data=st.data(), batch=BATCHES, off=st.sampled_from([0, 0, 0, 0, 1, -1]), resend=st.booleans())
    def append(self, data: st.DataObject, batch: Batch, off: int, resend: bool) -> None:
        call = self.an_append(data, batch, off)
        if call is not None:
            self.both(*[call] * (1 + resend))

    @rule(data=st.data(), batches=st.lists(BATCHES, min_size=2, max_size=5))
    def append_together(self, data: st.DataObject, batches: list[Batch]) -> None:
        calls = [self.an_append(data, batch, 0) for batch in batches]
        self.both(*(call for call in calls if call is not None))

    def an_append(self, data: st.DataObject, batch: Batch, off: int) -> Call | None:
        if not self.leases:
            return None
        lease = data.draw(st.sampled_from(self.leases[::-1]))
        known = self.runner.run(self.model.log.load(lease.run))
        head = 0 if known is None else known.header.head_seq
        if known is not None and known.header.status == "completed" and off == 0:
            batch = replace(batch, status="completed", events=())
        return self.sending(lease.run, {"fence": lease.fence, "prev_seq": head + off, "batch": batch})

    def sending(self, run: str, sent: dict[str, Any]) -> Call:
        self.sent[run] = sent
        return lambda store: store.log.append(run, **sent)

    @rule(run=RUNS)
    def send_again(self, run: str) -> None:
        if run in self.sent:
            self.both(self.sending(run, self.sent[run]))

    @rule(run=st.none() | RUNS, owner=OWNERS)
    def claim(self, run: str | None, owner: str) -> None:
        async def call(store: Store) -> Lease | None:
            return await store.leases.claim(run, owner=owner, now_ms=self.clock.ms, lease_ms=1_000)

        self.leases += [lease for lease in self.both(call) if lease is not None]

    @rule(data=st.data(), renew=st.booleans())
    def keep_or_give_back(self, data: st.DataObject, renew: bool) -> None:
        if self.leases:
            lease = data.draw(st.sampled_from(self.leases[::-1]))
            if renew:
                self.both(lambda store: store.leases.renew(lease, now_ms=self.clock.ms, lease_ms=1_000))
            else:
                self.both(lambda store: store.leases.release(lease))

    @rule(run=RUNS, data=st.binary(max_size=9))
    def submit(self, run: str, data: bytes) -> None:
        self.both(lambda store: store.inbox.submit(run, data))

    @rule(run=RUNS)
    def delete(self, run: str) -> None:
        self.both(lambda store: store.log.delete(run))

    @rule(run=RUNS, first_seq=st.integers(0, 12), snapshot=st.binary(max_size=9))
    def compact(self, run: str, first_seq: int, snapshot: bytes) -> None:
        self.both(lambda store: store.log.compact(run, first_seq=first_seq, snapshot=snapshot))

    @rule()
    def shrink(self) -> None:
        self.runner.run(self.store.shrink())

    @rule(kind=KINDS, id_=IDS, data=st.binary(max_size=9), expect=st.none() | st.integers(0, 2))
    def put(self, kind: str, id_: str, data: bytes, expect: int | None) -> None:
        self.both(lambda store: store.records.put(kind, id_, data, expect_version=expect))

    @rule(kind=KINDS, id_=IDS, expect=st.none() | st.integers(0, 2))
    def remove(self, kind: str, id_: str, expect: int | None) -> None:
        self.both(lambda store: store.records.delete(kind, id_, expect_version=expect))

    @rule(kind=KINDS, after=st.none() | IDS, limit=st.integers(0, 3), descending=st.booleans())
    def list_records(self, kind: str, after: str | None, limit: int, descending: bool) -> None:
        self.both(lambda store: store.records.list(kind, after=after, limit=limit, descending=descending))

    @rule(
        run=RUNS,
        after=st.integers(0, 12),
        epoch=st.sampled_from([None, None, "another"]),
        max_events=st.integers(1, 5),
        max_bytes=st.sampled_from([0, 5, 20, 1 << 20]),
    )
    def read(self, run: str, after: int, epoch: str | None, max_events: int, max_bytes: int) -> None:
        self.both(
            lambda store: store.log.read(run, after=after, epoch=epoch, max_events=max_events, max_bytes=max_bytes)
        )

    @rule(ms=st.sampled_from([1, 500, 1_000, 5_000]))
    def time_goes_on(self, ms: int) -> None:
        self.clock.ms += ms

    @rule()
    def restart(self) -> None:
        async def cycle(store: Store) -> None:
            await store.aclose()
            await store.open()

        self.both(cycle)

    @rule()
    def crash(self) -> None:
        """The file as a killed process leaves it: taken away while the store is open, and opened by another."""
        before = self.runner.run(epochs(self.store))
        old = self.folder / f"life-{self.lives}.db"
        crashed, self.store = self.store, self.next_store()
        for suffix in ("", "-wal"):
            shutil.copy(f"{old}{suffix}", f"{self.folder / f'life-{self.lives}.db'}{suffix}")
        self.runner.run(crashed.aclose())
        self.runner.run(self.model.aclose())
        self.runner.run(self.open_both())
        assert self.runner.run(epochs(self.store)) == before

    @invariant()
    def all_is_the_same(self) -> None:
        calls: list[Call] = []
        for run in ("a.one", "a.two", "b.one"):
            calls += [
                partial(load, run=run),
                partial(read_all, run=run),
                partial(read_kept, run=run),
                partial(pending, run=run),
            ]
        self.both(*calls, lambda store: store.records.list("thread"), lambda store: store.records.list("grant"))


async def load(store: Store, *, run: str) -> Loaded | None:
    return await store.log.load(run)


async def read_all(store: Store, *, run: str) -> Page | Reset:
    return await store.log.read(run, after=0, max_bytes=1 << 30)


async def read_kept(store: Store, *, run: str) -> Page | Reset | None:
    """From the first event that is there, wherever that is."""
    known = await store.log.load(run)
    if known is None:
        return None
    return await store.log.read(run, after=known.header.first_seq - 1, max_bytes=1 << 30)


async def pending(store: Store, *, run: str) -> Sequence[Inbound]:
    return await store.inbox.pending(run, after=0)


async def outcomes(store: Store, calls: tuple[Call, ...]) -> list[Any]:
    """Answers in order; an error as its type and text, an epoch as nothing (it is made by chance)."""
    answers = await asyncio.gather(*(call(store) for call in calls), return_exceptions=True)
    return [without_epoch(answer) for answer in answers]


def without_epoch(answer: Any) -> Any:
    if isinstance(answer, LogError):
        return type(answer), str(answer)
    if isinstance(answer, BaseException):
        raise answer
    if isinstance(answer, Created | Loaded | Page | Reset) and isinstance(answer.header, Header):
        return replace(answer, header=replace(answer.header, epoch=""))
    return answer


async def epochs(store: Store) -> list[str | None]:
    loaded = [await store.log.load(run) for run in ("a.one", "a.two", "b.one")]
    return [None if known is None else known.header.epoch for known in loaded]


TestStores = Stores.TestCase
# The same examples each time; the machine is also worth a long random run after a change of the store.
TestStores.settings = settings(max_examples=40, stateful_step_count=30, deadline=None, derandomize=True)
