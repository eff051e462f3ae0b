"""uvicorn's WebSocket protocol with what its ASGI interface cannot do, and without what a hostile peer can do to it.

* Many frames in one write. An ASGI `send` costs a system call a frame (7-8 µs); joined, a frame costs 1.3 µs.
  Offered to the application as the ASGI extension `EXTENSION`, so that any other server works too, only slower.
* A small write buffer, so that a slow reader is noticed after kilobytes.
* A close that does not wait for a buffer that nobody empties, and ends in an abort.
* Pings that are not answered while the answers are not read, so that a flood of them costs no memory.
* Messages in many fragments as one buffer: a list of fragments takes thirty times the memory of what they carry.
* Text that is not UTF-8 is the peer's mistake (RFC 6455 §8.1: 1007): it is told so, and nothing is logged.
"""

import asyncio
import struct
from collections.abc import Iterable
from typing import Any, Final, cast

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame
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
        # The fragments so far of the message that is being received.
        self._message = bytearray()
        cast("asyncio.Transport", transport).set_write_buffer_limits(high=WRITE_BUFFER_BYTES)

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if not self.close_sent:
            # The application's task was only scheduled: it sees this.
            cast("dict[str, Any]", self.scope["extensions"])[EXTENSION] = {"ready": self.writable.is_set}

    def handle_ping(self) -> None:
        if self.writable.is_set() or self.conn.state is not State.OPEN:
            super().handle_ping()
        else:
            # RFC 6455 §5.5.3: only the newest ping needs an answer, and this peer reads none.
            self.conn.data_to_send()

    def handle_text(self, event: Frame) -> None:
        self.curr_msg_data_type = "text"
        self._begin(event)

    def handle_bytes(self, event: Frame) -> None:
        self.curr_msg_data_type = "bytes"
        self._begin(event)

    def _begin(self, event: Frame) -> None:
        if event.fin:
            self._received(bytes(event.data))
        else:
            self._message = bytearray(event.data)

    def handle_cont(self, event: Frame) -> None:
        self._message += event.data
        if event.fin:
            whole, self._message = bytes(self._message), bytearray()
            self._received(whole)

    def _received(self, message: bytes) -> None:
        if self.curr_msg_data_type == "text" and not self.close_sent:
            try:
                message.decode()
            except UnicodeDecodeError:
                self.conn.send_close(CloseCode.INVALID_DATA, "text frames are UTF-8")
                self.handle_parser_exception()
                return
        self.frames = [message]
        self.send_receive_event_to_app()

    async def send(self, message: Any) -> None:
        match message["type"]:
            case "midstream.websocket.send_many":
                await self._send_many(message["frames"], text=message["text"])
            case "websocket.close" if self.handshake_complete:
                await self._close(message)
            case _:
                await super().send(message)
                # An upgrade that was refused with a response of ours: uvicorn would log that as a defect of the app's.
                self.handshake_complete |= message["type"] == "websocket.http.response.body" and self.close_sent

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
