"""What only the SQLite store has: a file, a process that can die, a disk that can fill."""

# ruff: noqa: ASYNC220, ASYNC221, ASYNC240 - nothing else runs on the loop while these wait for a process or a file

import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from midstream.log import (
    Fenced,
    JournalRecord,
    LogUnavailable,
    Page,
    SqliteStore,
    StoreInUse,
)
from midstream.tasks import spawn
from tests.log.batches import again, batch, begin, events
from tests.log.opened import opened

pytestmark = pytest.mark.asyncio

RUN = "alice.run_1"


async def epoch_of(store: SqliteStore, run: str) -> str:
    loaded = await store.log.load(run)
    assert loaded is not None
    return loaded.header.epoch


async def crash(store: SqliteStore) -> None:
    """Leave the file as a killed process does: everything written, the clean stop not noted."""
    await store.aclose()
    with sqlite3.connect(store._path) as connection:
        connection.execute("UPDATE meta SET value = '0' WHERE name = 'clean'")
    connection.close()


# ── death of the process ─────────────────────────────────────────────────────────────────────────────────────────


async def test_everything_acknowledged_before_a_kill_is_there_after_it(path: Path) -> None:
    acknowledged: dict[str, int] = {}
    lives: dict[tuple[str, int], str] = {}
    epochs: dict[str, str] = {}
    for life in range(5):
        with subprocess.Popen(
            [sys.executable, Path(__file__).with_name("log_writer.py"), path, str(life)], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            for _ in range(40 + 37 * life):
                note_acknowledged(process.stdout.readline(), acknowledged, lives)
            process.send_signal(signal.SIGKILL)
            for line in process.stdout:
                if line.endswith(b"\n"):
                    note_acknowledged(line, acknowledged, lives)
        async with opened(path) as store:
            for run, head in acknowledged.items():
                await check_whole(store, run, head, lives)
                epoch = await epoch_of(store, run)
                assert epochs.setdefault(run, epoch) == epoch
        await crash(store)
    assert len(acknowledged) == 8


def note_acknowledged(line: bytes, acknowledged: dict[str, int], lives: dict[tuple[str, int], str]) -> None:
    run, head, life = line.decode().split()
    acknowledged[run] = int(head)
    lives[run, int(head)] = life


async def check_whole(store: SqliteStore, run: str, head: int, lives: dict[tuple[str, int], str]) -> None:
    lines = await events(store, run, max_events=1 << 20, max_bytes=1 << 30)
    assert len(lines) >= head
    for seq, line in enumerate(lines, start=1):
        assert line.startswith(f"{seq} of life ")
        assert line.endswith(lives.get((run, seq), ""))
    loaded = await store.log.load(run)
    assert loaded is not None
    # A batch is there with its journal, receipt and snapshot, or not at all.
    assert loaded.header.head_seq == len(lines)
    assert [f"c{record.key}" for record in loaded.journal] == [answer.command_id for answer in loaded.receipts]
    assert loaded.journal[-1].key == str(len(lines))
    assert loaded.snapshot is not None
    assert loaded.snapshot.data == b"%d" % len(lines)


async def test_a_second_process_is_refused_and_told_why(path: Path) -> None:
    code = """
import asyncio, sys
from midstream.log import SqliteStore, StoreInUse
async def main():
    try:
        await SqliteStore(sys.argv[1]).open()
    except StoreInUse as refusal:
        print(refusal)
asyncio.run(main())
"""
    link = path.with_name("link.db")
    link.symlink_to(path)
    async with opened(path) as store:
        for name in (path, link):
            refused = subprocess.run([sys.executable, "-c", code, name], capture_output=True, text=True, check=True)
            assert f"{path} is in use by process {os.getpid()}" in refused.stdout
            assert "Stop that one, or give this server a file of its own" in refused.stdout
        with pytest.raises(StoreInUse):
            await SqliteStore(path).open()
        await begin(store, RUN)  # the first one is not disturbed
    async with opened(link) as store:
        assert await events(store, RUN) == ['{"seq":1}']


# ── power failure ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("synchronous", "stop", "boot", "changes"),
    [
        ("NORMAL", "crash", "second", True),
        ("NORMAL", "crash", "", True),
        ("NORMAL", "crash", "first", False),
        ("NORMAL", "close", "second", False),
        ("FULL", "crash", "second", False),
    ],
)
async def test_the_epoch_changes_when_acknowledged_events_may_be_lost(
    path: Path, synchronous: Any, stop: str, boot: str, changes: bool
) -> None:
    statuses = {"a.running": "running", "a.waiting": "waiting", "a.queued": "queued"}
    ended = {"a.completed": "completed", "a.failed": "failed", "a.cancelled": "cancelled"}
    async with opened(path, boot="first", synchronous=synchronous) as store:
        for run, status in (statuses | ended).items():
            await begin(store, run, batch("a", status=status))
        before = {run: await epoch_of(store, run) for run in statuses | ended}
    if stop == "crash":
        await crash(store)
    async with opened(path, boot=boot, synchronous="FULL") as store:
        after = {run: await epoch_of(store, run) for run in statuses | ended}
        assert {run for run in after if after[run] != before[run]} == (set(statuses) if changes else set())
        assert len(set(after.values())) == 6
        reset = await store.log.read("a.running", after=1, epoch=before["a.running"])
        assert isinstance(reset, Page) != changes
        assert await events(store, "a.running") == ["a"]
    async with opened(path, boot="third") as store:
        assert after == {run: await epoch_of(store, run) for run in after}


async def test_a_machine_that_does_not_name_its_boots_counts_every_crash(path: Path) -> None:
    async with opened(path, boot="") as store:
        await begin(store, RUN)
        before = await epoch_of(store, RUN)
    await crash(store)
    async with opened(path, boot="") as store:
        assert await epoch_of(store, RUN) != before


# ── disk ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def limit_pages(store: SqliteStore, pages: int) -> None:
    writer = store._file.writer
    assert writer is not None
    await writer.run(lambda transaction: transaction.connection.execute(f"PRAGMA max_page_count = {pages}").fetchall())


async def test_a_full_disk_fails_the_writes_and_nothing_else(path: Path) -> None:
    large = (JournalRecord(kind="k", key="1", data=b"x" * 400_000),)
    async with opened(path) as store:
        leases = [await begin(store, f"a.run_{n}") for n in range(5)]
        await limit_pages(store, 50)
        appends = [(lease, batch(f"event {n}", journal=large, snapshot=b"s")) for n, lease in enumerate(leases)]
        for _ in range(2):
            outcomes = await asyncio.gather(
                *(store.log.append(lease.run, fence=lease.fence, prev_seq=1, batch=sent) for lease, sent in appends),
                return_exceptions=True,
            )
            for outcome in outcomes:
                assert isinstance(outcome, LogUnavailable)
                assert "full" in str(outcome)
            for lease in leases:
                assert await events(store, lease.run) == ['{"seq":1}']
        await limit_pages(store, 1 << 30)  # somebody made room: the same writer goes on, nothing was restarted
        for n, (lease, sent) in enumerate(appends):
            assert await store.log.append(lease.run, fence=lease.fence, prev_seq=1, batch=sent) == 2
            assert await events(store, lease.run, after=1) == [f"event {n}"]
            loaded = await store.log.load(lease.run)
            assert loaded is not None
            assert len(loaded.journal) == 1


async def test_a_disk_that_refuses_bytes_is_survived(path: Path) -> None:
    # The limit is a process's, so it is one of its own. Beyond it write(2) fails as it does on a broken disk.
    code = """
import asyncio, resource, sys
from midstream.log import Batch, JournalRecord, LogUnavailable, SqliteStore
def allow(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
async def main():
    store = SqliteStore(sys.argv[1])
    await store.open()
    await store.log.create("a.r", fingerprint="f", owner="o", lease_ms=1,
        batch=Batch(batch_id="0", status="running", events=(b"1",)))
    allow(300_000)
    head, failures = 1, 0
    while failures < 3:
        large = (JournalRecord(kind="k", key=str(head + 1), data=b"x" * 20_000),)
        sent = Batch(batch_id=str(head), status="running", events=(b"%d" % (head + 1),), journal=large)
        try:
            head = await store.log.append("a.r", fence=1, prev_seq=head, batch=sent)
        except LogUnavailable:
            failures += 1
            assert (await store.log.read("a.r", after=0)).header.head_seq == head
    assert head > 1
    allow(resource.RLIM_INFINITY)
    head = await store.log.append("a.r", fence=1, prev_seq=head, batch=sent)
    loaded = await store.log.load("a.r")
    assert [record.key for record in loaded.journal] == [str(seq) for seq in range(2, head + 1)]
    await store.aclose()
    await store.open()
    assert (await store.log.read("a.r", after=0)).events == tuple(b"%d" % seq for seq in range(1, head + 1))
    await store.aclose()
asyncio.run(main())
"""
    ended = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


class Connection(sqlite3.Connection):
    """A connection with a broken disk: `fails` lists the statements that raise, `after` if they were done by then."""

    fails: tuple[str, ...] = ()
    done_first = False
    commits = 0

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        Connection.commits += sql == "COMMIT"
        failing = sql in Connection.fails
        if failing and not Connection.done_first:
            raise sqlite3.OperationalError("disk I/O error")
        cursor = super().execute(sql, *parameters)
        if failing:
            raise sqlite3.OperationalError("disk I/O error")
        return cursor


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    real = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: real(*args, factory=Connection, **options))
    monkeypatch.setattr(Connection, "commits", 0)

    def breaks(*statements: str, done_first: bool = False) -> None:
        monkeypatch.setattr(Connection, "fails", statements)
        monkeypatch.setattr(Connection, "done_first", done_first)

    return breaks


@pytest.mark.parametrize("done_first", [False, True])
async def test_a_commit_of_unknown_outcome_is_never_doubled(
    path: Path, disk: Callable[..., None], done_first: bool
) -> None:
    async with opened(path) as store:
        first, second = batch("a"), batch("b", journal=(JournalRecord(kind="k", key="1", data=b"x"),))
        disk("COMMIT", done_first=done_first)
        with pytest.raises(LogUnavailable):
            await again(store, RUN, first)
        disk()
        lease = (await again(store, RUN, first)).lease
        assert lease is not None
        disk("COMMIT", done_first=done_first)
        with pytest.raises(LogUnavailable):
            await store.log.append(RUN, fence=lease.fence, prev_seq=1, batch=second)
        disk()
        assert await store.log.append(RUN, fence=lease.fence, prev_seq=1, batch=second) == 2
        assert await events(store, RUN) == ["a", "b"]
        loaded = await store.log.load(RUN)
        assert loaded is not None
        assert len(loaded.journal) == 1


async def test_a_connection_that_cannot_even_roll_back_is_replaced(path: Path, disk: Callable[..., None]) -> None:
    async with opened(path) as store:
        lease = await begin(store, RUN)
        disk("COMMIT", "ROLLBACK")
        with pytest.raises(LogUnavailable):
            await store.log.append(RUN, fence=lease.fence, prev_seq=1, batch=batch("b"))
        disk()
        assert await events(store, RUN) == ['{"seq":1}']
        assert await store.log.append(RUN, fence=lease.fence, prev_seq=1, batch=batch("b")) == 2


async def test_a_read_that_failed_does_not_spoil_the_next(path: Path, disk: Callable[..., None]) -> None:
    async with opened(path) as store:
        await begin(store, RUN)
        disk("BEGIN")
        with pytest.raises(LogUnavailable, match="cannot read"):
            await store.log.load(RUN)
        disk()
        assert await store.log.load(RUN) is not None


async def test_a_stop_that_cannot_be_noted_is_taken_for_a_crash(path: Path, disk: Callable[..., None]) -> None:
    async with opened(path, boot="first") as store:
        await begin(store, RUN)
        before = await epoch_of(store, RUN)
        disk("PRAGMA synchronous = FULL")
    disk()
    async with opened(path, boot="second") as store:
        assert await epoch_of(store, RUN) != before


# ── one writer for all ───────────────────────────────────────────────────────────────────────────────────────────


async def until_taken(store: SqliteStore) -> None:
    """Return when the writer's thread has begun on what was given to it."""
    assert store._file.writer is not None
    while not (store._file.writer._away and store._file.writer._jobs.empty()):  # noqa: ASYNC110 - it tells nobody
        await asyncio.sleep(0)


async def test_what_waits_is_committed_together_and_reads_go_on(path: Path, disk: Callable[..., None]) -> None:
    async with opened(path) as store:
        leases = [await begin(store, f"a.run_{n}") for n in range(50)]
        foreign = sqlite3.connect(path, isolation_level=None)
        foreign.execute("BEGIN IMMEDIATE")  # the writer waits for it in its thread, and the loop goes on
        first = spawn(store.records.put("k", "first", b""), name="first")
        await until_taken(store)
        commits = Connection.commits
        appends = [
            spawn(store.log.append(lease.run, fence=lease.fence, prev_seq=1, batch=batch("b")), name=lease.run)
            for lease in leases
        ]
        refused = spawn(store.log.append("a.run_0", fence=0, prev_seq=1, batch=batch("b")), name="refused")
        assert await events(store, "a.run_7") == ['{"seq":1}']
        assert not first.done()
        foreign.execute("ROLLBACK")
        foreign.close()
        assert await asyncio.gather(*appends) == [2] * 50
        with pytest.raises(Fenced):
            await refused
        assert Connection.commits - commits <= 3


async def test_an_operation_that_cannot_be_written_fails_alone(path: Path) -> None:
    async with opened(path) as store:
        lease = await begin(store, RUN)
        outcomes = await asyncio.gather(
            store.log.append(RUN, fence=lease.fence, prev_seq=1, batch=batch("b")),
            store.records.put("k", "\ud800", b"x"),
            store.log.append(RUN, fence=lease.fence, prev_seq=2, batch=batch("c", wake_at=1 << 70)),
            store.log.append(RUN, fence=lease.fence, prev_seq=2, batch=batch("c")),
            store.records.put("k", "good", b"x"),
            return_exceptions=True,
        )
        assert outcomes[0] == 2
        assert isinstance(outcomes[1], UnicodeEncodeError)
        assert isinstance(outcomes[2], OverflowError)
        assert outcomes[3] == 3
        assert not isinstance(outcomes[4], BaseException)
        assert await events(store, RUN, after=1) == ["b", "c"]


async def test_a_missing_row_is_an_error_and_not_a_hole(path: Path) -> None:
    async with opened(path) as store:
        lease = await begin(store, RUN)
        for seq in (1, 2):
            await store.log.append(RUN, fence=lease.fence, prev_seq=seq, batch=batch(f"e{seq}"))
        foreign = sqlite3.connect(path)
        foreign.execute("DELETE FROM events WHERE last_seq = 2")
        foreign.commit()
        foreign.close()
        with pytest.raises(LogUnavailable, match="event 2 is missing"):
            await store.log.read(RUN, after=0)


async def test_closing_ends_the_threads_and_lets_go_of_the_file(path: Path) -> None:
    before = set(threading.enumerate())
    async with opened(path) as store:
        await begin(store, RUN)
        started = {thread.name for thread in set(threading.enumerate()) - before}
        assert started == {"sqlite-writer", "sqlite-reader-0", "sqlite-reader-1"}
    assert set(threading.enumerate()) == before
    assert sorted(file.name for file in path.parent.iterdir()) == ["log.db", "log.db.lock"]
    assert path.with_name("log.db.lock").read_bytes() == b""


async def test_a_close_that_is_cancelled_still_closes(path: Path) -> None:
    store = SqliteStore(path)
    await store.open()
    closing = spawn(store.aclose(), name="close")
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)
    for thread in threading.enumerate():
        if thread.name == "sqlite-writer":
            await asyncio.to_thread(thread.join)
    async with opened(path) as store:
        await begin(store, RUN)


# ── the file ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_file_and_its_folders_are_ours_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "log.db"
    old_mask = os.umask(0)
    try:
        async with opened(path) as store:
            await begin(store, RUN)
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(old_mask)
    assert modes == dict.fromkeys(("log.db", "log.db-wal", "log.db-shm", "log.db.lock"), 0o600)
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in (path.parent, path.parent.parent)} == {0o700}


async def test_an_erased_run_leaves_no_bytes_behind(path: Path) -> None:
    secret = "a very private line"
    async with opened(path) as store:
        await begin(
            store,
            RUN,
            batch(
                secret,
                journal=(JournalRecord(kind="k", key="1", data=secret.encode() * 3_000),),
                snapshot=secret.encode(),
            ),
        )
        await store.inbox.submit(RUN, secret.encode())
    assert secret.encode() in path.read_bytes()
    async with opened(path) as store:
        assert await store.log.delete(RUN)
    for file in path.parent.iterdir():
        assert secret.encode() not in file.read_bytes()


async def test_a_file_of_another_program_is_refused_and_left_alone(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (a)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(LogUnavailable, match="another program"):
        await SqliteStore(path).open()
    assert path.read_bytes() == before


@pytest.mark.parametrize(("schema", "says"), [("3", "newer version"), ("0", "older version"), ("x", "another program")])
async def test_a_file_of_another_version_is_refused(path: Path, schema: str, says: str) -> None:
    async with opened(path):
        pass
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE meta SET value = ? WHERE name = 'schema'", (schema,))
    connection.close()
    with pytest.raises(LogUnavailable, match=says):
        await SqliteStore(path).open()


async def test_what_is_no_sqlite_file_is_named(tmp_path: Path, path: Path) -> None:
    path.write_bytes(b"no database at all, but long enough to be looked at" * 100)
    with pytest.raises(LogUnavailable, match=r"log\.db: file is not a database"):
        await SqliteStore(path).open()
    with pytest.raises(LogUnavailable, match="cannot open"):
        await SqliteStore(tmp_path).open()


async def test_a_refused_open_can_be_tried_again(path: Path) -> None:
    store = SqliteStore(path)
    async with opened(path):
        with pytest.raises(StoreInUse):
            await store.open()
        with pytest.raises(LogUnavailable, match="not open"):
            await store.log.load(RUN)
    await store.open()
    await begin(store, RUN)
    await store.aclose()
