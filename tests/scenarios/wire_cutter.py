"""A TCP proxy that lets a few bytes through and then cuts the line, again and again, in the ways in which lines break."""

import asyncio
import contextlib
import random
import socket
import struct
from typing import Literal, Self

Break = Literal["close", "reset", "hang"]
BREAKS: tuple[Break, ...] = ("close", "reset", "hang")
HANG_S = 0.3


class WireCutter:
    """In front of `port`. Each connection lives for a random number of bytes from the server; `whole` lets all through."""

    def __init__(self, port: int, *, seed: int, most: int = 6_000) -> None:
        self.port = 0
        self.cuts = 0
        self.whole = False
        self._target = port
        self._dice = random.Random(seed)
        self._most = most

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream, up = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        going_up = asyncio.create_task(self._pump(reader, up, None))
        try:
            await self._pump(upstream, writer, None if self.whole else self._dice.randint(200, self._most))
        finally:
            going_up.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await going_up
            up.transport.abort()
            writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, budget: int | None) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                if budget is not None and (budget := budget - len(data)) <= 0:
                    await self._cut(writer, data[:budget] if budget else data)
                    return
                writer.write(data)
                await writer.drain()

    async def _cut(self, writer: asyncio.StreamWriter, last: bytes) -> None:
        self.cuts += 1
        how = self._dice.choice(BREAKS)
        writer.write(last)
        if how == "hang":
            await asyncio.sleep(HANG_S)
        elif how == "reset":
            raw = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
