"""uvicorn's HTTP protocol with one thing ASGI cannot say: cut this connection now.

An event stream whose reader takes nothing cannot be ended by a last chunk, because there is no room for one, and
returning early is logged as a defect while the socket waits for its reader. Whichever parser uvicorn chose, it calls
the application it was configured with; here that call brings the transport's `abort` along, and whether a send would
wait.
"""

import asyncio
from typing import TYPE_CHECKING, Any, Final

from starlette.types import Receive, Scope, Send

if TYPE_CHECKING:
    # Both parsers' classes have what is used here.
    from uvicorn.protocols.http.h11_impl import H11Protocol as AutoHTTPProtocol
else:
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

EXTENSION: Final = "midstream.http.abort"
"""The extension's name in `scope["extensions"]`. Its value has `abort`, a function: drop the connection; `held`, the
bytes that wait for its socket; and `ready`, whether a send would go on at once.
"""


class MidstreamHttpProtocol(AutoHTTPProtocol):
    """Passed to uvicorn as `http=`."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        app: Any = self.app
        flow = self.flow

        def ready() -> bool:
            return not flow.write_paused

        async def with_abort(scope: Scope, receive: Receive, send: Send) -> None:
            scope.setdefault("extensions", {})[EXTENSION] = {
                "abort": transport.abort,
                "held": transport.get_write_buffer_size,
                "ready": ready,
            }
            await app(scope, receive, send)

        self.app = with_abort

    def handle_websocket_upgrade(self, *event: Any) -> None:
        super().handle_websocket_upgrade(*event)
        # It is done. One of the parsers refers back to it, so that only the cycle collector would free the two.
        if hasattr(self, "parser"):
            del self.parser
