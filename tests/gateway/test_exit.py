"""A server that exits does not wait for clients that take nothing."""

import asyncio

import pytest

from midstream.gateway import gateway, ndjson_sse, uvicorn_ws
from tests.gateway.conftest import House
from tests.gateway.raw import raw_peer
from tests.gateway.test_slow import small_socket

pytestmark = pytest.mark.asyncio

SOON_S = 0.05


@pytest.fixture(autouse=True)
def short_graces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway, "CLOSE_GRACE_S", 2 * SOON_S)
    monkeypatch.setattr(ndjson_sse, "LAST_WORDS_S", SOON_S)
    monkeypatch.setattr(uvicorn_ws, "EXIT_GRACE_S", SOON_S)


async def test_an_exit_does_not_wait_for_a_websocket_that_does_not_read(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    async with raw_peer(house.server.url) as stalled:
        run_id = await _too_much_to_read(house)
        await stalled.send("run.attach", run_id=run_id)
        await _stuck(house)
        await _exit(house)
    assert caplog.records == []


async def test_an_exit_does_not_wait_for_an_event_stream_that_is_not_read(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    with small_socket(house) as stalled:
        stalled.setblocking(True)
        run_id = await _too_much_to_read(house)
        stalled.sendall(f"GET /v1/runs/{run_id}/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        await _stuck(house)
        await _exit(house)
    assert caplog.records == []


async def _too_much_to_read(house: House) -> str:
    """An ended run of more than the kernel takes for a socket."""
    async with house.peer() as peer:
        run_id: str = (await peer.ask("run.start", {"input": "say 3000 4000"}))["run_id"]
        await peer.until("run.completed")
    return run_id


async def _stuck(house: House) -> None:
    """Until a connection has more to write than its client and the kernel take."""
    async with asyncio.timeout(5), house.peer() as peer:
        connections = house.server.server.server_state.connections
        while not any(each.transport.get_write_buffer_size() for each in connections):  # type: ignore[union-attr]
            await peer.ping()


async def _exit(house: House) -> None:
    """As at a signal: the gateway's close, then the server's own."""
    await house.gateway.close()
    async with asyncio.timeout(3):
        await house.server.server.shutdown()
