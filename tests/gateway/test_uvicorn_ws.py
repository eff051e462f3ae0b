"""The frames we write ourselves are what a client's parser reads, and what the library itself would have written."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode

from midstream.gateway.socket import Gone, Socket
from midstream.gateway.uvicorn_ws import EXTENSION, WRITE_BUFFER_BYTES, unmasked
from tests.testkit.served import Served, served

ONE_READ_BYTES = 2 * 256 * 1024
"""What one read of the event loop may bring, and be answered."""

SIZES = [0, 1, 125, 126, 127, 65_535, 65_536, 70_000]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("text", [True, False])
def test_headers_at_every_boundary(size: int, text: bool) -> None:
    body = b"x" * size
    library = Frame(Opcode.TEXT if text else Opcode.BINARY, body).serialize(mask=False)
    assert unmasked([body], text=text) == library


@given(st.lists(st.binary(max_size=200)))
def test_many_frames_are_their_frames_one_after_the_other(frames: list[bytes]) -> None:
    assert unmasked(frames, text=False) == b"".join(Frame(Opcode.BINARY, f).serialize(mask=False) for f in frames)


class Once:
    """An application that sends the same frames to whoever connects, then closes; with or without the extension."""

    def __init__(self, frames: list[bytes], *, text: bool, extension: bool) -> None:
        self.frames = frames
        self.text = text
        self.extension = extension

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert EXTENSION in scope["extensions"]
        if not self.extension:
            scope = {**scope, "extensions": {}}
        socket = Socket(scope, receive, send)
        await socket.accept(None)
        if socket.direct is not None:
            socket.direct.write(self.frames, text=self.text)
            socket.direct.shut(4001, "done")
            # Nothing more is said, and nothing is raised.
            socket.direct.write(self.frames, text=self.text)
            socket.direct.shut(4002, "again")
        else:
            await socket.send(self.frames, text=self.text)
            await socket.close(4001, "done")
            with pytest.raises(Gone):
                await socket.send(self.frames, text=self.text)


@pytest.mark.asyncio
@pytest.mark.parametrize("extension", [True, False])
@pytest.mark.parametrize("text", [True, False])
async def test_a_client_gets_the_same_with_and_without_the_extension(extension: bool, text: bool) -> None:
    frames = [("ü" * size).encode() for size in SIZES]
    async with served(Once(frames, text=text, extension=extension)) as server, server.websocket("/") as socket:
        got = [await socket.recv() for _ in frames]
        with pytest.raises(ConnectionClosed):
            await socket.recv()
        assert (socket.close_code, socket.close_reason) == (4001, "done")
    assert [m.encode() if isinstance(m, str) else m for m in got] == frames
    assert {type(m) for m in got} == {str if text else bytes}


class Raw:
    """A peer that writes frames as it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, opcode: Opcode, data: bytes, *, fin: bool = True) -> None:
        self.writer.write(Frame(opcode, data, fin=fin).serialize(mask=True))

    async def receive(self) -> tuple[int, bytes]:
        first, size = await self.reader.readexactly(2)
        if size == 126:
            (size,) = struct.unpack("!H", await self.reader.readexactly(2))
        return first & 0x0F, await self.reader.readexactly(size)


@asynccontextmanager
async def raw_peer(server: Served, *, receive_buffer: int | None = None) -> AsyncIterator[Raw]:
    made = socket.socket()
    if receive_buffer is not None:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    made.connect((host, int(port)))
    reader, writer = await asyncio.open_connection(sock=made, limit=1024)
    lines = ["GET / HTTP/1.1", f"Host: {host}", "Upgrade: websocket", "Connection: Upgrade",
             "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="]  # fmt: skip
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
    assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
    try:
        yield Raw(reader, writer)
    finally:
        writer.transport.abort()


class Echo:
    """Says back what it was sent, as it was handed over."""

    def __init__(self) -> None:
        self.got: list[str | bytes] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = Socket(scope, receive, send)
        await endpoint.accept(None)
        while (data := await endpoint.receive()) is not None:
            self.got.append(data)
            await endpoint.send([str(len(data)).encode()], text=True)


@pytest.mark.asyncio
async def test_fragments_are_one_message_and_a_ping_may_come_between() -> None:
    echo = Echo()
    async with served(echo) as server, raw_peer(server) as peer:
        peer.send(Opcode.TEXT, "a\u00fc".encode()[:2], fin=False)
        peer.send(Opcode.PING, b"now")
        peer.send(Opcode.CONT, b"", fin=False)
        peer.send(Opcode.CONT, "a\u00fc".encode()[2:])
        assert await peer.receive() == (Opcode.PONG, b"now")
        assert await peer.receive() == (Opcode.TEXT, b"2")
        peer.send(Opcode.BINARY, b"\xff", fin=False)
        peer.send(Opcode.CONT, b"\x00")
        assert await peer.receive() == (Opcode.TEXT, b"2")
    assert echo.got == ["a\u00fc", b"\xff\x00"]
    assert type(echo.got[1]) is bytes


@pytest.mark.asyncio
async def test_text_that_is_not_utf8_is_closed_and_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with served(Echo()) as server, raw_peer(server) as peer:
        peer.send(Opcode.TEXT, b"ab\xff")
        opcode, body = await peer.receive()
        assert (opcode, struct.unpack("!H", body[:2])[0]) == (Opcode.CLOSE, 1007)
    assert caplog.records == []


@pytest.mark.asyncio
async def test_pings_whose_answers_are_not_read_cost_no_memory() -> None:
    async with served(Echo()) as server, raw_peer(server, receive_buffer=4096) as peer:
        (connection,) = server.server.server_state.connections
        pings = Frame(Opcode.PING, b"p" * 125).serialize(mask=True) * 400
        # The kernel takes some megabytes of answers; after that they would stay here.
        for _ in range(400):
            peer.writer.write(pings)
            await peer.writer.drain()
        assert connection.transport.get_write_buffer_size() <= WRITE_BUFFER_BYTES + ONE_READ_BYTES


@pytest.mark.asyncio
async def test_an_upgrade_refused_with_a_response_is_no_defect(caplog: pytest.LogCaptureFixture) -> None:
    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("no", status_code=403)(scope, receive, send)

    async with served(refuse) as server:
        with pytest.raises(InvalidStatus) as refused:
            async with server.websocket("/"):
                pass
    assert refused.value.response.status_code == 403
    assert caplog.records == []
