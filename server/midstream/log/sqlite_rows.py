"""The statements of the SQLite store, and its rows as the contract's structs. Reads run on a reader's connection."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cache
from itertools import chain
from typing import Any, Final, TypeVar

from midstream.log import standing as rules
from midstream.log.contract import (
    Header,
    Inbound,
    JournalRecord,
    Loaded,
    LogUnavailable,
    Page,
    Record,
    Reset,
    Snapshot,
    StoredReceipt,
)

T = TypeVar("T")

# Most rows that one statement writes; its parameters stay far below SQLite's limit of 32766.
_ROWS_AT_ONCE: Final = 64
# Up to this many every number of rows has a statement of its own, above it every multiple: few shapes to prepare.
_ROWS_STEP: Final = 8

# The columns of `run_changes` stand in one order in the three statements that name them. The newest row of events is
# where the run stands if it was written without the run's own row.
_SELECT_RUNS: Final = """SELECT r.id, r.run, r.fingerprint, r.epoch, r.first_seq, r.fence, r.head_seq, r.status,
    r.mailbox, r.wake_at, r.batch_id, r.submitted, r.owner, r.leased_at, r.lease_until, e.last_seq, e.batch_id
    FROM runs r LEFT JOIN events e ON e.run = r.id AND e.last_seq > r.head_seq
    AND e.last_seq = (SELECT max(last_seq) FROM events WHERE run = r.id) WHERE r.run IN ({rows})"""
INSERT_RUNS: Final = """INSERT INTO runs (id, run, fingerprint, epoch, first_seq, fence, head_seq, status, mailbox,
    wake_at, batch_id, submitted, owner, leased_at, lease_until, due_at) VALUES {rows}"""
# An id is not used again while rows of the run that had it are still to be erased.
SELECT_NEXT_ID: Final = """SELECT 1 + max(coalesce((SELECT max(id) FROM runs), 0),
    coalesce((SELECT max(run) FROM erasing), 0))"""
UPDATE_RUNS: Final = """WITH new (id, fence, head_seq, status, mailbox, wake_at, batch_id, submitted, owner, leased_at,
    lease_until, due_at) AS (VALUES {rows})
    UPDATE runs SET (fence, head_seq, status, mailbox, wake_at, batch_id, submitted, owner, leased_at, lease_until,
    due_at) = (new.fence, new.head_seq, new.status, new.mailbox, new.wake_at, new.batch_id, new.submitted, new.owner,
    new.leased_at, new.lease_until, new.due_at) FROM new WHERE runs.id = new.id"""
# The condition of the index `runs_open` stands here word for word, or it would not be used.
_OPEN: Final = "(owner IS NOT NULL OR due_at IS NOT NULL)"
SELECT_OWNED: Final = f"SELECT run FROM runs WHERE {_OPEN} AND (owner IS NOT NULL OR status = 'running')"  # noqa: S608
SELECT_DUE: Final = f"""SELECT run FROM runs WHERE {_OPEN} AND due_at <= ? AND (owner IS NULL OR lease_until <= ?)
    ORDER BY due_at, id LIMIT 1"""  # noqa: S608
_SELECT_EVENTS: Final = "SELECT first_seq, last_seq, data FROM events WHERE run = ? AND last_seq > ? ORDER BY last_seq"
INSERT_EVENTS: Final = "INSERT INTO events (run, first_seq, last_seq, data, batch_id) VALUES {rows}"
INSERT_JOURNAL: Final = "INSERT INTO journal (run, kind, key, data) VALUES {rows}"
INSERT_RECEIPTS: Final = "INSERT INTO receipts (run, command_id, fingerprint, data) VALUES {rows}"
PUT_SNAPSHOT: Final = "INSERT OR REPLACE INTO snapshots (run, seq, data) VALUES (?, ?, ?)"
INSERT_INBOX: Final = "INSERT INTO inbox (run, position, data) VALUES (?, ?, ?)"
DELETE_CONSUMED: Final = "DELETE FROM inbox WHERE run = ? AND position <= ?"
DELETE_RUN: Final = "DELETE FROM runs WHERE id = ?"
MOVE_FIRST: Final = "UPDATE runs SET first_seq = ? WHERE id = ?"
PUT_RECORDS: Final = """INSERT INTO records (kind, id, version, data) VALUES {rows}
    ON CONFLICT (kind, id) DO UPDATE SET version = excluded.version, data = excluded.data"""
PUT_RECORD: Final = PUT_RECORDS.format(rows="(?, ?, ?, ?)")
# A cross join, for SQLite does not turn it round: it looks each key up. `(kind, id) IN (VALUES …)` would read them all.
_FIND_RECORDS: Final = """WITH wanted (kind, id) AS (VALUES {rows})
    SELECT r.kind, r.id, r.version, r.data FROM wanted w CROSS JOIN records r ON r.kind = w.kind AND r.id = w.id"""
# By (descending, from an id on): an `OR` over both would read the whole kind for every page.
_RECORDS: Final = {
    (False, False): "SELECT id, version, data FROM records WHERE kind = :kind ORDER BY id LIMIT :limit",
    (False, True): "SELECT id, version, data FROM records WHERE kind = :kind AND id > :after ORDER BY id LIMIT :limit",
    (True, False): "SELECT id, version, data FROM records WHERE kind = :kind ORDER BY id DESC LIMIT :limit",
    (True, True): """SELECT id, version, data FROM records WHERE kind = :kind AND id < :after
        ORDER BY id DESC LIMIT :limit""",
}
DELETE_RECORD: Final = "DELETE FROM records WHERE kind = ? AND id = ?"


def write_many(connection: sqlite3.Connection, statement: str, values: Sequence[tuple[object, ...]]) -> None:
    """Write rows by as few calls of SQLite as there can be.

    Each call lets go of the interpreter's lock and takes it again, and beside a busy event loop the taking lasts up to
    the switch interval (5 ms). Row by row (`executemany`) a commit of fifty runs took most of a second there.
    """
    start = 0
    while (left := len(values) - start) > 0:
        count = _at_once(left)
        part = values[start : start + count]
        connection.execute(_for_rows(statement, len(part[0]), count), tuple(chain.from_iterable(part)))
        start += count


def _at_once(left: int) -> int:
    return left if left < _ROWS_STEP else min(left - left % _ROWS_STEP, _ROWS_AT_ONCE)


@cache
def _for_values(statement: str, count: int) -> str:
    return statement.format(rows=", ".join("?" * count))


@cache
def _for_rows(statement: str, columns: int, count: int) -> str:
    row = f"({', '.join('?' * columns)})"
    return statement.format(rows=", ".join([row] * count))


def run_changes(standing: rules.Standing) -> tuple[object, ...]:
    """The values of the columns that change, in the order of `UPDATE_RUNS`."""
    header = standing.header
    return (
        header.fence,
        header.head_seq,
        header.status,
        header.mailbox,
        header.wake_at,
        standing.batch_id,
        standing.submitted,
        standing.owner,
        standing.leased_at,
        standing.lease_until,
        rules.due_at(standing),
    )


def run_values(id: int, standing: rules.Standing) -> tuple[object, ...]:  # noqa: A002 - the column's name
    """In the order of `INSERT_RUNS`."""
    header = standing.header
    return (id, header.run, standing.fingerprint, header.epoch, header.first_seq, *run_changes(standing))


def find_runs(connection: sqlite3.Connection, runs: Iterable[str]) -> Iterator[tuple[int, rules.Standing]]:
    """Those of `runs` that are there, by their numbers."""
    for names in _in_parts(list(runs)):
        for row in connection.execute(_for_values(_SELECT_RUNS, len(names)), tuple(names)):
            yield row[0], _standing(row)


def find_records(
    connection: sqlite3.Connection, keys: Iterable[tuple[str, str]]
) -> Iterator[tuple[tuple[str, str], Record]]:
    """Those of `keys` (kind and id) that are there."""
    for part in _in_parts(list(keys)):
        statement = _for_rows(_FIND_RECORDS, 2, len(part))
        for kind, *row in connection.execute(statement, tuple(chain.from_iterable(part))):
            yield (kind, row[0]), _record((row[0], row[1], row[2]))


def _in_parts(values: list[T]) -> Iterator[list[T]]:
    """As `write_many` cuts them."""
    start = 0
    while (left := len(values) - start) > 0:
        count = _at_once(left)
        yield values[start : start + count]
        start += count


def _standing(row: tuple[Any, ...]) -> rules.Standing:
    """A row of `_SELECT_RUNS`."""
    _, run, fingerprint, epoch, first_seq, fence, head_seq, status, mailbox, wake_at, *rest = row
    batch_id, submitted, owner, leased_at, lease_until, newest_seq, newest_batch = rest
    if newest_seq is not None:
        head_seq, batch_id = newest_seq, newest_batch
    return rules.Standing(
        header=Header(
            run=run,
            epoch=epoch,
            fence=fence,
            head_seq=head_seq,
            first_seq=first_seq,
            status=status,
            mailbox=mailbox,
            wake_at=wake_at,
        ),
        fingerprint=fingerprint,
        batch_id=batch_id,
        submitted=submitted,
        owner=owner,
        leased_at=leased_at,
        lease_until=lease_until,
    )


def loaded(connection: sqlite3.Connection, run: str) -> Loaded | None:
    with _one_moment(connection):
        if (found := next(find_runs(connection, (run,)), None)) is None:
            return None
        key, known = found[:1], found[1]
        snapshot = connection.execute("SELECT seq, data FROM snapshots WHERE run = ?", key).fetchone()
        return Loaded(
            header=known.header,
            fingerprint=known.fingerprint,
            journal=tuple(
                JournalRecord(kind=kind, key=name, data=data)
                for kind, name, data in connection.execute(
                    "SELECT kind, key, data FROM journal WHERE run = ? ORDER BY rowid", key
                )
            ),
            receipts=tuple(
                StoredReceipt(command_id=command_id, fingerprint=fingerprint, data=data)
                for command_id, fingerprint, data in connection.execute(
                    "SELECT command_id, fingerprint, data FROM receipts WHERE run = ? ORDER BY rowid", key
                )
            ),
            snapshot=None if snapshot is None else Snapshot(seq=snapshot[0], data=snapshot[1]),
        )


def page(
    connection: sqlite3.Connection, run: str, *, after: int, epoch: str | None, max_events: int, max_bytes: int
) -> Page | Reset:
    with _one_moment(connection):
        row = next(find_runs(connection, (run,)), None)
        header = None if row is None else row[1].header
        if (reset := rules.reset_for(header, after=after, epoch=epoch)) is not None:
            return reset
        assert row is not None
        assert header is not None
        with closing(connection.execute(_SELECT_EVENTS, (row[0], after))) as found:
            events = _take(found, header, after=after, max_events=max_events, max_bytes=max_bytes)
        return Page(first=after + 1, events=events, header=header)


def _take(
    found: Iterable[tuple[int, int, bytes]], header: Header, *, after: int, max_events: int, max_bytes: int
) -> tuple[bytes, ...]:
    """The page's events out of rows that are read one by one, none more than it takes."""
    events: list[bytes] = []
    size, seq = 0, after + 1
    last_seq = min(header.head_seq, after + max_events)
    rows = iter(found)
    while seq <= last_seq:
        first, last, data = next(rows, (0, 0, b""))
        lines = [data] if first == last else data.split(b"\n")
        if not first <= seq <= last or len(lines) != last - first + 1:
            raise LogUnavailable(f"{header.run}: event {seq} is missing in the file, which is damaged")
        if first < seq or last > last_seq:
            lines = lines[seq - first : last_seq - first + 1]
        part = sum(map(len, lines))
        if size + part > max_bytes:
            return (*events, *_fitting(lines, max_bytes - size, at_least=not events))
        events += lines
        size += part
        seq += len(lines)
    return tuple(events)


def _fitting(lines: Sequence[bytes], size: int, *, at_least: bool) -> Sequence[bytes]:
    """As many of them as `size` bytes hold; `at_least`: the first in any case."""
    count = 0
    for line in lines:
        size -= len(line)
        if size < 0 and not (at_least and count == 0):
            break
        count += 1
    return lines[:count]


def pending(connection: sqlite3.Connection, run: str, *, after: int) -> tuple[Inbound, ...]:
    found = connection.execute(
        """SELECT position, data FROM inbox WHERE run = (SELECT id FROM runs WHERE run = ?) AND position > ?
        ORDER BY position""",
        (run, after),
    )
    return tuple(Inbound(position=position, data=data) for position, data in found)


def record(connection: sqlite3.Connection, kind: str, id: str) -> Record | None:  # noqa: A002 - the contract's word
    found = connection.execute("SELECT id, version, data FROM records WHERE kind = ? AND id = ?", (kind, id)).fetchone()
    return None if found is None else _record(found)


def records(
    connection: sqlite3.Connection, kind: str, *, after: str | None, limit: int, descending: bool
) -> tuple[Record, ...]:
    statement = _RECORDS[descending, after is not None]
    found = connection.execute(statement, {"kind": kind, "after": after, "limit": limit})
    return tuple(_record(row) for row in found)


def _record(row: tuple[str, int, bytes]) -> Record:
    return Record(id=row[0], version=row[1], data=row[2])


@contextmanager
def _one_moment(connection: sqlite3.Connection) -> Iterator[None]:
    """Several statements on one state of the file."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
