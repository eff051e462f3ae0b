"""The load client: `python bench/load.py PORT RUNS WAVES`, one JSON line with what it saw.

RUNS connections are opened before the clock starts. In each wave every one of them asks for a run at once and reads it
to its end. It speaks just enough WebSocket (RFC 6455) to count frames, so that it stays far from being the limit: it
does not decode what it counts.
"""

import asyncio
import statistics
import sys
import time
from functools import partial
from typing import Final, cast

import msgspec
from msgspec import Struct

HANDSHAKE: Final = (
    "GET /v1/ws?client_id=bench{number} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
    "Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
WAVE_LIMIT_S: Final = 60.0


class Seen(Struct, kw_only=True, frozen=True):
    """`events`: frames of runs. Seconds. `first_ms`: from asking to the first event; `text_ms`: to the first delta."""

    runs: int
    events: int
    bytes: int
    seconds: float
    first_ms: list[float]
    text_ms: list[float]
    client_busy: float


class Connection(asyncio.Protocol):
    def __init__(self, number: int, port: int) -> None:
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self.events = 0
        self.bytes = 0
        self.first_s = 0.0
        self.text_s = 0.0
        self._handshake = HANDSHAKE.format(number=number, port=port).encode()
        self._buffer = b""
        self._open = False
        self._asked = 0
        self._number = number
        self._asked_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self._handshake)

    def connection_lost(self, exc: Exception | None) -> None:
        for waiting in (self.ready, self.ended):
            if not waiting.done():
                waiting.set_exception(exc or ConnectionError("the server closed the connection"))

    def ask(self) -> None:
        self._asked += 1
        self.ended = asyncio.get_running_loop().create_future()
        self.first_s = self.text_s = 0.0
        command_id = f"c{self._number}-{self._asked}"
        text = b'{"v":1,"type":"run.start","command_id":"%b","payload":{"input":"go"}}' % command_id.encode()
        assert len(text) < 126
        self._asked_at = time.perf_counter()
        # A mask of zeros is a mask, and leaves the bytes as they are.
        self.transport.write(bytes((0x81, 0x80 | len(text), 0, 0, 0, 0)) + text)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        at = 0
        if not self._open:
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                self._buffer = buffer
                return
            if not buffer.startswith(b"HTTP/1.1 101"):
                self.ready.set_exception(ConnectionError(buffer[:200].decode(errors="replace")))
                self.transport.abort()
                return
            self._open = True
            at = end + 4
        length = len(buffer)
        while length - at >= 2:
            size, start = buffer[at + 1], at + 2
            if size == 126:
                if length - at < 4:
                    break
                size, start = int.from_bytes(buffer[at + 2 : at + 4], "big"), at + 4
            elif size == 127:
                if length - at < 10:
                    break
                size, start = int.from_bytes(buffer[at + 2 : at + 10], "big"), at + 10
            if length - start < size:
                break
            at = start + size
            self._frame(buffer[start:at])
        self._buffer = buffer[at:]

    def _frame(self, body: bytes) -> None:
        # Only a run's events have a seq, and the envelope's fields come in a fixed order.
        if body[7:12] == b'"seq"':
            self.events += 1
            self.bytes += len(body)
            if not self.first_s:
                self.first_s = time.perf_counter() - self._asked_at
            if not self.text_s and b'"message.delta"' in body:
                self.text_s = time.perf_counter() - self._asked_at
            if b'"type":"run.' in body and b'"type":"run.completed"' in body:
                self.ended.set_result(None)
            elif b'"type":"run.failed"' in body:
                self.ended.set_exception(ConnectionError(body.decode()))
        elif not self.ready.done():
            self.ready.set_result(None)
        elif b'"rejected"' in body:
            self.ended.set_exception(ConnectionError(body.decode()))


async def load(port: int, runs: int, waves: int) -> Seen:
    loop = asyncio.get_running_loop()
    connections: list[Connection] = []
    for number in range(runs):
        _, made = await loop.create_connection(partial(Connection, number, port), "127.0.0.1", port)
        connections.append(made)
    async with asyncio.timeout(WAVE_LIMIT_S):
        await asyncio.gather(*(each.ready for each in connections))
    first: list[float] = []
    text: list[float] = []
    seconds = 0.0
    busy = time.process_time()
    for _ in range(waves):
        begun = time.perf_counter()
        for each in connections:
            each.ask()
        async with asyncio.timeout(WAVE_LIMIT_S):
            await asyncio.gather(*(each.ended for each in connections))
        seconds += time.perf_counter() - begun
        first += [each.first_s * 1e3 for each in connections]
        text += [each.text_s * 1e3 for each in connections]
    busy = time.process_time() - busy
    for each in connections:
        each.ready = each.ended = loop.create_future()
        each.ready.set_result(None)
        each.transport.abort()
    return Seen(
        runs=runs * waves,
        events=sum(each.events for each in connections),
        bytes=sum(each.bytes for each in connections),
        seconds=seconds,
        first_ms=[statistics.median(first), max(first)],
        text_ms=[statistics.median(text), max(text)],
        client_busy=busy / seconds,
    )


def main() -> None:
    port, runs, waves = map(int, sys.argv[1:])
    try:
        import uvloop  # noqa: PLC0415 - an extra
    except ImportError:
        runner = asyncio.Runner()
    else:
        runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    with runner:
        seen = runner.run(load(port, runs, waves))
    sys.stdout.buffer.write(msgspec.json.encode(seen) + b"\n")


if __name__ == "__main__":
    main()
