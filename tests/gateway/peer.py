"""A client that knows only the protocol page: it speaks JSON (or msgpack), and writes down what it is sent."""

import json
from typing import Any

import msgspec
from websockets.asyncio.client import ClientConnection

from midstream_protocol.ids import new_id


class Peer:
    """`frames` is everything received, in order; `raw` the same as bytes."""

    def __init__(self, socket: ClientConnection, *, msgpack: bool = False) -> None:
        self.socket = socket
        self.frames: list[dict[str, Any]] = []
        self.raw: list[bytes] = []
        self._msgpack = msgpack

    async def send(
        self, kind: str, payload: Any = None, *, run_id: str | None = None, command_id: str | None = None, **extra: Any
    ) -> str:
        command_id = command_id or new_id("c")
        frame: dict[str, Any] = {"v": 1, "type": kind, "command_id": command_id, "payload": payload or {}, **extra}
        if run_id is not None:
            frame["run_id"] = run_id
        await self.socket.send(msgspec.msgpack.encode(frame) if self._msgpack else json.dumps(frame))
        return command_id

    async def receive(self) -> dict[str, Any]:
        data = await self.socket.recv()
        if self._msgpack:
            assert isinstance(data, bytes), "a msgpack connection sends binary frames"
            frame = msgspec.msgpack.decode(data)
        else:
            assert isinstance(data, str), "a JSON connection sends text frames"
            data = data.encode()
            frame = json.loads(data)
        self.frames.append(frame)
        self.raw.append(data)
        return frame

    async def until(self, kind: str, **payload: Any) -> dict[str, Any]:
        """The next frame of that type whose payload has these values."""
        while True:
            frame = await self.receive()
            if frame["type"] == kind and all(frame["payload"].get(k) == v for k, v in payload.items()):
                return frame

    async def by_now(self, kind: str) -> dict[str, Any]:
        """A frame of that type, received already or to come."""
        found = next((frame for frame in self.frames if frame["type"] == kind), None)
        return found or await self.until(kind)

    async def ask(self, kind: str, payload: Any = None, **options: Any) -> dict[str, Any]:
        """Send a command and wait for its receipt's payload."""
        command_id = await self.send(kind, payload, **options)
        return (await self.until("receipt", command_id=command_id))["payload"]

    async def ping(self) -> None:
        """The connection works, and everything sent before was received."""
        t = new_id("t")
        await self.send("ping", {"t": t})
        await self.until("pong", t=t)

    def events(self, run_id: str, *, since: int = 0) -> list[bytes]:
        """The bytes of that run's events, as received after frame number `since`."""
        pairs = zip(self.frames[since:], self.raw[since:], strict=True)
        return [raw for frame, raw in pairs if frame.get("run_id") == run_id]

    def types(self) -> list[str]:
        return [frame["type"] for frame in self.frames]
