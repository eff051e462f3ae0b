"""A browser's own EventSource, and curl, against a real server."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Page

from midstream_protocol.events import EVENTS
from tests.gateway.conftest import House, Open
from tests.testkit.chromium import chromium, open_page
from tests.testkit.programs import needed

pytestmark = [pytest.mark.asyncio, pytest.mark.slow]

FOLLOW = """
window.got = []; window.opened = 0; window.reset = 0;
window.source = new EventSource(%s);
source.onopen = () => { opened += 1 };
for (const type of %s) source.addEventListener(type, e => got.push([e.lastEventId, e.type, e.data]));
source.addEventListener("run.reset", () => { reset += 1 });
null
"""


@pytest_asyncio.fixture
async def page() -> AsyncIterator[Page]:
    # A browser for each test: the house is on the test's own loop, and so must be who talks to both.
    async with chromium() as browser, open_page(browser) as page:
        yield page


async def follow(page: Page, house: House, path: str) -> None:
    # Any document of the same origin: an EventSource needs one.
    await page.goto(f"{house.server.url}/healthz")
    await page.evaluate(FOLLOW % (json.dumps(path), json.dumps(sorted(EVENTS))))


async def until(page: Page, condition: str) -> None:
    await page.evaluate(
        f"new Promise((ok, no) => {{ const started = Date.now(); const look = () => ({condition}) ? ok() :"
        f" Date.now() - started > 15000 ? no('not: {condition}') : setTimeout(look, 5); look(); }})"
    )


async def cut(house: House) -> None:
    """Drop every connection, as a network does."""
    for connection in tuple(house.server.server.server_state.connections):
        connection.transport.abort()


async def test_an_event_source_follows_and_comes_back_where_it_was_and_stops_at_the_end(
    house: House, page: Page
) -> None:
    answer = await house.server.http.post("/v1/runs", json={"input": "say 5; gate a; say 50; gate b; say 5"})
    run_id, epoch = answer.json()["run_id"], answer.json()["cursor"]["epoch"]
    await house.agents.gates["a"].reached.wait()
    await follow(page, house, f"/v1/runs/{run_id}/events")
    await until(page, "got.length >= 8")
    await cut(house)
    # While it is away, more is said than it has seen.
    house.agents.gates["a"].opened.set()
    await house.agents.gates["b"].reached.wait()
    await until(page, "opened == 2 && got.length >= 60")
    await cut(house)
    house.agents.gates["b"].opened.set()
    # The end closes the stream; it comes back once more and is told 204, which closes it for good.
    await until(page, "source.readyState == 2")
    got = [tuple(event) for event in await page.evaluate("got")]
    lines = (
        await house.server.http.get(f"/v1/runs/{run_id}/events", headers={"accept": "application/x-ndjson"})
    ).content
    log = lines.decode().splitlines()
    assert [data for _, _, data in got] == log
    assert [place for place, _, _ in got] == [f"{epoch}.{seq}" for seq in range(1, len(log) + 1)]
    assert [kind for _, kind, _ in got] == [json.loads(line)["type"] for line in log]
    assert await page.evaluate("opened") == 3
    assert await page.evaluate("reset") == 0


async def test_an_event_source_starts_anew_from_the_snapshot_where_its_history_is_gone(
    house: House, page: Page
) -> None:
    answer = await house.server.http.post("/v1/runs", json={"input": "say 3", "wait_s": 10})
    run_id = answer.json()["run_id"]
    await follow(page, house, f"/v1/runs/{run_id}/events?since_seq=1&epoch=another")
    await until(page, "source.readyState == 2")
    assert await page.evaluate("[reset, got.length]") == [1, 0]


async def test_curl_reads_a_run_to_its_end(open_house: Open) -> None:
    curl = needed("curl", package="curl")
    house = await open_house(heartbeat_s=0.05)
    run_id = (await house.server.http.post("/v1/runs", json={"input": "gate a; say 3"})).json()["run_id"]
    url = f"{house.server.url}/v1/runs/{run_id}/events"
    plain, lines = [
        await asyncio.create_subprocess_exec(
            curl, "-sSN", "--noproxy", "*", "-H", f"accept: {accept}", url, stdout=asyncio.subprocess.PIPE
        )
        for accept in ("text/event-stream", "application/x-ndjson")
    ]
    assert plain.stdout is not None
    assert lines.stdout is not None
    assert await plain.stdout.readuntil(b"\n\n") == b"retry: 1000\n: connected\n\n"
    # Long enough for a sign of life on both.
    beaten = b""
    while b": keep-alive" not in beaten:
        beaten += await plain.stdout.readuntil(b"\n\n")
    heard = []
    while not heard or json.loads(heard[-1])["type"] != "heartbeat":
        heard.append(await lines.stdout.readline())
    assert json.loads(heard[-1])["payload"]["runs"] == {run_id: len(heard) - 1}
    house.agents.gates["a"].opened.set()
    told, rest = await asyncio.gather(plain.communicate(), lines.communicate())
    assert (plain.returncode, lines.returncode) == (0, 0)
    assert b"event: run.completed\n" in told[0]
    types = [json.loads(line)["type"] for line in rest[0].splitlines()]
    assert types[-1] == "run.completed"
