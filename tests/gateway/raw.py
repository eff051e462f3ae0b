"""A peer that owns its socket: it decides when to read, how much, and how to leave. Text frames up to 64 KiB."""

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from websockets.frames import Frame, Opcode


class RawPeer:
    """`frames` are those that were read whole, by `read` or `take`."""

    def __init__(self, made: socket.socket) -> None:
        self.socket = made
        self.frames: list[dict[str, Any]] = []
        self.closed: int | None = None
        """The code of the server's close; 0: the connection ended without one."""
        self._buffer = bytearray()
        self._loop = asyncio.get_running_loop()

    async def send(self, kind: str, payload: Any = None, *, command_id: str = "c", run_id: str | None = None) -> None:
        frame: dict[str, Any] = {"v": 1, "type": kind, "command_id": command_id, "payload": payload or {}}
        data = json.dumps(frame | ({"run_id": run_id} if run_id else {})).encode()
        await self._loop.sock_sendall(self.socket, Frame(Opcode.TEXT, data).serialize(mask=True))

    async def close(self) -> None:
        """Say good-bye, as the protocol has it."""
        await self._loop.sock_sendall(self.socket, Frame(Opcode.CLOSE, b"\x03\xe8").serialize(mask=True))

    async def take(self, size: int) -> int:
        """Read at most so many bytes; how many there were (0: the connection has ended)."""
        try:
            data = await self._loop.sock_recv(self.socket, size)
        except ConnectionError:
            data = b""
        if not data and self.closed is None:
            self.closed = 0
        self._buffer += data
        while (frame := self._next()) is not None:
            opcode, body = frame
            if opcode == Opcode.TEXT:
                self.frames.append(json.loads(body))
            elif opcode == Opcode.CLOSE:
                self.closed = struct.unpack("!H", body[:2])[0]
        return len(data)

    async def until(self, kind: str, *, size: int = 65_536) -> dict[str, Any]:
        """Read on until there is a frame of that type."""
        while not (found := [frame for frame in self.frames if frame["type"] == kind]):
            assert await self.take(size), f"the connection ended ({self.closed}) before a {kind}"
        return found[0]

    async def to_the_end(self, *, size: int = 65_536) -> int:
        """Read all there is; the code it was closed with (0: none)."""
        while await self.take(size):
            pass
        assert self.closed is not None
        return self.closed

    @property
    def seqs(self) -> list[int]:
        return [frame["seq"] for frame in self.frames if "seq" in frame]

    def reset(self) -> None:
        """Leave with a RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def _next(self) -> tuple[int, bytes] | None:
        if len(self._buffer) < 2:
            return None
        size, start = self._buffer[1], 2
        if size == 126:
            if len(self._buffer) < 4:
                return None
            size, start = int.from_bytes(self._buffer[2:4], "big"), 4
        if len(self._buffer) < start + size:
            return None
        opcode, body = self._buffer[0] & 0x0F, bytes(self._buffer[start : start + size])
        del self._buffer[: start + size]
        return opcode, body


@asynccontextmanager
async def raw_peer(url: str, *, receive_buffer: int = 4096, ready: bool = True) -> AsyncIterator[RawPeer]:
    """Connected, its upgrade answered. The small buffer is full at once."""
    loop = asyncio.get_running_loop()
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    made.setblocking(False)
    host, _, port = url.removeprefix("http://").rpartition(":")
    try:
        await loop.sock_connect(made, (host, int(port)))
        lines = ["GET /v1/ws HTTP/1.1", f"Host: {host}", "Upgrade: websocket", "Connection: Upgrade",
                 "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="]  # fmt: skip
        await loop.sock_sendall(made, ("\r\n".join(lines) + "\r\n\r\n").encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += await loop.sock_recv(made, 1)
        assert b" 101 " in head
        peer = RawPeer(made)
        if ready:
            await peer.until("connection.ready")
        yield peer
    finally:
        made.close()
