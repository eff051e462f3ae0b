"""What an event costs the server, of many runs or in a long log: `python bench/clients/steady.py ORDER`."""

import asyncio
import sys
import time
from functools import partial
from typing import Final, cast

import msgspec
from clients.dialects import EVENT, SALT, masked, websocket_request
from clients.load import loop_factory
from msgspec import Struct
from processes import processor_s

LIMIT_S: Final = 300.0
_ROOM: Final = 64
_BUFFER: Final = bytearray(_ROOM + 256 * 1024)
_VIEW: Final = memoryview(_BUFFER)[_ROOM:]
_EVENT: Final = EVENT.encode()
_STARTED: Final = b'"type":"run.started"'
_ENDED: Final = b'"type":"run.completed"'
_BAD: Final = (b'"type":"run.failed"', b'"status":"rejected"', b'"type":"run.reset"')


class Crowd(Struct, kw_only=True, frozen=True, tag="crowd"):
    """So many runs at once over some connections; when all have begun, what they cost for a time."""

    port: int
    pid: int
    runs: int
    connections: int
    order: str
    window_s: float


class Long(Struct, kw_only=True, frozen=True, tag="long"):
    """Runs of an agent with a loop of its own, one after the other: what each reach of their logs costs, and (`at` 0)
    all of it, beginnings and ends with it. A reach must be long: the server writes hundreds of events in one go.
    """

    port: int
    pid: int
    order: str
    times: int
    reaches: list[int]


class Cost(Struct, kw_only=True, frozen=True):
    """Events, and the server's processor time for them. `at`: runs, or the event that the reach ends with."""

    at: int
    events: int
    server_s: float
    seconds: float


class Counter(asyncio.BufferedProtocol):
    def __init__(self, number: int, port: int) -> None:
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = loop.create_future()
        self.moved = asyncio.Event()
        self.events = self.started = self.ended = 0
        self.lost = False
        self.bad = b""
        self.thresholds: list[int] = []
        self.passed: list[tuple[int, float, float]] = []
        self.pid = 0
        self._number, self._port = number, port
        self._carry = bytes(_ROOM)
        self._opening = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(websocket_request(f"/v1/ws?client_id=steady{self._number}", self._port))

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.lost = True
        self.moved.set()

    def get_buffer(self, sizehint: int) -> memoryview:
        del sizehint
        return _VIEW

    def buffer_updated(self, nbytes: int) -> None:
        if not self.ready.done():
            self._opening += _VIEW[:nbytes]
            if b'"connection.ready"' in self._opening:
                self.ready.set_result(None)
            return
        stop = _ROOM + nbytes
        _BUFFER[:_ROOM] = self._carry
        self._carry = bytes(_BUFFER[stop - _ROOM : stop])
        self.events += _BUFFER.count(_EVENT, _ROOM - len(_EVENT) + 1, stop)
        if self.thresholds and self.events >= self.thresholds[0]:
            del self.thresholds[0]
            self.passed.append((self.events, processor_s(self.pid), time.perf_counter()))
        self.started += _BUFFER.count(_STARTED, _ROOM - len(_STARTED) + 1, stop)
        if nbytes < 4096 and any(_BUFFER.find(each, 0, stop) >= 0 for each in _BAD):
            self.bad = bytes(_BUFFER[:stop])
        if _BUFFER.find(_ENDED, _ROOM - len(_ENDED) + 1, stop) >= 0:
            self.ended += 1
        self.moved.set()

    def ask(self, order: str, number: int, *, agent: str = "bench") -> None:
        payload = f'{{"agent":"{agent}","input":"{order}"}}'
        command_id = f"{SALT}-{self._number}-{number}"
        self.transport.write(masked(f'{{"v":1,"type":"run.start","command_id":"{command_id}","payload":{payload}}}'))

    async def until_ended(self, count: int) -> None:
        while self.ended < count:
            self.moved.clear()
            await self.moved.wait()
            self.check()

    def check(self) -> None:
        if self.bad or self.lost:
            raise ConnectionError(self.bad[-600:].decode(errors="replace") or "the server closed the connection")


async def opened(count: int, port: int) -> list[Counter]:
    loop = asyncio.get_running_loop()
    made = [
        (await loop.create_connection(partial(Counter, number, port), "127.0.0.1", port))[1] for number in range(count)
    ]
    await asyncio.gather(*(each.ready for each in made))
    return made


async def crowd(asked: Crowd) -> list[Cost]:
    connections = await opened(min(asked.connections, asked.runs), asked.port)
    for number in range(asked.runs):
        connections[number % len(connections)].ask(asked.order, number)
        # Not more than a connection may have on their way.
        while number - sum(each.started for each in connections) >= 16 * len(connections):
            await asyncio.sleep(0.001)
            for each in connections:
                each.check()
    while sum(each.started for each in connections) < asked.runs:
        await asyncio.sleep(0.01)
        for each in connections:
            each.check()
    # Beginnings are behind; the runs are in their stride.
    await asyncio.sleep(1.0)
    begun, before = time.perf_counter(), processor_s(asked.pid)
    events = sum(each.events for each in connections)
    await asyncio.sleep(asked.window_s)
    for each in connections:
        each.check()
    return [
        Cost(
            at=asked.runs,
            events=sum(each.events for each in connections) - events,
            server_s=processor_s(asked.pid) - before,
            seconds=time.perf_counter() - begun,
        )
    ]


async def long(asked: Long) -> list[Cost]:
    (connection,) = await opened(1, asked.port)
    connection.pid = asked.pid
    sums = {reach: [0.0, 0.0, 0.0] for reach in asked.reaches}
    begun, before, all_events = time.perf_counter(), processor_s(asked.pid), 0
    for number in range(asked.times):
        connection.events, connection.passed = 0, []
        connection.thresholds = [each for reach in asked.reaches for each in (reach // 2, reach)]
        connection.ask(asked.order, number, agent="own")
        await connection.until_ended(number + 1)
        all_events += connection.events
        for reach, at in zip(asked.reaches, range(0, len(connection.passed) - 1, 2), strict=False):
            first, last = connection.passed[at], connection.passed[at + 1]
            for index, of in enumerate(sums[reach]):
                sums[reach][index] = of + last[index] - first[index]
    whole = Cost(at=0, events=all_events, server_s=processor_s(asked.pid) - before, seconds=time.perf_counter() - begun)
    return [
        whole,
        *(
            Cost(at=reach, events=int(events), server_s=server, seconds=seconds)
            for reach, (events, server, seconds) in sums.items()
        ),
    ]


async def main() -> None:
    asked = msgspec.json.decode(sys.argv[1], type=Crowd | Long)
    async with asyncio.timeout(LIMIT_S):
        found = await (crowd(asked) if isinstance(asked, Crowd) else long(asked))
    sys.stdout.buffer.write(msgspec.json.encode(found) + b"\n")


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main())
