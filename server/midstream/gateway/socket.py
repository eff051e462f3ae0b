"""A server's WebSocket as an ASGI application sees it: every way in which it can be gone is one exception."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from starlette.types import Receive, Scope, Send

from midstream.gateway.uvicorn_ws import ABNORMAL, EXTENSION, Direct

CLOSE_WAIT_S: Final = 1.0
"""How long a close may wait for room on a server whose `send` waits for that."""


class Gone(Exception):
    """The client is not there any more. Ordinary: not logged."""


class Socket:
    """One writer at a time, one reader at a time."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self.direct: Final[Direct | None] = scope.get("extensions", {}).get(EXTENSION)
        """The way out that does not wait, where the server has one."""
        self.code: int | None = None
        """With what it was closed, by whichever side, as far as is known by now."""

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
            self._closed(message.get("code") or ABNORMAL)
            return None
        text: str | None = message.get("text")
        return text if text is not None else message["bytes"]

    async def send(self, frames: Sequence[bytes], *, text: bool) -> None:
        """Hand over frames, in order, one by one. Waits while the client takes nothing. Raises `Gone`."""
        for frame in frames:
            body = {"text": frame.decode()} if text else {"bytes": frame}
            await self._put({"type": "websocket.send", **body})

    async def close(self, code: int, reason: str) -> None:
        """Say why and go. A client that cannot be told any more is gone anyway."""
        self._closed(code)
        try:
            async with asyncio.timeout(CLOSE_WAIT_S):
                await self._put({"type": "websocket.close", "code": code, "reason": reason})
        except (TimeoutError, Gone):
            return

    def _closed(self, code: int) -> None:
        if self.code is None:
            self.code = code

    async def _put(self, message: dict[str, Any]) -> None:
        try:
            await self._send(message)
        except (OSError, RuntimeError) as ended:
            # OSError: the server saw the disconnect. RuntimeError: it closed the socket itself (a missing pong,
            # a frame over its limit) and this message came after that.
            raise Gone from ended
