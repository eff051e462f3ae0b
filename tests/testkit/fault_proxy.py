"""A TCP proxy in front of a real server that breaks what passes, in the ways in which networks break: at a byte, at a
WebSocket frame, or now.

In a test: `async with FaultProxy(port, lines=cuts(seed=7)) as proxy: connect(proxy.port)`. For other languages:
`python -m tests.testkit.fault_proxy --target 127.0.0.1:8484` prints `{"port": …, "control": …}` and takes one JSON
object a line at the control port (`Control`).
"""

import argparse
import asyncio
import contextlib
import json
import random
import socket
import struct
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final, Literal, Self

Break = Literal["close", "reset", "hang"]
BREAKS: Final[tuple[Break, ...]] = ("close", "reset", "hang")

HANG_S: Final = 0.3
"""How long a line that hangs says nothing before it is gone: shorter than any client's patience, long enough to see."""
HEAD_BYTES: Final = 64 * 1024
"""A request's head is read whole up to here, to see whether it asks for a WebSocket."""
CHUNK_BYTES: Final = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class Line:
    """What befalls one connection. Bytes are counted from its first one, the HTTP head included.

    `duplicate`, `drop` and `swap` are probabilities for each data frame that the server sends on a WebSocket, beyond
    the first `spare` ones; what happens is decided by `seed`. `swap` sends a frame after the one that follows it.
    """

    refuse: bool = False
    """It is taken and ends at once."""
    cut_at: int | None = None
    """So many bytes of the server come through."""
    up_cut_at: int | None = None
    """So many bytes of the client come through."""
    how: Break = "close"
    stall_at: int | None = None
    """After so many bytes of the server nothing is read of it for `stall_s`."""
    stall_s: float = 1.0
    piece: int | None = None
    """At most so many bytes at a time, both ways."""
    duplicate: float = 0.0
    drop: float = 0.0
    swap: float = 0.0
    spare: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.how not in BREAKS:
            raise ValueError(f"how: expected one of {', '.join(BREAKS)}, not {self.how!r}")
        if self.piece is not None and self.piece < 1:
            raise ValueError("piece: expected a number of bytes, at least 1")


WHOLE: Final = Line()


def cuts(*, seed: int, least: int = 200, most: int = 6_000) -> Iterator[Line]:
    """Connections without end, each cut after a random number of the server's bytes in a random way."""
    dice = random.Random(seed)
    while True:
        yield Line(cut_at=dice.randint(least, most), how=dice.choice(BREAKS))


def mixed(*, seed: int, least: int = 200, most: int = 6_000) -> Iterator[Line]:
    """As `cuts`, and on the way there every other fault: bytes one by one, stalls, frames twice, out of order, lost."""
    dice = random.Random(seed)
    faults: list[dict[str, Any]] = [
        {},
        {"piece": 1},
        {"piece": 7},
        {"stall_s": 0.2},
        {"duplicate": 0.2},
        {"swap": 0.2},
        {"drop": 0.05},
        {"duplicate": 0.2, "swap": 0.2, "drop": 0.05},
    ]
    for line in cuts(seed=seed, least=least, most=most):
        chosen = dict(dice.choice(faults))
        if "stall_s" in chosen:
            chosen["stall_at"] = dice.randint(1, line.cut_at or 1)
        yield replace(line, seed=dice.randint(0, 1 << 30), **chosen)


@dataclass
class Counts:
    """What was done so far."""

    connections: int = 0
    websockets: int = 0
    refused: int = 0
    cuts: int = 0
    stalls: int = 0
    duplicated: int = 0
    dropped: int = 0
    swapped: int = 0


class FaultProxy:
    """In front of `target`, a port on loopback, at `port`. Connections get the planned lines one after the other, and
    `rest` when there are no more; what is planned or done now is the same for WebSockets and HTTP.
    """

    def __init__(self, target: int, *, lines: Iterable[Line] = (), rest: Line = WHOLE) -> None:
        self.target = target
        self.port = 0
        self.counts = Counts()
        self.block_websockets = False
        """Answer the asking for a WebSocket with 403, as some networks' proxies do."""
        self._open: dict[asyncio.Task[Any], _Connection] = {}
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server: asyncio.Server | None = None
        self.plan(lines, rest=rest)

    async def __aenter__(self) -> Self:
        await self.accept()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.refuse()
        tasks = list(self._open)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- what is to happen

    def plan(self, lines: Iterable[Line], *, rest: Line = WHOLE) -> None:
        """What befalls the next connections; those that are open stay as they are."""
        self._lines = iter(lines)
        self._rest = rest

    @property
    def open(self) -> int:
        """How many connections are open."""
        return len(self._open)

    def cut(self, how: Break = "close") -> int:
        """Break all open connections now; how many there were."""
        connections = list(self._open.values())
        for connection in connections:
            connection.end(how)
        return len(connections)

    def stall(self) -> None:
        """Read nothing and pass nothing on, until `flow`."""
        self._flowing.clear()

    def flow(self) -> None:
        self._flowing.set()

    async def refuse(self) -> None:
        """Nobody listens until `accept`; open connections stay."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def accept(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, reuse_address=True)
            self.port = self._server.sockets[0].getsockname()[1]

    # -- one connection

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        line = next(self._lines, self._rest)
        self.counts.connections += 1
        connection = _Connection(self, line, reader, writer)
        self._open[task] = connection
        try:
            if line.refuse:
                self.counts.refused += 1
            else:
                await connection.run()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            del self._open[task]
            connection.drop()

    async def flowing(self) -> None:
        await self._flowing.wait()


class _Connection:
    def __init__(
        self, proxy: FaultProxy, line: Line, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._proxy = proxy
        self._line = line
        self._reader = reader
        self._writer = writer
        self._up: asyncio.StreamWriter | None = None
        self._frames: _Frames | None = None
        self._ending = False

    async def run(self) -> None:
        head = await self._head()
        websocket = b"upgrade: websocket" in head.lower()
        if websocket:
            self._proxy.counts.websockets += 1
            if self._proxy.block_websockets:
                self._proxy.counts.refused += 1
                self._writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                self._writer.close()
                return
            self._frames = _Frames(self._line, self._proxy.counts)
        upstream, self._up = await asyncio.open_connection("127.0.0.1", self._proxy.target)
        up = asyncio.create_task(self._pump_up(head))
        down = asyncio.create_task(self._pump_down(upstream))
        try:
            # A client that has said all may still be told something; what the server ends is over.
            await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
            if not self._ending and not down.done() and self._reader.at_eof():
                with contextlib.suppress(OSError):
                    self._up.write_eof()
                await asyncio.wait({down})
        finally:
            up.cancel()
            down.cancel()
            await asyncio.gather(up, down, return_exceptions=True)

    async def _head(self) -> bytes:
        head = b""
        while b"\r\n\r\n" not in head and len(head) < HEAD_BYTES and (more := await self._reader.read(CHUNK_BYTES)):
            head += more
        return head

    async def _pump_up(self, head: bytes) -> None:
        assert self._up is not None
        way = _Way(self, self._up, piece=self._line.piece, cut_at=self._line.up_cut_at)
        await way.pass_on(head)
        while data := await self._read(self._reader):
            await way.pass_on(data)

    async def _pump_down(self, upstream: asyncio.StreamReader) -> None:
        line = self._line
        way = _Way(self, self._writer, piece=line.piece, cut_at=line.cut_at, stall_at=line.stall_at)
        while data := await self._read(upstream):
            await way.pass_on(self._frames.feed(data) if self._frames is not None else data)
        self._writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> bytes:
        await self.flowing()
        data = await reader.read(CHUNK_BYTES)
        await self.flowing()
        return data

    async def flowing(self) -> None:
        await self._proxy.flowing()

    async def stall(self) -> None:
        self._proxy.counts.stalls += 1
        await asyncio.sleep(self._line.stall_s)

    async def cut(self) -> None:
        if self._line.how == "hang":
            await asyncio.sleep(HANG_S)
        self.end(self._line.how)

    def end(self, how: Break) -> None:
        self._ending = True
        self._proxy.counts.cuts += 1
        if self._up is not None:
            self._up.transport.abort()
        if how == "close":
            # What was passed on arrives, then the end.
            self._writer.close()
            return
        with contextlib.suppress(OSError):
            raw = self._writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    def drop(self) -> None:
        if self._up is not None:
            self._up.transport.abort()
        if not self._writer.is_closing():
            self._writer.transport.abort()


class _Way:
    """One direction of a connection: pieces, a stall, the cut."""

    def __init__(
        self,
        connection: _Connection,
        writer: asyncio.StreamWriter,
        *,
        piece: int | None,
        cut_at: int | None,
        stall_at: int | None = None,
    ) -> None:
        self._connection = connection
        self._writer = writer
        self._piece = piece
        self._cut_at = cut_at
        self._stall_at = stall_at
        self._passed = 0

    async def pass_on(self, data: bytes) -> None:
        """Raises `ConnectionAbortedError` when this is where it was to be cut."""
        while data:
            if self._passed == self._stall_at:
                self._stall_at = None
                await self._connection.stall()
            if self._cut_at is not None and self._passed >= self._cut_at:
                await self._connection.cut()
                raise ConnectionAbortedError
            bounds = (at - self._passed for at in (self._cut_at, self._stall_at) if at is not None)
            size = min(self._piece or len(data), *(bound for bound in bounds if bound > 0), len(data))
            self._writer.write(data[:size])
            await self._writer.drain()
            self._passed += size
            data = data[size:]
            if self._piece is not None:
                # So that the reader's machine has it before the next piece joins it.
                await asyncio.sleep(0)
                await self._connection.flowing()


class _Frames:
    """What the server says on a WebSocket, cut into frames and put together again: RFC 6455 stays intact, because
    frames of a server have no mask and are passed on byte for byte.
    """

    def __init__(self, line: Line, counts: Counts) -> None:
        self._line = line
        self._counts = counts
        self._dice = random.Random(line.seed)
        self._faulty = bool(line.duplicate or line.drop or line.swap)
        self._rest = b""
        self._head = True
        self._seen = 0
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        if not self._faulty:
            return data
        self._rest += data
        out = b""
        if self._head:
            head, blank, rest = self._rest.partition(b"\r\n\r\n")
            if not blank:
                return b""
            # An answer that is no upgrade passes as it is.
            self._faulty = head.startswith(b"HTTP/1.1 101")
            out, self._head, self._rest = head + blank, False, rest
            if not self._faulty:
                return out + rest
        while frame := self._next():
            out += self._fate(frame)
        return out

    def _next(self) -> bytes:
        """One whole frame, or nothing yet."""
        if len(self._rest) < 2:
            return b""
        length, start = self._rest[1] & 0x7F, 2
        if length >= 126:
            start = 4 if length == 126 else 10
            if len(self._rest) < start:
                return b""
            length = int.from_bytes(self._rest[2:start])
        end = start + length
        if len(self._rest) < end:
            return b""
        frame, self._rest = self._rest[:end], self._rest[end:]
        return frame

    def _fate(self, frame: bytes) -> bytes:
        # Whole messages alone: a text or binary frame that is the last of its message (our server sends no others).
        if frame[0] not in (0x81, 0x82):
            return frame
        self._seen += 1
        if self._seen <= self._line.spare:
            return frame
        held, self._held = self._held, b""
        roll = self._dice.random()
        if roll < self._line.drop:
            self._counts.dropped += 1
            return held
        if roll < self._line.drop + self._line.duplicate:
            self._counts.duplicated += 1
            return frame + frame + held
        if not held and roll < self._line.drop + self._line.duplicate + self._line.swap:
            self._counts.swapped += 1
            self._held = frame
            return b""
        return frame + held


class Control:
    """The control port. One JSON object a line, each answered by one line: the counts, or `{"error": text}`.

    | `do` | |
    |---|---|
    | `plan` | `lines`: a list of objects with the fields of `Line`; `rest`: one for all that follow |
    | `cut` | `how`: `close`, `reset`, `hang` (as `reset`) |
    | `stall`, `flow` | |
    | `refuse`, `accept` | |
    | `websockets` | `blocked`: true or false |
    | `target` | `port` |
    | `seen` | |
    """

    def __init__(self, proxy: FaultProxy) -> None:
        self._proxy = proxy
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while text := await reader.readline():
                writer.write(json.dumps(await self.do(text)).encode() + b"\n")
                await writer.drain()
        writer.close()

    async def do(self, text: bytes | str) -> dict[str, Any]:
        try:
            await self._do(json.loads(text))
        except (ValueError, TypeError, KeyError) as wrong:
            return {"error": f"{type(wrong).__name__}: {wrong}"}
        return {**asdict(self._proxy.counts), "open": self._proxy.open}

    async def _do(self, asked: dict[str, Any]) -> None:
        proxy = self._proxy
        match asked["do"]:
            case "plan":
                lines = [line_of(each) for each in asked.get("lines", [])]
                proxy.plan(lines, rest=line_of(asked.get("rest", {})))
            case "cut":
                proxy.cut(asked.get("how", "close"))
            case "stall":
                proxy.stall()
            case "flow":
                proxy.flow()
            case "refuse":
                await proxy.refuse()
            case "accept":
                await proxy.accept()
            case "websockets":
                proxy.block_websockets = bool(asked["blocked"])
            case "target":
                proxy.target = int(asked["port"])
            case "seen":
                pass
            case other:
                raise ValueError(f"do: {other!r} is not known")


def line_of(given: dict[str, Any]) -> Line:
    """Raises `ValueError` for a field that a `Line` does not have."""
    known = {each.name for each in fields(Line)}
    if unknown := given.keys() - known:
        raise ValueError(f"{', '.join(sorted(unknown))}: a line has {', '.join(sorted(known))}")
    return Line(**given)


async def serve(target: int, *, port: int, control: int) -> None:
    """Until it is cancelled; says its ports on standard output."""
    proxy = FaultProxy(target)
    proxy.port = port
    door = Control(proxy)
    door.port = control
    async with proxy, door:
        sys.stdout.write(json.dumps({"port": proxy.port, "control": door.port}) + "\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.testkit.fault_proxy", description=__doc__)
    parser.add_argument("--target", required=True, help="127.0.0.1:PORT, or PORT, of the server")
    parser.add_argument("--port", type=int, default=0, help="where it listens (0: any free port)")
    parser.add_argument("--control", type=int, default=0, help="where it takes orders (0: any free port)")
    chosen = parser.parse_args()
    target = int(chosen.target.rpartition(":")[2])
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(target, port=chosen.port, control=chosen.control))


if __name__ == "__main__":
    main()
