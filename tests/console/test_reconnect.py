"""The connection breaks, the laptop sleeps, the server goes: the page comes back by itself and shows the same."""

import re
from collections.abc import AsyncIterator
from itertools import islice
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from tests.console.watching import PATIENCE_MS, Watched, ended, looking, start, watched
from tests.scenarios.world import World
from tests.testkit.chromium import inaccessible, shot
from tests.testkit.fault_proxy import FaultProxy, cuts

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

NOT_EMPTY = """
window.flashes = 0;
window.watchFlashes = () => {
  const look = () => {
    if (document.querySelectorAll('article').length === 0) window.flashes += 1;
    requestAnimationFrame(look);
  };
  look();
};
"""
"""Counts the frames in which the timeline was empty."""


@pytest_asyncio.fixture(loop_scope="module")
async def desk() -> AsyncIterator[Watched]:
    async with watched() as desk:
        yield desk


def _port(desk: Watched) -> int:
    port = urlsplit(desk.url).port
    assert port is not None
    return port


async def _connection(page: Page, state: str) -> None:
    await expect(page.locator(".connection")).to_have_attribute("data-status", state, timeout=PATIENCE_MS)


async def _entries(page: Page) -> list[str]:
    """The texts of all entries, without times and durations."""
    texts = await page.get_by_role("article").all_text_contents()
    return [re.sub(r"\d+:\d+:\d+.?(?:AM|PM)?|[\d.]+ m?s\b", "", text).strip() for text in texts]


async def test_cut_off_and_back_the_page_goes_on_without_a_flash(browser: Browser, desk: Watched) -> None:
    async with FaultProxy(_port(desk)) as proxy:
        run_id = await start(desk, "wait")
        url = f"http://127.0.0.1:{proxy.port}"
        async with looking(browser, url, run_id, network=False, script=NOT_EMPTY) as page:
            await expect(page.get_by_role("article").filter(has_text="Before the wait.")).to_be_visible()
            await page.evaluate("window.watchFlashes()")
            await proxy.refuse()
            proxy.cut()
            await _connection(page, "reconnecting")
            await expect(page.get_by_role("button", name="Reconnect now")).to_be_visible()
            await shot(page, "reconnecting")
            assert await inaccessible(page) == []
            # What it had is still there, and what happens meanwhile comes when it is back.
            await expect(page.get_by_role("article").filter(has_text="Before the wait.")).to_be_visible()
            desk.stage.go.set()
            await ended(desk, run_id)
            await proxy.accept()
            # Where it has not come back by itself in this very moment.
            await page.evaluate("document.querySelector('.connection button')?.click()")
            await _connection(page, "ready")
            await expect(page.get_by_role("article").filter(has_text="After the wait.")).to_be_visible()
            assert await page.evaluate("window.flashes") == 0


async def test_after_a_sleep_it_catches_up_without_a_reload(browser: Browser, desk: Watched) -> None:
    async with FaultProxy(_port(desk)) as proxy:
        run_id = await start(desk, "wait")
        url = f"http://127.0.0.1:{proxy.port}"
        async with looking(browser, url, run_id, network=False, script=NOT_EMPTY) as page:
            await expect(page.get_by_role("article").filter(has_text="Before the wait.")).to_be_visible()
            await page.evaluate("window.watchFlashes()")
            session = await page.context.new_cdp_session(page)
            await session.send("Page.enable")
            await session.send("Page.setWebLifecycleState", {"state": "frozen"})
            proxy.cut("hang")
            desk.stage.go.set()
            await ended(desk, run_id)
            await session.send("Page.setWebLifecycleState", {"state": "active"})
            await expect(page.get_by_role("article").filter(has_text="After the wait.")).to_be_visible(
                timeout=PATIENCE_MS
            )
            await _connection(page, "ready")
            assert await page.evaluate("window.flashes") == 0


async def test_a_server_killed_and_restarted_in_the_middle_of_a_run(browser: Browser, tmp_path: Path) -> None:
    words = {"text": "First I look. ", "by": "word", "delay_s": 0.02}
    long = {"text": "Then I write it down, word for word. " * 8 + "That is all.", "by": "word", "delay_s": 0.02}
    world = World(tmp_path, [{"steps": [words, long]}])
    await world.up()
    try:
        async with looking(browser, f"http://127.0.0.1:{world.port}", network=False, script=NOT_EMPTY) as page:
            await page.get_by_label("What should the agent do?").fill("Look and write")
            await page.get_by_role("button", name="Start", exact=True).click()
            await expect(page.get_by_role("article").filter(has_text="Then I write")).to_be_visible()
            await page.evaluate("window.watchFlashes()")
            await world.kill()
            await _connection(page, "reconnecting")
            await shot(page, "server-gone")
            await world.up()
            await _connection(page, "ready")
            await expect(page.get_by_role("article").filter(has_text="That is all.")).to_be_visible(timeout=PATIENCE_MS)
            await expect(page.get_by_role("article").filter(has_text="Completed")).to_be_visible(timeout=PATIENCE_MS)
            assert await page.evaluate("window.flashes") == 0
            await shot(page, "server-back")
    finally:
        await world.kill()


async def test_a_browser_without_network_says_so_and_comes_back(browser: Browser, desk: Watched) -> None:
    async with FaultProxy(_port(desk)) as proxy:
        run_id = await start(desk, "wait")
        async with looking(browser, f"http://127.0.0.1:{proxy.port}", run_id, network=False) as page:
            await expect(page.get_by_role("article").filter(has_text="Before the wait.")).to_be_visible()
            await page.context.set_offline(True)
            proxy.cut()
            await _connection(page, "offline")
            await shot(page, "offline")
            desk.stage.go.set()
            await page.context.set_offline(False)
            await _connection(page, "ready")
            await expect(page.get_by_role("article").filter(has_text="After the wait.")).to_be_visible()


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_any_cuts_give_the_same_page(browser: Browser, desk: Watched, seed: int) -> None:
    tall = {"viewport": {"width": 1280, "height": 6000}}
    async with FaultProxy(_port(desk)) as proxy:
        desk.stage.go.set()
        run_id = await start(desk, "stream")
        async with looking(browser, f"http://127.0.0.1:{proxy.port}", network=False, **tall) as page:
            await _connection(page, "ready")
            proxy.plan(islice(cuts(seed=seed, least=2_000, most=20_000), 6))
            proxy.cut()
            await page.evaluate("id => { location.hash = '#/runs/' + id }", run_id)
            await expect(page.get_by_role("article").filter(has_text="Completed")).to_be_visible()
            broken = await _entries(page)
        async with looking(browser, desk.url, run_id, **tall) as page:
            await expect(page.get_by_role("article").filter(has_text="Completed")).to_be_visible()
            assert broken == await _entries(page)


async def test_where_websockets_are_blocked_it_goes_on_over_http(browser: Browser, desk: Watched) -> None:
    async with FaultProxy(_port(desk)) as proxy:
        proxy.block_websockets = True
        run_id = await start(desk, "wait")
        async with looking(browser, f"http://127.0.0.1:{proxy.port}", run_id, network=False) as page:
            await expect(page.locator(".connection")).to_contain_text("over HTTP", timeout=PATIENCE_MS)
            await expect(page.get_by_role("article").filter(has_text="Before the wait.")).to_be_visible()
            desk.stage.go.set()
            await expect(page.get_by_role("article").filter(has_text="After the wait.")).to_be_visible()
