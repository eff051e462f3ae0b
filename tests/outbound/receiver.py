"""A place that webhooks are sent to: a real HTTP server on loopback that answers as a test says."""

import asyncio
import base64
import hashlib
import hmac
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from midstream.tasks import spawn, stop


@dataclass(frozen=True)
class Got:
    """One request, as its bytes came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def told(self) -> Any:
        return json.loads(self.body)

    def signed_with(self, key: bytes) -> bool:
        """By the text of the specification, with nothing of the project's."""
        content = f"{self.id}.{self.headers['webhook-timestamp']}.".encode() + self.body
        expected = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
        return f"v1,{expected}" in self.headers["webhook-signature"].split(" ")


@dataclass
class Answer:
    """`hold`: no answer before it is set. `hang_up`: none at all."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    hold: asyncio.Event | None = None
    hang_up: bool = False


class Receiver:
    def __init__(self, answer: Callable[[Got], Answer]) -> None:
        self.answer = answer
        self.got: list[Got] = []
        self.at_once = 0
        self.most_at_once = 0
        self.port = 0
        self._came = asyncio.Condition()

    @property
    def ids(self) -> list[str]:
        return [each.id for each in self.got]

    async def until(self, count: int) -> list[Got]:
        """Until so many requests came."""
        async with asyncio.timeout(10), self._came:
            await self._came.wait_for(lambda: len(self.got) >= count)
        return self.got

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            line, *lines = head.rstrip().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)}
            got = Got(line.split(" ")[1], headers, await reader.readexactly(int(headers.get("content-length", 0))))
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            async with self._came:
                self.got.append(got)
                self._came.notify_all()
            answer = self.answer(got)
            if answer.hold is not None:
                await answer.hold.wait()
            if not answer.hang_up:
                told = "".join(f"{name}: {value}\r\n" for name, value in answer.headers.items())
                writer.write(f"HTTP/1.1 {answer.status} x\r\n{told}content-length: 2\r\n\r\nok".encode())
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.at_once -= 1
            writer.close()


@asynccontextmanager
async def receiver(
    answer: Callable[[Got], Answer] = lambda _: Answer(),
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Receiver]:
    place = Receiver(answer)
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = spawn(place.serve(reader, writer), name="receiver")
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(connected, host, port, ssl=tls)
    place.port = server.sockets[0].getsockname()[1]
    try:
        yield place
    finally:
        server.close()
        await stop(*tasks)
        await server.wait_closed()
