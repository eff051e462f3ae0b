"""A run's page: what happened, in its order, and how to find one's way in it."""

import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from tests.console.watching import Watched, ended, looking, start, watched
from tests.testkit.chromium import inaccessible, shot

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]


@pytest_asyncio.fixture(loop_scope="module")
async def desk() -> AsyncIterator[Watched]:
    async with watched() as desk:
        yield desk


async def test_everything_that_happened_stands_in_its_order(browser: Browser, desk: Watched) -> None:
    run_id = await start(desk, "story")
    await ended(desk, run_id)
    # Tall, so that the whole list is in the page.
    async with looking(browser, desk.url, run_id, viewport={"width": 1280, "height": 3000}) as page:
        entries = page.get_by_role("article")
        await expect(entries.filter(has_text="Completed")).to_be_visible()
        texts = await entries.all_text_contents()
        order = [
            "Read notes.txt",
            "Count to 12",
            "Fail at the bridge",
            "That did not work",
            "Plan 2030",
            "diff",
            "chart",
        ]
        at = [next(i for i, text in enumerate(texts) if part in text) for part in order]
        assert at == sorted(at)
        await expect(entries.filter(has_text="Completed")).to_contain_text('"cost": 31.17')
        await expect(page.get_by_role("link", name="Plan 2030")).to_have_attribute("rel", "noopener noreferrer")
        await expect(entries.filter(has_text="Fail at the bridge")).to_contain_text("Failed")
        await shot(page, "timeline-story")
        assert await inaccessible(page) == []


async def test_a_planned_run_shows_its_plan_its_stages_and_its_answer(browser: Browser, desk: Watched) -> None:
    async with looking(browser, desk.url) as page:
        await page.get_by_label("Agent", exact=True).select_option("desk")
        await page.get_by_label("What should the agent do?").fill("Which line should we extend first?")
        await page.get_by_role("button", name="Start", exact=True).click()
        plan = page.get_by_role("region", name="Plan")
        await expect(plan.get_by_role("heading")).to_have_text("Plan, 4 of 4 done")
        await expect(page.get_by_role("heading", level=1)).to_have_text(re.compile("Which line"))
        await expect(page.get_by_role("article").filter(has_text="Extend the Mill line")).to_be_visible()
        await shot(page, "timeline-plan")
        assert await inaccessible(page) == []
        await page.emulate_media(color_scheme="dark")
        await shot(page, "timeline-plan-dark")
        assert await inaccessible(page) == []


async def test_one_jumps_to_a_place_and_steps_on_from_there(browser: Browser, desk: Watched) -> None:
    run_id = await start(desk, "many 60")
    desk.stage.go.set()
    await ended(desk, run_id)
    async with looking(browser, desk.url, run_id) as page:
        focused = page.locator("article:focus")
        await page.get_by_role("navigation", name="Jump to").get_by_role("button", name="Input").click()
        await expect(focused).to_contain_text("many 60")
        for name in ("file-0", "file-1", "file-2"):
            await page.keyboard.press("j")
            await expect(focused).to_contain_text(name)
        await page.keyboard.press("k")
        await expect(focused).to_contain_text("file-1")
        await page.get_by_role("button", name="To the newest").click()
        await expect(page.get_by_role("article").filter(has_text="All files are read.")).to_be_in_viewport()


async def test_raw_events_are_filtered_looked_at_and_copied(browser: Browser, desk: Watched) -> None:
    run_id = await start(desk, "story")
    await ended(desk, run_id)
    async with looking(browser, desk.url, run_id, permissions=["clipboard-read", "clipboard-write"]) as page:
        await page.get_by_role("button", name="Events").click()
        drawer = page.get_by_role("dialog", name="Raw events")
        await expect(drawer.get_by_label("Text in an event")).to_be_focused()
        await drawer.get_by_label("Type").select_option("tool.")
        await drawer.get_by_label("Text in an event").fill("bridge")
        await expect(drawer.get_by_role("status")).to_have_text(re.compile(r"^[12] of \d+ events"))
        row = drawer.get_by_role("group", name="Events").get_by_role("button").first
        await row.click()
        await expect(drawer.get_by_role("group", name=re.compile("^Event "))).to_contain_text('"type": "tool.started"')
        await shot(page, "raw-events")
        assert await inaccessible(page) == []
        await drawer.get_by_role("button", name="Copy all").click()
        await expect(drawer.get_by_role("button", name="Copied")).to_be_visible()
        copied: str = await page.evaluate("navigator.clipboard.readText()")
        assert all('"type":"tool.' in line and "bridge" in line for line in copied.splitlines())
        assert copied
        await page.keyboard.press("Escape")
        await expect(drawer).to_be_hidden()
        await expect(page.get_by_role("button", name="Events")).to_be_focused()
