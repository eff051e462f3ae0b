"""Nothing jumps: layout shift while text streams, and the reader's place."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from tests.console.watching import MEASURED, Watched, looking, start, watched
from tests.testkit.chromium import shot

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

FAR_FROM_THE_END = "box => box.scrollHeight - box.scrollTop - box.clientHeight"


@pytest_asyncio.fixture(loop_scope="module")
async def desk() -> AsyncIterator[Watched]:
    async with watched() as desk:
        yield desk


async def _streams(page: Page) -> None:
    """The answer has begun to come."""
    await page.locator(".message.streaming").wait_for()
    await page.evaluate("window.shifts.length = 0")


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (360, 740)])
async def test_nothing_shifts_while_an_answer_streams(browser: Browser, desk: Watched, width: int, height: int) -> None:
    run_id = await start(desk, "stream")
    async with looking(browser, desk.url, run_id, script=MEASURED, viewport={"width": width, "height": height}) as page:
        await _streams(page)
        await shot(page, f"streaming-{width}")
        await expect(page.get_by_role("article").filter(has_text="The end of the answer.")).to_be_visible()
        shifts = await page.evaluate("window.shifts")
        assert sum(each["value"] for each in shifts) < 0.02, shifts
        # It was followed to its end.
        assert await page.locator(".timeline-scroll").evaluate(FAR_FROM_THE_END) < 2
        assert await page.evaluate("window.longest") < 400
        # Nor when the run ends, and what steers it gives way to what starts the next one.
        desk.stage.go.set()
        await expect(page.get_by_role("article").filter(has_text="Completed")).to_be_in_viewport()
        await page.get_by_label("Start a new run in this conversation").wait_for()
        shifts = await page.evaluate("window.shifts")
        assert sum(each["value"] for each in shifts) < 0.02, shifts


async def test_a_reader_further_up_stays_there(browser: Browser, desk: Watched) -> None:
    run_id = await start(desk, "halves")
    async with looking(browser, desk.url, run_id, script=MEASURED) as page:
        box = page.locator(".timeline-scroll")
        await expect(page.get_by_text("The end of the answer.")).to_be_in_viewport()
        # A smaller window ends where the list ends too.
        await page.set_viewport_size({"width": 1280, "height": 560})
        await expect(page.get_by_text("The end of the answer.")).to_be_in_viewport()
        assert await box.evaluate(FAR_FROM_THE_END) < 2
        await box.hover()
        await page.mouse.wheel(0, -150)
        await page.get_by_role("button", name="To the newest").wait_for()
        top = await box.evaluate("box => box.scrollTop")
        desk.stage.go.set()
        await page.get_by_role("button", name="1 new below").wait_for()
        assert await box.evaluate(FAR_FROM_THE_END) > 1_000
        assert abs(await box.evaluate("box => box.scrollTop") - top) < 2
        await page.locator(".to-end").click()
        await expect(page.locator(".to-end")).to_be_hidden()
        await page.get_by_role("article").filter(has_text="Completed").wait_for()
        await expect(page.get_by_role("article").filter(has_text="Completed")).to_be_in_viewport()
