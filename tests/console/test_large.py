"""Runs of ten thousand events."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from tests.console.watching import MEASURED, PATIENCE_MS, Watched, looking, start, watched
from tests.testkit.chromium import shot

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

STEPS = 3_400
"""Of three events each."""

LONGEST_MS = 200
"""The longest task that nobody takes for a page that hangs."""

SCROLLED = """
async () => {
  const box = document.querySelector(".timeline-scroll");
  const frames = [];
  let last = performance.now();
  const frame = () => new Promise(requestAnimationFrame);
  for (let at = 0; at < 120; at++) {
    box.scrollTop = at < 60 ? box.scrollHeight * (1 - at / 60) : box.scrollTop + 400;
    await frame();
    const now = performance.now();
    frames.push(now - last);
    last = now;
  }
  return Math.max(...frames);
}
"""


@pytest_asyncio.fixture(loop_scope="module")
async def desk() -> AsyncIterator[Watched]:
    async with watched() as desk:
        yield desk


async def test_ten_thousand_events_scroll_and_grow_smoothly(browser: Browser, desk: Watched) -> None:
    run_id = await start(desk, f"many {STEPS}")
    async with looking(browser, desk.url) as page:
        await expect(page.get_by_role("link").filter(has_text="All are there")).to_be_visible(timeout=60_000)
    async with looking(browser, desk.url, run_id, script=MEASURED) as page:
        last = page.get_by_role("article").filter(has_text=f"file-{STEPS - 1}.txt")
        await expect(last).to_be_visible(timeout=PATIENCE_MS)
        assert await page.get_by_role("article").count() < 100
        loaded = await page.evaluate("window.longest")
        # A busy machine makes any task long now and then: the best of a few times is the page's own.
        scrolled = float("inf")
        for _ in range(4):
            await page.evaluate("window.longest = 0")
            await page.evaluate(SCROLLED)
            scrolled = min(scrolled, await page.evaluate("window.longest"))
            if scrolled < LONGEST_MS:
                break
        await shot(page, "large")
        await page.get_by_role("button", name="Input").click()
        await expect(page.locator("article:focus")).to_contain_text("many")
        # The end is live, whatever the length.
        await page.locator(".to-end").click()
        await page.evaluate("window.longest = 0")
        desk.stage.go.set()
        await expect(page.get_by_role("article").filter(has_text="All files are read.")).to_be_visible()
        grown = await page.evaluate("window.longest")
        await page.get_by_role("button", name="Events").click()
        drawer = page.get_by_role("dialog", name="Raw events")
        await page.evaluate("window.longest = 0")
        await drawer.get_by_label("Text in an event").fill(f"file-{STEPS - 3}.txt")
        await expect(drawer.get_by_role("status")).to_contain_text("of 10,")
        filtered = await page.evaluate("window.longest")
        assert scrolled < LONGEST_MS
        assert grown < 2 * LONGEST_MS
        assert loaded < 5 * LONGEST_MS
        assert filtered < 2 * LONGEST_MS
