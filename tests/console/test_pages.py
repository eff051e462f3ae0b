"""The pages of grants and dead letters."""

import pytest
from playwright.async_api import Browser, expect

from tests.console.deciding import Desk, dialog, ended, looking, start
from tests.testkit.chromium import shot

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]


async def test_a_grant_from_its_approval_to_its_end(browser: Browser, desk: Desk) -> None:
    first = await start(desk, "refund")
    async with looking(browser, desk, first) as page:
        await dialog(page).get_by_label("Approve: always").check()
        await dialog(page).get_by_label("How long").select_option("for one day")
        await expect(dialog(page)).to_contain_text(
            "From now on every call of refund, whatever its arguments, by the agent desk runs in any run of yours "
            "without asking, for one day."
        )
        await shot(page, "approval-always")
        await dialog(page).get_by_role("button", name="Approve and remember").click()
        await ended(desk, first)
        await ended(desk, await start(desk, "refund"))
        assert len(desk.ledger.done) == 2

        await page.get_by_role("link", name="Grants").click()
        card = page.get_by_role("listitem").filter(has_text="refund")
        await expect(card).to_contain_text("Every call of refund by the agent desk in any run of yours")
        await expect(card.get_by_role("link", name="in this run")).to_have_attribute("href", f"#/runs/{first}")
        await shot(page, "grants")
        await card.get_by_role("button", name="Revoke the grant for refund").click()
        await expect(page.get_by_text("No grants.")).to_be_visible()
        await shot(page, "grants-none")

        await page.goto(f"{desk.url}/#/runs/{await start(desk, 'refund')}")
        await expect(dialog(page)).to_be_visible()


async def test_dead_letters_are_listed_and_dismissed(browser: Browser, desk: Desk) -> None:
    for _ in range(3):
        await ended(desk, await start(desk, "broken"))
    async with looking(browser, desk) as page:
        await page.get_by_role("link", name="Dead letters").click()
        cards = page.get_by_role("listitem").filter(has_text="Break something")
        await expect(cards).to_have_count(3)
        await expect(cards.first).to_contain_text("1 attempt")
        await shot(page, "dead-letters")
        await cards.first.get_by_role("button", name="Dismiss").click()
        await expect(cards).to_have_count(2)
        await page.get_by_label("Show").select_option("Webhooks")
        await expect(page.get_by_text("Nothing here.")).to_be_visible()
        await page.get_by_label("Show").select_option("All")
        await expect(cards).to_have_count(2)
        await page.get_by_role("button", name="Dismiss all").click()
        await page.get_by_role("button", name="Keep").click()
        await page.get_by_role("button", name="Dismiss all").click()
        await page.get_by_role("button", name="Yes, dismiss").click()
        await expect(page.get_by_text("Nothing here.")).to_be_visible()
    assert (await desk.server.http.get("/v1/dead-letters")).json()["items"] == []
