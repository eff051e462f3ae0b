"""A plain page of somebody else's, with the JavaScript client in a real Chromium, and a network that breaks.

The page comes from another origin than the server; what it read is compared with the server's own log.
"""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from tests.scenarios.world import World
from tests.testkit.chromium import ROOT, chromium, open_page
from tests.testkit.fault_proxy import FaultProxy, Line, cuts
from tests.testkit.programs import needed
from tests.testkit.served import served

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow, pytest.mark.timeout(60)]

WORDS = 150
TURNS = [{"steps": [{"text": " ".join(f"word{number}" for number in range(WORDS)), "by": "word", "delay_s": 0.01}]}]
WAITING = [{"steps": [{"call": {"tool": "delete", "args": {"what": "all"}}}]}, {"steps": [{"text": "Done."}]}]
RUNS = 7
"""More than a browser has connections to one server over HTTP/1.1."""

PAGE = """<!doctype html><title>A page</title><script type="module">
import { connect } from "/client/index.js";
// Its backoff is soon over: waiting is not what is tried here.
window.open_ = (options) => (window.client = connect({ storage: sessionStorage, random: () => 0.05, ...options }));
window.read = async (run) => {
  const events = [];
  for await (const event of run) events.push(event);
  return { runId: run.id, events, view: await run.finished, transport: window.client.connection.transport };
};
window.loaded = true;
</script>"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client as JavaScript."""
    node = needed("node", package="nodejs")
    package = ROOT / "clients" / "js"
    compiler = package / "node_modules" / "typescript" / "bin" / "tsc"
    if not compiler.exists():
        pytest.skip("the JavaScript client's tools are not installed (make console)")
    folder = tmp_path_factory.mktemp("client")
    arguments = [node, str(compiler), "-p", "tsconfig.build.json", "--outDir", str(folder)]
    done = subprocess.run(arguments, cwd=package, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


Site = Callable[[list[Any]], Any]


@pytest.fixture
def site(browser: Browser, built: Path, tmp_path: Path) -> Site:
    """The page, the server and the proxy between them."""

    @asynccontextmanager
    async def at(turns: list[Any]) -> AsyncIterator[tuple[Page, World, FaultProxy]]:
        async def page_(_request: Any) -> HTMLResponse:
            return HTMLResponse(PAGE)

        app = Starlette(routes=[Route("/", page_), Mount("/client", StaticFiles(directory=built))])
        world = World(tmp_path, turns)
        async with served(app) as web, FaultProxy(world.port) as proxy, open_page(browser) as page:
            await world.up(MIDSTREAM_ALLOWED_ORIGINS=web.url, MIDSTREAM_STORE="memory:")
            try:
                await page.goto(web.url)
                await page.wait_for_function("window.loaded")
                yield page, world, proxy
            finally:
                await world.kill()

    return at


async def same(world: World, read: dict[str, Any]) -> None:
    """Every event once, in order, as it was written, and the server's own view."""
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{world.port}", trust_env=False) as http:
        lines = (await http.get(f"/v1/runs/{read['runId']}/events", headers={"accept": "application/x-ndjson"})).text
        view = (await http.get(f"/v1/runs/{read['runId']}")).json()
    assert read["events"] == [json.loads(line) for line in lines.splitlines() if '"seq"' in line]
    assert read["view"] == view


async def until(true: Callable[[], Awaitable[Any]]) -> None:
    async with asyncio.timeout(30):
        while not await true():
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("transport", ["websocket", "http"])
async def test_a_run_through_cuts(site: Site, transport: str) -> None:
    async with site(TURNS) as (page, world, proxy):
        proxy.plan(cuts(seed=5, least=500, most=9_000))
        options = {"url": f"http://127.0.0.1:{proxy.port}", "transport": transport}
        read = await page.evaluate("async (o) => read(await open_(o).start({ input: 'go' }))", options)
        assert read["transport"] == transport
        await same(world, read)
        assert proxy.counts.cuts > 2


async def test_no_network_for_a_while(site: Site) -> None:
    async with site(TURNS) as (page, world, proxy):
        url = f"http://127.0.0.1:{proxy.port}"
        await page.evaluate("async (url) => { window.run = await open_({ url }).start({ input: 'go' }) }", url)
        reading = asyncio.create_task(page.evaluate("() => read(run)"))
        await until(lambda: page.evaluate("() => run.view.cursor.seq > 5"))
        await page.context.set_offline(True)
        proxy.cut()
        await until(lambda: page.evaluate("() => client.connection.offline && client.connection.status !== 'ready'"))
        await page.context.set_offline(False)
        await same(world, await reading)


@pytest.mark.parametrize("websockets", [True, False])
async def test_more_runs_than_a_browser_has_connections(site: Site, websockets: bool) -> None:
    async with site(WAITING) as (page, world, proxy):
        proxy.block_websockets = not websockets
        await page.evaluate(
            """async ({ url, runs }) => {
              open_({ url });
              window.runs = await Promise.all(Array.from({ length: runs }, () => client.start({ input: "go" })));
            }""",
            {"url": f"http://127.0.0.1:{proxy.port}", "runs": RUNS},
        )
        # All wait for an answer, so all streams stay open: the commands must get through all the same.
        await page.wait_for_function("() => client.approvals.length === runs.length")
        read = await page.evaluate(
            """async () => {
              const reading = runs.map(read);
              await Promise.all(client.approvals.map((approval) => approval.approve()));
              return Promise.all(reading);
            }"""
        )
        assert [each["transport"] for each in read] == ["websocket" if websockets else "http"] * RUNS
        for each in read:
            await same(world, each)
        assert len(world.did()) == RUNS


async def test_a_page_that_is_reloaded_goes_on(site: Site) -> None:
    async with site(TURNS) as (page, world, proxy):
        url = f"http://127.0.0.1:{proxy.port}"
        run_id, before = await page.evaluate(
            """async (url) => {
              const run = await open_({ url }).start({ input: "go" });
              const events = [];
              for await (const event of run) {
                events.push(event);
                if (events.length === 30) return [run.id, events];
              }
            }""",
            url,
        )
        proxy.plan([Line(cut_at=2_000)])
        await page.reload()
        await page.wait_for_function("window.loaded")
        read = await page.evaluate("async ([url, id]) => read(await open_({ url }).attach(id))", [url, run_id])
        first = read["events"][0]["seq"]
        assert 1 < first <= 31
        await same(world, {**read, "events": [*before[: first - 1], *read["events"]]})
