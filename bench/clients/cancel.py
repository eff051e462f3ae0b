"""From a cancel to the provider's connection being closed: `python bench/clients/cancel.py ORDER`.

It is the client and the model's API at once, so that both ends are read from one clock. Its first line is the API's
port; then it takes one line, whom to ask, and answers with what it found. The API says three words and goes silent.
"""

import asyncio
import sqlite3
import sys
import time
from contextlib import closing
from typing import Any, Final, cast

import msgspec
from clients.dialects import SALT, masked, websocket_request
from clients.load import loop_factory
from msgspec import Struct

LIMIT_S: Final = 20.0
PAUSE_S: Final = 0.02


class Order(Struct, kw_only=True, frozen=True):
    times: int


class Whom(Struct, kw_only=True, frozen=True):
    """`path`: the server's SQLite file, if it has one: there is looked whether the cancel is written."""

    port: int
    echo_port: int
    path: str | None = None


class Cancelled(Struct, kw_only=True, frozen=True):
    """Milliseconds. `durable`: of how many closes the cancel was in the file when the close was seen."""

    close_ms: list[float]
    echo_ms: list[float]
    durable: int | None


def _event(kind: str, **fields: Any) -> bytes:
    data = b"event: %b\ndata: %b\n\n" % (kind.encode(), msgspec.json.encode({"type": kind, **fields}))
    return b"%x\r\n%b\r\n" % (len(data), data)


_MESSAGE: Final = {"id": "msg_1", "type": "message", "role": "assistant", "model": "bench", "content": []}
_ANSWER: Final = b"".join(
    [
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
        _event(
            "message_start",
            message={**_MESSAGE, "stop_reason": None, "usage": {"input_tokens": 1, "output_tokens": 1}},
        ),
        _event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        *(
            _event("content_block_delta", index=0, delta={"type": "text_delta", "text": word})
            for word in ("One ", "two ", "three ")
        ),
    ]
)


class Model(asyncio.Protocol):
    """The API. `closed` is set to the time when a connection that was answered closes."""

    closed: "asyncio.Future[float]"

    def __init__(self) -> None:
        self._asked = b""
        self._answered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._asked += data
        head, whole, body = self._asked.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
        if whole and len(body) >= length and not self._answered:
            self._answered = True
            self._transport.write(_ANSWER)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self._answered and not Model.closed.done():
            Model.closed.set_result(time.perf_counter())


class Socket(asyncio.Protocol):
    def __init__(self) -> None:
        self._came = b""
        self._mark = b"\r\n\r\n"
        self._waiting: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._came += data
        if self._mark in self._came and not self._waiting.done():
            self._waiting.set_result(time.perf_counter())

    def expect(self, mark: bytes) -> "asyncio.Future[float]":
        """The time when `mark` comes, from here on."""
        self._came, self._mark = b"", mark
        self._waiting = asyncio.get_running_loop().create_future()
        return self._waiting

    @classmethod
    async def opened(cls, path: str, port: int, ready: bytes) -> "Socket":
        _, made = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        came = made.expect(ready)
        made.transport.write(websocket_request(path, port))
        await came
        return made


async def measured(times: int, whom: Whom) -> Cancelled:
    ours = await Socket.opened("/v1/ws?client_id=bench-cancel", whom.port, b'"connection.ready"')
    echo = await Socket.opened("/echo", whom.echo_port, b"\r\n\r\n")
    close_ms, echo_ms, durable = [], [], 0
    for number in range(times):
        Model.closed = asyncio.get_running_loop().create_future()
        said = ours.expect(b"three ")
        start = f'{{"v":1,"type":"run.start","command_id":"{SALT}-{number}","payload":{{"input":"go"}}}}'
        ours.transport.write(masked(start))
        await said
        run_id = ours._came.partition(b'"run_id":"')[2].partition(b'"')[0].decode()  # noqa: SLF001 - its own
        await asyncio.sleep(PAUSE_S)
        cancelled = ours.expect(b'"type":"run.cancelled"')
        cancel = f'"type":"run.cancel","command_id":"{SALT}-c{number}","run_id":"{run_id}","payload":{{}}'
        begun = time.perf_counter()
        ours.transport.write(masked(f'{{"v":1,{cancel}}}'))
        close_ms.append((await Model.closed - begun) * 1e3)
        durable += whom.path is not None and written(whom.path) > number
        await cancelled
        await asyncio.sleep(PAUSE_S)
        back = echo.expect(b"run.cancel")
        begun = time.perf_counter()
        echo.transport.write(masked(f'{{"v":1,{cancel}}}'))
        echo_ms.append((await back - begun) * 1e3)
        await asyncio.sleep(PAUSE_S)
    for each in (ours, echo):
        each.transport.abort()
    return Cancelled(close_ms=close_ms, echo_ms=echo_ms, durable=durable if whom.path is not None else None)


def written(path: str) -> int:
    """How many cancels are committed in the server's file, as another process sees it."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as file:
        found = file.execute("SELECT count(*) FROM events WHERE instr(CAST(data AS TEXT), '\"run.cancelling\"') > 0")
        return int(found.fetchone()[0])


async def main() -> None:
    order = msgspec.json.decode(sys.argv[1], type=Order)
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(Model, "127.0.0.1", 0)
    print(listening.sockets[0].getsockname()[1], flush=True)
    line = await loop.run_in_executor(None, sys.stdin.readline)
    if line:
        async with asyncio.timeout(LIMIT_S + order.times):
            found = await measured(order.times, msgspec.json.decode(line, type=Whom))
        print(msgspec.json.encode(found).decode(), flush=True)
    listening.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main())
