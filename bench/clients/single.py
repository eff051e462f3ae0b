"""One thing after the other on an idle machine, by blocking sockets: `python bench/clients/single.py ORDER`.

A blocking socket is what costs a client least between two frames, so that the server's part of a delay is the larger.
"""

import socket
import sys
import time
from typing import Final

import msgspec
from clients.dialects import SALT, Dialect, filled, get_request, masked, post_request, websocket_request
from msgspec import Struct
from processes import processor_s

LIMIT_S: Final = 60.0
_STAMPED: Final = b'"text":"'
_STAMP_DIGITS: Final = 16
_ECHO: Final = '{"v":1,"type":"run.start","command_id":"{id}","payload":{"input":"{order}"}}'


class Target(Struct, kw_only=True, frozen=True):
    """Whom to ask. `pid` 0: nobody's processor time is asked for. Without a dialect it is an echo (`ws` or `http`)."""

    name: str
    port: int
    dialect: Dialect | None = None
    echo: str = "ws"
    pid: int = 0


class First(Struct, kw_only=True, frozen=True, tag="first"):
    """Each target in turn, `times` times: from asking to its first event."""

    targets: list[Target]
    times: int
    pause_s: float


class Late(Struct, kw_only=True, frozen=True, tag="late"):
    """A stamped run of each target: from saying to having, each delta."""

    targets: list[Target]
    order: str


class Replay(Struct, kw_only=True, frozen=True, tag="replay"):
    """Read an ended run from its beginning, `times` times."""

    target: Target
    run_id: str
    times: int
    query: str = ""


class Replayed(Struct, kw_only=True, frozen=True):
    """Of each time: milliseconds to its first event and to its end, and of the server's processor; events, bytes."""

    first_ms: list[float]
    all_ms: list[float]
    server_ms: list[float]
    events: int
    bytes: int


class Found(Struct, kw_only=True, frozen=True):
    """Milliseconds of each target by name."""

    ms: dict[str, list[float]] = {}
    replayed: Replayed | None = None


class Wire:
    """A connection, and what came that was not taken yet."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.socket = socket.create_connection(("127.0.0.1", target.port), timeout=LIMIT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.came = b""
        self.asked = 0
        dialect = target.dialect
        if (dialect.kind if dialect else target.echo) == "ws":
            path = filled(dialect.path, id=f"-{target.name}") if dialect else "/echo"
            self.socket.sendall(websocket_request(path, target.port))
            self.until(dialect.ready.encode() if dialect else b"\r\n\r\n")

    def until(self, mark: bytes, at: int = 0) -> int:
        """Read until `mark` is there; where it ends."""
        while (found := self.came.find(mark, at)) < 0:
            at = max(at, len(self.came) - len(mark) + 1)
            self.read()
        return found + len(mark)

    def read(self) -> None:
        more = self.socket.recv(256 * 1024)
        if not more:
            raise ConnectionError(f"{self.target.name} closed: {self.came[-600:]!r}")
        self.came += more
        # Refusals are short, and long pieces are not looked through.
        if (
            self.target.dialect
            and len(more) < 4096
            and any(each.encode() in more for each in self.target.dialect.failed)
        ):
            raise ConnectionError(f"{self.target.name} refused: {self.came[-600:]!r}")

    def ask(self, order: str) -> None:
        self.asked += 1
        self.came = b""
        dialect = self.target.dialect
        ask = filled(dialect.ask if dialect else _ECHO, id=f"{SALT}-{self.target.name}-{self.asked}", order=order)
        if (dialect.kind if dialect else self.target.echo) == "ws":
            self.socket.sendall(masked(ask))
            return
        path, accept = (dialect.path, dialect.accept) if dialect else ("/echo", "*/*")
        self.socket.sendall(post_request(path, self.target.port, ask, accept=accept))
        if dialect is not None and dialect.follow:
            self.until(b'"run_id":"')
            run_id = self.came[self.until(b'"run_id":"') :].partition(b'"')[0].decode()
            self.came = b""
            self.socket.sendall(get_request(filled(dialect.follow, run_id=run_id), self.target.port, accept=accept))

    def first(self, order: str) -> float:
        """Milliseconds from asking to the first event, or to the echo; then the run is read to its end."""
        begun = time.perf_counter()
        self.ask(order)
        dialect = self.target.dialect
        self.until(dialect.event.encode() if dialect else b'"payload"')
        took = (time.perf_counter() - begun) * 1e3
        if dialect is not None:
            self._end(dialect)
        return took

    def _end(self, dialect: Dialect) -> None:
        at = self.until(dialect.end.encode())
        if dialect.kind == "http":
            self.until(b"\r\n0\r\n\r\n", at)

    def late(self, order: str) -> list[float]:
        dialect = self.target.dialect
        assert dialect is not None
        self.ask(order)
        mark, end = dialect.text.encode(), dialect.end.encode()
        found: list[float] = []
        at = 0
        while True:
            self.read()
            now = time.monotonic_ns() // 1000
            while (delta := self.came.find(mark, at)) >= 0:
                text = self.came.find(_STAMPED, delta)
                stop = text + len(_STAMPED) + _STAMP_DIGITS
                if text < 0 or len(self.came) < stop:
                    break
                found.append((now - int(self.came[stop - _STAMP_DIGITS : stop])) / 1e3)
                at = stop
            if self.came.find(end, at) >= 0:
                return found

    def replay(self, run_id: str, query: str) -> tuple[float, float, float, int, int]:
        dialect = self.target.dialect
        assert dialect is not None
        event, end = dialect.event.encode(), dialect.end.encode()
        self.came = b""
        self.asked += 1
        before = processor_s(self.target.pid)
        begun = time.perf_counter()
        if dialect.kind == "ws":
            replay = f',"replay":"{query}"' if query else ""
            self.socket.sendall(
                masked(
                    f'{{"v":1,"type":"run.attach","command_id":"{SALT}-a-{self.asked}","run_id":"{run_id}",'
                    f'"payload":{{"since_seq":0{replay}}}}}'
                )
            )
        else:
            path = filled(dialect.follow, run_id=run_id) + (f"?replay={query}" if query else "")
            self.socket.sendall(get_request(path, self.target.port, accept=dialect.accept))
        pieces: list[bytes] = []
        first = 0.0
        last = b""
        while True:
            piece = self.socket.recv(1 << 20)
            if not piece:
                raise ConnectionError(f"{self.target.name} closed: {last[-600:]!r}")
            pieces.append(piece)
            if not first and (event in last + piece or b'"run.reset"' in last + piece):
                first = time.perf_counter() - begun
            # A snapshot has no event of the end, but says how the run is.
            if end in last + piece or b'"detached"' in last + piece or b'"run.reset"' in last + piece:
                break
            last = (last + piece)[-200:]
        took = time.perf_counter() - begun
        time.sleep(0.02)
        server = processor_s(self.target.pid) - before
        whole = b"".join(pieces)
        if dialect.kind == "http":
            self.came = whole
            self.until(b"\r\n0\r\n\r\n")
        else:
            self.socket.setblocking(False)
            try:
                while self.socket.recv(1 << 20):
                    pass
            except BlockingIOError:
                pass
            self.socket.settimeout(LIMIT_S)
        return first * 1e3, took * 1e3, server * 1e3, whole.count(event), len(whole)


def found(order: First | Late | Replay) -> Found:
    if isinstance(order, Replay):
        wire = Wire(order.target)
        rows = [wire.replay(order.run_id, order.query) for _ in range(order.times)]
        return Found(
            replayed=Replayed(
                first_ms=[row[0] for row in rows],
                all_ms=[row[1] for row in rows],
                server_ms=[row[2] for row in rows],
                events=rows[-1][3],
                bytes=rows[-1][4],
            )
        )
    wires = [Wire(target) for target in order.targets]
    if isinstance(order, Late):
        return Found(ms={wire.target.name: wire.late(order.order) for wire in wires})
    took: dict[str, list[float]] = {wire.target.name: [] for wire in wires}
    for _ in range(order.times):
        for wire in wires:
            took[wire.target.name].append(wire.first("say 1"))
            time.sleep(order.pause_s)
    return Found(ms=took)


def main() -> None:
    order = msgspec.json.decode(sys.argv[1], type=First | Late | Replay)
    sys.stdout.buffer.write(msgspec.json.encode(found(order)) + b"\n")


if __name__ == "__main__":
    main()
