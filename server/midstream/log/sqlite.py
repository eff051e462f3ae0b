"""The store in one SQLite file: one server, durable, nothing to install."""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from midstream.clock import Clock, SystemClock
from midstream.log import sqlite_rows as rows
from midstream.log.contract import (
    Batch,
    Created,
    Inbound,
    Inbox,
    Lease,
    Leases,
    Loaded,
    Log,
    LogUnavailable,
    Page,
    Record,
    Records,
    Reset,
)
from midstream.log.sqlite_erasing import PIECE_BYTES, shrink
from midstream.log.sqlite_schema import OLDEST_SQLITE, Synchronous, machine_boot
from midstream.log.sqlite_threads import Readers
from midstream.log.sqlite_transaction import Key, Transaction
from midstream.log.sqlite_writer import Writer
from midstream.log.standing import check_batch

T = TypeVar("T")

# Reads are short; more threads would only contend for the interpreter with the loop and the writer.
READERS: Final = 2


class _File:
    """The open file: where the four faces send their work."""

    def __init__(self) -> None:
        self.writer: Writer | None = None
        self.readers: Readers | None = None

    async def write(
        self,
        operation: Callable[[Transaction], T],
        *,
        size: int = 0,
        run: str | None = None,
        keys: tuple[Key, ...] = (),
    ) -> T:
        if self.writer is None:
            raise LogUnavailable("the store is not open")
        return await self.writer.run(operation, size=size, run=run, keys=keys)

    async def erase_left(self) -> None:
        """Finish what was begun to be erased, a piece a commit, so that other writers come in between."""
        while await self.write(Transaction.erase_left, size=PIECE_BYTES):
            pass

    async def shrink(self) -> int:
        if self.writer is None:
            raise LogUnavailable("the store is not open")
        return await self.writer.apart(shrink)

    async def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        if self.readers is None:
            raise LogUnavailable("the store is not open")
        return await self.readers.run(query)


class _Log:
    def __init__(self, file: _File, clock: Clock) -> None:
        self._file = file
        self._clock = clock

    async def create(self, run: str, *, fingerprint: str, batch: Batch, owner: str, lease_ms: int) -> Created:
        check_batch(batch)
        now_ms = self._clock.now_ms()
        return await self._file.write(
            lambda transaction: transaction.create(
                run, fingerprint=fingerprint, batch=batch, owner=owner, now_ms=now_ms, lease_ms=lease_ms
            ),
            size=_size(batch),
            run=run,
            keys=_keys(batch),
        )

    async def append(self, run: str, *, fence: int, prev_seq: int, batch: Batch) -> int:
        check_batch(batch)
        return await self._file.write(
            lambda transaction: transaction.append(run, fence=fence, prev_seq=prev_seq, batch=batch),
            size=_size(batch),
            run=run,
            keys=_keys(batch) if batch.records else (),
        )

    async def load(self, run: str) -> Loaded | None:
        return await self._file.read(lambda connection: rows.loaded(connection, run))

    async def read(
        self, run: str, *, after: int, epoch: str | None = None, max_events: int = 256, max_bytes: int = 1 << 20
    ) -> Page | Reset:
        return await self._file.read(
            lambda connection: rows.page(
                connection, run, after=after, epoch=epoch, max_events=max_events, max_bytes=max_bytes
            )
        )

    async def compact(self, run: str, *, first_seq: int, snapshot: bytes) -> bool:
        done = await self._file.write(
            lambda transaction: transaction.compact(run, first_seq=first_seq, snapshot=snapshot),
            size=len(snapshot) + PIECE_BYTES,
        )
        await self._file.erase_left()
        return done

    async def delete(self, run: str) -> bool:
        there = await self._file.write(lambda transaction: transaction.delete(run), size=PIECE_BYTES)
        await self._file.erase_left()
        return there


class _Leases:
    def __init__(self, file: _File) -> None:
        self._file = file

    async def claim(self, run: str | None, *, owner: str, now_ms: int, lease_ms: int) -> Lease | None:
        if run is None:
            due = partial(Transaction.claim_due, owner=owner, now_ms=now_ms, lease_ms=lease_ms)
            return await self._file.write(due)
        return await self._file.write(
            lambda transaction: transaction.claim(run, owner=owner, now_ms=now_ms, lease_ms=lease_ms)
        )

    async def renew(self, lease: Lease, *, now_ms: int, lease_ms: int) -> Lease | None:
        return await self._file.write(lambda transaction: transaction.renew(lease, now_ms=now_ms, lease_ms=lease_ms))

    async def release(self, lease: Lease) -> None:
        await self._file.write(lambda transaction: transaction.release(lease))


class _Inbox:
    def __init__(self, file: _File) -> None:
        self._file = file

    async def submit(self, run: str, data: bytes) -> int:
        return await self._file.write(lambda transaction: transaction.submit(run, data), size=len(data))

    async def pending(self, run: str, *, after: int) -> Sequence[Inbound]:
        return await self._file.read(lambda connection: rows.pending(connection, run, after=after))


class _Records:
    def __init__(self, file: _File) -> None:
        self._file = file

    async def get(self, kind: str, id: str) -> Record | None:  # noqa: A002 - the contract's word
        return await self._file.read(lambda connection: rows.record(connection, kind, id))

    async def put(self, kind: str, id: str, data: bytes, *, expect_version: int | None = None) -> Record:  # noqa: A002
        return await self._file.write(
            lambda transaction: transaction.put(kind, id, data, expect_version=expect_version), size=len(data)
        )

    async def list(
        self, kind: str, *, after: str | None = None, limit: int = 100, descending: bool = False
    ) -> Sequence[Record]:
        return await self._file.read(
            lambda connection: rows.records(connection, kind, after=after, limit=limit, descending=descending)
        )

    async def delete(self, kind: str, id: str, *, expect_version: int | None = None) -> bool:  # noqa: A002
        return await self._file.write(lambda transaction: transaction.remove(kind, id, expect_version=expect_version))


class SqliteStore:
    """A `Store` in one SQLite file, which this process holds for itself while the store is open.

    Used from the event loop that opened it. It may be opened again after it was closed.

    Args:
        path: the file; it and its folders are made, readable by us alone.
        synchronous: "NORMAL": what is acknowledged survives the death of the process (and after a power failure the
            epochs of unfinished runs change). "FULL": it survives a power failure, for a sync of the disk per commit.
        clock: what time it is when `create` gives its lease; the other calls are told.
        readers: threads that answer reads.
        boot: what names this boot of the machine; None asks the system, and "" says that nobody can tell.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        synchronous: Synchronous = "NORMAL",
        clock: Clock | None = None,
        readers: int = READERS,
        boot: str | None = None,
    ) -> None:
        self._path = Path(path)
        self._synchronous: Synchronous = synchronous
        self._readers = readers
        self._boot = boot
        self._file = _File()
        self.log: Log = _Log(self._file, clock or SystemClock())
        self.leases: Leases = _Leases(self._file)
        self.inbox: Inbox = _Inbox(self._file)
        self.records: Records = _Records(self._file)

    @property
    def name(self) -> str:
        return f"sqlite:///{self._path}"

    async def open(self) -> None:
        if self._file.writer is not None:
            return
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            needed = ".".join(map(str, OLDEST_SQLITE))
            raise LogUnavailable(f"SQLite {needed} or newer is needed, this Python has {sqlite3.sqlite_version}")
        loop = asyncio.get_running_loop()
        # Links resolved, so that two names of one file have one lock.
        path = self._path.resolve()
        boot = machine_boot() if self._boot is None else self._boot
        writer = Writer(path, loop=loop, synchronous=self._synchronous, boot=boot)
        try:
            await writer.opened()
        except BaseException:
            await writer.aclose()
            raise
        self._file.writer = writer
        self._file.readers = Readers(path, loop=loop, count=self._readers)

    async def shrink(self) -> int:
        await self._file.erase_left()
        return await self._file.shrink()

    async def aclose(self) -> None:
        writer, self._file.writer = self._file.writer, None
        readers, self._file.readers = self._file.readers, None
        try:
            if readers is not None:
                await readers.aclose()
        finally:
            # Last, so that the last connection to be closed is the one that may copy the write-ahead log back.
            if writer is not None:
                await writer.aclose()


def _size(batch: Batch) -> int:
    """About how many bytes it writes."""
    size = sum(map(len, batch.events)) + len(batch.snapshot or b"")
    for beside in (batch.journal, batch.receipts):
        size += sum(len(part.data) for part in beside)
    return size + sum(len(write.data or b"") for write in batch.records)


def _keys(batch: Batch) -> tuple[Key, ...]:
    return tuple((write.kind, write.id) for write in batch.records)
