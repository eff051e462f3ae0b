"""uvicorn's WebSocket protocol with what its ASGI interface cannot do, and without what a hostile peer can do to it.

* Many frames in one write, and no task to write them. An ASGI `send` costs a system call a frame and a coroutine's
  steps; joined, a frame costs a fifth. Offered to the application as the ASGI extension `EXTENSION` (`Direct`), so that
  any other server works too, only slower.
* A small write buffer, so that a slow reader is noticed after kilobytes, and a look at what the kernel still holds for
  it, so that a slow reader is told from one that has stopped.
* A close that does not wait for a buffer that nobody empties, and ends in an abort; so does a missing pong.
* Pings that are not answered while the answers are not read, so that a flood of them costs no memory.
* Messages in many fragments as one buffer: a list of fragments takes thirty times the memory of what they carry.
* Text that is not UTF-8 is the peer's mistake (RFC 6455 §8.1: 1007): it is told so, and nothing is logged.
"""

import asyncio
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Protocol, cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame
from websockets.http11 import Request
from websockets.protocol import State

from midstream.gateway.uvicorn_http import unsent_bytes

EXTENSION: Final = "midstream.websocket.direct"
"""The extension's name in `scope["extensions"]`. Its value is a `Direct`, for use after the accept."""

WRITE_BUFFER_BYTES: Final = 32 * 1024
"""Above this a sender waits. The kernel's own buffers come on top."""

CLOSE_TIMEOUT_S: Final = 5.0
"""How long a peer may take to answer a close before its connection is dropped."""

EXIT_GRACE_S: Final = 1.0
"""The same when the server exits: how long it waits for a peer that does not take what was written."""

ABNORMAL: Final = 1006
"""The close code of a connection that ended without one."""

_TEXT: Final = 0x81
_BINARY: Final = 0x82
_SHORT: Final = {opcode: [bytes((opcode, size)) for size in range(126)] for opcode in (_TEXT, _BINARY)}
_medium: Final = struct.Struct("!BBH").pack
_long: Final = struct.Struct("!BBQ").pack


class Direct(Protocol):
    """A server's WebSocket without its ASGI calls. Nothing here waits, and nothing raises when the peer has gone."""

    def ready(self) -> bool:
        """Whether there is room; if not, `watch` tells when there is."""
        ...

    def watch(self, room: Callable[[], None]) -> None:
        """Call `room` whenever there is room again."""
        ...

    def bound(self, write_buffer_bytes: int) -> None:
        """From how many waiting bytes on there is no room."""
        ...

    def unsent(self) -> int:
        """Bytes written here that the peer's machine has not taken yet, as far as this one can tell."""
        ...

    def write(self, frames: Sequence[bytes], *, text: bool) -> None:
        """Whole messages, in order, in one write."""
        ...

    def shut(self, code: int, reason: str) -> None:
        """Close. The ASGI side receives a disconnect."""
        ...


def unmasked(frames: Iterable[bytes], *, text: bool) -> bytes:
    """Whole messages as a server's WebSocket frames (RFC 6455 §5.2: FIN set, no mask)."""
    opcode = _TEXT if text else _BINARY
    short = _SHORT[opcode]
    parts: list[bytes] = []
    for frame in frames:
        size = len(frame)
        if size < 126:
            parts.append(short[size])
        elif size < 65_536:
            parts.append(_medium(opcode, 126, size))
        else:
            parts.append(_long(opcode, 127, size))
        parts.append(frame)
    return b"".join(parts)


class MidstreamProtocol(WebSocketsSansIOProtocol):
    """Passed to uvicorn as `ws=`."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        # The fragments so far of the message that is being received.
        self._message = bytearray()
        self._room: Callable[[], None] | None = None
        self._ping_unsent = 0
        self._lost_code = ABNORMAL
        self.bound(WRITE_BUFFER_BYTES)

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if not self.close_sent:
            # The application's task was only scheduled: it sees this.
            cast("dict[str, Any]", self.scope["extensions"])[EXTENSION] = self

    # -- Direct

    def ready(self) -> bool:
        return self.writable.is_set()

    def watch(self, room: Callable[[], None]) -> None:
        self._room = room

    def bound(self, write_buffer_bytes: int) -> None:
        self.transport.set_write_buffer_limits(high=write_buffer_bytes)

    def unsent(self) -> int:
        return unsent_bytes(self.transport)

    def write(self, frames: Sequence[bytes], *, text: bool) -> None:
        if self.close_sent or self.disconnected or self.transport.is_closing():
            return
        if self.conn.extensions:
            for frame in frames:
                (self.conn.send_text if text else self.conn.send_binary)(frame)
            self.transport.write(b"".join(self.conn.data_to_send()))
        else:
            self.transport.write(unmasked(frames, text=text))

    def shut(self, code: int, reason: str) -> None:
        if self.close_sent or self.disconnected or self.transport.is_closing():
            return
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.conn.send_close(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        if self.read_paused:
            # The peer's answer must be read.
            self.read_paused = False
            self.transport.resume_reading()
        self._abort_later()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._room is not None:
            self._room()

    # -- the peer

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

    def handle_close(self, event: Frame) -> None:
        super().handle_close(event)
        self._leave()

    def handle_parser_exception(self) -> None:
        super().handle_parser_exception()
        self._leave()

    def _leave(self) -> None:
        if self.close_timer is None and not self.disconnected and self.transport.get_write_buffer_size():
            # It goes and does not read what is written: the transport would wait for it for ever.
            self._abort_later()

    def send_keepalive_ping(self) -> None:
        self._ping_unsent = self.unsent()
        super().send_keepalive_ping()

    def keepalive_timeout(self) -> None:
        unsent = self.unsent()
        if unsent < self._ping_unsent:
            # A slow reader, not a dead one: the ping waits behind what it is taking.
            self._ping_unsent = unsent
            self.pong_timer = self.loop.call_later(self.ping_timeout or 0.0, self.keepalive_timeout)
            return
        self._lost_code = CloseCode.INTERNAL_ERROR
        super().keepalive_timeout()
        if self.transport.get_write_buffer_size():
            self.transport.abort()

    def shutdown(self) -> None:
        super().shutdown()
        if self.transport.get_write_buffer_size():
            # uvicorn's stops the timer of a close under way, and who reads nothing would hold up the exit.
            self.close_timer = self.loop.call_later(EXIT_GRACE_S, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.handshake_complete:
            # Before uvicorn's own, which calls it a close without a code.
            self.queue.put_nowait({"type": "websocket.disconnect", "code": self._lost_code})
        super().connection_lost(exc)
        # What refers to itself is freed late, and all at once: after a storm, when it hurts.
        self._room = None
        cast("dict[str, Any]", getattr(self, "scope", {}).get("extensions", {})).pop(EXTENSION, None)

    # -- ASGI

    async def send(self, message: Any) -> None:
        if message["type"] == "websocket.close" and self.handshake_complete:
            # The last message: nothing after it cares whether there was room.
            self.shut(message.get("code", 1000), message.get("reason") or "")
            return
        await super().send(message)
        # An upgrade that was refused with a response of ours: uvicorn would log that as a defect of the app's.
        self.handshake_complete |= message["type"] == "websocket.http.response.body" and self.close_sent

    def _abort_later(self) -> None:
        if self.close_timer is not None:
            self.close_timer.cancel()
        self.close_timer = self.loop.call_later(CLOSE_TIMEOUT_S, self.transport.abort)
