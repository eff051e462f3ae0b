"""The list of runs, starting one, deep links, and the token a server wants."""

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


async def test_the_list_is_live_and_searched(browser: Browser, desk: Watched) -> None:
    async with looking(browser, desk.url) as page:
        await expect(page.get_by_text("No runs yet.")).to_be_visible()
        await shot(page, "runs-empty")
        assert await inaccessible(page) == []
        waiting = await start(desk, "wait")
        done = await start(desk, "story")
        rows = page.get_by_role("region", name="Runs").get_by_role("listitem")
        await expect(rows).to_have_count(2)
        await expect(rows.filter(has_text="wait")).to_contain_text("Running")
        await expect(rows.filter(has_text="story")).to_contain_text("Completed")
        desk.stage.go.set()
        await expect(rows.filter(has_text="wait")).to_contain_text("Completed")
        await page.get_by_label("Search runs").fill("STORY completed")
        await expect(rows).to_have_count(1)
        await page.get_by_label("Search runs").fill(waiting)
        await expect(rows).to_have_count(1)
        await page.get_by_label("Search runs").fill("no such thing")
        await expect(page.get_by_text("Nothing matches")).to_be_visible()
        await page.get_by_label("Search runs").fill("")
        await page.get_by_label("Status").select_option("failed")
        await expect(rows).to_have_count(0)
        await page.get_by_label("Status").select_option("completed")
        await expect(rows).to_have_count(2)
        await shot(page, "runs")
        assert await inaccessible(page) == []
        await rows.filter(has_text="story").get_by_role("link").click()
        await expect(page).to_have_url(re.compile(f"#/runs/{done}$"))


async def test_a_run_is_started_with_the_keyboard_and_goes_on_in_its_conversation(
    browser: Browser, desk: Watched
) -> None:
    async with looking(browser, desk.url) as page:
        await page.get_by_label("What should the agent do?").fill("story")
        await page.reload()
        # What was typed is still there.
        await expect(page.get_by_label("What should the agent do?")).to_have_value("story")
        await page.get_by_label("What should the agent do?").press("Control+Enter")
        await expect(page.get_by_role("article").filter(has_text="Completed")).to_be_visible()
        await page.get_by_role("link", name="Runs of this conversation").click()
        await expect(page.get_by_role("heading", name="Runs of this conversation")).to_be_visible()
        await page.get_by_label("What should the agent do?").fill("wait")
        await page.get_by_role("button", name="Start", exact=True).click()
        await expect(page.get_by_role("article").filter(has_text="Before the wait.")).to_be_visible()
    items = (await desk.http.get("/v1/runs")).json()["items"]
    assert len({item["thread_id"] for item in items}) == 1
    assert len(items) == 2
    desk.stage.go.set()


async def test_links_that_lead_nowhere_say_so(browser: Browser, desk: Watched) -> None:
    async with looking(browser, desk.url, "run_nobody") as page:
        await expect(page.get_by_role("heading", name="There is no such run")).to_be_visible()
        assert await inaccessible(page) == []
        await page.goto(f"{desk.url}/#/nowhere")
        await expect(page.get_by_role("heading", name="There is no such page")).to_be_visible()
        await page.get_by_role("link", name="All runs", exact=True).last.click()
        await expect(page.get_by_label("What should the agent do?")).to_be_visible()


async def test_a_run_that_is_deleted_is_not_shown_as_if_it_were_there(browser: Browser, desk: Watched) -> None:
    run_id = await start(desk, "story")
    other = await start(desk, "story")
    await ended(desk, run_id)
    await ended(desk, other)
    async with looking(browser, desk.url, run_id) as page:
        await expect(page.get_by_role("article").filter(has_text="Completed")).to_be_visible()
        await page.goto(f"{desk.url}/#/runs/{other}")
        await expect(page.get_by_role("article").filter(has_text="Completed")).to_be_visible()
        for gone in (run_id, other):
            assert (await desk.http.delete(f"/v1/runs/{gone}")).status_code == 204
        # Whoever comes back to the window, or to the run.
        await page.evaluate("dispatchEvent(new Event('focus'))")
        await expect(page.get_by_role("heading", name="There is no such run")).to_be_visible()
        await page.goto(f"{desk.url}/#/")
        await page.goto(f"{desk.url}/#/runs/{run_id}")
        await expect(page.get_by_role("heading", name="There is no such run")).to_be_visible()


async def test_a_server_that_wants_a_token_is_given_one(browser: Browser) -> None:
    async with watched(token="correct horse battery staple") as desk:
        desk.http.headers["authorization"] = "Bearer correct horse battery staple"
        run_id = await start(desk, "story")
        await ended(desk, run_id)
        async with looking(browser, desk.url, run_id, network=False) as page:
            await expect(page.get_by_role("heading", name="This server wants a token")).to_be_visible()
            assert await inaccessible(page) == []
            await page.get_by_label("Token").fill("wrong")
            await page.keyboard.press("Enter")
            await expect(page.get_by_text("did not take the token")).to_be_visible()
            await expect(page.get_by_label("Token")).to_be_focused()
            await page.get_by_label("Token").fill("correct horse battery staple")
            await page.keyboard.press("Enter")
            await expect(page.get_by_role("article").filter(has_text="Completed")).to_be_visible()
            # For this tab, also after a reload.
            await page.reload()
            await expect(page.get_by_role("article").filter(has_text="Completed")).to_be_visible()


async def test_the_theme_is_chosen_and_kept(browser: Browser, desk: Watched) -> None:
    async with looking(browser, desk.url, color_scheme="light") as page:
        colour = "getComputedStyle(document.body).backgroundColor"
        light = await page.evaluate(colour)
        toggle = page.get_by_role("button", name=re.compile("^Colours"))
        await toggle.click()
        assert await page.evaluate(colour) == light
        await toggle.click()
        dark = await page.evaluate(colour)
        assert dark != light
        await page.reload()
        assert await page.evaluate(colour) == dark
        await toggle.click()
        assert await page.evaluate(colour) == light
