"""Telling an agent something while it works: what waits, what is taken back, what comes back."""

import pytest
from playwright.async_api import Browser, Locator, Page, expect

from tests.console.deciding import Desk, dialog, ended, look, looking, start, view
from tests.testkit.chromium import shot

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]


async def working(page: Page) -> None:
    """The agent waits in a tool, so corrections wait too."""
    await expect(page.get_by_text("1 call is running")).to_be_visible()


def box(page: Page) -> Locator:
    return page.get_by_label("Tell the agent something")


async def test_it_waits_in_sight_and_is_read_at_the_next_step(browser: Browser, desk: Desk) -> None:
    run_id = await start(desk, "look", agent="writer")
    async with looking(browser, desk, run_id) as page:
        await working(page)
        await box(page).fill("Only the fixture, please.")
        await box(page).press("Control+Enter")
        pending = page.locator(".pending")
        await expect(pending).to_contain_text("Only the fixture, please.")
        await expect(pending).to_contain_text("Waits for the next step")
        await expect(box(page)).to_have_value("")
        await shot(page, "correction-pending")
        desk.ledger.go.set()
        await expect(pending).to_be_hidden()
        await dialog(page).get_by_role("button", name="Approve", exact=True).click()
        final = await ended(desk, run_id)
    assert [(each["text"], each["state"]) for each in final["corrections"]] == [
        ("Only the fixture, please.", "applied")
    ]


async def test_the_mode_is_in_sight_and_is_sent(browser: Browser, desk: Desk) -> None:
    run_id = await start(desk, "look", agent="writer")
    async with looking(browser, desk, run_id) as page:
        await working(page)
        await expect(page.get_by_role("radio", name="Next step")).to_be_checked()
        await page.get_by_text("When idle").click()
        await expect(page.get_by_text("when it has done what it planned")).to_be_visible()
        await box(page).fill("Then tidy up.")
        await page.get_by_role("button", name="Send correction").click()
        await expect(page.locator(".pending")).to_contain_text("Waits until the agent is done")
    assert (await view(desk, run_id))["corrections"][0]["mode"] == "when_idle"


async def test_it_can_be_taken_back(browser: Browser, desk: Desk) -> None:
    run_id = await start(desk, "look", agent="writer")
    async with looking(browser, desk, run_id) as page:
        await working(page)
        for text in ("one", "two"):
            await box(page).fill(text)
            await box(page).press("Control+Enter")
            await expect(page.locator(".pending")).to_contain_text(text)
        await page.get_by_role("button", name="Take back: one").click()
        await expect(page.locator(".pending li")).to_have_count(1)
    found = {each["text"]: each["state"] for each in (await view(desk, run_id))["corrections"]}
    assert found == {"one": "revoked", "two": "accepted"}


async def test_what_comes_back_is_in_the_box_again(browser: Browser, desk: Desk) -> None:
    run_id = await start(desk, "look", agent="writer")
    async with looking(browser, desk, run_id) as page:
        await working(page)
        await box(page).fill("Do it otherwise.")
        await box(page).press("Control+Enter")
        await expect(page.locator(".pending")).to_be_visible()
        await page.get_by_role("button", name="Stop now").click()
        again = page.get_by_label("Start a new run in this conversation")
        await expect(again).to_have_value("Do it otherwise.")
        await expect(page.locator(".returned")).to_contain_text("Came back, because the run was cancelled")
        await shot(page, "correction-returned")
        await page.get_by_role("button", name="Start a new run with this").click()
        await expect(page).not_to_have_url(f"{desk.url}/#/runs/{run_id}")
        other = page.url.rsplit("/", 1)[1]
        found = await view(desk, other)
    assert found["thread_id"] == (await view(desk, run_id))["thread_id"]
    assert found["messages"][0]["text"] == "Do it otherwise."


async def test_what_comes_back_never_writes_over_what_is_typed(browser: Browser, desk: Desk) -> None:
    run_id = await start(desk, "look", agent="writer")
    async with looking(browser, desk, run_id) as page:
        await working(page)
        await box(page).fill("first")
        await box(page).press("Control+Enter")
        await expect(page.locator(".pending")).to_be_visible()
        await box(page).fill("something new")
        await page.get_by_role("button", name="Stop now").click()
        again = page.get_by_label("Start a new run in this conversation")
        await expect(page.locator(".returned")).to_contain_text("first")
        await expect(again).to_have_value("something new")
        await page.get_by_role("button", name="Add it to the box").click()
        await expect(again).to_have_value("something new\nfirst")
        await expect(page.locator(".returned")).to_have_count(0)


async def test_a_draft_survives_a_reload(browser: Browser, desk: Desk) -> None:
    run_id = await start(desk, "look", agent="writer")
    async with looking(browser, desk, run_id) as page:
        await working(page)
        await box(page).fill("not yet sent")
        await page.reload()
        await expect(box(page)).to_have_value("not yet sent")
        await look(page, desk, await start(desk, "look", agent="writer"))
        await expect(box(page)).to_have_value("")


async def test_an_agent_that_takes_none_has_no_box(browser: Browser, desk: Desk) -> None:
    run_id = await start(desk, "wait")
    async with looking(browser, desk, run_id) as page:
        await expect(page.get_by_text("This run takes no corrections.")).to_be_visible()
        await expect(box(page)).to_have_count(0)
