"""A reader of an event stream that takes nothing is cut, and gives its place and its run back."""

import asyncio

import pytest

from tests.gateway.conftest import Open
from tests.gateway.test_slow import small_socket

pytestmark = pytest.mark.asyncio


async def test_a_slow_event_stream_is_cut_and_frees_its_run(open_house: Open, caplog: pytest.LogCaptureFixture) -> None:
    house = await open_house(send_timeout_s=0.3)
    reader = small_socket(house)
    reader.setblocking(True)
    async with house.peer() as peer:
        run_id = (await peer.ask("run.start", {"input": "gate go; say 3000 4000"}))["run_id"]
        reader.sendall(f"GET /v1/runs/{run_id}/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        while house.gateway.connected < 2:
            await peer.ping()
        house.agents.gates["go"].opened.set()
        await peer.until("run.completed")
        async with asyncio.timeout(5):
            while house.gateway.connected > 1:
                await peer.ping()
        # Cut at once: a server that waits for this reader to take the rest would hold its socket for ever.
        async with asyncio.timeout(5):
            while len(house.server.server.server_state.connections) > 1:
                await peer.ping()
    reader.close()
    assert caplog.records == []
