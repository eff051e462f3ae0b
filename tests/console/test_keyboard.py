"""A whole run without a mouse."""

import pytest
from playwright.async_api import Browser, Page, expect

from tests.console.deciding import Desk, dialog, ended, looking, start

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

MAX_TABS = 60


FOCUSED = """() => {
  const at = document.activeElement;
  const labels = at.labels ? [...at.labels].map(each => each.textContent).join(" ") : "";
  return (at.getAttribute("aria-label") || labels || at.textContent || "").trim();
}"""


async def tab_to(page: Page, name: str) -> None:
    """Moves the focus with the Tab key alone until it is on what is called so."""
    seen = []
    for _ in range(MAX_TABS):
        await page.keyboard.press("Tab")
        seen.append(str(await page.evaluate(FOCUSED))[:60])
        if seen[-1].startswith(name):
            return
    raise AssertionError(f"{name!r} is not reached with the Tab key, only {seen}")


async def test_deciding(browser: Browser, desk: Desk) -> None:
    run_id = await start(desk, "several")
    async with looking(browser, desk, run_id) as page:
        await expect(dialog(page).get_by_role("heading", level=2)).to_be_focused()
        # The first: with another amount.
        await tab_to(page, "amount")
        await page.keyboard.press("Control+a")
        await page.keyboard.type("7")
        await expect(dialog(page).get_by_role("button", name="Approve with changes")).to_be_enabled()
        await page.keyboard.press("Control+Enter")
        # The second: denied, with a reason.
        await expect(dialog(page)).to_contain_text("Approval 1 of 2")
        await expect(dialog(page).get_by_role("heading", level=2)).to_be_focused()
        await page.keyboard.press("d")
        await page.keyboard.type("not this one")
        await expect(dialog(page).get_by_role("button", name="Deny")).to_be_enabled()
        await page.keyboard.press("Control+Shift+Enter")
        # The third: put aside, and taken up again.
        await expect(dialog(page)).to_contain_text("Your approval is needed")
        await page.keyboard.press("Escape")
        await expect(dialog(page)).to_be_hidden()
        await page.keyboard.press("Alt+a")
        await expect(dialog(page).get_by_role("button", name="Approve", exact=True)).to_be_enabled()
        await tab_to(page, "Approve")
        await page.keyboard.press("Enter")
        final = await ended(desk, run_id)
        await expect(dialog(page)).to_be_hidden()
    assert sorted(args["amount"] for _, args in desk.ledger.done) == [7.0, 32.0]
    assert "not this one" in final["result"]


async def test_the_focus_stays_in_the_dialog(browser: Browser, desk: Desk) -> None:
    run_id = await start(desk, "refund")
    async with looking(browser, desk, run_id) as page:
        await expect(dialog(page)).to_be_visible()
        for _ in range(30):
            await page.keyboard.press("Tab")
            inside = (
                "() => document.activeElement === document.body || document.activeElement.closest('dialog') !== null"
            )
            assert await page.evaluate(inside)


async def test_the_focus_comes_back(browser: Browser, desk: Desk) -> None:
    run_id = await start(desk, "ask later", agent="writer")
    async with looking(browser, desk, run_id) as page:
        await page.get_by_role("button", name="Stop now").focus()
        desk.ledger.go.set()
        await expect(dialog(page)).to_be_visible()
        await page.keyboard.press("Escape")
        await expect(page.get_by_role("button", name="Stop now")).to_be_focused()


async def test_correcting_and_stopping(browser: Browser, desk: Desk) -> None:
    run_id = await start(desk, "look", agent="writer")
    async with looking(browser, desk, run_id) as page:
        await expect(page.get_by_label("Tell the agent something")).to_be_visible()
        await tab_to(page, "Tell the agent something")
        await page.keyboard.type("quietly")
        await page.keyboard.press("Control+Enter")
        await expect(page.locator(".pending")).to_contain_text("quietly")
        await tab_to(page, "Stop after this step")
        await page.keyboard.press("Enter")
        await expect(page.get_by_text("Stopping after this step.")).to_be_visible()
        await tab_to(page, "Stop now")
        await page.keyboard.press("Space")
        final = await ended(desk, run_id)
    assert final["status"] == "cancelled"


async def test_keys_in_a_field_are_text(browser: Browser, desk: Desk) -> None:
    run_id = await start(desk, "several")
    async with looking(browser, desk, run_id) as page:
        order = dialog(page).get_by_label("order_id")
        await order.focus()
        await page.keyboard.type("dnp")
        await expect(order).to_have_value("0dnp")
        await page.keyboard.press("Enter")
        await expect(dialog(page)).to_contain_text("Approval 1 of 3")
    assert desk.ledger.done == []
