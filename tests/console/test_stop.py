"""Stopping from the console: harder each time, or one call only."""

import asyncio

import pytest
from playwright.async_api import Browser, expect

from tests.console.deciding import Desk, ended, looking, start, view
from tests.testkit.chromium import shot

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]


async def test_after_the_step_then_now(browser: Browser, desk: Desk) -> None:
    run_id = await start(desk, "look", agent="writer")
    async with looking(browser, desk, run_id) as page:
        await expect(page.get_by_text("1 call is running")).to_be_visible()
        await page.get_by_role("button", name="Stop after this step").click()
        await expect(page.get_by_text("Stopping after this step.")).to_be_visible()
        await expect(page.get_by_role("button", name="Stop after this step")).to_be_hidden()
        await shot(page, "stop-after-step")
        assert (await view(desk, run_id))["status"] == "running"
        await page.get_by_role("button", name="Stop now").click()
        final = await ended(desk, run_id)
        await expect(page.get_by_role("region", name="Stop the run")).to_be_hidden()
    assert final["status"] == "cancelled"


async def test_by_force_when_a_tool_does_not_stop(browser: Browser, desk: Desk) -> None:
    run_id = await start(desk, "stubborn")
    async with looking(browser, desk, run_id) as page:
        await expect(page.get_by_text("1 call is running")).to_be_visible()
        await page.get_by_role("button", name="Stop now").click()
        await expect(page.get_by_text("Stopping now. Running tools get a moment to finish.")).to_be_visible()
        await page.get_by_role("button", name="Force stop").click()
        final = await ended(desk, run_id)
        desk.ledger.go.set()
    assert final["status"] == "cancelled"


async def test_a_page_that_comes_later_knows_that_it_stops(browser: Browser, desk: Desk) -> None:
    run_id = await start(desk, "look", agent="writer")
    async with asyncio.timeout(5):
        await desk.ledger.began.wait()
    await desk.server.http.post(f"/v1/runs/{run_id}/cancel", json={"mode": "after_step"})
    async with looking(browser, desk, run_id) as page:
        await expect(page.get_by_role("region", name="Stop the run").get_by_text("Stopping")).to_be_visible()
        await expect(page.get_by_role("button", name="Stop after this step")).to_be_hidden()
        await expect(page.get_by_role("button", name="Stop now")).to_be_enabled()


async def test_one_call_alone(browser: Browser, desk: Desk) -> None:
    run_id = await start(desk, "wait")
    async with looking(browser, desk, run_id) as page:
        await page.get_by_text("1 call is running").click()
        await (
            page.get_by_role("region", name="Stop the run")
            .get_by_role("button", name="Cancel Wait for the test")
            .click()
        )
        final = await ended(desk, run_id)
    assert (final["status"], final["calls"][0]["code"]) == ("completed", "cancelled")
