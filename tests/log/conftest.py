"""The stores that the contract suite runs over, and a clock that stands still."""

import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from msgspec.structs import replace

from midstream.clock import SystemClock
from midstream.log import MemoryStore, SqliteStore, Store

START_MS = 1_000_000


class StillClock(SystemClock):
    """Time goes on when a test says so."""

    def __init__(self) -> None:
        self.ms = START_MS

    def now_ms(self) -> int:
        return self.ms


class Shelf:
    """A store under test, what restarts it, and what forgets old events (which no call of the contract does yet)."""

    def __init__(self, make: Callable[[], Store], trim: Callable[[Store, str, int], None]) -> None:
        self._make = make
        self._trim = trim
        self.store = make()

    async def restart(self) -> Store:
        await self.store.aclose()
        self.store = self._make()
        await self.store.open()
        return self.store

    async def trim(self, run: str, first_seq: int) -> Store:
        await self.store.aclose()
        self._trim(self.store, run, first_seq)
        self.store = self._make()
        await self.store.open()
        return self.store


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a SQLite store's file is to be."""
    return tmp_path / "log.db"


@pytest_asyncio.fixture(params=["memory", "sqlite", "sqlite-full"])
async def shelf(request: pytest.FixtureRequest, tmp_path: Path, clock: StillClock) -> AsyncIterator[Shelf]:
    path = tmp_path / "log.db"
    if request.param == "memory":
        memory = MemoryStore(clock=clock)
        made = Shelf(lambda: memory, _trim_memory)
    elif request.param == "sqlite":
        made = Shelf(lambda: SqliteStore(path, clock=clock), _trim_sqlite(path))
    else:
        made = Shelf(lambda: SqliteStore(path, synchronous="FULL", clock=clock), _trim_sqlite(path))
    await made.store.open()
    yield made
    await made.store.aclose()


@pytest.fixture
def store(shelf: Shelf) -> Store:
    return shelf.store


def _trim_memory(store: Store, run: str, first_seq: int) -> None:
    assert isinstance(store, MemoryStore)
    kept = store._runs.by_key[run]
    del kept.events[: first_seq - kept.standing.header.first_seq]
    kept.standing = replace(kept.standing, header=replace(kept.standing.header, first_seq=first_seq))


def _trim_sqlite(path: Path) -> Callable[[Store, str, int], None]:
    def trim(_: Store, run: str, first_seq: int) -> None:
        connection = sqlite3.connect(path)
        connection.execute("UPDATE runs SET first_seq = ? WHERE run = ?", (first_seq, run))
        connection.execute("DELETE FROM events WHERE last_seq < ?", (first_seq,))
        connection.commit()
        connection.close()

    return trim
