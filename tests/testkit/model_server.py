"""A `/v1/messages` server that says exactly the bytes a test wants, when it wants, and sees the client leave.

    async with model_server(Reply(text_message("Hel", "lo"))) as server:
        ...                                   # talk to server.base_url
        server.requests[0].body               # what was asked
        await server.disconnected()           # until a client left in the middle of a reply

It shares no code with the adapter under test: plain HTTP/1.1 on an asyncio protocol. Each request takes the next reply;
the last one is repeated. A reply's steps are written in order, each as one HTTP chunk: bytes as they are, an
`asyncio.Event` waits for the test, an async iterator is written as it yields, `STALL` goes silent until the client leaves, `HANG_UP` breaks the connection.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from itertools import pairwise, zip_longest
from typing import Any

from midstream.tasks import spawn, stop


class Act(Enum):
    STALL = "stall"
    HANG_UP = "hang up"


STALL = Act.STALL
HANG_UP = Act.HANG_UP

Step = bytes | asyncio.Event | AsyncIterator[bytes] | Act


@dataclass(frozen=True, kw_only=True)
class Received:
    """One request. `at` is `time.monotonic()`; header names are lower-case."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any
    at: float


class Reply:
    """What to answer. With `silent` not even the reply's headers are sent, until the client leaves. With `raw` nothing
    is sent but the steps: no headers, no chunks, and the connection ends after the last.
    """

    def __init__(
        self,
        steps: Iterable[Step] = (),
        *,
        status: int = 200,
        headers: dict[str, str] | None = None,
        silent: bool = False,
        raw: bool = False,
    ) -> None:
        self.raw = raw
        self.steps = tuple(steps)
        self.status = status
        self.headers = {"content-type": "text/event-stream", **(headers or {})}
        self.silent = silent


Replies = Reply | Callable[[Received], Reply]


def error_reply(status: int, kind: str, message: str = "no", *, headers: dict[str, str] | None = None) -> Reply:
    body = json.dumps({"type": "error", "error": {"type": kind, "message": message}}).encode()
    return Reply([body], status=status, headers={"content-type": "application/json", **(headers or {})})


@dataclass
class ModelServer:
    """`requests` and `disconnects` grow; a disconnect is a client that left before its reply was complete."""

    base_url: str = ""
    requests: list[Received] = field(default_factory=list)
    disconnects: list[float] = field(default_factory=list)
    connections: int = 0
    unread: int = 0
    """Connections whose client reads so little that the sockets between are full. Only async iterators wait for it."""
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def requested(self, count: int = 1) -> Received:
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.requests) >= count)
        return self.requests[count - 1]

    async def disconnected(self, count: int = 1) -> float:
        """Wait for the `count`-th early leave; its `time.monotonic()`."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.disconnects) >= count)
        return self.disconnects[count - 1]

    async def note(self) -> None:
        async with self._changed:
            self._changed.notify_all()


@asynccontextmanager
async def model_server(*replies: Replies) -> AsyncIterator[ModelServer]:
    server = ModelServer()
    script = _Script(replies or (Reply(text_message("Hello")),))
    live: set[_Connection] = set()
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(lambda: _Connection(server, script, live), "127.0.0.1", 0)
    server.base_url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listening.close()
        for connection in tuple(live):
            await connection.end()


class _Script:
    def __init__(self, replies: Sequence[Replies]) -> None:
        self._replies = replies
        self._taken = 0

    def next(self, received: Received) -> Reply:
        reply = self._replies[min(self._taken, len(self._replies) - 1)]
        self._taken += 1
        return reply if isinstance(reply, Reply) else reply(received)


class _Connection(asyncio.Protocol):
    def __init__(self, server: ModelServer, script: _Script, live: set["_Connection"]) -> None:
        self._server = server
        self._script = script
        self._live = live
        self._input = b""
        self._left = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._answering: asyncio.Task[None] | None = None
        self._noting: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._live.add(self)
        self._server.connections += 1

    def data_received(self, data: bytes) -> None:
        self._input += data
        self._take()

    def pause_writing(self) -> None:
        self._server.unread += 1
        self._writable.clear()

    def resume_writing(self) -> None:
        self._server.unread -= 1
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._left.set()
        if not self._writable.is_set():
            self.resume_writing()
        if self._answering is not None and not self._answering.done():
            self._server.disconnects.append(time.monotonic())
            self._note()
            self._answering.cancel()
        self._live.discard(self)

    async def end(self) -> None:
        await stop(self._answering, *self._noting)
        self._transport.abort()
        await self._left.wait()

    def _take(self) -> None:
        """Answer the next request if it is here and the one before it is answered."""
        if self._answering is not None and not self._answering.done():
            return
        head, found, rest = self._input.partition(b"\r\n\r\n")
        if not found:
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", "0"))
        if len(rest) < length:
            return
        self._input = rest[length:]
        method, path, _ = first.split(" ")
        body = json.loads(rest[:length]) if length else None
        received = Received(method=method, path=path, headers=headers, body=body, at=time.monotonic())
        self._server.requests.append(received)
        self._answering = spawn(self._answer(self._script.next(received)), name="model-server/answer")
        self._note()

    async def _answer(self, reply: Reply) -> None:
        if reply.silent:
            await self._left.wait()
        if reply.raw:
            for step in reply.steps:
                assert isinstance(step, bytes)
                self._transport.write(step)
            self._transport.close()
            return
        head = [f"HTTP/1.1 {reply.status} Said", "transfer-encoding: chunked"]
        head += [f"{name}: {value}" for name, value in reply.headers.items()]
        self._transport.write("\r\n".join([*head, "", ""]).encode())
        for step in reply.steps:
            match step:
                case bytes():
                    self._chunk(step)
                case asyncio.Event():
                    await step.wait()
                case Act.STALL:
                    await self._left.wait()
                case Act.HANG_UP:
                    self._transport.abort()
                    return
                case _:
                    async for chunk in step:
                        self._chunk(chunk)
                        await self._writable.wait()
        self._transport.write(b"0\r\n\r\n")
        asyncio.get_running_loop().call_soon(self._take)

    def _chunk(self, data: bytes) -> None:
        if data:
            self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _note(self) -> None:
        task = spawn(self._server.note(), name="model-server/note")
        self._noting.add(task)
        task.add_done_callback(self._noting.discard)


# What a Messages API says, as bytes.


def sse(event: str, data: dict[str, Any]) -> bytes:
    return f"event: {event}\ndata: {json.dumps(data)}\n\n".encode()


def event(kind: str, **fields: Any) -> bytes:
    return sse(kind, {"type": kind, **fields})


def ping() -> bytes:
    return event("ping")


def error_event(kind: str, message: str = "no") -> bytes:
    return sse("error", {"type": "error", "error": {"type": kind, "message": message}})


def message_start(*, model: str = "test-model", input_tokens: int = 10, **usage: int) -> bytes:
    return event(
        "message_start",
        message={
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": input_tokens, "output_tokens": 1, **usage},
        },
    )


def message_end(stop_reason: str = "end_turn", *, output_tokens: int = 5) -> list[bytes]:
    delta = {"stop_reason": stop_reason, "stop_sequence": None}
    return [event("message_delta", delta=delta, usage={"output_tokens": output_tokens}), event("message_stop")]


def block_start(index: int, **block: Any) -> bytes:
    return event("content_block_start", index=index, content_block=block)


def block_delta(index: int, **delta: Any) -> bytes:
    return event("content_block_delta", index=index, delta=delta)


def block_stop(index: int) -> bytes:
    return event("content_block_stop", index=index)


def text_block(index: int, *pieces: str) -> list[bytes]:
    deltas = [block_delta(index, type="text_delta", text=piece) for piece in pieces]
    return [block_start(index, type="text", text=""), *deltas, block_stop(index)]


def tool_block(index: int, call_id: str, name: str, *json_pieces: str) -> list[bytes]:
    deltas = [block_delta(index, type="input_json_delta", partial_json=piece) for piece in json_pieces]
    return [block_start(index, type="tool_use", id=call_id, name=name, input={}), *deltas, block_stop(index)]


def interleaved(*blocks: list[bytes]) -> list[bytes]:
    """The blocks' events, one of each in turn."""
    return [one for row in zip_longest(*blocks) for one in row if one is not None]


def message(*blocks: list[bytes], stop_reason: str = "end_turn") -> list[bytes]:
    return [message_start(), *(one for block in blocks for one in block), *message_end(stop_reason)]


def text_message(*pieces: str, stop_reason: str = "end_turn") -> list[bytes]:
    return message(text_block(0, *pieces), stop_reason=stop_reason)


def split(whole: bytes, at: Iterable[int]) -> list[bytes]:
    """The same bytes, cut at the given offsets."""
    cuts = [0, *sorted({cut for cut in at if 0 < cut < len(whole)}), len(whole)]
    return [whole[a:b] for a, b in pairwise(cuts)]
