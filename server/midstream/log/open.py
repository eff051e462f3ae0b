"""From a store's address to the store."""

from typing import Final
from urllib.parse import unquote

from midstream.clock import Clock
from midstream.log.contract import Store
from midstream.log.memory import MemoryStore
from midstream.log.sqlite import SqliteStore

_FORMS: Final = "memory:  |  sqlite:///relative/path.db  |  sqlite:////absolute/path.db"


def open_store(url: str, *, clock: Clock | None = None) -> Store:
    """The store that `url` names, not opened yet.

    `sqlite:///` is followed by the path as it is, so an absolute one makes four slashes. `?synchronous=full` makes
    what is acknowledged survive a power failure too.

    Raises:
        ValueError: it names none; the text says which forms there are.
    """
    if url == "memory:":
        return MemoryStore(clock=clock)
    if url.startswith("sqlite:///"):
        path, _, query = url.removeprefix("sqlite:///").partition("?")
        if path.strip("/") and query.lower() in {"", "synchronous=normal"}:
            return SqliteStore(unquote(path), clock=clock)
        if path.strip("/") and query.lower() == "synchronous=full":
            return SqliteStore(unquote(path), synchronous="FULL", clock=clock)
    if url.startswith(("redis:", "rediss:", "unix:")):
        raise ValueError(f"the Redis store is not available in this version; a store is one of: {_FORMS}")
    raise ValueError(f"{url!r} names no store; it is one of: {_FORMS}")
