"""A client that does not read costs the others nothing, and the server a bounded amount."""

import asyncio
import json
import socket

import pytest
from websockets.exceptions import ConnectionClosed

from midstream.gateway import uvicorn_ws
from midstream.gateway.outlets import BATCH_BYTES
from midstream.gateway.uvicorn_ws import WRITE_BUFFER_BYTES
from tests.gateway.conftest import House, Open, both_ways_out
from tests.gateway.peer import Peer

pytestmark = pytest.mark.asyncio

way_out = both_ways_out()


def small_socket(house: House) -> socket.socket:
    """Connected, with a receive buffer that is full at once."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    host, _, port = house.server.url.removeprefix("http://").rpartition(":")
    made.connect((host, int(port)))
    made.setblocking(False)
    return made


def buffered(house: House) -> list[int]:
    """Bytes that the server holds for each of its connections."""
    return [each.transport.get_write_buffer_size() for each in house.server.server.server_state.connections]


async def stop_reading(peer: Peer) -> None:
    peer.socket.transport.pause_reading()


async def test_a_reader_that_stops_is_closed_as_too_slow_and_holds_up_nobody(open_house: Open) -> None:
    house = await open_house(send_timeout_s=0.3)
    async with (
        house.peer() as slow_owner,
        house.server.websocket(sock=small_socket(house), ping_interval=None) as slow_socket,
    ):
        slow = Peer(slow_socket)
        run_id = (await slow_owner.ask("run.start", {"input": "gate go; say 3000 4000"}))["run_id"]
        await slow.send("run.attach", {}, run_id=run_id)
        await slow.until("run.caught_up")
        await stop_reading(slow)
        house.agents.gates["go"].opened.set()
        await slow_owner.until("run.completed")
        seqs = [json.loads(raw)["seq"] for raw in slow_owner.events(run_id)]
        assert seqs == list(range(1, len(seqs) + 1))
        assert max(buffered(house)) <= WRITE_BUFFER_BYTES + BATCH_BYTES + 8192
        async with asyncio.timeout(5):
            while house.gateway.connected > 1:
                await slow_owner.ping()
        slow.socket.transport.resume_reading()
        with pytest.raises(ConnectionClosed) as closed:
            await slow.until("run.completed")
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4008
    # What it did get is a beginning of the log, and from its cursor the rest follows.
    got = slow.events(run_id)
    assert got == slow_owner.events(run_id)[: len(got)]
    async with house.peer() as again:
        await again.send("run.attach", {"since_seq": len(got)}, run_id=run_id)
        await again.until("run.completed")
        assert got + again.events(run_id) == slow_owner.events(run_id)


async def test_a_client_that_asks_and_never_reads_is_closed(open_house: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uvicorn_ws, "CLOSE_TIMEOUT_S", 0.1)
    house = await open_house(send_timeout_s=60.0)
    async with house.peer() as other, house.server.websocket(sock=small_socket(house), ping_interval=None) as socket_:
        peer = Peer(socket_)
        await stop_reading(peer)

        async def flood() -> None:
            while True:
                await peer.send("ping", {"t": "x" * 4000})

        with pytest.raises(ConnectionClosed):
            async with asyncio.timeout(20):
                await flood()
        await other.ping()
        assert max(buffered(house), default=0) <= WRITE_BUFFER_BYTES + BATCH_BYTES + 8192
