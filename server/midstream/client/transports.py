"""Which transport the next attempt uses: a WebSocket, or HTTP streams where WebSockets do not get through. Pure."""

from typing import Final, Literal

Transport = Literal["websocket", "http"]
Wanted = Literal["auto", "websocket", "http"]

WEBSOCKET_ATTEMPTS: Final = 2
"""WebSockets in a row that were never ready before HTTP is tried: one may be an accident."""
AGAIN_AFTER_S: Final = 30.0
"""From there on HTTP, a WebSocket is tried again after so long, and each time it fails after twice as long: the
network may be another one by now.
"""
AGAIN_AT_MOST_S: Final = 600.0


class Transports:
    """Times are monotonic seconds."""

    def __init__(self, wanted: Wanted) -> None:
        self.current: Transport = "http" if wanted == "http" else "websocket"
        self.falls_back: Final = wanted == "auto"
        self.again_at: float | None = None
        """When an HTTP connection that works is given up for a WebSocket."""
        self._failed = 0
        self._again_in_s = AGAIN_AFTER_S

    def ready(self, *, now: float) -> None:
        """The current one is connected."""
        if self.current == "websocket":
            self._failed, self._again_in_s = 0, AGAIN_AFTER_S
        elif self.falls_back:
            self.again_at = now + self._again_in_s
            self._again_in_s = min(2 * self._again_in_s, AGAIN_AT_MOST_S)

    def never_ready(self, *, refused: bool = False) -> bool:
        """The attempt failed. `refused`: what answered will say the same again. Whether the other one is next."""
        if not self.falls_back:
            return False
        if self.current == "http":
            # Nothing answers at all, or not to HTTP either: the next is a WebSocket, and one is enough to come here.
            self.current, self._failed = "websocket", WEBSOCKET_ATTEMPTS - 1
            return True
        self._failed += 1
        if refused or self._failed >= WEBSOCKET_ATTEMPTS:
            self.current = "http"
            return True
        return False

    def try_websocket(self) -> None:
        """`again_at` has come."""
        self.current, self.again_at, self._failed = "websocket", None, WEBSOCKET_ATTEMPTS - 1
