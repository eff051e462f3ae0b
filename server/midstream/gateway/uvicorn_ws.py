"""uvicorn's WebSocket protocol with three things its ASGI interface cannot do.

* Many frames in one write. An ASGI `send` costs a system call a frame (7-8 µs); joined, a frame costs 1.3 µs.
  Offered to the application as the ASGI extension `EXTENSION`, so that any other server works too, only slower.
* A small write buffer, so that a slow reader is noticed after kilobytes.
* A close that does not wait for a buffer that nobody empties, and ends in an abort.
"""

import asyncio
import struct
from collections.abc import Iterable
from typing import Any, Final, cast

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request
from websockets.protocol import State

EXTENSION: Final = "midstream.websocket.send_many"
"""The extension's name in `scope["extensions"]` and its message type: `{type, text: bool, frames: [bytes]}`.

Its value has `ready`, a function: whether a send would go through without waiting.
"""

WRITE_BUFFER_BYTES: Final = 64 * 1024
"""Above this a sender waits. The kernel's own buffers come on top."""

CLOSE_TIMEOUT_S: Final = 5.0
"""How long a peer may take to answer a close before its connection is dropped."""

_TEXT: Final = 0x81
_BINARY: Final = 0x82


def unmasked(frames: Iterable[bytes], *, text: bool) -> bytes:
    """Whole messages as a server's WebSocket frames (RFC 6455 §5.2: FIN set, no mask)."""
    opcode = _TEXT if text else _BINARY
    parts: list[bytes] = []
    for frame in frames:
        size = len(frame)
        if size < 126:
            parts.append(bytes((opcode, size)))
        elif size < 65_536:
            parts.append(struct.pack("!BBH", opcode, 126, size))
        else:
            parts.append(struct.pack("!BBQ", opcode, 127, size))
        parts.append(frame)
    return b"".join(parts)


class MidstreamProtocol(WebSocketsSansIOProtocol):
    """Passed to uvicorn as `ws=`."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        cast("asyncio.Transport", transport).set_write_buffer_limits(high=WRITE_BUFFER_BYTES)

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if not self.close_sent:
            # The application's task was only scheduled: it sees this.
            cast("dict[str, Any]", self.scope["extensions"])[EXTENSION] = {"ready": self.writable.is_set}

    async def send(self, message: Any) -> None:
        match message["type"]:
            case "midstream.websocket.send_many":
                await self._send_many(message["frames"], text=message["text"])
            case "websocket.close" if self.handshake_complete:
                await self._close(message)
            case _:
                await super().send(message)

    async def _send_many(self, frames: list[bytes], *, text: bool) -> None:
        await self.writable.wait()
        if self.disconnected or self.close_sent or self.conn.state is not State.OPEN:
            raise ClientDisconnected
        if self.conn.extensions:
            for frame in frames:
                (self.conn.send_text if text else self.conn.send_binary)(frame)
            self.transport.write(b"".join(self.conn.data_to_send()))
        else:
            self.transport.write(unmasked(frames, text=text))

    async def _close(self, message: Any) -> None:
        # The last message: nothing after it cares whether there was room.
        self.writable.set()
        await super().send(message)
        if self.close_timer is not None:
            self.close_timer.cancel()
            self.close_timer = self.loop.call_later(CLOSE_TIMEOUT_S, self.transport.abort)
