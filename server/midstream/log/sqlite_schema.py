"""The SQLite file: its tables, its connections, and what is checked and set right when it is opened."""

import os
import secrets
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final, Literal

from midstream.log.contract import TERMINAL, LogUnavailable

Synchronous = Literal["NORMAL", "FULL"]

SCHEMA_VERSION: Final = 1
# STRICT tables came with 3.37, RETURNING before it.
OLDEST_SQLITE: Final = (3, 37)
# How long a statement waits for a foreign connection (a person with the sqlite3 shell, a backup) to let go.
BUSY_MS: Final = 5_000
# Only where a checkpoint in an idle moment never came: the writer itself then copies 4000 pages (16 MB) back.
AUTOCHECKPOINT_PAGES: Final = 4_000
# What the write-ahead log shrinks to after a burst.
JOURNAL_LIMIT_BYTES: Final = 64 << 20

# One row of `events` is the events first_seq..last_seq of one batch, joined by newlines. Journal, receipts, snapshots
# and inbox have tables of their own so that reading events never touches their pages, however large they are.
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
"""


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
    """A connection for the thread that calls; transactions are begun and ended by statements only."""
    connection = sqlite3.connect(path, timeout=BUSY_MS / 1000, isolation_level=None)
    connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
    return connection


def connect_reader(path: Path) -> sqlite3.Connection:
    connection = connect(path)
    connection.execute("PRAGMA query_only = ON")
    return connection


def connect_writer(path: Path, *, synchronous: Synchronous) -> sqlite3.Connection:
    connection = connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    connection.execute(f"PRAGMA wal_autocheckpoint = {AUTOCHECKPOINT_PAGES}")
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
    if version < SCHEMA_VERSION:
        raise LogUnavailable(
            f"{path} was written by an older version of this program (schema {version}, this one needs "
            f"{SCHEMA_VERSION}): finish its runs with that version, then begin a new file"
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
    same_boot = bool(boot) and meta.get("boot") == boot
    if meta.get("clean") == "0" and meta.get("synchronous") != "FULL" and not same_boot:
        unfinished = connection.execute("SELECT id FROM runs WHERE status NOT IN (?, ?, ?)", sorted(TERMINAL))
        changes = [(new_epoch(), key) for (key,) in unfinished.fetchall()]
        connection.executemany("UPDATE runs SET epoch = ? WHERE id = ?", changes)
    _note(connection, clean="0", boot=boot or "", synchronous=synchronous)
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.execute(f"PRAGMA synchronous = {synchronous}")


def mark_clean(connection: sqlite3.Connection) -> None:
    """Note that everything written is in the file, and sync the note, and with it all that came before it."""
    connection.execute("PRAGMA synchronous = FULL")
    _note(connection, clean="1")


def new_epoch() -> str:
    return secrets.token_hex(8)


def _note(connection: sqlite3.Connection, **values: str) -> None:
    connection.executemany("INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)", list(values.items()))
