from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import structlog

from midstream.log import MemoryStore, SqliteStore, Store
from midstream.testing import ManualClock
from tests.runs.house import Body, House

Open = Callable[..., Awaitable[House]]


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[Any]]:
    """What was logged. Drawing tracebacks for people takes longer than the tests do."""
    with structlog.testing.capture_logs() as entries:
        yield entries


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> Store:
    return MemoryStore(clock=clock) if request.param == "memory" else SqliteStore(tmp_path / "log.db", clock=clock)


@pytest_asyncio.fixture
async def house(store: Store, clock: ManualClock) -> Any:
    """Open a server with a program: `await house(body, limits=…)`."""
    opened: list[House] = []

    async def make(body: Body, **options: Any) -> House:
        opened.append(House(store, body, **{"clock": clock, **options}))
        return await opened[-1].open()

    yield make
    for each in opened:
        await each.aclose()
