from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest_asyncio

from tests.scenarios.world import World


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[Callable[[list[Any]], World]]:
    """A world of one's own; its server ends with the test."""
    made: list[World] = []

    def make(turns: list[Any]) -> World:
        made.append(World(tmp_path, turns))
        return made[-1]

    yield make
    for each in made:
        if each.process is not None and each.process.returncode is None:
            await each.kill()
