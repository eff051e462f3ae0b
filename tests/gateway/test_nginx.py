"""Behind a real nginx with its default buffering: events come when they happen, idle streams stay, and who does not read
is noticed.
"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from structlog.testing import capture_logs
from websockets.asyncio.client import connect

from midstream.gateway.auth import LOCAL
from tests.gateway.conftest import House, Open
from tests.gateway.peer import Peer
from tests.testkit.nginx import UPGRADE, nginx

pytestmark = [pytest.mark.asyncio, pytest.mark.slow]

HASTE = "            proxy_read_timeout 1s;\n            proxy_send_timeout 1s;"
"""How long nginx waits for a sign of life; by default it is a minute."""

IDLE_S = 2.5

GATES = "abcd"
SLOWLY = "say 1; " + "".join(f"gate {gate}; say 1; " for gate in GATES) + "say 300 500"

FORMS = [
    pytest.param("text/event-stream", id="sse"),
    pytest.param("application/x-ndjson", id="ndjson"),
]
VERSIONS = [pytest.param("", id="defaults"), pytest.param("            proxy_http_version 1.1;", id="http11")]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - it comes true elsewhere, where there is no event for it
            await asyncio.sleep(0.002)


@asynccontextmanager
async def streamed(url: str, run_id: str, accept: str, **params: Any) -> AsyncIterator[httpx2.Response]:
    async with (
        httpx2.AsyncClient(base_url=url, timeout=20.0, trust_env=False) as http,
        http.stream("GET", f"/v1/runs/{run_id}/events", headers={"accept": accept}, params=params) as answer,
    ):
        yield answer


async def log_of(house: House, run_id: str) -> list[bytes]:
    lines = await house.server.http.get(f"/v1/runs/{run_id}/events", headers={"accept": "application/x-ndjson"})
    return lines.content.splitlines()


def data_of(body: bytes) -> list[bytes]:
    """The events of a stream, whatever their form, so far as they are whole."""
    whole = body[: body.rfind(b"\n") + 1].splitlines()
    lines = [line.removeprefix(b"data: ") for line in whole if line.startswith((b"data: ", b"{"))]
    return [line for line in lines if "seq" in json.loads(line)]


@pytest.mark.parametrize("accept", FORMS)
@pytest.mark.parametrize("location", VERSIONS)
async def test_events_come_when_they_happen(house: House, tmp_path: Path, accept: str, location: str) -> None:
    run_id = (await house.server.http.post("/v1/runs", json={"input": SLOWLY})).json()["run_id"]
    async with (
        nginx(tmp_path / "nginx", upstream=house.server.url, location=location) as url,
        streamed(url, run_id, accept) as answer,
    ):
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(accept)
        assert "content-encoding" not in answer.headers
        body = bytearray()

        async def opening() -> None:
            # A gate is opened when all before it was heard: a few hundred bytes, which a buffer would hold back.
            for gate in GATES:
                await house.agents.gates[gate].reached.wait()
                said = (await house.registry.place(LOCAL, run_id)).head_seq
                await until(lambda: len(data_of(bytes(body))) >= said)  # noqa: B023 - awaited before the next
                house.agents.gates[gate].opened.set()

        opener = asyncio.ensure_future(opening())
        async for chunk in answer.aiter_raw():
            body.extend(chunk)
        await opener
    assert data_of(bytes(body)) == await log_of(house, run_id)


@pytest.mark.parametrize("accept", FORMS)
async def test_an_idle_stream_outlives_the_proxys_patience(open_house: Open, tmp_path: Path, accept: str) -> None:
    house = await open_house(heartbeat_s=0.3)
    run_id = (await house.server.http.post("/v1/runs", json={"input": "gate a; say 1"})).json()["run_id"]
    async with (
        nginx(tmp_path / "nginx", upstream=house.server.url, location=HASTE) as url,
        streamed(url, run_id, accept) as answer,
    ):
        asyncio.get_running_loop().call_later(IDLE_S, house.agents.gates["a"].opened.set)
        body = b"".join([chunk async for chunk in answer.aiter_raw()])
    assert data_of(body) == await log_of(house, run_id)


async def test_a_silent_stream_is_cut_by_the_proxy_and_goes_on_from_its_cursor(house: House, tmp_path: Path) -> None:
    """That the test above would fail without signs of life."""
    run_id = (await house.server.http.post("/v1/runs", json={"input": "gate a; say 1"})).json()["run_id"]
    async with nginx(tmp_path / "nginx", upstream=house.server.url, location=HASTE) as url:
        body = bytearray()

        async def read() -> None:
            async with streamed(url, run_id, "application/x-ndjson") as answer:
                async for chunk in answer.aiter_raw():
                    body.extend(chunk)

        with pytest.raises(httpx2.RemoteProtocolError):
            await read()
        house.agents.gates["a"].opened.set()
        since = len(data_of(bytes(body)))
        assert since > 0
        async with streamed(url, run_id, "application/x-ndjson", since_seq=since) as answer:
            rest = b"".join([chunk async for chunk in answer.aiter_raw()])
    assert data_of(bytes(body) + rest) == await log_of(house, run_id)


async def test_a_reader_that_stops_is_felt_through_the_proxy(open_house: Open, tmp_path: Path) -> None:
    """nginx takes no more than its reader does: with buffering it would spool the whole run to a file."""
    house = await open_house(send_timeout_s=0.5)
    started = await house.server.http.post("/v1/runs", json={"input": "say 3000 4000", "wait_s": 20})
    run_id = started.json()["run_id"]
    async with nginx(tmp_path / "nginx", upstream=house.server.url) as url:
        with capture_logs() as logged, socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as stuck:
            stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stuck.sendall(b"GET /v1/runs/%b/events HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n" % run_id.encode())
            await until(lambda: house.gateway.connected == 1)
            await until(lambda: house.gateway.connected == 0)
            assert "an event stream's reader was too slow" in [entry["event"] for entry in logged]
            assert not [file for file in (tmp_path / "nginx" / "proxy").rglob("*") if file.is_file()]


async def test_a_websocket_upgrades_and_outlives_the_proxys_patience(open_house: Open, tmp_path: Path) -> None:
    house = await open_house(heartbeat_s=0.3)
    async with nginx(tmp_path / "nginx", upstream=house.server.url, location=HASTE + UPGRADE) as url:
        # Without the client's own pings only the server says that it is there.
        address = url.replace("http", "ws", 1) + "/v1/ws"
        async with connect(address, proxy=None, ping_interval=None) as connected:
            peer = Peer(connected)
            await peer.until("connection.ready")
            run_id = (await peer.ask("run.start", {"input": "gate a; say 3"}))["run_id"]
            asyncio.get_running_loop().call_later(IDLE_S, house.agents.gates["a"].opened.set)
            await peer.until("run.completed")
            assert peer.types().count("heartbeat") >= 2
            assert peer.events(run_id) == await log_of(house, run_id)
