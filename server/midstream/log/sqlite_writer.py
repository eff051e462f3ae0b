"""The one writer of the SQLite file, with one commit for all who wait (group commit).

Nobody waits for a timer: what comes in one turn of the loop, or while a commit is under way, makes up the next one. So
groups grow with the load, and an idle server answers at once.

A small commit that need not reach the disk (synchronous=NORMAL) is a few calls of write(2), and the loop does it:
handing it to a thread and taking the answer back costs more than the commit, and beside a busy loop each call of SQLite
in a thread waits up to 5 ms for the interpreter's lock. All that may wait for something goes to the writer's thread:
syncs, large writes, copying the write-ahead log back, a file that somebody else has locked, and for some seconds
everything, if a commit was slow here. While the thread has the connection, the loop does not touch it.
"""

import asyncio
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from time import perf_counter, thread_time
from typing import Any, Final, TypeVar

from msgspec import Struct

from midstream.log import sqlite_lock
from midstream.log.contract import LogError, LogUnavailable
from midstream.log.sqlite_schema import (
    BUSY_MS,
    Synchronous,
    check,
    connect,
    connect_writer,
    make_file,
    mark_clean,
    prepare,
)
from midstream.log.sqlite_threads import Answer, Replies, settle
from midstream.log.sqlite_transaction import Standings, Transaction
from midstream.logs import Logger

T = TypeVar("T")

# One commit takes at most this much, so that small writes do not wait for the large ones that come after them.
GROUP_OPERATIONS: Final = 512
GROUP_BYTES: Final = 1 << 20
# What the loop writes itself at most: some milliseconds.
INLINE_BYTES: Final = 512 << 10
# A commit on the loop that took longer was waiting for the disk; for so long the thread waits instead.
SLOW_S: Final = 0.2
BY_THREAD_S: Final = 10.0
# Written since the last checkpoint; then the write-ahead log is copied back into the file.
CHECKPOINT_BYTES: Final = 8 << 20
# What an operation adds to the write-ahead log at the least.
PAGE_BYTES: Final = 4_096

_log = Logger("midstream.log")


class _Work(Struct, frozen=True):
    """`size`: about how many bytes it writes. `run`, `keys`: what it will look at, to be read in one go. `apart`: it
    has the connection for itself, and no transaction.
    """

    operation: Callable[[Any], Any]
    future: Any
    size: int
    run: str | None = None
    keys: tuple[tuple[str, str], ...] = ()
    apart: bool = False


class _Locked(Exception):
    """Somebody else is writing to the file, and this caller does not wait."""


class Writer:
    """Owns the file from `opened` to `aclose`: its lock, the connection that writes, and the note of a clean stop."""

    def __init__(
        self, path: Path, *, loop: asyncio.AbstractEventLoop, synchronous: Synchronous, boot: str | None
    ) -> None:
        self._path = path
        self._loop = loop
        self._synchronous: Synchronous = synchronous
        self._boot = boot
        self._replies = Replies(loop)
        self._opened: asyncio.Future[None] = loop.create_future()
        self._ended: asyncio.Future[None] = loop.create_future()
        # The loop's.
        self._waiting: deque[_Work] = deque()
        self._scheduled = False
        self._away = True
        """The thread has the connection."""
        self._ending = False
        self._copying = False
        self._uncopied = 0
        self._by_thread_until = float("inf") if synchronous == "FULL" else 0.0
        # Whoever has the connection has these.
        self._connection: sqlite3.Connection | None = None
        self._patient = True
        self._standings = Standings()
        # The thread's. None ends it.
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._aside: sqlite3.Connection | None = None
        self._thread = threading.Thread(target=self._main, name="sqlite-writer", daemon=True)
        self._thread.start()

    async def opened(self) -> None:
        """Raises `StoreInUse`, `LogUnavailable`; `aclose` is due also then."""
        await asyncio.shield(self._opened)
        self._away = False

    async def run(
        self,
        operation: Callable[[Transaction], T],
        *,
        size: int = 0,
        run: str | None = None,
        keys: tuple[tuple[str, str], ...] = (),
    ) -> T:
        """Do `operation` in the next commit and return its result when that is durable.

        A caller that is cancelled does not take its operation back: it is written, unless it fails.

        Raises:
            LogError: what `operation` raised; nothing of it was written.
            LogUnavailable: the commit failed.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        self._waiting.append(_Work(operation, future, size, run, keys))
        self._schedule()
        return await future

    async def apart(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        """Do `operation` in the thread, between two commits, outside a transaction. Raises `LogUnavailable`."""
        future: asyncio.Future[T] = self._loop.create_future()
        # Counted as much written: the next checkpoint comes soon, and only it makes the file shorter.
        self._waiting.append(_Work(operation, future, CHECKPOINT_BYTES, apart=True))
        self._schedule()
        return await future

    async def aclose(self) -> None:
        """Write what waits, note the clean stop and let go of the file, even if this call is cancelled."""
        self._ending = True
        self._schedule()
        await asyncio.shield(self._ended)
        self._thread.join()

    # -- on the loop

    def _schedule(self) -> None:
        if not self._scheduled and not self._away:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        if self._away:
            return
        if not self._waiting:
            if self._ending:
                self._away = True
                self._jobs.put(None)
            return
        group, size = self._next_group()
        began, worked = perf_counter(), thread_time()
        if size > INLINE_BYTES or began < self._by_thread_until:
            self._hand_over(group)
            return
        try:
            answers = self._settle(group, patient=False)
        except _Locked:
            self._hand_over(group)
            return
        waited = perf_counter() - began - (thread_time() - worked)
        if waited > SLOW_S:
            self._by_thread_until = perf_counter() + BY_THREAD_S
            _log.info("the log's disk is slow: its thread writes for a while", waited_s=round(waited, 3))
        settle(answers)
        self._written(group)

    def _next_group(self) -> tuple[list[_Work], int]:
        group: list[_Work] = []
        size = 0
        while self._waiting and len(group) < GROUP_OPERATIONS and size < GROUP_BYTES:
            if group and self._waiting[0].apart:
                break
            work = self._waiting.popleft()
            group.append(work)
            size += work.size
        return group, size

    def _hand_over(self, group: list[_Work]) -> None:
        self._away = True

        def write() -> None:
            answers = self._alone(group[0]) if group[0].apart else self._settle(group, patient=True)
            self._replies.call(lambda: self._back(answers, group))

        self._jobs.put(write)

    def _back(self, answers: list[Answer], group: list[_Work]) -> None:
        self._away = False
        settle(answers)
        self._written(group)

    def _written(self, group: list[_Work]) -> None:
        self._uncopied += sum(PAGE_BYTES + work.size for work in group)
        if self._uncopied > CHECKPOINT_BYTES and not self._copying:
            self._copying = True
            self._uncopied = 0
            if self._synchronous == "FULL":
                self._copy_rest()
            else:
                self._jobs.put(self._copy_aside)
        if self._waiting or self._ending:
            self._schedule()

    def _copy_rest(self) -> None:
        """Copy the write-ahead log to its end while nothing is added to it: the next commit begins it anew."""
        if self._away:
            # A large group is being written; behind it is soon enough.
            self._copying = False
            return
        self._away = True

        def copy() -> None:
            try:
                self._checkpoint(self._connected())
            except sqlite3.Error as error:
                self._warn_uncopied(error)
            self._replies.call(self._copied)

        self._jobs.put(copy)

    def _copied(self) -> None:
        self._copying = False
        self._away = False
        self._schedule()

    # -- in the thread

    def _main(self) -> None:
        try:
            make_file(self._path)
            with sqlite_lock.hold(self._path):
                try:
                    check(self._path)
                    prepare(self._connected(), synchronous=self._synchronous, boot=self._boot)
                    self._commit([_Work(Transaction.void_leases, None, 0)], patient=True)
                    while self._commit([_Work(Transaction.erase_left, None, 0)], patient=True)[0][1]:
                        pass
                    self._replies.give([(self._opened, None, None)])
                    while (job := self._jobs.get()) is not None:
                        job()
                    self._mark_clean()
                finally:
                    self._disconnect()
        except Exception as error:  # noqa: BLE001 - told to whoever opens the store
            self._refuse(error)
        self._replies.give([(self._ended, None, None)])

    def _refuse(self, error: Exception) -> None:
        cause = error if isinstance(error, LogError) else LogUnavailable(f"cannot open {self._path}: {error}")
        self._replies.give([(self._opened, None, cause)])

    def _copy_aside(self) -> None:
        """Copy most of the write-ahead log back, on another connection, while commits go on."""
        try:
            if self._aside is None:
                self._aside = connect(self._path)
            self._checkpoint(self._aside)
        except sqlite3.Error as error:
            self._warn_uncopied(error)
        self._replies.call(self._copy_rest)

    def _checkpoint(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def _warn_uncopied(self, error: sqlite3.Error) -> None:
        # Nothing is lost by it: the write-ahead log is kept, and copied another time.
        _log.warning("the write-ahead log could not be copied back", path=str(self._path), exc_info=error)

    def _mark_clean(self) -> None:
        try:
            self._wait_for_locks(self._connected(), patient=True)
            mark_clean(self._connected())
        except sqlite3.Error as error:
            # Then the next start takes this for a crash, which is the safe side.
            _log.warning("the clean stop could not be noted", path=str(self._path), exc_info=error)

    # -- whoever has the connection

    def _settle(self, group: list[_Work], *, patient: bool) -> list[Answer]:
        try:
            return self._commit(group, patient=patient)
        except sqlite3.Error as error:
            # Everybody's: no space, no lock, a broken disk. Otherwise it is one operation's own, say a value of 2 GB.
            if len(group) == 1 or isinstance(error, sqlite3.OperationalError) or type(error) is sqlite3.DatabaseError:
                cause = LogUnavailable(f"cannot write {self._path}: {error}")
                return [(work.future, None, cause) for work in group]
        except _Locked:
            raise
        except Exception as error:  # noqa: BLE001 - a defect of its caller, who awaits it
            if len(group) == 1:
                return [(group[0].future, None, error)]
        return [answer for work in group for answer in self._settle([work], patient=True)]

    def _alone(self, work: _Work) -> list[Answer]:
        try:
            connection = self._connected()
            self._wait_for_locks(connection, patient=True)
            return [(work.future, work.operation(connection), None)]
        except sqlite3.Error as error:
            return [(work.future, None, LogUnavailable(f"cannot write {self._path}: {error}"))]

    def _commit(self, group: list[_Work], *, patient: bool) -> list[Answer]:
        """One transaction. After an exception nothing of it is there."""
        answers: list[Answer] = []
        try:
            connection = self._connected()
            self._begin(connection, patient=patient)
            transaction = Transaction(connection, self._standings)
            transaction.look_up([work.run for work in group], [key for work in group for key in work.keys])
            for work in group:
                try:
                    answers.append((work.future, work.operation(transaction), None))
                except LogError as error:  # decided before it wrote anything, so the others go on
                    answers.append((work.future, None, error))
            transaction.flush()
            connection.execute("COMMIT")
        except _Locked:
            raise
        except BaseException:
            self._roll_back()
            raise
        self._standings.trim()
        return answers

    def _begin(self, connection: sqlite3.Connection, *, patient: bool) -> None:
        self._wait_for_locks(connection, patient=patient)
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if not patient and getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
                raise _Locked from error
            raise

    def _wait_for_locks(self, connection: sqlite3.Connection, *, patient: bool) -> None:
        if patient != self._patient:
            connection.execute(f"PRAGMA busy_timeout = {BUSY_MS if patient else 0}")
            self._patient = patient

    def _roll_back(self) -> None:
        # What is in memory was changed by operations that are now undone.
        self._standings.forget()
        try:
            if self._connection is not None and self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            # In no known state any more; closing it undoes the transaction, and the next commit connects again.
            _log.warning("the log's connection is given up", path=str(self._path), exc_info=error)
            self._close_connection()

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = connect_writer(self._path, synchronous=self._synchronous)
            self._patient = True
        return self._connection

    def _close_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _disconnect(self) -> None:
        if self._aside is not None:
            self._aside.close()
        self._close_connection()
