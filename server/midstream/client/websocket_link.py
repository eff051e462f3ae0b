"""A WebSocket as a link, and every way of not getting one as `Unreachable`."""

import json
from typing import Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.typing import Subprotocol

from midstream.client.address import Address
from midstream.client.errors import Unreachable
from midstream.client.link import LinkClosed
from midstream_protocol.version import SUBPROTOCOL_JSON

MAX_RECEIVED_BYTES: Final = 64 * 1024 * 1024
"""One frame of the server: a snapshot carries a whole run."""
OPEN_TIMEOUT_S: Final = 10.0
CLOSE_TIMEOUT_S: Final = 2.0

_LOST: Final = 1006
_MAX_ERROR_BODY: Final = 64 * 1024


class WebSocketLink:
    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    async def receive(self) -> bytes | str:
        try:
            return await self._socket.recv()
        except ConnectionClosed:
            raise LinkClosed(self._socket.close_code or _LOST, self._socket.close_reason or "") from None

    async def send(self, data: bytes) -> None:
        try:
            await self._socket.send(data, text=True)
        except ConnectionClosed:
            raise LinkClosed(self._socket.close_code or _LOST, self._socket.close_reason or "") from None

    async def close(self, code: int | None) -> None:
        if code is None:
            self._socket.transport.abort()
        else:
            await self._socket.close(code)


async def open_websocket(address: Address, *, client_id: str, token: str | None) -> WebSocketLink:
    headers = {"Authorization": f"Bearer {token}"} if token else None
    try:
        # Awaited, not iterated: the library's own reconnecting stays out of it.
        socket = await connect(
            address.socket(client_id=client_id),
            subprotocols=[Subprotocol(SUBPROTOCOL_JSON)],
            additional_headers=headers,
            compression=None,
            max_size=MAX_RECEIVED_BYTES,
            open_timeout=OPEN_TIMEOUT_S,
            close_timeout=CLOSE_TIMEOUT_S,
            # The server's heartbeat frames are the sign of life, and the core judges them.
            ping_interval=None,
            proxy=None if address.loopback else True,
        )
    except InvalidStatus as refused:
        status = refused.response.status_code
        raise Unreachable(_said(status, refused.response.body), status=status) from refused
    except (OSError, TimeoutError, EOFError, WebSocketException) as error:
        raise Unreachable(str(error) or type(error).__name__) from error
    return WebSocketLink(socket)


def _said(status: int, body: bytes | bytearray | None) -> str:
    """What the server said with the status, if it spoke this protocol."""
    try:
        return f"{status}: {json.loads((body or b'')[:_MAX_ERROR_BODY])['error']['text']}"
    except (ValueError, KeyError, TypeError):
        return f"it answered {status}: is it the address of a Midstream server?"
