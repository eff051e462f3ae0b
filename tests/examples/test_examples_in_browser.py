"""The pages under examples/, in a real Chromium: start, approve, correct, cancel, and a network that breaks."""

import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from examples.browser.desk import app as orders
from examples.browser.serve import CLIENT, HERE
from examples.browser.serve import site_of as plain_site_of
from examples.react.desk import desk, site_of
from midstream import Midstream
from midstream.settings import Settings, load_settings
from tests.testkit.chromium import ROOT, Complaints, chromium, inaccessible, open_page, shot
from tests.testkit.programs import needed
from tests.testkit.served import Served, served

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow, pytest.mark.timeout(60)]

REACT = ROOT / "examples" / "react"
PATIENCE_MS = 15_000

expect.set_options(timeout=PATIENCE_MS)


def built(path: Path) -> Path:
    """What make builds and installs before the tests."""
    if not path.exists():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(
            f"{path.relative_to(ROOT)} is not there: .ci/clients build"
        )
    return path


def settings_of(example: str, **more: Any) -> Settings:
    return load_settings(store="memory:", model=f"scripted:{ROOT}/examples/{example}/script.yaml", **more)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def react_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    node = needed("node", package="nodejs")
    vite = built(REACT / "node_modules" / "vite" / "bin" / "vite.js")
    built(CLIENT / "react.js")
    folder = tmp_path_factory.mktemp("page")
    arguments = [node, str(vite), "build", "--outDir", str(folder), "--logLevel", "error"]
    done = subprocess.run(arguments, cwd=REACT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def cut(server: Served) -> None:
    """Drop every connection, as a network does."""
    for connection in tuple(server.server.server_state.connections):
        connection.transport.abort()


async def run_of(server: Served, page: Page, prefix: str = "") -> dict[str, Any]:
    run_id = page.url.partition("#")[2]
    answer = await server.http.get(f"{prefix}/v1/runs/{run_id}")
    answer.raise_for_status()
    return dict(answer.json())


async def test_the_react_page(browser: Browser, react_page: Path) -> None:
    agents = Midstream([desk], settings=settings_of("react"))
    async with agents.lifespan(), served(site_of(agents, react_page)) as server, open_page(browser) as page:
        complaints = Complaints(page, network=False)
        await page.goto(server.url)
        await expect(page.get_by_text("Connected")).to_be_visible()
        await page.get_by_role("button", name="Start").click()
        await expect(page.get_by_role("listitem").filter(has_text="Design the poster")).to_be_visible()

        # The tool that runs in the page asks again in the page that was reloaded.
        await expect(page.get_by_label("Which colour")).to_be_visible()
        await page.reload()
        await page.get_by_label("Which colour").fill("#aa3355")
        await page.get_by_role("button", name="Use this colour").click()

        await expect(page.get_by_role("table", name="Stalls on Saturday").get_by_role("row")).to_have_count(4)
        await expect(page.get_by_role("figure")).to_contain_text("Summer market")
        await expect(page.get_by_role("figure")).to_have_css("background-color", "rgb(170, 51, 85)")

        ask = page.get_by_role("form", name="Order 40 prints")
        await expect(ask).to_be_visible()
        await page.reload()
        await expect(page.get_by_role("figure")).to_have_css("background-color", "rgb(170, 51, 85)")
        await expect(ask).to_contain_text("40 prints for 18.00 crowns")
        assert await inaccessible(page) == []
        await shot(page, "example-react", full_page=True)

        await page.get_by_label("Correction").fill("Only 25 prints.")
        await page.get_by_role("button", name="Correct").click()
        await expect(page.get_by_text("Only 25 prints. (held)")).to_be_visible()
        await ask.get_by_label("Copies").fill("0")
        cut(server)
        await ask.get_by_label("Copies").fill("25")
        await ask.get_by_role("button", name="Approve").click()
        await expect(ask).to_have_count(0)
        await expect(page.get_by_text("Only 25 prints. (applied)")).to_be_visible()

        await expect(page.get_by_text("The prints are ordered.")).to_be_visible()
        await page.get_by_role("button", name="Stop").click()
        await expect(page.get_by_role("button", name="Stop")).to_have_count(0)
        view = await run_of(server, page, "/agents")
        assert view["status"] == "cancelled"
        calls = {call["tool"]: call["state"] for call in view["calls"]}
        assert calls == dict.fromkeys(["find_stalls", "pick_color", "show_poster", "order_prints"], "completed")
        assert "11.25 crowns" in str(view["calls"][-1])
        assert complaints.all == []


@asynccontextmanager
async def plain_page(browser: Browser, folder: Path) -> AsyncIterator[tuple[Page, Served]]:
    """The page, from an address of its own, and its agents' server, which allows it."""
    shutil.copytree(HERE / "page", folder, dirs_exist_ok=True)
    index = folder / "index.html"
    async with served(plain_site_of(folder)) as web:
        agents = Midstream(list(orders.agents), settings=settings_of("browser", allowed_origins=(web.url,)))
        async with agents.lifespan(), served(agents) as server, open_page(browser) as page:
            assert "http://127.0.0.1:8484" in index.read_text()
            index.write_text(index.read_text().replace("http://127.0.0.1:8484", server.url))
            await page.goto(web.url)
            yield page, server


async def test_the_plain_page(browser: Browser, tmp_path: Path) -> None:
    built(CLIENT / "index.js")
    async with plain_page(browser, tmp_path) as (page, server):
        await expect(page.get_by_text("ready", exact=True)).to_be_visible()
        await page.get_by_role("button", name="Start").click()
        ask = page.get_by_role("dialog", name="Refund 9.9 on order 17")
        await expect(ask).to_be_visible()
        assert await inaccessible(page) == []
        await shot(page, "example-browser")

        # It cannot be put away without an answer.
        await page.keyboard.press("Escape")
        await page.keyboard.press("Escape")
        await expect(ask).to_be_visible()

        await ask.get_by_label("order_id").fill("")
        cut(server)
        await ask.get_by_label("order_id").fill("17")
        await ask.get_by_label("amount").fill("5.5")
        await ask.get_by_role("button", name="Approve").click()
        await expect(ask).to_be_hidden()

        await expect(page.get_by_text("The refund is on its way.")).to_be_visible()
        cut(server)
        await page.get_by_label("What should be done?").fill("Be brief.")
        await page.get_by_role("button", name="Correct").click()
        await expect(page.get_by_role("listitem").filter(has_text="Be brief. (accepted)")).to_be_visible()
        await page.get_by_role("button", name="Stop").click()
        await expect(page.get_by_role("button", name="Start")).to_be_visible()
        view = await run_of(server, page)
        assert view["status"] == "cancelled"
        assert [call["tool"] for call in view["calls"]] == ["find_order", "refund"]
        assert "Refunded 5.50 on order 17." in str(view["calls"][-1])

        # The next one, in the same page.
        await page.get_by_label("What should be done?").fill("Please refund order 17.")
        await page.get_by_role("button", name="Start").click()
        await ask.get_by_role("button", name="Deny").click()
        await expect(ask).to_be_hidden()
        await expect(page.get_by_text("I will look at that order.")).to_have_count(1)
