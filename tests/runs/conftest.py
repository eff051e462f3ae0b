from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from midstream.log import MemoryStore, SqliteStore, Store
from tests.runs.house import Body, House

Open = Callable[..., Awaitable[House]]


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "log.db")


@pytest_asyncio.fixture
async def house(store: Store) -> Any:
    """Open a server with a program: `await house(body, limits=…)`."""
    opened: list[House] = []

    async def make(body: Body, **options: Any) -> House:
        opened.append(House(store, body, **options))
        return await opened[-1].open()

    yield make
    for each in opened:
        await each.aclose()
