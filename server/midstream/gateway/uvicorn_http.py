"""uvicorn's HTTP protocol with one thing ASGI cannot say: cut this connection now.

An event stream whose reader takes nothing cannot be ended by a last chunk, because there is no room for one, and
returning early is logged as a defect while the socket waits for its reader. Whichever parser uvicorn chose, it calls
the application it was configured with; here that call brings the transport's `abort` along, and whether a send would
wait.
"""

import asyncio
import contextlib
import fcntl
import sys
import termios
from typing import TYPE_CHECKING, Any, Final

from starlette.types import Receive, Scope, Send

if TYPE_CHECKING:
    # Both parsers' classes have what is used here.
    from uvicorn.protocols.http.h11_impl import H11Protocol as AutoHTTPProtocol
else:
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

EXTENSION: Final = "midstream.http.abort"
"""The extension's name in `scope["extensions"]`. Its value has `abort`, a function: drop the connection; `held`, the
bytes that its reader's machine has not taken yet; and `ready`, whether a send would go on at once.
"""


def unsent_bytes(transport: asyncio.Transport) -> int:
    """Bytes written there that the peer's machine has not taken yet, as far as this one can tell.

    Those that the system holds count: of megabytes in its buffer a slow peer takes little for a long time before there
    is room for more.
    """
    waiting = transport.get_write_buffer_size()
    with contextlib.suppress(OSError, ValueError, AttributeError):
        held = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
        waiting += int.from_bytes(held, sys.byteorder)
    return waiting


class MidstreamHttpProtocol(AutoHTTPProtocol):
    """Passed to uvicorn as `http=`."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        app: Any = self.app
        flow = self.flow

        def ready() -> bool:
            return not flow.write_paused

        def held() -> int:
            return unsent_bytes(transport)

        async def with_abort(scope: Scope, receive: Receive, send: Send) -> None:
            scope.setdefault("extensions", {})[EXTENSION] = {
                "abort": transport.abort,
                "held": held,
                "ready": ready,
            }
            await app(scope, receive, send)

        self.app = with_abort

    def handle_websocket_upgrade(self, *event: Any) -> None:
        super().handle_websocket_upgrade(*event)
        # It is done. One of the parsers refers back to it, so that only the cycle collector would free the two.
        if hasattr(self, "parser"):
            del self.parser
