"""The SQLite file: its tables, its connections, and what is checked and set right when it is opened."""

import os
import secrets
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final, Literal

from midstream.log.contract import TERMINAL, LogUnavailable
from midstream.logs import Logger

Synchronous = Literal["NORMAL", "FULL"]

_log = Logger("midstream.log")

# Statements kept prepared by a connection: those of `write_many` for every number of rows, and some.
_STATEMENTS: Final = 512
# What `PRAGMA auto_vacuum` answers.
_INCREMENTAL: Final = 2

SCHEMA_VERSION: Final = 2
# The oldest that is brought up to date when it is opened.
OLDEST_SCHEMA: Final = 1
# STRICT tables came with 3.37, RETURNING before it.
OLDEST_SQLITE: Final = (3, 37)
# How long a statement waits for a foreign connection (a person with the sqlite3 shell, a backup) to let go.
BUSY_MS: Final = 5_000
# Of the file, read without a call for each page.
MAPPED_BYTES: Final = 1 << 30
# What the write-ahead log shrinks to after a burst.
JOURNAL_LIMIT_BYTES: Final = 16 << 20

# One row of `events` is the events first_seq..last_seq of one batch, joined by newlines. Journal, receipts, snapshots
# and inbox have tables of their own so that reading events never touches their pages, however large they are.
# `events.batch_id` is set where a batch moved nothing of its run but the head: then the row in `runs` is left as it is,
# which is most of the cost of a small batch, and the newest row of events says how far the run is.
# Integer keys and rowid tables: a text key repeated in every row halves the rate, and large payloads make the pages
# of a WITHOUT ROWID tree shallow.
_TABLES: Final = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE runs (
    id INTEGER PRIMARY KEY, run TEXT NOT NULL UNIQUE, fingerprint TEXT NOT NULL, epoch TEXT NOT NULL,
    fence INTEGER NOT NULL, head_seq INTEGER NOT NULL, first_seq INTEGER NOT NULL, status TEXT NOT NULL,
    mailbox INTEGER NOT NULL, wake_at INTEGER, batch_id TEXT NOT NULL, submitted INTEGER NOT NULL,
    owner TEXT, leased_at INTEGER NOT NULL, lease_until INTEGER, due_at INTEGER
) STRICT;
CREATE INDEX runs_open ON runs (due_at) WHERE owner IS NOT NULL OR due_at IS NOT NULL;
CREATE TABLE events (run INTEGER NOT NULL, first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL, data BLOB NOT NULL,
    batch_id TEXT) STRICT;
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
CREATE TABLE erasing (run INTEGER PRIMARY KEY, below INTEGER) STRICT;
"""
# What each version added to the one before it.
_CHANGES: Final = {
    2: (
        "CREATE TABLE erasing (run INTEGER PRIMARY KEY, below INTEGER) STRICT",
        "ALTER TABLE events ADD COLUMN batch_id TEXT",
        "DROP INDEX runs_due",
        "DROP INDEX runs_owned",
        "CREATE INDEX runs_open ON runs (due_at) WHERE owner IS NOT NULL OR due_at IS NOT NULL",
    )
}
# An older file up to this size is rewritten when it is opened, so that it can shrink from then on.
REWRITE_BYTES: Final = 256 << 20


def machine_boot() -> str | None:
    """What names this boot of the machine; None where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None


def make_file(path: Path) -> None:
    """Make the file and its folders for us alone, if they are not there. SQLite gives its own files the same mode.

    Raises:
        OSError: no folder, no right, no space.
    """
    for folder in reversed([folder for folder in path.parents if not folder.exists()]):
        folder.mkdir(mode=0o700, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))


def connect(path: Path) -> sqlite3.Connection:
    """A connection for one user at a time, whatever thread that is in; transactions are begun and ended by statements
    only.
    """
    connection = sqlite3.connect(
        path, timeout=BUSY_MS / 1000, isolation_level=None, check_same_thread=False, cached_statements=_STATEMENTS
    )
    connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
    return connection


def connect_reader(path: Path) -> sqlite3.Connection:
    connection = connect(path)
    connection.execute("PRAGMA query_only = ON")
    # The events of one run are spread over the pages of all that were written at the same time.
    connection.execute(f"PRAGMA mmap_size = {MAPPED_BYTES}")
    return connection


def connect_writer(path: Path, *, synchronous: Synchronous) -> sqlite3.Connection:
    connection = connect(path)
    # Only of an empty file: it decides how its pages are kept.
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    # The writer copies the write-ahead log back itself, where nobody waits for it.
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute(f"PRAGMA journal_size_limit = {JOURNAL_LIMIT_BYTES}")
    # An erased run is overwritten, not only unlinked.
    connection.execute("PRAGMA secure_delete = ON")
    return connection


def check(path: Path) -> None:
    """Look before anything is written: is this file ours, of this version, or empty?

    Raises:
        LogUnavailable: it is not, with what to do.
        sqlite3.Error: it is damaged or no SQLite file.
    """
    with closing(connect(path)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        found = connection.execute("SELECT value FROM meta WHERE name = 'schema'") if "meta" in tables else ()
        versions = [value for (value,) in found]
    if not tables:
        return
    if not versions or not str(versions[0]).isdigit():
        raise LogUnavailable(f"{path} is the SQLite file of another program; give the store a file of its own")
    version = int(versions[0])
    if version > SCHEMA_VERSION:
        raise LogUnavailable(
            f"{path} was written by a newer version of this program (schema {version}, this one knows "
            f"{SCHEMA_VERSION}): start that version, or give this one a file of its own"
        )
    if version < OLDEST_SCHEMA:
        raise LogUnavailable(
            f"{path} was written by an older version of this program (schema {version}, this one needs "
            f"{OLDEST_SCHEMA}): finish its runs with that version, then begin a new file"
        )


def prepare(connection: sqlite3.Connection, *, synchronous: Synchronous, boot: str | None) -> None:
    """Make the tables if there are none, and change the epochs whose history cannot be proven.

    With synchronous=NORMAL a commit survives the process but not the machine. So after an unclean stop and another
    boot the last acknowledged batches may be missing, and clients hold events that are not there: the identity of
    every unfinished history changes, and they start over.
    """
    # The note that this file is in use must not be lost with what is written under it, so it is synced.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("BEGIN IMMEDIATE")
    if not connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone():
        for statement in _TABLES.split(";"):
            connection.execute(statement)
        _note(connection, schema=str(SCHEMA_VERSION))
    meta: dict[str, str] = dict(connection.execute("SELECT name, value FROM meta"))
    for version in range(int(meta["schema"]) + 1, SCHEMA_VERSION + 1):
        for statement in _CHANGES[version]:
            connection.execute(statement)
        _note(connection, schema=str(version))
    same_boot = bool(boot) and meta.get("boot") == boot
    if meta.get("clean") == "0" and meta.get("synchronous") != "FULL" and not same_boot:
        unfinished = connection.execute("SELECT id FROM runs WHERE status NOT IN (?, ?, ?)", sorted(TERMINAL))
        changes = [(new_epoch(), key) for (key,) in unfinished.fetchall()]
        connection.executemany("UPDATE runs SET epoch = ? WHERE id = ?", changes)
    _note(connection, clean="0", boot=boot or "", synchronous=synchronous)
    connection.execute("COMMIT")
    _make_shrinkable(connection)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.execute(f"PRAGMA synchronous = {synchronous}")


def _make_shrinkable(connection: sqlite3.Connection) -> None:
    """Rewrite a file of a version that could not shrink; that takes as long as copying it, so only while it is small.
    Erased room in a larger one is used again, and the file does not grow by it; it only never gets shorter.
    """
    if _pragma(connection, "auto_vacuum") == _INCREMENTAL:
        return
    size = _pragma(connection, "page_count") * _pragma(connection, "page_size")
    if size > REWRITE_BYTES:
        _log.warning(
            "the log's file cannot shrink: it is of an older version. With the server stopped, run: "
            "sqlite3 FILE 'PRAGMA auto_vacuum = 2; VACUUM'",
            bytes=size,
        )
        return
    try:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("VACUUM")
    except sqlite3.Error as error:
        # No room for a second copy, say. Nothing was changed, and everything but shrinking works.
        _log.warning("the log's file cannot shrink yet: it could not be rewritten", exc_info=error)


def mark_clean(connection: sqlite3.Connection) -> None:
    """Note that everything written is in the file, and sync the note, and with it all that came before it."""
    connection.execute("PRAGMA synchronous = FULL")
    _note(connection, clean="1")


def new_epoch() -> str:
    return secrets.token_hex(8)


def _note(connection: sqlite3.Connection, **values: str) -> None:
    connection.executemany("INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)", list(values.items()))


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value
