"""What axe finds in every state of deciding and steering, in both themes: nothing serious."""

from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from tests.console.deciding import Desk, dialog, looking, start
from tests.testkit.chromium import inaccessible, shot

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

WIDER = """() => [document.documentElement, ...document.querySelectorAll("dialog[open], .decision-body, .decision-foot, .steering")]
  .filter(each => each.scrollWidth > each.clientWidth + 1).map(each => each.className || each.tagName)"""

PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True}


async def fine(page: Page, name: str) -> None:
    assert await inaccessible(page) == [], name
    await shot(page, name)
    assert await page.evaluate(WIDER) == [], f"{name} is wider than the screen"


@pytest.mark.parametrize(
    "look", [{"color_scheme": "light"}, {"color_scheme": "dark"}, PHONE], ids=["light", "dark", "phone"]
)
async def test_nothing_serious(
    browser: Browser, desk: Desk, look: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    theme = request.node.callspec.id
    async with looking(browser, desk, await start(desk, "several"), **look) as page:
        await dialog(page).get_by_label("amount").fill("9000")
        await dialog(page).get_by_label("Approve: always").check()
        await expect(dialog(page)).to_contain_text("This must be at most 500.")
        await fine(page, f"axe-{theme}-approval")
        await page.keyboard.press("Escape")
        await expect(dialog(page)).to_be_hidden()
        await fine(page, f"axe-{theme}-aside")
    async with looking(browser, desk, await start(desk, "edit"), **look) as page:
        await expect(dialog(page).get_by_role("button", name="Deny")).to_be_enabled()
        await fine(page, f"axe-{theme}-diff")
        await dialog(page).get_by_role("button", name="Deny").click()
        await expect(page.locator(".news-line")).to_be_visible()
        await fine(page, f"axe-{theme}-denied")
    async with looking(browser, desk, await start(desk, "wipe"), **look) as page:
        await expect(dialog(page).get_by_role("button", name="Deny")).to_be_enabled()
        await fine(page, f"axe-{theme}-high-risk")
        await page.get_by_role("button", name="Later").click()
        await page.goto(f"{desk.url}/#/grants")
        await expect(page.get_by_role("region", name="Waiting for your answer")).to_be_visible()
        await fine(page, f"axe-{theme}-bar")
    async with looking(browser, desk, await start(desk, "form"), **look) as page:
        await page.get_by_role("button", name="Answer").click()
        await expect(
            page.get_by_text("This needs 2 characters or more.").or_(page.get_by_text("must not be empty"))
        ).to_be_visible()
        await fine(page, f"axe-{theme}-question")
    async with looking(browser, desk, await start(desk, "look", agent="writer"), **look) as page:
        await page.get_by_label("Tell the agent something").fill("something")
        await page.get_by_role("button", name="Send correction").click()
        await expect(page.locator(".pending")).to_be_visible()
        await page.get_by_text("1 call is running").click()
        await fine(page, f"axe-{theme}-correction")
        await page.get_by_role("button", name="Stop now").click()
        await expect(page.locator(".returned")).to_be_visible()
        await fine(page, f"axe-{theme}-returned")
    async with looking(browser, desk, **look) as page:
        for place in ("grants", "dead-letters"):
            await page.goto(f"{desk.url}/#/{place}")
            await expect(page.get_by_role("heading", level=1)).to_be_visible()
            await expect(page.get_by_text("Loading.")).to_be_hidden()
            await fine(page, f"axe-{theme}-{place}")
