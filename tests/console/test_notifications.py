"""Telling somebody who looks elsewhere: the title, the icon, and the browser's notifications."""

import asyncio
import re
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from tests.console.deciding import Desk, dialog, ended, looking, start

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

PATIENCE_S = 10

# A headless browser shows no notifications and is never hidden: what the page asks for is written down instead.
STAND_IN = """(permission) => {
  window.shown = [];
  window.asked = 0;
  window.Notification = class {
    static permission = permission;
    static requestPermission() { window.asked += 1; this.permission = "granted"; return Promise.resolve("granted"); }
    constructor(title, options) { window.shown.push({title, ...options}); window.newest = this; }
    close() {}
  };
  let away = false;
  window.leave = (gone) => { away = gone; document.dispatchEvent(new Event("visibilitychange")); };
  Object.defineProperty(document, "visibilityState", {get: () => away ? "hidden" : "visible"});
  document.hasFocus = () => !away;
}"""


async def stand_in(page: Page, permission: str) -> None:
    await page.add_init_script(f"({STAND_IN})({permission!r})")
    await page.reload()


async def shown(page: Page) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = await page.evaluate("window.shown")
    return found


async def told(page: Page, count: int) -> None:
    """So many notifications have been shown. (Playwright's own waiting needs `eval`, which the page forbids.)"""
    async with asyncio.timeout(PATIENCE_S):
        while len(await shown(page)) < count:  # noqa: ASYNC110 - the page is another process
            await asyncio.sleep(0.05)


async def test_the_title_counts_what_waits(browser: Browser, desk: Desk) -> None:
    run_id = await start(desk, "several")
    async with looking(browser, desk, run_id) as page:
        await expect(page).to_have_title(re.compile(r"^\(3\) "))
        icon = page.locator("link[rel~='icon']")
        assert str(await icon.get_attribute("href")).startswith("data:image/svg+xml")
        # Whatever else the page calls itself.
        await page.evaluate("document.title = 'Another name'")
        await expect(page).to_have_title("(3) Another name")
        for left in (2, 1):
            await dialog(page).get_by_role("button", name="Deny").click()
            await expect(page).to_have_title(re.compile(rf"^\({left}\) "))
        await dialog(page).get_by_role("button", name="Deny").click()
        await expect(page).to_have_title("Another name")
        assert not str(await icon.get_attribute("href")).startswith("data:")


async def test_a_question_counts_too(browser: Browser, desk: Desk) -> None:
    async with looking(browser, desk, await start(desk, "choose")) as page:
        await expect(page).to_have_title(re.compile(r"^\(1\) "))


async def test_a_run_that_is_not_looked_at_is_named(browser: Browser, desk: Desk) -> None:
    run_id = await start(desk, "refund")
    async with looking(browser, desk) as page:
        await page.goto(f"{desk.url}/#/grants")
        bar = page.get_by_role("region", name="Waiting for your answer")
        await expect(bar).to_contain_text("Another run waits for you")
        await expect(page).to_have_title(re.compile(r"^\(1\) "))
        await bar.get_by_role("link").click()
        await expect(dialog(page)).to_be_visible()
        assert page.url.endswith(run_id)


async def test_permission_is_asked_for_from_a_click_only(browser: Browser, desk: Desk) -> None:
    async with looking(browser, desk, await start(desk, "wait")) as page:
        await stand_in(page, "default")
        button = page.get_by_role("button", name="Notify me when a run waits")
        await expect(button).to_be_visible()
        assert await page.evaluate("window.asked") == 0
        await button.click()
        await expect(button).to_be_hidden()
        assert await page.evaluate("window.asked") == 1


async def test_somebody_away_is_notified_of_what_waits_and_of_the_end(browser: Browser, desk: Desk) -> None:
    run_id = await start(desk, "ask later", agent="writer")
    async with looking(browser, desk, run_id) as page:
        await stand_in(page, "granted")
        await expect(page.get_by_text("1 call is running")).to_be_visible()
        await page.evaluate("leave(true)")
        desk.ledger.go.set()
        await told(page, 1)
        assert (await shown(page))[0]["title"] == "A run waits for you"
        assert (await shown(page))[0]["body"] == "Refund 20 on order 17"
        await page.evaluate("window.newest.onclick()")
        await page.evaluate("leave(false)")
        await expect(dialog(page)).to_be_visible()
        await page.evaluate("leave(true)")
        await dialog(page).get_by_role("button", name="Approve", exact=True).click()
        await ended(desk, run_id)
        await told(page, 2)
        assert (await shown(page))[1]["title"] == "A run is done"
        await expect(page).to_have_title(re.compile(r"^\(done\) "))
        await page.evaluate("leave(false)")
        await expect(page).to_have_title(re.compile(r"^[^(]"))


async def test_somebody_away_is_notified_of_a_question(browser: Browser, desk: Desk) -> None:
    async with looking(browser, desk, await start(desk, "choose later")) as page:
        await stand_in(page, "granted")
        await expect(page.get_by_text("1 call is running")).to_be_visible()
        await page.evaluate("leave(true)")
        desk.ledger.go.set()
        await told(page, 1)
        assert (await shown(page))[0]["body"] == "Which test do you mean?"
        await expect(page).to_have_title(re.compile(r"^\(1\) "))
        await page.get_by_label("login").check()
        await page.get_by_role("button", name="Answer").click()
        await expect(page).not_to_have_title(re.compile(r"^\(1\) "))


async def test_somebody_who_looks_is_not(browser: Browser, desk: Desk) -> None:
    run_id = await start(desk, "refund")
    async with looking(browser, desk, run_id) as page:
        await stand_in(page, "granted")
        await expect(dialog(page)).to_be_visible()
        assert await shown(page) == []
