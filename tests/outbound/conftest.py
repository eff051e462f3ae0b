from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import structlog

from midstream.log import MemoryStore, SqliteStore, Store
from midstream.testing import ManualClock
from tests.outbound.rig import Rig


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as entries:
        yield entries


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest_asyncio.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> AsyncIterator[Store]:
    made: Store = (
        MemoryStore(clock=clock) if request.param == "memory" else SqliteStore(tmp_path / "log.db", clock=clock)
    )
    await made.open()
    yield made
    await made.aclose()


@pytest_asyncio.fixture
async def rig(store: Store, clock: ManualClock) -> Any:
    """Webhooks on the store: `await rig(urls=(place,))`. Made again it is the next server, on the same store."""
    made: list[Rig] = []

    async def make(*, opened: bool = True, **options: Any) -> Rig:
        made.append(Rig(store, clock, **options))
        return await made[-1].open() if opened else made[-1]

    yield make
    for each in made:
        await each.webhooks.aclose()
