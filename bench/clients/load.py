"""The load client: `python bench/clients/load.py ORDER`, one JSON line with what it saw.

Its connections are opened before the clock starts. In each wave every one of them asks for a run at once and reads it
to its end. It must not be the limit, so it does not read frames: it counts marks in the bytes as they come, with a scan
in C over one buffer for all connections. What is stamped (`servers.orders`) is taken out frame by frame.
"""

import asyncio
import sys
import time
from array import array
from collections.abc import Callable
from functools import partial
from typing import Final, cast

import msgspec
from clients.dialects import SALT, Dialect, filled, get_request, masked, post_request, websocket_request
from figures import median, percentile
from msgspec import Struct
from processes import processor_s

WAVE_LIMIT_S: Final = 120.0

_ROOM: Final = 64
"""Bytes before the buffer for the end of what came before: a mark may lie across two pieces."""
_BUFFER: Final = bytearray(_ROOM + 256 * 1024)
_VIEW: Final = memoryview(_BUFFER)[_ROOM:]

_STAMPED: Final = b'"text":"'
_STAMP_DIGITS: Final = 16


class Load(Struct, kw_only=True, frozen=True):
    port: int
    pid: int
    dialect: Dialect
    runs: int
    order: str
    waves: int = 1
    stamped: bool = False
    pause_s: float = 0.0
    """Between two waves."""


class Seen(Struct, kw_only=True, frozen=True):
    """Milliseconds but `seconds` and `*_s`. `first_ms`, `text_ms`: from asking to the first event, the first delta.

    `last_ms`: of each wave, from asking to the end of the last run. `own_ms`: the slowest run, from its first event to
    its end. `late_ms`: from saying to having, p50 p99 worst, of `stamps` deltas.
    """

    runs: int
    events: int
    bytes: int
    seconds: float
    server_s: float
    client_busy: float
    first_ms: tuple[float, float]
    text_ms: tuple[float, float]
    last_ms: list[float]
    own_ms: tuple[float, float]
    late_ms: tuple[float, float, float]
    stamps: int


class Marks:
    """The marks of a dialect as bytes, made once."""

    def __init__(self, dialect: Dialect) -> None:
        self.event = dialect.event.encode()
        self.text = dialect.text.encode()
        self.end = dialect.end.encode()
        self.failed = tuple(each.encode() for each in dialect.failed)
        self.ready = dialect.ready.encode()
        if max(map(len, (self.event, self.text, self.end))) > _ROOM:
            raise ValueError("a mark is longer than the room for it")


class Connection(asyncio.BufferedProtocol):
    def __init__(self, number: int, load: Load, marks: Marks, late: "array[int]") -> None:
        self._loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = self._loop.create_future()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self.events = self.bytes = 0
        self.first_s = self.text_s = self.end_s = 0.0
        self._late = late
        self._rest = b""
        self._load = load
        self._dialect = load.dialect
        self._marks = marks
        self._number = number
        self._asked = 0
        self.asked_at = 0.0
        self._before = 0
        self._carry = bytes(_ROOM)
        self._received: Callable[[int], None] = self._shake

    # -- opening

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        if self._dialect.kind == "http":
            self.ready.set_result(None)
            return
        path = filled(self._dialect.path, id=str(self._number))
        self.transport.write(websocket_request(path, self._load.port))

    def connection_lost(self, exc: Exception | None) -> None:
        for waiting in (self.ready, self.ended):
            if not waiting.done():
                waiting.set_exception(exc or ConnectionError("the server closed the connection"))

    def get_buffer(self, sizehint: int) -> memoryview:
        del sizehint
        return _VIEW

    def buffer_updated(self, nbytes: int) -> None:
        self._received(nbytes)

    def _shake(self, nbytes: int) -> None:
        shaken = b"\r\n\r\n" in self._rest
        self._rest += _VIEW[:nbytes]
        if not shaken and b"\r\n\r\n" in self._rest:
            if not self._rest.startswith(b"HTTP/1.1 101"):
                self.ready.set_exception(ConnectionError(self._rest[:300].decode(errors="replace")))
                self.transport.abort()
                return
            for text in self._dialect.opening:
                self.transport.write(masked(text))
        if self._marks.ready in self._rest and not self.ready.done():
            self.ready.set_result(None)

    # -- a run

    def ask(self) -> None:
        self._asked += 1
        self.ended = self._loop.create_future()
        self.first_s = self.text_s = self.end_s = 0.0
        self._before = self.events
        self._carry, self._rest = bytes(_ROOM), b""
        ask = filled(self._dialect.ask, id=f"{SALT}-{self._number}-{self._asked}", order=self._load.order)
        self.asked_at = time.perf_counter()
        self._received = self._count
        if self._dialect.kind == "ws":
            self.transport.write(masked(ask))
            return
        if self._dialect.follow:
            self._received = self._found
        self.transport.write(post_request(self._dialect.path, self._load.port, ask, accept=self._dialect.accept))

    def _found(self, nbytes: int) -> None:
        """The answer to a POST that does not stream itself: go and read the run."""
        self._rest += _VIEW[:nbytes]
        head, whole, body = self._rest.partition(b"\r\n\r\n")
        if not whole or len(body) < int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0):
            return
        run_id = body.partition(b'"run_id":"')[2].partition(b'"')[0].decode()
        if not run_id:
            self._fail(self._rest)
            return
        self._rest = b""
        self._received = self._count
        path = filled(self._dialect.follow, run_id=run_id)
        self.transport.write(get_request(path, self._load.port, accept=self._dialect.accept))

    def _count(self, nbytes: int) -> None:
        marks, stop = self._marks, _ROOM + nbytes
        _BUFFER[:_ROOM] = self._carry
        self._carry = bytes(_BUFFER[stop - _ROOM : stop])
        found = _BUFFER.count(marks.event, _ROOM - len(marks.event) + 1, stop)
        self.events += found
        self.bytes += nbytes
        if not self.text_s:
            if found and not self.first_s:
                self.first_s = time.perf_counter() - self.asked_at
            if _BUFFER.find(marks.text, _ROOM - len(marks.text) + 1, stop) >= 0:
                self.text_s = time.perf_counter() - self.asked_at
        if self._load.stamped:
            self._take_stamps(bytes(_VIEW[:nbytes]))
        if self.end_s:
            self._finish(stop)
        elif (at := _BUFFER.find(marks.end, _ROOM - len(marks.end) + 1, stop)) >= 0:
            self.end_s = time.perf_counter() - self.asked_at
            self._check_seq(at)
            self._finish(stop)
        elif nbytes < 4096:
            for mark in marks.failed:
                if _BUFFER.find(mark, _ROOM - len(mark) + 1, stop) >= 0:
                    self._fail(bytes(_VIEW[:nbytes]))
                    return

    def _finish(self, stop: int) -> None:
        # An answer over HTTP has an end of its own, and only then can the connection be asked again.
        if (self._dialect.kind == "ws" or _BUFFER[:stop].endswith(b"0\r\n\r\n")) and not self.ended.done():
            self.ended.set_result(None)

    def _check_seq(self, end: int) -> None:
        at = _BUFFER.rfind(self._marks.event, 0, end)
        if not self._dialect.seqs or at < 0:
            return
        start = at + len(self._marks.event)
        seq = int(bytes(_BUFFER[start : start + 12]).partition(b",")[0] or 0)
        if seq and seq != self.events - self._before:
            self._fail(b"a run ended at seq %d after %d events" % (seq, self.events - self._before))

    def _take_stamps(self, data: bytes) -> None:
        now = time.monotonic_ns() // 1000
        buffer = self._rest + data if self._rest else data
        at, mark = 0, self._marks.text
        while (found := buffer.find(mark, at)) >= 0:
            text = buffer.find(_STAMPED, found)
            if text < 0 or len(buffer) < text + len(_STAMPED) + _STAMP_DIGITS:
                self._rest = buffer[found:]
                return
            at = text + len(_STAMPED) + _STAMP_DIGITS
            self._late.append(now - int(buffer[at - _STAMP_DIGITS : at]))
        self._rest = buffer[max(at, len(buffer) - len(mark) + 1) :]

    def _fail(self, why: bytes) -> None:
        if not self.ended.done():
            self.ended.set_exception(ConnectionError(why[:600].decode(errors="replace")))


async def opened(load: Load, late: "array[int]") -> list[Connection]:
    loop = asyncio.get_running_loop()
    marks = Marks(load.dialect)
    connections: list[Connection] = []
    for number in range(load.runs):
        _, made = await loop.create_connection(partial(Connection, number, load, marks, late), "127.0.0.1", load.port)
        connections.append(made)
    async with asyncio.timeout(WAVE_LIMIT_S):
        await asyncio.gather(*(each.ready for each in connections))
    return connections


async def played(load: Load) -> Seen:
    late: array[int] = array("q")
    connections = await opened(load, late)
    first: list[float] = []
    text: list[float] = []
    last: list[float] = []
    own: list[float] = []
    seconds = server = busy = 0.0
    for wave in range(load.waves):
        if wave and load.pause_s:
            await asyncio.sleep(load.pause_s)
        busy_before, server_before = time.process_time(), processor_s(load.pid)
        begun = time.perf_counter()
        for each in connections:
            each.ask()
        async with asyncio.timeout(WAVE_LIMIT_S):
            await asyncio.gather(*(each.ended for each in connections))
        seconds += time.perf_counter() - begun
        server += processor_s(load.pid) - server_before
        busy += time.process_time() - busy_before
        last.append(max((each.asked_at + each.end_s - begun) * 1e3 for each in connections))
        first += [each.first_s * 1e3 for each in connections]
        text += [each.text_s * 1e3 for each in connections]
        own += [(each.end_s - each.first_s) * 1e3 for each in connections]
    for each in connections:
        each.ready = each.ended = asyncio.get_running_loop().create_future()
        each.ready.set_result(None)
        each.transport.abort()
    stamps = [each / 1e3 for each in late]
    return Seen(
        runs=load.runs * load.waves,
        events=sum(each.events for each in connections),
        bytes=sum(each.bytes for each in connections),
        seconds=seconds,
        server_s=server,
        client_busy=busy / seconds,
        first_ms=(median(first), max(first)),
        text_ms=(median(text), max(text)),
        last_ms=last,
        own_ms=(median(own), max(own)),
        late_ms=(median(stamps), percentile(stamps, 99), max(stamps, default=0.0)),
        stamps=len(stamps),
    )


def main() -> None:
    load = msgspec.json.decode(sys.argv[1], type=Load)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        seen = runner.run(played(load))
    sys.stdout.buffer.write(msgspec.json.encode(seen) + b"\n")


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 - an extra
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


if __name__ == "__main__":
    main()
