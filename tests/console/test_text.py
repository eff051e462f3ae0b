"""Text of a model and a tool that tries to be more than text."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from tests.console.watching import HOSTILE, MEASURED, Watched, ended, looking, start, watched
from tests.testkit.chromium import shot

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]


@pytest_asyncio.fixture(loop_scope="module")
async def desk() -> AsyncIterator[Watched]:
    async with watched(max_input_bytes=4_000_000) as desk:
        yield desk


async def test_hostile_text_is_only_ever_shown(browser: Browser, desk: Watched) -> None:
    run_id = await start(desk, "hostile")
    asked = await start(desk, HOSTILE)
    await ended(desk, run_id)
    # Requests elsewhere, refusals of the policy and errors make `looking` fail.
    async with looking(browser, desk.url, run_id) as page:
        await expect(page.get_by_role("article").filter(has_text="<script>").first).to_be_visible()
        await shot(page, "hostile")
        assert await page.evaluate("window.owned") is None
        assert await page.locator("article :is(script, img, svg[onload], style, iframe, b)").count() == 0
        assert await page.locator('a[href^="javascript"]').count() == 0
        text = await page.locator("#app").inner_text()
        assert not set(text) & set("\u202e\u202c\x1b\x00\u200b")
        assert "[U+202E]" in text
        await page.goto(f"{desk.url}/#/runs/{asked}")
        await expect(page.get_by_role("heading", level=1)).to_contain_text("<script>")
        await page.goto(f"{desk.url}/#/")
        await expect(page.get_by_role("link", name="<script>").first).to_be_visible()
        await page.get_by_label("Search runs").fill("<script>")
        assert await page.evaluate("window.owned") is None


async def test_a_line_of_megabytes_does_not_hold_the_page_up(browser: Browser, desk: Watched) -> None:
    run_id = await start(desk, "huge 3000000")
    await ended(desk, run_id)
    async with looking(browser, desk.url, run_id, script=MEASURED) as page:
        await expect(page.get_by_role("article").filter(has_text="Still here.")).to_be_visible()
        await expect(page.get_by_text("2,980,000 more characters")).to_be_attached()
        await page.get_by_role("button", name="Show more").click()
        await expect(page.get_by_text("2,960,000 more characters")).to_be_attached()
        assert await page.evaluate("window.longest") < 1_000
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
