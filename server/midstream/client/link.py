"""What a transport is to the client: frames in, frames out, and one end. `websocket_link` and `http_link` are two."""

from typing import Protocol


class LinkClosed(Exception):
    """The link is over: a close code (1006: it broke) and the reason that came with it."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(f"{code} {reason}".strip())
        self.code = code
        self.reason = reason


class Link(Protocol):
    """One reader and one writer at a time. The first frame is `connection.ready`."""

    async def receive(self) -> bytes | str:
        """The next frame. Raises `LinkClosed`, once there is no more."""
        ...

    async def send(self, data: bytes) -> None:
        """Raises `LinkClosed`."""
        ...

    async def close(self, code: int | None) -> None:
        """Say good-bye, and wait a moment for the answer. None: the other side does not answer any more."""
        ...
