"""A server's WebSocket as an ASGI application sees it: every way in which it can be gone is one exception."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from starlette.types import Receive, Scope, Send

from midstream.gateway.uvicorn_ws import EXTENSION

CLOSE_WAIT_S: Final = 1.0
"""How long a close may wait for room on a server whose `send` waits for that."""

_FRAMES_PER_TURN: Final = 16
"""Frames sent singly before other connections have their turn: a server's `send` does not yield by itself."""


class Gone(Exception):
    """The client is not there any more. Ordinary: not logged."""


class Stalled(Exception):
    """The client has taken nothing for the whole send timeout."""


class Socket:
    """One writer at a time, one reader at a time."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, *, send_timeout_s: float) -> None:
        self._receive = receive
        self._send = send
        self._timeout = send_timeout_s
        many = scope.get("extensions", {}).get(EXTENSION)
        self._many = many is not None
        self._ready: Callable[[], bool] = many["ready"] if many is not None else lambda: False

    async def accept(self, subprotocol: str | None) -> None:
        """Raises `Gone`."""
        message = await self._receive()
        if message["type"] != "websocket.connect":
            raise Gone
        await self._put({"type": "websocket.accept", "subprotocol": subprotocol, "headers": []})

    async def receive(self) -> str | bytes | None:
        """The next message; None when the client has gone."""
        message = await self._receive()
        if message["type"] != "websocket.receive":
            return None
        text: str | None = message.get("text")
        return text if text is not None else message["bytes"]

    async def send(self, frames: Sequence[bytes], *, text: bool) -> None:
        """Hand over frames, in order. Raises `Gone`, `Stalled`."""
        if self._ready():
            # It will not wait, so it needs no timeout: setting one costs a third of a send.
            await self._put({"type": EXTENSION, "text": text, "frames": frames})
            return
        try:
            async with asyncio.timeout(self._timeout):
                if self._many:
                    await self._put({"type": EXTENSION, "text": text, "frames": frames})
                else:
                    await self._send_singly(frames, text=text)
        except TimeoutError:
            raise Stalled from None

    async def close(self, code: int, reason: str) -> None:
        """Say why and go. A client that cannot be told any more is gone anyway."""
        try:
            async with asyncio.timeout(CLOSE_WAIT_S):
                await self._put({"type": "websocket.close", "code": code, "reason": reason})
        except (TimeoutError, Gone):
            return

    async def _send_singly(self, frames: Sequence[bytes], *, text: bool) -> None:
        for count, frame in enumerate(frames, start=1):
            body = {"text": frame.decode()} if text else {"bytes": frame}
            await self._put({"type": "websocket.send", **body})
            if count % _FRAMES_PER_TURN == 0:
                await asyncio.sleep(0)

    async def _put(self, message: dict[str, Any]) -> None:
        try:
            await self._send(message)
        except (OSError, RuntimeError) as ended:
            # OSError: the server saw the disconnect. RuntimeError: it closed the socket itself (a missing pong,
            # a frame over its limit) and this message came after that.
            raise Gone from ended
