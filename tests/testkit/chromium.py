"""A real, headless Chromium, driven by Playwright. A module shares one browser, and its loop:

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser():
    async with chromium() as browser:
        yield browser

@pytest_asyncio.fixture(loop_scope="module")
async def page(browser):
    async with open_page(browser) as page:  # in a context of its own: storage, cookies, permissions
        yield page
"""

import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, Request, async_playwright

from tests.testkit.programs import needed

ROOT: Final = Path(__file__).parents[2]

START_S: Final = 60.0
"""A busy machine starts a browser slowly."""

_OPTIONS: Final = (
    # As root, and in a container, there is no other way; the pages are ours.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--no-proxy-server",
)

_SERIOUS: Final = ("serious", "critical")

_HOUSEHOLD: Final = ("data", "blob", "about", "devtools")
"""Schemes that reach no network."""


@asynccontextmanager
async def chromium(*options: str) -> AsyncIterator[Browser]:
    """A browser of the system (Playwright brings none of its own here); `options` are more of its switches."""
    program = needed("chromium", "google-chrome", package="chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=program, args=[*_OPTIONS, *options], timeout=START_S * 1000
        )
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def open_page(browser: Browser, **options: Any) -> AsyncIterator[Page]:
    """One page in a context of its own; `options` are those of `Browser.new_context`. More tabs with the same storage:
    `await page.context.new_page()`.
    """
    context = await browser.new_context(**options)
    try:
        yield await context.new_page()
    finally:
        await context.close()


class Complaints:
    """What a page must never have, from when this is made: errors that nobody caught, errors on its console (refusals
    by the content security policy among them), and requests to another origin.

    `network` leaves out what the browser says of connections that failed: for tests that cut them.
    """

    def __init__(self, page: Page | BrowserContext, *, network: bool = True) -> None:
        self.all: list[str] = []
        self._network = network
        self._origins: set[str] = set()
        page.on("console", self._said)
        page.on("request", self._requested)
        if isinstance(page, Page):
            page.on("pageerror", lambda error: self.all.append(str(error)))
        else:
            page.on("weberror", lambda error: self.all.append(str(error.error)))

    def _said(self, message: ConsoleMessage) -> None:
        failed = re.search(r"Failed to load resource|WebSocket connection to|net::ERR_", message.text) is not None
        if message.type == "error" and (self._network or not failed):
            self.all.append(message.text)

    def _requested(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme in _HOUSEHOLD:
            return
        self._origins.add(parts.netloc)
        if len(self._origins) > 1:
            self.all.append(f"asked {request.url}, not only its own server")


async def shot(page: Page, name: str, **options: Any) -> Path:
    """A screenshot, kept under artefacts/ (MIDSTREAM_ARTEFACTS: elsewhere) to be looked at. `options`: `Page.screenshot`."""
    folder = Path(os.environ.get("MIDSTREAM_ARTEFACTS") or ROOT / "artefacts")
    path = folder / f"{name}.png"
    await page.screenshot(path=path, **options)
    return path


async def inaccessible(page: Page) -> list[str]:
    """What axe finds serious or critical in the page as it is now, a line for each element."""
    # Over the debugging protocol: as a script of the page its content security policy would refuse it.
    session = await page.context.new_cdp_session(page)
    try:
        await session.send("Runtime.evaluate", {"expression": _axe()})
        asked = {"expression": "axe.run(document, {resultTypes: ['violations']})"}
        answer = await session.send("Runtime.evaluate", {**asked, "awaitPromise": True, "returnByValue": True})
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
    finally:
        await session.detach()
    return [
        f"{found['id']}: {found['help']}: {node['html']} ({' '.join(map(str, node['target']))})"
        for found in answer["result"]["value"]["violations"]
        if found["impact"] in _SERIOUS
        for node in found["nodes"]
    ]


@cache
def _axe() -> str:
    path = ROOT / "clients" / "console" / "node_modules" / "axe-core" / "axe.min.js"
    if not path.exists():
        pytest.fail("axe-core is not installed: make console")
    return path.read_text()
