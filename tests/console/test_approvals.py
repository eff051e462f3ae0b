"""Deciding about calls in the console: what is shown, what is sent, and what others do meanwhile."""

from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, expect

from tests.console.deciding import HOSTILE, HUGE, Desk, dialog, ended, look, looking, says, start, view
from tests.testkit.chromium import shot
from tests.testkit.fault_proxy import FaultProxy

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]


async def test_what_was_edited_is_what_runs(browser: Browser, desk: Desk) -> None:
    run_id = await start(desk, "refund")
    async with looking(browser, desk, run_id) as page:
        await expect(dialog(page).get_by_role("heading", name="Refund 20.0 on order 17")).to_be_focused()
        await expect(dialog(page)).to_contain_text("This tool asks before every call.")
        await expect(dialog(page)).to_contain_text("59 min")
        amount = dialog(page).get_by_label("amount")
        await amount.fill("900")
        await expect(dialog(page)).to_contain_text("This must be at most 500.")
        await expect(dialog(page).get_by_role("button", name="Approve with changes")).to_be_disabled()
        await shot(page, "approval-mistake")
        await amount.fill("12.5")
        await dialog(page).get_by_role("button", name="Approve with changes").click()
        await expect(dialog(page)).to_be_hidden()
        await says(page, "approved by you with other arguments")
        await ended(desk, run_id)
    assert [(name, args["amount"], args["order_id"]) for name, args in desk.ledger.done] == [("refund", 12.5, "17")]


async def test_a_reset_edit_sends_no_arguments(browser: Browser, desk: Desk) -> None:
    run_id = await start(desk, "refund")
    async with looking(browser, desk, run_id) as page:
        await dialog(page).get_by_label("amount").fill("1")
        await dialog(page).get_by_role("button", name="Reset all").click()
        await expect(dialog(page).get_by_label("amount")).to_have_value("20")
        await dialog(page).get_by_role("button", name="Approve", exact=True).click()
        await says(page, "Refund 20.0 on order 17: approved by you.")
        await ended(desk, run_id)
    assert desk.ledger.done[0][1]["amount"] == 20.0


async def test_mistakes_that_only_the_server_sees_stand_at_their_fields(browser: Browser, desk: Desk) -> None:
    run_id = await start(desk, "refund")
    async with looking(browser, desk, run_id) as page:
        await dialog(page).get_by_role("button", name="Add on").click()
        # The right form for a date, and no date.
        await dialog(page).get_by_label("on", exact=True).fill("2026-13-45")
        await dialog(page).get_by_label("amount").fill("7")
        await dialog(page).get_by_role("button", name="Approve with changes").click()
        await expect(dialog(page)).to_contain_text("The server does not take this")
        await expect(dialog(page).locator("[aria-invalid=true]")).to_have_value("2026-13-45")
        await expect(dialog(page).get_by_label("amount")).to_have_value("7")
        await shot(page, "approval-refused")
        await dialog(page).get_by_label("on", exact=True).fill("2026-12-31")
        await dialog(page).get_by_role("button", name="Approve with changes").click()
        await ended(desk, run_id)
    assert str(desk.ledger.done[0][1]["on"]) == "2026-12-31"


async def test_a_denial_with_its_reason(browser: Browser, desk: Desk) -> None:
    run_id = await start(desk, "edit")
    async with looking(browser, desk, run_id) as page:
        await expect(dialog(page).get_by_role("region", name="Difference")).to_contain_text("rate = 3")
        await expect(dialog(page)).to_contain_text("3 lines added, 2 removed.")
        await shot(page, "approval-diff")
        await dialog(page).get_by_label("Reason, if you deny").fill("The rate is fixed by contract.")
        await dialog(page).get_by_role("button", name="Deny").click()
        await says(page, "Edit rates.py: denied by you. Reason: The rate is fixed by contract.")
        final = await ended(desk, run_id)
    assert desk.ledger.done == []
    assert "The rate is fixed by contract." in final["result"]


async def test_approving_the_rest_of_the_run_says_what_that_covers(browser: Browser, desk: Desk) -> None:
    run_id = await start(desk, "refunds")
    async with looking(browser, desk, run_id) as page:
        await dialog(page).get_by_label("Approve for the rest of this run").check()
        await expect(dialog(page)).to_contain_text(
            "From now on every call of refund, whatever its arguments, runs in this run without asking."
        )
        await shot(page, "approval-remember")
        await dialog(page).get_by_role("button", name="Approve and remember").click()
        final = await ended(desk, run_id)
        await expect(dialog(page)).to_be_hidden()
    assert len(desk.ledger.done) == 2
    assert [each["code"] for each in final["notices"]] == ["approval_granted"]


async def test_an_answer_elsewhere_closes_it_and_says_by_whom(browser: Browser, desk: Desk) -> None:
    run_id = await start(desk, "refund")
    async with looking(browser, desk, run_id) as one, looking(browser, desk, run_id) as two:
        await expect(dialog(one)).to_be_visible()
        await dialog(two).get_by_role("button", name="Approve", exact=True).click()
        await expect(dialog(one)).to_be_hidden()
        await says(one, "Refund 20.0 on order 17: approved by you in another window.")
        await says(two, "Refund 20.0 on order 17: approved by you.")
        await shot(one, "approval-answered-elsewhere")


async def test_an_approval_whose_time_is_over_goes_by_itself(browser: Browser, desk: Desk) -> None:
    run_id = await start(desk, "hurry")
    async with looking(browser, desk, run_id) as page:
        await says(page, "Hurry: nobody answered in time.")
        await expect(dialog(page)).to_be_hidden()


async def test_a_cancelled_run_withdraws_it(browser: Browser, desk: Desk) -> None:
    run_id = await start(desk, "refund")
    async with looking(browser, desk, run_id) as page:
        await expect(dialog(page)).to_be_visible()
        await desk.server.http.post(f"/v1/runs/{run_id}/cancel")
        await says(page, "withdrawn, because the call was cancelled")
        await expect(dialog(page)).to_be_hidden()


async def test_several_at_once_are_a_queue(browser: Browser, desk: Desk) -> None:
    run_id = await start(desk, "several")
    async with looking(browser, desk, run_id) as page:
        await expect(dialog(page)).to_contain_text("Approval 1 of 3")
        await dialog(page).get_by_label("Reason, if you deny").fill("typed for the first")
        await dialog(page).get_by_role("button", name="Next approval").click()
        await expect(dialog(page)).to_contain_text("Approval 2 of 3")
        await expect(dialog(page).get_by_label("Reason, if you deny")).to_have_value("")
        await dialog(page).get_by_role("button", name="Previous approval").click()
        await expect(dialog(page).get_by_label("Reason, if you deny")).to_have_value("typed for the first")
        await shot(page, "approval-several")
        await dialog(page).get_by_role("button", name="Deny").click()
        await expect(dialog(page)).to_contain_text("Approval 1 of 2")
        await dialog(page).get_by_role("button", name="Approve", exact=True).click()
        await expect(dialog(page)).to_contain_text("Your approval is needed")
        await dialog(page).get_by_role("button", name="Approve", exact=True).click()
        await ended(desk, run_id)
    assert len(desk.ledger.done) == 2


async def test_a_call_of_high_risk_needs_more_than_a_key(browser: Browser, desk: Desk) -> None:
    run_id = await start(desk, "wipe")
    async with looking(browser, desk, run_id) as page:
        approve = dialog(page).get_by_role("button", name="Approve", exact=True)
        await expect(dialog(page).get_by_role("button", name="Deny")).to_be_enabled()
        await expect(approve).to_be_disabled()
        await page.keyboard.press("Control+Enter")
        # Hidden by the server, and no field to send it back from.
        await expect(dialog(page)).not_to_contain_text("hunter2")
        await shot(page, "approval-high-risk")
        assert (await view(desk, run_id))["status"] == "waiting"
        await dialog(page).get_by_label("I have looked at it").check()
        await approve.click()
        await ended(desk, run_id)
    assert [name for name, _ in desk.ledger.done] == ["wipe"]


async def test_put_aside_it_stays_in_sight_and_nothing_is_answered(browser: Browser, desk: Desk) -> None:
    run_id = await start(desk, "refund")
    async with looking(browser, desk, run_id) as page:
        await expect(dialog(page)).to_be_visible()
        await page.keyboard.press("Escape")
        await expect(dialog(page)).to_be_hidden()
        waiting = page.get_by_role("list", name="Calls that wait for your approval")
        await expect(waiting).to_contain_text("Refund 20.0 on order 17")
        await shot(page, "approval-aside")
        await page.goto(f"{desk.url}/#/grants")
        assert (await view(desk, run_id))["status"] == "waiting"
        await page.go_back()
        await waiting.get_by_role("button", name="Review").click()
        await expect(dialog(page)).to_be_visible()


async def test_it_takes_no_answer_in_the_moment_it_appears(browser: Browser, desk: Desk) -> None:
    run_id = await start(desk, "refund")
    async with looking(browser, desk) as page:
        await page.clock.install()
        await look(page, desk, run_id)
        approve = dialog(page).get_by_role("button", name="Approve", exact=True)
        for _ in range(20):
            if await dialog(page).is_visible():
                break
            await page.clock.run_for(50)
        await page.clock.pause_at(await page.evaluate("Date.now() + 1000"))
        await expect(approve).to_be_enabled()
        await page.keyboard.press("Escape")
        await expect(dialog(page)).to_be_hidden()
        await page.keyboard.press("Alt+a")
        await page.clock.run_for(100)
        await expect(dialog(page)).to_be_visible()
        await expect(approve).to_be_disabled()
        await page.keyboard.press("Control+Enter")
        await page.clock.run_for(600)
        await expect(approve).to_be_enabled()
        assert (await view(desk, run_id))["status"] == "waiting"


async def test_somebody_who_types_is_not_interrupted(browser: Browser, desk: Desk) -> None:
    run_id = await start(desk, "ask later", agent="writer")
    async with looking(browser, desk, run_id) as page:
        box = page.get_by_label("Tell the agent something")
        await box.fill("half a sen")
        desk.ledger.go.set()
        await expect(page.get_by_role("list", name="Calls that wait for your approval")).to_contain_text("Refund")
        await box.press_sequentially("tence")
        await expect(dialog(page)).to_be_hidden()
        await expect(box).to_have_value("half a sentence")
        await page.get_by_role("heading", level=1).click()
        await expect(dialog(page)).to_be_visible()


async def test_without_a_connection_an_answer_waits_for_it(browser: Browser, desk: Desk) -> None:
    run_id = await start(desk, "refund")
    port = urlsplit(desk.url).port
    assert port is not None
    async with FaultProxy(port) as proxy, looking(browser, desk, run_id, through=proxy.port) as page:
        await expect(dialog(page)).to_be_visible()
        await proxy.refuse()
        proxy.cut()
        await expect(dialog(page)).to_contain_text("Your answer will be sent when the connection is back.")
        await dialog(page).get_by_role("button", name="Approve", exact=True).click()
        await expect(dialog(page).get_by_role("button", name="Approving")).to_be_disabled()
        await shot(page, "approval-not-connected")
        assert desk.ledger.done == []
        await proxy.accept()
        await ended(desk, run_id)
        await expect(dialog(page)).to_be_hidden()
    assert len(desk.ledger.done) == 1


async def test_a_hostile_call_is_shown_and_does_nothing(browser: Browser, desk: Desk) -> None:
    run_id = await start(desk, "hostile")
    async with looking(browser, desk, run_id) as page:
        heading = dialog(page).get_by_role("heading", level=2)
        await expect(heading).to_contain_text("<img src=x onerror=alert(1)>")
        text = await dialog(page).inner_text()
        assert not {"\u202e", "\x1b", "\u200b"} & set(text)
        assert await page.locator("dialog img").count() == 0
        assert len(await dialog(page).inner_html()) < 200_000
        await shot(page, "approval-hostile")
        await dialog(page).get_by_role("button", name="Approve", exact=True).click()
        await ended(desk, run_id)
    assert desk.ledger.done == [("hostile", {"text": HOSTILE, "huge": HUGE})]
