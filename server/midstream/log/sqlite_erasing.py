"""Erasing what a run leaves, in pieces: a run of a million events must not keep the other writers waiting.

What is left to be erased stands in the table `erasing`, so a stop in between leaves nothing behind for good. Nobody
can see it meanwhile: its run is gone, or begins behind it.
"""

import sqlite3
from typing import Final

# One transaction erases at most this much (and one row, however large): some milliseconds of the writer's time.
PIECE_ROWS: Final = 500
PIECE_BYTES: Final = 512 << 10
# At most this many pages (of 4 KiB) are given back at once.
SHRINK_PAGES: Final = 512

_TABLES: Final = (("journal", "rowid"), ("receipts", "rowid"), ("inbox", "position"), ("snapshots", "rowid"))


def cut_events(connection: sqlite3.Connection, run: int, first_seq: int) -> None:
    """Make event `first_seq` the first of its row."""
    found = connection.execute(
        "SELECT rowid, first_seq, data FROM events WHERE run = ? AND last_seq >= ? ORDER BY last_seq LIMIT 1",
        (run, first_seq),
    ).fetchone()
    if found is not None and found[1] < first_seq:
        kept = found[2].split(b"\n", first_seq - found[1])[-1]
        connection.execute("UPDATE events SET first_seq = ?, data = ? WHERE rowid = ?", (first_seq, kept, found[0]))


def erase(connection: sqlite3.Connection, run: int, *, below: int | None) -> bool:
    """Erase a piece of what run `run` left: its events below a seq, or None: everything. Whether something is left."""
    rows = _erase_rows(
        connection, "events", "last_seq", run, limit=PIECE_ROWS, below=(1 << 62) if below is None else below
    )
    for table, order in _TABLES if below is None else ():
        if rows is None:
            break
        rows = _erase_rows(connection, table, order, run, limit=rows)
    if rows is None:
        connection.execute("INSERT OR REPLACE INTO erasing (run, below) VALUES (?, ?)", (run, below))
        return True
    connection.execute("DELETE FROM erasing WHERE run = ?", (run,))
    return False


def erase_left(connection: sqlite3.Connection) -> bool:
    """Go on with what was begun. Whether something is left."""
    found = connection.execute("SELECT run, below FROM erasing LIMIT 1").fetchone()
    if found is None:
        return False
    erase(connection, found[0], below=found[1])
    return True


def shrink(connection: sqlite3.Connection) -> int:
    """Give free pages back to the file system: how many bytes. In a transaction of its own."""
    before = _pragma(connection, "page_count")
    # Not `execute`, which takes one step of a statement without columns, and a step is one page.
    connection.executescript(f"PRAGMA incremental_vacuum({SHRINK_PAGES})")
    return (before - _pragma(connection, "page_count")) * _pragma(connection, "page_size")


def _erase_rows(
    connection: sqlite3.Connection, table: str, order: str, run: int, *, limit: int, below: int | None = None
) -> int | None:
    """Erase up to `limit` rows; how many more there may be erased, or None: there are rows left."""
    which = "run = ?" if below is None else "run = ? AND last_seq < ?"
    key = (run,) if below is None else (run, below)
    lengths = connection.execute(
        f"SELECT length(data) FROM {table} WHERE {which} ORDER BY {order} LIMIT ?",  # noqa: S608 - names of ours
        (*key, limit + 1),
    ).fetchall()
    count = size = 0
    for (length,) in lengths[:limit]:
        size += length
        if count and size > PIECE_BYTES:
            break
        count += 1
    connection.execute(
        f"""DELETE FROM {table} WHERE rowid IN
            (SELECT rowid FROM {table} WHERE {which} ORDER BY {order} LIMIT ?)""",  # noqa: S608
        (*key, count),
    )
    return None if count < len(lengths) else limit - count


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value
