"""What the SQLite writer does inside one transaction, for many callers at once.

Each operation first decides on the `Standing` kept in memory (the writer is the only one who writes, so that copy is
the truth), and only then notes what is to be written. So an operation that is refused has written nothing, and the
ones beside it in the same transaction are not touched. What was noted is written together by `flush`.
"""

import sqlite3
from typing import Final

from midstream.log import sqlite_rows as rows
from midstream.log import standing as rules
from midstream.log.contract import Batch, Created, Lease, NoSuchRun, Record
from midstream.log.sqlite_schema import new_epoch

# One row of events holds at most this much, unless it is one event: a reader of a page does not load a 10 MB batch.
EVENT_ROW_BYTES: Final = 256 << 10


class Kept:
    """A run's standing in the writer's memory; `changed` since the row was written."""

    def __init__(self, id: int, standing: rules.Standing) -> None:  # noqa: A002
        self.id = id
        self.standing = standing
        self.changed = False


class Transaction:
    """One open transaction. `runs` outlives it, and must be thrown away when it is rolled back."""

    def __init__(self, connection: sqlite3.Connection, runs: dict[str, Kept]) -> None:
        self.connection = connection
        self._runs = runs
        self._changed: list[Kept] = []
        self._events: list[tuple[int, int, int, bytes]] = []
        self._journal: list[tuple[int, str, str, bytes]] = []
        self._receipts: list[tuple[int, str, str, bytes]] = []

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
        id_ = self.connection.execute(rows.INSERT_RUN, rows.run_values(standing)).lastrowid
        assert id_ is not None
        self._runs[run] = kept = Kept(id_, standing)
        self._keep(kept, batch, first_seq=1)
        return created

    def append(self, run: str, *, fence: int, prev_seq: int, batch: Batch) -> int:
        if (kept := self._find(run)) is None:
            raise NoSuchRun(run)
        standing = rules.advance(kept.standing, fence=fence, prev_seq=prev_seq, batch=batch)
        if standing is not None:
            consumed = standing.header.mailbox > kept.standing.header.mailbox
            self._change(kept, standing)
            self._keep(kept, batch, first_seq=prev_seq + 1)
            if consumed:
                self.connection.execute(rows.DELETE_CONSUMED, (kept.id, standing.header.mailbox))
        return kept.standing.header.head_seq

    def delete(self, run: str) -> bool:
        if (kept := self._find(run)) is None:
            return False
        self.flush()
        for statement in rows.DELETE_RUN:
            self.connection.execute(statement, (kept.id,))
        del self._runs[run]
        return True

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
        owned = "SELECT run FROM runs WHERE owner IS NOT NULL OR status = 'running'"
        for (run,) in self.connection.execute(owned).fetchall():
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
        known = rows.record(self.connection, kind, id)
        version = rules.next_version(kind, id, at=0 if known is None else known.version, expect=expect_version)
        self.connection.execute(rows.PUT_RECORD, (kind, id, version, data))
        return Record(id=id, version=version, data=data)

    def remove(self, kind: str, id: str, *, expect_version: int | None) -> bool:  # noqa: A002
        if (known := rows.record(self.connection, kind, id)) is None:
            return False
        rules.check_removal(known, kind=kind, expect=expect_version)
        self.connection.execute(rows.DELETE_RECORD, (kind, id))
        return True

    def flush(self) -> None:
        """Write what was noted."""
        connection = self.connection
        if self._changed:
            changes = [(kept.id, *rows.run_changes(kept.standing)) for kept in self._changed]
            rows.write_many(connection, rows.UPDATE_RUNS, changes)
        rows.write_many(connection, rows.INSERT_EVENTS, self._events)
        rows.write_many(connection, rows.INSERT_JOURNAL, self._journal)
        rows.write_many(connection, rows.INSERT_RECEIPTS, self._receipts)
        for kept in self._changed:
            kept.changed = False
        self._changed, self._events, self._journal, self._receipts = [], [], [], []

    def _find(self, run: str) -> Kept | None:
        kept = self._runs.get(run)
        if kept is None and (row := self.connection.execute(rows.SELECT_RUN, (run,)).fetchone()) is not None:
            self._runs[run] = kept = Kept(row[0], rows.standing(row))
        return kept

    def _change(self, kept: Kept, standing: rules.Standing) -> None:
        kept.standing = standing
        if not kept.changed:
            kept.changed = True
            self._changed.append(kept)

    def _keep(self, kept: Kept, batch: Batch, *, first_seq: int) -> None:
        self._events += [(kept.id, *row) for row in event_rows(first_seq, batch.events)]
        self._journal += [(kept.id, record.kind, record.key, record.data) for record in batch.journal]
        self._receipts += [(kept.id, answer.command_id, answer.fingerprint, answer.data) for answer in batch.receipts]
        if batch.snapshot is not None:
            self.connection.execute(rows.PUT_SNAPSHOT, (kept.id, kept.standing.header.head_seq, batch.snapshot))


def event_rows(first_seq: int, events: tuple[bytes, ...]) -> list[tuple[int, int, bytes]]:
    """A batch's events as (first seq, last seq, lines), as few rows as `EVENT_ROW_BYTES` allows."""
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
