"""uvicorn's HTTP protocol with one thing ASGI cannot say: cut this connection now.

An event stream whose reader takes nothing cannot be ended by a last chunk, because there is no room for one, and
returning early is logged as a defect while the socket waits for its reader. Whichever parser uvicorn chose, it calls
the application it was configured with; here that call brings the transport's `abort` along.
"""

import asyncio
from typing import Any, Final, cast

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.auto import AutoHTTPProtocol

EXTENSION: Final = "midstream.http.abort"
"""The extension's name in `scope["extensions"]`. Its value has `abort`, a function: drop the connection."""

_Protocol: Any = AutoHTTPProtocol


class MidstreamHttpProtocol(_Protocol):  # type: ignore[misc] - h11's or httptools', as it is installed
    """Passed to uvicorn as `http=`."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        app, abort = self.app, cast("asyncio.Transport", transport).abort

        async def with_abort(scope: Scope, receive: Receive, send: Send) -> None:
            scope.setdefault("extensions", {})[EXTENSION] = {"abort": abort}
            await app(scope, receive, send)

        self.app = with_abort
