"""One process per SQLite file: an exclusive lock on `<path>.lock`, which the kernel drops when its holder dies.

SQLite itself would let a second process in, and then two servers would both believe to be the one writer.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from midstream.log.contract import StoreInUse

# Enough for any pid and a newline; what else stands in the file is not ours.
_PID_BYTES = 32


@contextmanager
def hold(path: Path) -> Iterator[None]:
    """Hold the store at `path` for this process.

    Raises:
        StoreInUse: another one holds it (or this process, a second time).
        OSError: the lock file cannot be made.
    """
    # Never unlinked: a process that had the old file open would then hold a lock that nobody else can see.
    descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreInUse(_who(path, os.read(descriptor, _PID_BYTES))) from None
        _write(descriptor, f"{os.getpid()}\n".encode())
        yield
        _write(descriptor, b"")
    finally:
        os.close(descriptor)


def _write(descriptor: int, text: bytes) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, text, 0)


def _who(path: Path, text: bytes) -> str:
    # Empty for the instant between its lock and its writing.
    process = f"process {text.decode().strip()}" if text.strip().isdigit() else "another process"
    return (
        f"{path} is in use by {process}: one file serves one server. "
        "Stop that one, or give this server a file of its own."
    )
