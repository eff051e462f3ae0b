"""The protocol's page at `/docs`, in a browser."""

import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from midstream.gateway.pages import is_built
from midstream_protocol.asyncapi import text as asyncapi_text
from midstream_protocol.commands import COMMANDS
from midstream_protocol.events import EVENTS
from midstream_protocol.frames import FRAMES
from tests.gateway.conftest import House, Open
from tests.testkit.chromium import Complaints, chromium, inaccessible, open_page, shot

pytestmark = [pytest.mark.asyncio, pytest.mark.slow]

PHONE = {"width": 360, "height": 740}


@pytest_asyncio.fixture
async def house(open_house: Open) -> House:
    if not is_built():
        pytest.fail("the console is not built: make console")
    # The page needs no token: neither does the document.
    return await open_house(token="secret")


@pytest_asyncio.fixture
async def page() -> AsyncIterator[Page]:
    async with chromium() as browser, open_page(browser) as page:
        page.set_default_timeout(20_000)
        yield page


async def test_it_shows_every_message_with_its_fields_and_examples_under_the_strict_policy(
    house: House, page: Page
) -> None:
    complaints = Complaints(page)
    await page.goto(f"{house.server.url}/docs")
    await page.wait_for_selector("h2#structures")
    headings = {text.strip() for text in await page.locator("article h3").all_inner_texts()}
    assert {*EVENTS, *COMMANDS, *FRAMES} <= headings
    assert await page.locator("pre.docs-example").count() >= len(EVENTS) + len(COMMANDS)
    start = page.locator("article", has=page.locator("[id='message.run.start']"))
    await expect(start.locator("tbody th", has_text="on_abandon")).to_be_visible()
    await expect(start.get_by_text("Answered by")).to_be_visible()
    dead = await page.evaluate(
        "[...document.querySelectorAll('a[href^=\"#\"]')].map(a => decodeURIComponent(a.hash.slice(1)))"
        ".filter(place => document.getElementById(place) === null)"
    )
    assert dead == []
    document = json.loads(asyncapi_text())
    shown = await page.locator("h3").evaluate_all("all => all.map(each => each.id)")
    assert {f"message.{name}" for name in document["components"]["messages"]} <= set(shown)
    assert complaints.all == []


async def test_it_is_searched_and_linked_into(house: House, page: Page) -> None:
    await page.goto(f"{house.server.url}/docs#message.approval.required")
    heading = page.locator("[id='message.approval.required']")
    await expect(heading).to_be_in_viewport()
    await expect(heading).to_be_focused()
    contents = page.get_by_role("navigation", name="Contents")
    await page.get_by_role("searchbox").fill("args_digest approval")
    # By the name of a field as by its own.
    await expect(contents.get_by_role("link", name="approval.respond")).to_be_visible()
    await expect(contents.get_by_role("link", name="run.start", exact=True)).to_have_count(0)
    await contents.get_by_role("link", name="approval.respond").click()
    await expect(page.locator("[id='message.approval.respond']")).to_be_in_viewport()
    await page.go_back()
    await expect(heading).to_be_in_viewport()
    await page.get_by_role("searchbox").fill("no such thing")
    await expect(contents.get_by_text("Nothing has these words")).to_be_visible()


@pytest.mark.parametrize("colours", ["light", "dark"])
async def test_everybody_can_read_it(house: House, page: Page, colours: str) -> None:
    await page.emulate_media(color_scheme="dark" if colours == "dark" else "light")
    await page.goto(f"{house.server.url}/docs")
    await page.wait_for_selector("h2#structures")
    assert await inaccessible(page) == []
    await shot(page, f"docs-{colours}")
    await page.set_viewport_size(PHONE)
    await page.get_by_role("button", name="Contents").click()
    assert await inaccessible(page) == []
    await page.get_by_role("navigation", name="Contents").get_by_role("link", name="tool.started").click()
    await expect(page.locator("[id='message.tool.started']")).to_be_in_viewport()
    # Nothing is wider than a phone.
    assert await page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    await shot(page, f"docs-phone-{colours}")


async def test_without_the_document_it_says_so_and_tries_again(house: House, page: Page) -> None:
    await page.route("**/v1/asyncapi", lambda route: route.abort())
    await page.goto(f"{house.server.url}/docs")
    await expect(page.get_by_role("alert")).to_contain_text("cannot be loaded")
    await page.unroute("**/v1/asyncapi")
    await page.get_by_role("button", name="Try again").click()
    await page.wait_for_selector("h2#structures")
