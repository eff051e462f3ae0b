"""Where the SQLite store writes: on the loop what is small, in its thread what may wait for the disk."""

# ruff: noqa: ASYNC240 - nothing else runs on the loop while these look at a file

import asyncio
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from midstream.log import (
    LogUnavailable,
    RecordWrite,
    SqliteStore,
    sqlite_rows,
    sqlite_schema,
    sqlite_transaction,
    sqlite_writer,
)
from midstream.log.sqlite_transaction import Transaction
from tests.log.batches import batch, begin, events
from tests.log.opened import opened

pytestmark = pytest.mark.asyncio

RUN = "alice.run_1"
WRITER = "sqlite-writer"


async def where(store: SqliteStore, *, size: int = 100) -> str:
    """The name of the thread that a write of this size is done in."""

    def operation(transaction: Transaction) -> str:
        del transaction
        return threading.current_thread().name

    return await store._file.write(operation, size=size)


async def test_small_writes_are_done_at_once_and_large_ones_aside(path: Path) -> None:
    here = threading.current_thread().name
    async with opened(path) as store:
        assert await where(store) == here
        assert await where(store, size=sqlite_writer.INLINE_BYTES + 1) == WRITER
        assert await where(store) == here


async def test_shrinking_comes_between_the_writes_of_its_turn(path: Path) -> None:
    async with opened(path) as store:
        lease = await begin(store, RUN)
        outcomes = await asyncio.gather(
            store.log.append(RUN, fence=lease.fence, prev_seq=1, batch=batch("b")),
            store._file.shrink(),
            store.log.append(RUN, fence=lease.fence, prev_seq=2, batch=batch("c")),
            store._file.shrink(),
        )
        assert outcomes == [2, 0, 3, 0]


async def test_what_is_synced_is_written_by_the_thread(path: Path) -> None:
    async with opened(path, synchronous="FULL") as store:
        assert await where(store) == WRITER


async def test_a_slow_disk_is_waited_for_in_the_thread(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_writer, "SLOW_S", -1.0)
    async with opened(path) as store:
        assert await where(store) == threading.current_thread().name
        assert await where(store) == WRITER
        monkeypatch.setattr(store._file.writer, "_by_thread_until", 0.0)
        assert await where(store) == threading.current_thread().name


async def test_writes_of_both_kinds_keep_their_order(path: Path) -> None:
    async with opened(path) as store:
        lease = await begin(store, RUN)
        sizes = [10, 600_000, 10, 10, 700_000, 10]
        heads = await asyncio.gather(
            *(
                store.log.append(RUN, fence=lease.fence, prev_seq=seq, batch=batch(f"{seq}" * size))
                for seq, size in enumerate(sizes, start=1)
            )
        )
        assert heads == [2, 3, 4, 5, 6, 7]
        page = await events(store, RUN, after=1, max_bytes=1 << 30)
        assert [(line[0], len(line)) for line in page] == [(str(seq), size) for seq, size in enumerate(sizes, start=1)]


async def test_the_write_ahead_log_stays_bounded_while_it_is_written(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_writer, "CHECKPOINT_BYTES", 100_000)
    monkeypatch.setattr(sqlite_schema, "JOURNAL_LIMIT_BYTES", 100_000)
    wal = path.with_name("log.db-wal")
    async with opened(path) as store:
        lease = await begin(store, RUN)
        largest = 0
        for seq in range(1, 600):
            await store.log.append(RUN, fence=lease.fence, prev_seq=seq, batch=batch("x" * 2_000))
            largest = max(largest, wal.stat().st_size)
        assert path.stat().st_size > 500_000
        assert largest < 3_000_000
        assert len(await events(store, RUN, max_events=1_000, max_bytes=1 << 30)) == 600


async def test_a_head_that_only_the_events_tell_is_found_again(path: Path) -> None:
    async with opened(path) as store:
        lease = await begin(store, RUN)
        for seq in (1, 2, 3):
            await store.log.append(RUN, fence=lease.fence, prev_seq=seq, batch=batch(f"e{seq + 1}"))
        last = batch("e5")
        await store.log.append(RUN, fence=lease.fence, prev_seq=4, batch=last)
        with sqlite3.connect(path) as connection:
            assert connection.execute("SELECT head_seq FROM runs").fetchone() == (1,)
        connection.close()
        assert store._file.writer is not None
        store._file.writer._standings.forget()
        # The batch that was written last is known by its id still.
        assert await store.log.append(RUN, fence=lease.fence, prev_seq=4, batch=last) == 5
        store._file.writer._standings.forget()
        assert await store.log.append(RUN, fence=lease.fence, prev_seq=5, batch=batch(status="running")) == 5
        assert await store.log.append(RUN, fence=lease.fence, prev_seq=5, batch=batch("e6", status="waiting")) == 6
        assert len(await events(store, RUN)) == 6
    async with opened(path) as store:
        loaded = await store.log.load(RUN)
        assert loaded is not None
        assert (loaded.header.head_seq, loaded.header.status) == (6, "waiting")


async def test_runs_that_are_written_to_are_not_read_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_transaction, "KEPT_RUNS", 4)
    async with opened(path) as store:
        assert store._file.writer is not None
        standings = store._file.writer._standings
        standings._trim_at = 4
        leases = [await begin(store, f"a.run_{n}") for n in range(40)]
        reads: list[Any] = []
        find = sqlite_rows.find_runs
        monkeypatch.setattr(sqlite_rows, "find_runs", lambda *args: reads.append(args) or find(*args))
        for seq in (1, 2):
            for lease in leases:
                await store.log.append(lease.run, fence=lease.fence, prev_seq=seq, batch=batch("x"))
        assert reads == []
        for lease in leases[1:]:
            await store.leases.release(lease)
        for n in range(60):
            await store.leases.release(await begin(store, f"a.later_{n}"))
        assert len(standings.by_run) < 30
        assert leases[0].run in standings.by_run


async def test_nothing_that_is_looked_up_is_searched_for(path: Path) -> None:
    async with opened(path) as store:
        await begin(store, RUN)
    connection = sqlite3.connect(path)
    statements = {
        sqlite_rows._for_values(sqlite_rows._SELECT_RUNS, 3): 3,
        sqlite_rows._for_rows(sqlite_rows._FIND_RECORDS, 2, 8): 16,
        sqlite_rows._SELECT_EVENTS: 2,
        sqlite_rows.SELECT_DUE: 2,
        sqlite_rows.DELETE_CONSUMED: 2,
        sqlite_rows.DELETE_RECORD: 2,
    }
    for statement, parameters in statements.items():
        plan = connection.execute(f"EXPLAIN QUERY PLAN {statement}", ("a",) * parameters).fetchall()
        steps = [step for *_, step in plan if "CONSTANT" not in step and step not in {"SCAN wanted", "SCAN w"}]
        assert not [step for step in steps if step.startswith("SCAN")], (statement, steps)
        assert not [step for step in steps if "TEMP B-TREE" in step], (statement, steps)
    connection.close()


async def test_many_starts_of_one_turn_are_one_commit(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(path) as store:
        assert store._file.writer is not None
        groups: list[int] = []
        settle = store._file.writer._settle
        monkeypatch.setattr(
            store._file.writer, "_settle", lambda group, **how: groups.append(len(group)) or settle(group, **how)
        )
        await asyncio.gather(
            *(
                begin(
                    store,
                    f"a.run_{n}",
                    batch("x", records=(RecordWrite(kind="k", id=f"{n}", data=b"x", expect_version=0),)),
                )
                for n in range(200)
            )
        )
        assert groups == [200]
        assert len(await store.records.list("k", limit=500)) == 200


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.shrink(),
        lambda store: store.log.compact(RUN, first_seq=1, snapshot=b""),
        lambda store: store.log.delete(RUN),
    ],
)
async def test_a_closed_store_erases_nothing(path: Path, call: Callable[[SqliteStore], Awaitable[Any]]) -> None:
    async with opened(path) as store:
        await begin(store, RUN)
    with pytest.raises(LogUnavailable, match="not open"):
        await call(store)
