"""The one thread that writes to the SQLite file, with one commit for all who wait (group commit).

Nobody waits for a timer: what comes while a commit is under way makes up the next one, so the groups grow with the
load and an idle server answers at once.
"""

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar

import structlog
from msgspec import Struct

from midstream.log import sqlite_lock
from midstream.log.contract import LogError, LogUnavailable
from midstream.log.sqlite_schema import Synchronous, check, connect_writer, make_file, mark_clean, prepare
from midstream.log.sqlite_threads import Answer, Replies
from midstream.log.sqlite_transaction import Kept, Transaction

T = TypeVar("T")

# One commit takes at most this much, so that small writes do not wait for the large ones that come after them.
GROUP_OPERATIONS: Final = 512
GROUP_BYTES: Final = 1 << 20
# Standings kept in memory between commits (about 1 kB each); beyond it they are read from the file again.
KEPT_RUNS: Final = 4_096
# Written since the last checkpoint; then the next idle moment copies the write-ahead log back into the file.
CHECKPOINT_BYTES: Final = 4 << 20
# What a small operation adds to the write-ahead log at the least.
PAGE_BYTES: Final = 4_096

_log = structlog.get_logger("midstream.log")


class _Work(Struct, frozen=True):
    """`size`: about how many bytes it writes. `operation` None ends the thread."""

    operation: Callable[[Transaction], Any] | None
    future: Any
    size: int


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
        self._work: SimpleQueue[_Work] = SimpleQueue()
        self._opened: asyncio.Future[None] = loop.create_future()
        self._ended: asyncio.Future[None] = loop.create_future()
        # From here on only the thread's.
        self._connection: sqlite3.Connection | None = None
        self._runs: dict[str, Kept] = {}
        self._uncopied = 0
        self._ending = False
        self._thread = threading.Thread(target=self._main, name="sqlite-writer", daemon=True)
        self._thread.start()

    async def opened(self) -> None:
        """Raises `StoreInUse`, `LogUnavailable`; `aclose` is due also then."""
        await asyncio.shield(self._opened)

    async def run(self, operation: Callable[[Transaction], T], *, size: int = 0) -> T:
        """Do `operation` in the next commit and return its result when that is durable.

        A caller that is cancelled does not take its operation back: it is written, unless it fails.

        Raises:
            LogError: what `operation` raised; nothing of it was written.
            LogUnavailable: the commit failed.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        self._work.put(_Work(operation, future, size))
        return await future

    async def aclose(self) -> None:
        """Write what waits, note the clean stop and let go of the file, even if this call is cancelled."""
        self._work.put(_Work(None, self._ended, 0))
        await asyncio.shield(self._ended)
        self._thread.join()

    def _main(self) -> None:
        try:
            make_file(self._path)
            with sqlite_lock.hold(self._path):
                try:
                    check(self._path)
                    prepare(self._connected(), synchronous=self._synchronous, boot=self._boot)
                    self._commit([_Work(Transaction.void_leases, None, 0)])
                    self._replies.give([(self._opened, None, None)])
                    while not self._ending:
                        self._serve()
                    self._mark_clean()
                finally:
                    self._disconnect()
        except Exception as error:  # noqa: BLE001 - told to whoever opens the store, and to all who use it after
            self._refuse_all(error)
        self._replies.give([(self._ended, None, None)])

    def _serve(self) -> None:
        group = self._next_group()
        if not group:
            return
        self._replies.give(self._settle(group))
        self._uncopied += sum(PAGE_BYTES + work.size for work in group)
        if len(self._runs) > KEPT_RUNS:
            self._runs.clear()
        if self._uncopied > CHECKPOINT_BYTES and self._work.empty():
            self._checkpoint()

    def _next_group(self) -> list[_Work]:
        """What waits, at least one; empty at the end."""
        group: list[_Work] = []
        size = 0
        while len(group) < GROUP_OPERATIONS and size < GROUP_BYTES:
            try:
                work = self._work.get(block=not group)
            except Empty:
                break
            if work.operation is None:
                self._ending = True
                break
            group.append(work)
            size += work.size
        return group

    def _settle(self, group: list[_Work]) -> list[Answer]:
        try:
            return self._commit(group)
        except sqlite3.Error as error:
            # Everybody's: no space, no lock, a broken disk. Otherwise it is one operation's own, say a value of 2 GB.
            if len(group) == 1 or isinstance(error, sqlite3.OperationalError) or type(error) is sqlite3.DatabaseError:
                cause = LogUnavailable(f"cannot write {self._path}: {error}")
                return [(work.future, None, cause) for work in group]
        except Exception as error:  # noqa: BLE001 - a defect of its caller, who awaits it
            if len(group) == 1:
                return [(group[0].future, None, error)]
        return [answer for work in group for answer in self._settle([work])]

    def _commit(self, group: list[_Work]) -> list[Answer]:
        """One transaction. After an exception nothing of it is there."""
        answers: list[Answer] = []
        try:
            connection = self._connected()
            transaction = Transaction(connection, self._runs)
            connection.execute("BEGIN IMMEDIATE")
            for work in group:
                assert work.operation is not None
                try:
                    answers.append((work.future, work.operation(transaction), None))
                except LogError as error:  # decided before it wrote anything, so the others go on
                    answers.append((work.future, None, error))
            transaction.flush()
            connection.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise
        return answers

    def _roll_back(self) -> None:
        # What is in memory was changed by operations that are now undone.
        self._runs.clear()
        try:
            if self._connection is not None and self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            # In no known state any more; closing it undoes the transaction, and the next commit connects again.
            _log.warning("the log's connection is given up", path=str(self._path), exc_info=error)
            self._disconnect()

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = connect_writer(self._path, synchronous=self._synchronous)
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _checkpoint(self) -> None:
        self._uncopied = 0
        try:
            self._connected().execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except sqlite3.Error as error:
            # Nothing is lost by it: the write-ahead log is kept, and copied another time.
            _log.warning("the write-ahead log could not be copied back", path=str(self._path), exc_info=error)

    def _mark_clean(self) -> None:
        try:
            mark_clean(self._connected())
        except sqlite3.Error as error:
            # Then the next start takes this for a crash, which is the safe side.
            _log.warning("the clean stop could not be noted", path=str(self._path), exc_info=error)

    def _refuse_all(self, error: Exception) -> None:
        cause = error if isinstance(error, LogError) else LogUnavailable(f"cannot open {self._path}: {error}")
        self._replies.give([(self._opened, None, cause)])
        while not self._ending:
            self._replies.give([(work.future, None, cause) for work in self._next_group()])
