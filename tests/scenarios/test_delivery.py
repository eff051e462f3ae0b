"""One run, read over every transport through a network that breaks and a server that is killed and restarted.

Whoever comes back with its cursor has the same bytes in the end, whatever it was cut off in the middle of.
"""

import asyncio
import contextlib
import json
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import websockets

from tests.scenarios.world import ENDS, World, same_history, whole
from tests.testkit.fault_proxy import FaultProxy, cuts

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(120)]

RUN = "run_read_by_all"
WORDS = 250
CUT = (OSError, websockets.WebSocketException, TimeoutError, EOFError, asyncio.IncompleteReadError)


class Reader:
    """One that remembers what it has, byte for byte, and comes back for the rest."""

    def __init__(self) -> None:
        self.seen: dict[int, str] = {}
        self.visits = 0

    @property
    def cursor(self) -> int:
        return max(self.seen, default=0)

    @property
    def ended(self) -> bool:
        return bool(self.seen) and json.loads(self.seen[self.cursor])["type"] in ENDS

    def take(self, text: str) -> None:
        event = json.loads(text)
        if "seq" in event:
            assert event["seq"] == self.cursor + 1, "a hole, or an event that was there already"
            self.seen[event["seq"]] = text

    async def keep_reading(self, visit: Callable[["Reader"], Awaitable[None]]) -> None:
        while not self.ended:
            self.visits += 1
            with contextlib.suppress(*CUT):
                await visit(self)
            await asyncio.sleep(0.02)


def by_websocket(port: int) -> Callable[[Reader], Awaitable[None]]:
    async def visit(reader: Reader) -> None:
        async with websockets.connect(f"ws://127.0.0.1:{port}/v1/ws?client_id=ws", open_timeout=5) as socket:
            payload = {"since_seq": reader.cursor}
            frame = {"v": 1, "type": "run.attach", "command_id": f"a{reader.visits}", "run_id": RUN, "payload": payload}
            await socket.send(json.dumps(frame))
            while not reader.ended:
                async with asyncio.timeout(15):
                    reader.take(await socket.recv(decode=True))

    return visit


def by_http(port: int, accept: str) -> Callable[[Reader], Awaitable[None]]:
    async def visit(reader: Reader) -> None:
        incoming, outgoing = await asyncio.open_connection("127.0.0.1", port)
        head = f"GET /v1/runs/{RUN}/events HTTP/1.0\r\nHost: localhost\r\nAccept: {accept}\r\n"
        outgoing.write(f"{head}Last-Event-ID: {reader.cursor}\r\n\r\n".encode())
        try:
            async with asyncio.timeout(15):
                await incoming.readuntil(b"\r\n\r\n")
            # A line that was cut off in the middle is not read: `readuntil` gives whole ones.
            while True:
                async with asyncio.timeout(15):
                    line = (await incoming.readuntil(b"\n")).decode().rstrip("\n")
                if line.startswith("data: "):
                    reader.take(line.removeprefix("data: "))
                elif line.startswith("{"):
                    reader.take(line)
        finally:
            outgoing.transport.abort()

    return visit


@pytest.mark.parametrize("coalesce_ms", ["0", "40"])
async def test_every_transport_has_the_same_bytes_through_cuts_kills_and_restarts(
    world: Callable[[list[Any]], World], coalesce_ms: str
) -> None:
    text = " ".join(f"word{number}" for number in range(WORDS))
    it = world([{"steps": [{"text": text, "by": "word", "delay_s": 0.01}]}])
    await it.up(MIDSTREAM_COALESCE_MS=coalesce_ms, MIDSTREAM_DRAIN_GRACE_S="0.2")
    readers = {name: Reader() for name in ("ws", "sse", "ndjson")}
    async with FaultProxy(it.port, lines=cuts(seed=7)) as wire:
        async with it.client("starter") as client:
            receipt = await client.command("run.start", "start", input="go", run_id=RUN)
            assert receipt["status"] == "accepted", receipt
        reading = [
            asyncio.create_task(readers["ws"].keep_reading(by_websocket(wire.port))),
            asyncio.create_task(readers["sse"].keep_reading(by_http(wire.port, "text/event-stream"))),
            asyncio.create_task(readers["ndjson"].keep_reading(by_http(wire.port, "application/x-ndjson"))),
        ]
        for how in (signal.SIGKILL, signal.SIGTERM):
            await asyncio.sleep(0.8)
            await it.kill(how)
            await it.up(MIDSTREAM_COALESCE_MS=coalesce_ms)
        async with asyncio.timeout(90):
            await asyncio.gather(*reading)
        assert wire.counts.cuts > 10
    truth = (await whole(it, RUN)).raw
    for reader in readers.values():
        assert reader.visits > 2
        same_history(reader.seen, truth)
        assert reader.seen == truth
