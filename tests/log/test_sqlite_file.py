"""The SQLite file over time: older versions of it, erasing that was cut off, and getting shorter."""

# ruff: noqa: ASYNC240 - nothing else runs on the loop while these look at a file

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from midstream.log import JournalRecord, SqliteStore, StoredReceipt, sqlite_erasing, sqlite_schema
from midstream.tasks import spawn
from tests.log.batches import batch, begin, events
from tests.log.opened import opened

pytestmark = pytest.mark.asyncio

RUN = "alice.run_1"

# What the first version made.
VERSION_1 = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE runs (
    id INTEGER PRIMARY KEY, run TEXT NOT NULL UNIQUE, fingerprint TEXT NOT NULL, epoch TEXT NOT NULL,
    fence INTEGER NOT NULL, head_seq INTEGER NOT NULL, first_seq INTEGER NOT NULL, status TEXT NOT NULL,
    mailbox INTEGER NOT NULL, wake_at INTEGER, batch_id TEXT NOT NULL, submitted INTEGER NOT NULL,
    owner TEXT, leased_at INTEGER NOT NULL, lease_until INTEGER, due_at INTEGER
) STRICT;
CREATE INDEX runs_due ON runs (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX runs_owned ON runs (owner) WHERE owner IS NOT NULL;
CREATE TABLE events (run INTEGER NOT NULL, first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL, data BLOB NOT NULL)
    STRICT;
CREATE UNIQUE INDEX events_place ON events (run, last_seq);
CREATE TABLE journal (run INTEGER NOT NULL, kind TEXT NOT NULL, key TEXT NOT NULL, data BLOB NOT NULL) STRICT;
CREATE INDEX journal_run ON journal (run);
CREATE TABLE receipts (run INTEGER NOT NULL, command_id TEXT NOT NULL, fingerprint TEXT NOT NULL, data BLOB NOT NULL)
    STRICT;
CREATE INDEX receipts_run ON receipts (run);
CREATE TABLE snapshots (run INTEGER PRIMARY KEY, seq INTEGER NOT NULL, data BLOB NOT NULL) STRICT;
CREATE TABLE inbox (run INTEGER NOT NULL, position INTEGER NOT NULL, data BLOB NOT NULL) STRICT;
CREATE UNIQUE INDEX inbox_place ON inbox (run, position);
CREATE TABLE records (kind TEXT NOT NULL, id TEXT NOT NULL, version INTEGER NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (kind, id)) STRICT;
INSERT INTO meta VALUES ('schema', '1'), ('clean', '1'), ('boot', 'b'), ('synchronous', 'NORMAL');
INSERT INTO runs VALUES (1, 'alice.run_1', 'request', 'e1', 4, 3, 1, 'running', 0, NULL, 'b2', 0, 'one', 7, 8, 8),
    (2, 'alice.run_2', 'request', 'e2', 1, 1, 1, 'waiting', 0, 50, 'b1', 0, NULL, 7, NULL, 50);
INSERT INTO events VALUES (1, 1, 2, x'610A62'), (1, 3, 3, x'63'), (2, 1, 1, x'78');
INSERT INTO records VALUES ('thread', 't', 3, x'7B7D');
"""


def make_version_1(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.executescript(VERSION_1)
    connection.close()


def ask(path: Path, statement: str) -> Any:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(statement).fetchall()
    finally:
        connection.close()


async def test_a_file_of_the_first_version_goes_on(path: Path) -> None:
    make_version_1(path)
    async with opened(path) as store:
        assert await events(store, RUN) == ["a", "b", "c"]
        due = await store.leases.claim(None, owner="two", now_ms=100, lease_ms=1_000)
        assert due is not None
        assert due.run == RUN
        assert await store.log.append(RUN, fence=due.fence, prev_seq=3, batch=batch("d")) == 4
        record = await store.records.get("thread", "t")
        assert record is not None
        assert record.version == 3
        await begin(store, "alice.new")
    assert ask(path, "SELECT value FROM meta WHERE name = 'schema'") == [("2",)]
    assert ask(path, "PRAGMA auto_vacuum") == [(2,)]
    async with opened(path) as store:
        assert await events(store, RUN) == ["a", "b", "c", "d"]
        assert await events(store, "alice.run_2") == ["x"]


async def test_both_ways_to_the_newest_version_lead_to_the_same_tables(tmp_path: Path) -> None:
    make_version_1(tmp_path / "old.db")
    for name in ("old.db", "new.db"):
        async with opened(tmp_path / name):
            pass

    def columns(name: str) -> Any:
        tables = ask(tmp_path / name, "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
        indexes = ask(
            tmp_path / name, "SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND sql NOT NULL ORDER BY name"
        )
        return {table: ask(tmp_path / name, f"PRAGMA table_info({table})") for (table,) in tables}, indexes

    assert columns("old.db") == columns("new.db")


async def test_a_large_file_of_an_older_version_is_not_rewritten(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_version_1(path)
    monkeypatch.setattr(sqlite_schema, "REWRITE_BYTES", 1)
    with capture_logs() as logs:
        async with opened(path) as store:
            assert await store.log.delete(RUN)
            assert await store.shrink() == 0
            assert await events(store, "alice.run_2") == ["x"]
    assert any("cannot shrink" in entry["event"] for entry in logs)
    assert ask(path, "PRAGMA auto_vacuum") == [(0,)]


async def large(store: SqliteStore, run: str, *, batches: int = 60, line: str = "x" * 5_000) -> None:
    lease = await begin(store, run, batch(line))
    for n in range(1, batches):
        status = "completed" if n == batches - 1 else "running"
        await store.log.append(run, fence=lease.fence, prev_seq=n, batch=batch(line, status=status))


@pytest.mark.parametrize("how", ["delete", "compact"])
async def test_the_file_gets_shorter_a_piece_at_a_time(path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setattr(sqlite_erasing, "SHRINK_PAGES", 10)
    async with opened(path) as store:
        for n in range(3):
            await large(store, f"a.run_{n}")
    before = path.stat().st_size
    async with opened(path) as store:
        for n in (0, 1):
            if how == "delete":
                assert await store.log.delete(f"a.run_{n}")
            else:
                assert await store.log.compact(f"a.run_{n}", first_seq=60, snapshot=b"view")
        given = []
        while (more := await store.shrink()) > 0:
            assert more <= 11 * 4096
            given.append(more)
        assert len(given) > 10
        assert given[0] > 8 * 4096
        assert await events(store, "a.run_2", after=58) == ["x" * 5_000] * 2
    assert path.stat().st_size <= before - sum(given) + 4096
    assert path.stat().st_size < before // 2
    assert ask(path, "PRAGMA integrity_check") == [("ok",)]


async def test_others_write_while_much_is_erased(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_erasing, "PIECE_ROWS", 5)
    async with opened(path) as store:
        await large(store, RUN)
        lease = await begin(store, "a.other")
        erasing = spawn(store.log.delete(RUN), name="delete")
        written = 1
        while not erasing.done():
            written = await store.log.append(
                "a.other", fence=lease.fence, prev_seq=written, batch=batch(f"e{written + 1}")
            )
        assert await erasing
        assert written > 8


@pytest.mark.parametrize("how", ["delete", "compact"])
async def test_erasing_that_was_cut_off_is_finished_at_the_next_start(
    path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    secret = "a very private line"
    monkeypatch.setattr(sqlite_erasing, "PIECE_ROWS", 2)
    async with opened(path) as store:
        journal = tuple(JournalRecord(kind="k", key=str(n), data=secret.encode()) for n in range(5))
        receipts = (StoredReceipt(command_id="c", fingerprint="f", data=secret.encode()),)
        lease = await begin(store, RUN, batch(*[secret] * 3, journal=journal, receipts=receipts))
        for n in range(3, 10):
            await store.log.append(RUN, fence=lease.fence, prev_seq=n, batch=batch(secret))
        await store.log.append(RUN, fence=lease.fence, prev_seq=10, batch=batch("end", status="completed"))
        # The first piece, as far as a server comes that dies behind it.
        if how == "delete":
            assert await store._file.write(lambda transaction: transaction.delete(RUN))
        else:
            assert await store._file.write(lambda transaction: transaction.compact(RUN, first_seq=11, snapshot=b"v"))
    assert ask(path, "SELECT count(*) FROM erasing") == [(1,)]
    assert secret.encode() in path.read_bytes()
    async with opened(path) as store:
        assert ask(path, "SELECT count(*) FROM erasing") == [(0,)]
        if how == "compact":
            assert await events(store, RUN, after=10) == ["end"]
    if how == "delete":
        for file in path.parent.iterdir():
            assert secret.encode() not in file.read_bytes()
    else:
        assert ask(path, "SELECT count(*) FROM events") == [(1,)]


async def test_a_run_made_while_another_is_being_erased_is_not_taken_for_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_erasing, "PIECE_ROWS", 1)
    async with opened(path) as store:
        await begin(store, RUN, batch("a", "b"))
        await store.log.append(RUN, fence=1, prev_seq=2, batch=batch("c"))
        assert await store._file.write(lambda transaction: transaction.delete(RUN))
        assert store._file.writer is not None
        store._file.writer._standings.forget()
        await begin(store, RUN, batch("new"))
        assert await events(store, RUN) == ["new"]
        await store.shrink()
        assert await events(store, RUN) == ["new"]
    assert ask(path, "SELECT count(*) FROM events") == [(1,)]


async def test_deletes_at_once_are_all_done(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_erasing, "PIECE_ROWS", 3)
    async with opened(path) as store:
        for n in range(4):
            await large(store, f"a.run_{n}", batches=10, line="x")
        assert await asyncio.gather(*(store.log.delete(f"a.run_{n}") for n in range(5))) == [True] * 4 + [False]
        assert ask(path, "SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM erasing)") == [(0, 0)]
