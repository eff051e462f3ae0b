"""A server that says what the test tells it, behind a real WebSocket on loopback, and a clock that never waits."""

import asyncio
import contextlib
from collections.abc import Callable
from http import HTTPStatus

from websockets.exceptions import ConnectionClosed

from midstream.clock import SystemClock
from tests.client.server_model import Server

PATIENCE_S = 10


class Moved:
    """Something happened: look again."""

    def __init__(self) -> None:
        self._news = asyncio.Event()

    def __call__(self) -> None:
        self._news.set()

    async def until(self, check: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not check():
                self._news.clear()
                await self._news.wait()


class Impatient(SystemClock):
    """Waits that are asked for are noted, not waited."""

    def __init__(self) -> None:
        self.slept: list[float] = []
        self.ahead = 0.0
        self.timers: list[Callable[[], object]] = []
        self.moved = Moved()

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.moved()
        await asyncio.sleep(0)

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Callable[[], None]:
        del seconds
        self.timers.append(callback)
        return lambda: self.timers.remove(callback) if callback in self.timers else None


class Peer:
    """The server model behind a real socket. `cut_after`: cut connections after so many frames, one number each."""

    def __init__(self) -> None:
        self.model = Server()
        self.cut_after: list[int] = []
        self.connections = 0
        self.headers = []
        self.paths: list[str] = []
        self.socket = None
        self.status: HTTPStatus | None = None
        self.close_with: tuple[int, str] | None = None
        self.moved = Moved()

    async def __call__(self, socket) -> None:
        self.connections += 1
        self.socket = socket
        self.headers.append(socket.request.headers)
        self.paths.append(socket.request.path)
        if self.close_with is not None:
            await socket.close(*self.close_with)
            return
        self.model.connect()
        left = self.cut_after.pop(0) if self.cut_after else None
        with contextlib.suppress(ConnectionClosed):
            while True:
                left = await self._flush(socket, left)
                if left == 0:
                    socket.transport.abort()
                    return
                data = await socket.recv()
                self.model.receive(data.encode())
                self.moved()

    async def _flush(self, socket, left):
        while self.model.out and left != 0:
            await socket.send(self.model.out.pop(0), text=True)
            left = None if left is None else left - 1
        return left

    async def push(self) -> None:
        """Write what the model has, unasked."""
        await self._flush(self.socket, None)

    def answer_upgrade(self, connection, request):
        return None if self.status is None else connection.respond(self.status, "no\n")
