"""A reader that takes little is not one that takes nothing: neither a run's stream nor the feed is cut for it."""

import asyncio
import socket
from typing import Any

import pytest

from midstream.gateway.uvicorn_http import EXTENSION, unsent_bytes
from tests.gateway.conftest import House, Open

pytestmark = pytest.mark.asyncio

PATIENCE = 4
"""Sends that are not taken within the timeout, before one is."""


class SlowReader:
    """One request, answered through a `send` whose events wait. While they do, its reader takes `step` bytes at a time."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.body = b""
        self.got = asyncio.Event()
        self.cut = asyncio.Event()
        self._held = 1_000_000
        self._refused = 0

    async def ask(self, house: House, path: str) -> None:
        extension = {"ready": lambda: False, "held": self._taken, "abort": self.cut.set}
        scope = {
            "type": "http",
            "method": "GET",
            "path": path,
            "query_string": b"",
            "headers": [(b"host", b"127.0.0.1"), (b"accept", b"application/x-ndjson")],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 1),
            "extensions": {EXTENSION: extension},
        }
        await house.gateway(scope, self._receive, self._send)

    def _taken(self) -> int:
        self._held -= self.step
        return self._held

    async def _receive(self) -> dict[str, Any]:
        await self.cut.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if b"run.started" in message.get("body", b"") and self._refused < PATIENCE:
            self._refused += 1
            await asyncio.Event().wait()
        self.body += message.get("body", b"")
        if b"run.started" in self.body:
            self.got.set()


@pytest.mark.parametrize("what", ["run", "feed"])
@pytest.mark.parametrize("step", [1, 0])
async def test_it_is_waited_for_as_long_as_it_takes_anything(open_house: Open, what: str, step: int) -> None:
    house = await open_house(send_timeout_s=0.02)
    reader = SlowReader(step)
    async with house.peer() as peer, asyncio.timeout(5):
        if what == "feed":
            asked = asyncio.create_task(reader.ask(house, "/v1/feed"))
            while house.gateway.connected < 2:
                await peer.ping()
        run_id = (await peer.ask("run.start", {"input": "say 1"}))["run_id"]
        if what == "run":
            asked = asyncio.create_task(reader.ask(house, f"/v1/runs/{run_id}/events"))
        await (reader.got if step else reader.cut).wait()
    assert reader.cut.is_set() == (step == 0)
    reader.cut.set()
    await asked


async def test_what_the_system_holds_for_a_reader_was_not_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as door, socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.connect(door.getsockname())
        accepted, _ = door.accept()
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=accepted)
        transport.write(b"x" * 300_000)
        # The system has it all, and nobody has read any of it.
        assert transport.get_write_buffer_size() == 0
        assert 200_000 < unsent_bytes(transport) <= 300_000
        transport.abort()
