"""The console on a phone: nothing wider than the screen, everything reachable by thumb."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from tests.console import deciding
from tests.console.watching import Watched, ended, looking, start, watched
from tests.testkit.chromium import inaccessible, shot

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}


@pytest_asyncio.fixture(loop_scope="module")
async def desk() -> AsyncIterator[Watched]:
    async with watched() as desk:
        yield desk


async def _fits(page: Page) -> None:
    wider = await page.evaluate(
        "[...document.querySelectorAll('main *')].filter(each => each.getBoundingClientRect().right > innerWidth + 1"
        " && !each.closest('.table-scroll, .plain-text, .diff-lines, .nav')).map(each => each.outerHTML.slice(0, 200))"
    )
    assert wider == []
    assert await page.evaluate("document.documentElement.scrollWidth") <= 360


async def test_a_run_is_started_and_read_on_a_phone(browser: Browser, desk: Watched) -> None:
    async with looking(browser, desk.url, **PHONE) as page:
        await expect(page.get_by_label("Agent", exact=True)).to_be_visible()
        await _fits(page)
        await shot(page, "phone-runs")
        await page.get_by_label("What should the agent do?").fill("story")
        await page.get_by_role("button", name="Start", exact=True).tap()
        await expect(page.get_by_role("article").filter(has_text="Completed")).to_be_visible()
        await _fits(page)
        await shot(page, "phone-run")
        assert await inaccessible(page) == []
        await page.get_by_role("button", name="Jump to").tap()
        await shot(page, "phone-places")
        await page.get_by_role("navigation", name="Jump to").get_by_role("button", name="Input").tap()
        await expect(page.locator("article:focus")).to_contain_text("story")
        await page.get_by_role("button", name="Events").tap()
        await expect(page.get_by_role("dialog", name="Raw events")).to_be_visible()
        await _fits(page)


async def test_what_steers_a_run_leaves_the_screen_to_the_run(browser: Browser) -> None:
    share = "document.querySelector('.steering').getBoundingClientRect().height / innerHeight"
    async with deciding.deciding() as desk:
        run_id = await deciding.start(desk, "Look around", agent="writer")
        async with looking(browser, desk.url, run_id, **PHONE) as page:
            box = page.get_by_label("Tell the agent something")
            send = page.get_by_role("button", name="Send correction")
            await expect(page.get_by_text("1 call is running")).to_be_visible()
            await expect(send).to_be_hidden()
            assert await page.evaluate(share) < 0.25
            await shot(page, "phone-steering")
            await box.tap()
            await expect(send).to_be_visible()
            await _fits(page)
            await box.fill("Look elsewhere")
            # What is written is not put out of sight, wherever the focus goes.
            await page.locator(".run-head h1").tap()
            await expect(send).to_be_visible()
            await send.tap()
            await expect(page.get_by_text("Not read yet")).to_be_visible()
            await expect(send).to_be_hidden()
            assert await inaccessible(page) == []
            desk.ledger.go.set()


async def test_hostile_and_wide_text_fits_a_phone(browser: Browser, desk: Watched) -> None:
    run_id = await start(desk, "huge 5000")
    hostile = await start(desk, "hostile")
    await ended(desk, run_id)
    await ended(desk, hostile)
    async with looking(browser, desk.url, run_id, **PHONE) as page:
        await expect(page.get_by_role("article").filter(has_text="Still here.")).to_be_visible()
        await _fits(page)
        await page.goto(f"{desk.url}/#/runs/{hostile}")
        await expect(page.get_by_role("article").filter(has_text="Completed")).to_be_visible()
        await _fits(page)
