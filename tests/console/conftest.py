from collections.abc import AsyncIterator

import pytest_asyncio
from playwright.async_api import Browser

from tests.console.deciding import Desk, deciding
from tests.testkit.chromium import chromium


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="module")
async def desk() -> AsyncIterator[Desk]:
    async with deciding() as desk:
        yield desk
