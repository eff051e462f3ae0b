"""The whole of it at once: one run, two browsers and a terminal, a network that is cut at random, and a server that is
killed. start → plan → approval edited → correction → cancel.
"""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect

from tests.cli.console import PATIENCE_S, Served, Terminal
from tests.console.watching import looking
from tests.testkit.chromium import shot
from tests.testkit.fault_proxy import FaultProxy, cuts

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

SCRIPT = """
agents:
  planner:
    turns:
      - steps: [{answer: {todos: [
          {id: pay, title: Pay the money back, agent: money}, {title: Write the letter, agent: letters, depends_on: [pay]}]}}]
  money:
    turns:
      - steps: [{call: {tool: read, args: {page: 1}}}]
      - steps: [{call: {tool: refund, args: {order_id: "17", amount: 9.9}}}]
      - steps: [{text: "The money is on its way."}]
  letters:
    turns:
      - steps: [{call: {tool: read, args: {page: 2}}}]
      - match: {last_user_contains: shorter}
        steps: [{text: "Shorter, then. "}, {call: {tool: wait}}]
      - steps: [{text: "Dear customer, "}, {call: {tool: read, args: {page: 3}}}]
      - steps: [{call: {tool: wait}}]
"""

MILLISECONDS = 1000 * PATIENCE_S


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    server = Served(tmp_path, SCRIPT, target="press:app")
    server.start()
    yield server
    server.end()


async def end_of(page: Page) -> str:
    """What the last entry says, without its time: how it ended, and what became of each call."""
    last = page.get_by_role("article").filter(has_text="Cancelled").last
    await expect(last).to_be_visible(timeout=MILLISECONDS)
    return re.sub(r"\d+:\d+:\d+.?(?:AM|PM)?", "", await last.inner_text()).strip()


async def test_a_run_with_two_browsers_a_terminal_and_a_bad_network(
    browser: Browser, server: Served, tmp_path: Path
) -> None:
    async with FaultProxy(server.port) as proxy:
        shaky = f"http://127.0.0.1:{proxy.port}"
        async with (
            looking(browser, server.url, network=False) as steady,
            looking(browser, shaky, network=False, color_scheme="dark") as other,
        ):
            for page in (steady, other):
                page.set_default_timeout(MILLISECONDS)
            # start
            await steady.get_by_label("What should the agent do?").fill("Answer the letter about order 17.")
            await steady.get_by_role("button", name="Start").click()
            await steady.wait_for_url("**/#/runs/*")
            run_id = steady.url.rsplit("/", 1)[1]
            await other.goto(f"{shaky}/#/runs/{run_id}")
            # The page is there; from now on every connection breaks, sooner or later.
            await expect(other.locator(".connection")).to_have_attribute("data-status", "ready")
            proxy.plan(cuts(seed=7, least=1_500, most=9_000))
            proxy.cut()
            terminal = Terminal("chat", "--run", run_id, folder=tmp_path, MIDSTREAM_URL=server.url)
            try:
                # plan, and an approval: edited in one browser, told in the other and in the terminal
                for page in (steady, other):
                    await expect(page.get_by_text("Pay the money back").first).to_be_visible(timeout=MILLISECONDS)
                    await expect(page.get_by_role("dialog")).to_contain_text(
                        "Refund 9.9 on order 17", timeout=MILLISECONDS
                    )
                await asyncio.to_thread(terminal.expect, "Refund 9.9 on order 17")
                await steady.get_by_role("dialog").get_by_label("amount").fill("5")
                # killed while the question is open, and there again with it
                server.end(9)
                await expect(steady.locator(".connection")).to_have_attribute("data-status", "reconnecting")
                server.start()
                await steady.get_by_role("dialog").get_by_role("button", name="Approve with changes").click()
                for page in (steady, other):
                    await expect(page.get_by_role("dialog")).to_be_hidden(timeout=MILLISECONDS)
                    await expect(page.get_by_text("The money is on its way.").first).to_be_visible(timeout=MILLISECONDS)
                # a correction from the browser with the bad network
                await other.get_by_label("Tell the agent something").fill("Make it shorter.")
                await other.get_by_label("Tell the agent something").press("Control+Enter")
                for page in (steady, other):
                    await expect(page.get_by_text("Make it shorter.").first).to_be_visible(timeout=MILLISECONDS)
                await asyncio.to_thread(terminal.expect, "Make it shorter.")
                await shot(steady, "story-light")
                await shot(other, "story-dark")
                # and the end, once for everybody
                await steady.get_by_role("button", name="Stop now").click()
                for page in (steady, other):
                    await expect(page.locator(".status").first).to_contain_text("ancelled", timeout=MILLISECONDS)
                await asyncio.to_thread(terminal.expect, "cancelled")
                assert await end_of(steady) == await end_of(other)
                assert proxy.counts.connections > 3
            finally:
                terminal.close()
