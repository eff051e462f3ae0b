"""What the SQLite writer does inside one transaction, for many callers at once.

Each operation first decides on the `Standing` kept in memory (the writer is the only one who writes, so that copy is
the truth), and only then notes what is to be written. So an operation that is refused has written nothing, and the
ones beside it in the same transaction are not touched. What was noted is written together by `flush`.
"""

import sqlite3
from collections.abc import Iterable
from typing import Final

from midstream.log import sqlite_erasing as erasing
from midstream.log import sqlite_rows as rows
from midstream.log import standing as rules
from midstream.log.contract import Batch, Created, Lease, NoSuchRun, Record, RecordWrite
from midstream.log.sqlite_schema import new_epoch

# One row of events holds at most this much, unless it is one event: a reader of a page does not load a 10 MB batch.
EVENT_ROW_BYTES: Final = 256 << 10
# Standings of runs that nobody holds kept in memory (about 1 kB each); those that are held are written to all the time.
KEPT_RUNS: Final = 4_096

Key = tuple[str, str]
"""Kind and id of a record."""


class Kept:
    """A run's standing in the writer's memory; `changed` since its row was written."""

    def __init__(self, id: int, standing: rules.Standing) -> None:  # noqa: A002
        self.id = id
        self.standing = standing
        self.changed = False


class Standings:
    """What the writer knows between transactions. To be forgotten when one is rolled back."""

    def __init__(self) -> None:
        self.by_run: dict[str, Kept] = {}
        self.next_id: int | None = None
        self._trim_at = KEPT_RUNS

    def forget(self) -> None:
        self.by_run = {}
        self.next_id = None

    def trim(self) -> None:
        """Let go of runs that nobody writes to, now and then."""
        if len(self.by_run) < self._trim_at:
            return
        self.by_run = {run: kept for run, kept in self.by_run.items() if kept.standing.owner is not None}
        self._trim_at = 2 * len(self.by_run) + KEPT_RUNS


class Transaction:
    """One open transaction."""

    def __init__(self, connection: sqlite3.Connection, standings: Standings) -> None:
        self.connection = connection
        self._standings = standings
        self._runs = standings.by_run
        self._absent: set[str] = set()
        self._made: list[Kept] = []
        self._changed: list[Kept] = []
        self._events: list[tuple[int, int, int, bytes, str | None]] = []
        self._journal: list[tuple[int, str, str, bytes]] = []
        self._receipts: list[tuple[int, str, str, bytes]] = []
        self._records: dict[Key, Record | None] = {}
        self._rewritten: set[Key] = set()

    def look_up(self, runs: Iterable[str | None], keys: Iterable[Key]) -> None:
        """Read what the operations to come will look at."""
        unknown = {run for run in runs if run is not None and run not in self._runs}
        if unknown:
            for id_, found in rows.find_runs(self.connection, unknown):
                self._runs[found.header.run] = Kept(id_, found)
            self._absent = {run for run in unknown if run not in self._runs}
        wanted = set(keys)
        if wanted:
            self._records = dict.fromkeys(wanted)
            self._records.update(rows.find_records(self.connection, wanted))

    def create(self, run: str, *, fingerprint: str, batch: Batch, owner: str, now_ms: int, lease_ms: int) -> Created:
        if (kept := self._find(run)) is not None:
            return rules.start_again(kept.standing, fingerprint=fingerprint, batch=batch, owner=owner)
        standing, created = rules.start(
            run,
            epoch=new_epoch(),
            fingerprint=fingerprint,
            batch=batch,
            owner=owner,
            now_ms=now_ms,
            lease_ms=lease_ms,
        )
        self._write_records(batch.records)
        self._runs[run] = kept = Kept(self._next_id(), standing)
        kept.changed = True  # its row is written with all there is to it by then
        self._made.append(kept)
        self._keep(kept, batch, first_seq=1)
        return created

    def append(self, run: str, *, fence: int, prev_seq: int, batch: Batch) -> int:
        if (kept := self._find(run)) is None:
            raise NoSuchRun(run)
        before = kept.standing
        standing = rules.advance(before, fence=fence, prev_seq=prev_seq, batch=batch)
        if standing is None:
            return before.header.head_seq
        if batch.records:
            self._write_records(batch.records)
        was, now = before.header, standing.header
        plain = bool(batch.events) and was.status == now.status and was.wake_at == now.wake_at
        if plain and was.mailbox == now.mailbox and not kept.changed:
            kept.standing = standing
            self._keep(kept, batch, first_seq=prev_seq + 1, batch_id=batch.batch_id)
            return now.head_seq
        self._change(kept, standing)
        self._keep(kept, batch, first_seq=prev_seq + 1)
        if now.mailbox > was.mailbox:
            self.connection.execute(rows.DELETE_CONSUMED, (kept.id, now.mailbox))
        return now.head_seq

    def compact(self, run: str, *, first_seq: int, snapshot: bytes) -> bool:
        kept = self._find(run)
        standing = None if kept is None else rules.compact(kept.standing, first_seq=first_seq)
        if kept is None or standing is None:
            return False
        self.flush()
        kept.standing = standing
        self.connection.execute(rows.MOVE_FIRST, (first_seq, kept.id))
        self.connection.execute(rows.PUT_SNAPSHOT, (kept.id, standing.header.head_seq, snapshot))
        erasing.cut_events(self.connection, kept.id, first_seq)
        erasing.erase(self.connection, kept.id, below=first_seq)
        return True

    def delete(self, run: str) -> bool:
        if (kept := self._find(run)) is None:
            return False
        self.flush()
        self.connection.execute(rows.DELETE_RUN, (kept.id,))
        erasing.erase(self.connection, kept.id, below=None)
        del self._runs[run]
        return True

    def erase_left(self) -> bool:
        """Erase a piece of what `delete` and `compact` left for later. Whether there may be more."""
        return erasing.erase_left(self.connection)

    def claim(self, run: str, *, owner: str, now_ms: int, lease_ms: int) -> Lease | None:
        if (kept := self._find(run)) is None:
            return None
        taken = rules.claim(kept.standing, owner=owner, now_ms=now_ms, lease_ms=lease_ms)
        if taken is None:
            return None
        standing, lease = taken
        self._change(kept, standing)
        return lease

    def claim_due(self, *, owner: str, now_ms: int, lease_ms: int) -> Lease | None:
        self.flush()
        due = self.connection.execute(rows.SELECT_DUE, (now_ms, now_ms)).fetchone()
        return None if due is None else self.claim(due[0], owner=owner, now_ms=now_ms, lease_ms=lease_ms)

    def renew(self, lease: Lease, *, now_ms: int, lease_ms: int) -> Lease | None:
        if (kept := self._find(lease.run)) is None:
            return None
        renewed = rules.renew(kept.standing, lease, now_ms=now_ms, lease_ms=lease_ms)
        if renewed is None:
            return None
        standing, later = renewed
        self._change(kept, standing)
        return later

    def release(self, lease: Lease) -> None:
        kept = self._find(lease.run)
        if kept is not None and (standing := rules.release(kept.standing, lease)) is not None:
            self._change(kept, standing)

    def void_leases(self) -> None:
        """Every owner before this process is gone: the lock of the file proves it."""
        for (run,) in self.connection.execute(rows.SELECT_OWNED).fetchall():
            kept = self._find(run)
            assert kept is not None
            self._change(kept, rules.void(kept.standing))

    def submit(self, run: str, data: bytes) -> int:
        if (kept := self._find(run)) is None:
            raise NoSuchRun(run)
        standing = rules.submit(kept.standing)
        self.connection.execute(rows.INSERT_INBOX, (kept.id, standing.submitted, data))
        self._change(kept, standing)
        return standing.submitted

    def put(self, kind: str, id: str, data: bytes, *, expect_version: int | None) -> Record:  # noqa: A002
        write = RecordWrite(kind=kind, id=id, data=data, expect_version=expect_version)
        record = rules.written(write, self._record(kind, id))
        assert record is not None
        # At once, and not noted: a value that no row can take fails its own caller only.
        self.connection.execute(rows.PUT_RECORD, (kind, id, record.version, data))
        self._records[kind, id] = record
        self._rewritten.discard((kind, id))
        return record

    def remove(self, kind: str, id: str, *, expect_version: int | None) -> bool:  # noqa: A002
        if (known := self._record(kind, id)) is None:
            return False
        rules.check_removal(known, kind=kind, expect=expect_version)
        self.connection.execute(rows.DELETE_RECORD, (kind, id))
        self._records[kind, id] = None
        self._rewritten.discard((kind, id))
        return True

    def flush(self) -> None:
        """Write what was noted."""
        connection = self.connection
        if self._made:
            rows.write_many(
                connection, rows.INSERT_RUNS, [rows.run_values(kept.id, kept.standing) for kept in self._made]
            )
        if self._changed:
            changes = [(kept.id, *rows.run_changes(kept.standing)) for kept in self._changed]
            rows.write_many(connection, rows.UPDATE_RUNS, changes)
        rows.write_many(connection, rows.INSERT_EVENTS, self._events)
        rows.write_many(connection, rows.INSERT_JOURNAL, self._journal)
        rows.write_many(connection, rows.INSERT_RECEIPTS, self._receipts)
        if self._rewritten:
            self._flush_records()
        for kept in (*self._made, *self._changed):
            kept.changed = False
        self._made, self._changed, self._events, self._journal, self._receipts = [], [], [], [], []

    def _flush_records(self) -> None:
        written: list[tuple[object, ...]] = []
        for key in self._rewritten:
            record = self._records[key]
            if record is None:
                self.connection.execute(rows.DELETE_RECORD, key)
            else:
                written.append((*key, record.version, record.data))
        rows.write_many(self.connection, rows.PUT_RECORDS, written)
        self._rewritten = set()

    def _find(self, run: str) -> Kept | None:
        kept = self._runs.get(run)
        if kept is None and run not in self._absent:
            for id_, found in rows.find_runs(self.connection, (run,)):
                self._runs[run] = kept = Kept(id_, found)
        return kept

    def _next_id(self) -> int:
        known = self._standings.next_id
        if known is None:
            (known,) = self.connection.execute(rows.SELECT_NEXT_ID).fetchone()
        self._standings.next_id = known + 1
        return known

    def _change(self, kept: Kept, standing: rules.Standing) -> None:
        kept.standing = standing
        if not kept.changed:
            kept.changed = True
            self._changed.append(kept)

    def _record(self, kind: str, id: str) -> Record | None:  # noqa: A002
        key = (kind, id)
        if key not in self._records:
            self._records[key] = rows.record(self.connection, kind, id)
        return self._records[key]

    def _write_records(self, writes: tuple[RecordWrite, ...]) -> None:
        """All of them, or none. Raises `VersionConflict`."""
        outcomes = [(write, self._record(write.kind, write.id)) for write in writes]
        decided = [(write, known, rules.written(write, known)) for write, known in outcomes]
        for write, known, record in decided:
            if known is not None or record is not None:
                self._records[write.kind, write.id] = record
                self._rewritten.add((write.kind, write.id))

    def _keep(self, kept: Kept, batch: Batch, *, first_seq: int, batch_id: str | None = None) -> None:
        if batch.events:
            for first, last, data in event_rows(first_seq, batch.events):
                self._events.append((kept.id, first, last, data, batch_id))
        if batch.journal:
            self._journal += [(kept.id, record.kind, record.key, record.data) for record in batch.journal]
        for answer in batch.receipts:
            self._receipts.append((kept.id, answer.command_id, answer.fingerprint, answer.data))
        if batch.snapshot is not None:
            self.connection.execute(rows.PUT_SNAPSHOT, (kept.id, kept.standing.header.head_seq, batch.snapshot))


def event_rows(first_seq: int, events: tuple[bytes, ...]) -> list[tuple[int, int, bytes]]:
    """A batch's events as (first seq, last seq, lines), as few rows as `EVENT_ROW_BYTES` allows."""
    if len(events) == 1:
        return [(first_seq, first_seq, events[0])]
    split: list[tuple[int, int, bytes]] = []
    start = size = 0
    for place, event in enumerate(events):
        if place > start and size + len(event) > EVENT_ROW_BYTES:
            split.append((first_seq + start, first_seq + place - 1, b"\n".join(events[start:place])))
            start, size = place, 0
        size += len(event) + 1
    if events:
        split.append((first_seq + start, first_seq + len(events) - 1, b"\n".join(events[start:])))
    return split
