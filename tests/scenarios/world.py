"""A server as its own process that can be killed, and a client that knows the protocol page and nothing else.

The client imports nothing of this project on purpose: it is the stranger who reads PROTOCOL.md.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import websockets
import yaml

HERE = Path(__file__).parent
ENDS = ("run.completed", "run.failed", "run.cancelled")
PATIENCE_S = 30


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class World:
    """A folder, a port, and the server process that runs there at the moment."""

    def __init__(self, folder: Path, turns: list[Any]) -> None:
        self.folder = folder
        self.port = free_port()
        self.ledger = folder / "ledger"
        self.ledger.touch()
        self.log = folder / "server.log"
        (folder / "script.yaml").write_text(yaml.safe_dump({"turns": turns}))
        shutil.copy(HERE / "crash_app.py", folder / "crash_app.py")
        self.process: asyncio.subprocess.Process | None = None

    async def up(self, **environment: str) -> None:
        variables = {
            **os.environ,
            "LEDGER": str(self.ledger),
            "SCRIPT": str(self.folder / "script.yaml"),
            "MIDSTREAM_STORE": f"sqlite:///{self.folder / 'runs.db'}",
            "MIDSTREAM_PORT": str(self.port),
            "MIDSTREAM_APP_CHANGED_AFTER_S": "0.5",
            "PYTHONDONTWRITEBYTECODE": "1",
            **environment,
        }
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "midstream.cli", "serve", "crash_app:app",
                cwd=self.folder, env=variables, stdout=log, stderr=log,
            )  # fmt: skip
        await self.listening()

    async def listening(self) -> None:
        assert self.process is not None
        async with asyncio.timeout(PATIENCE_S):
            while True:
                assert self.process.returncode is None, self.log.read_text()
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                except OSError:
                    await asyncio.sleep(0.02)
                else:
                    writer.close()
                    await writer.wait_closed()
                    return

    async def kill(self, how: int = signal.SIGKILL) -> int:
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(how)
        async with asyncio.timeout(PATIENCE_S):
            return await self.process.wait()

    @contextlib.asynccontextmanager
    async def client(self, client_id: str = "one") -> AsyncIterator["Stranger"]:
        url = f"ws://127.0.0.1:{self.port}/v1/ws?client_id={client_id}"
        # Unbounded, or a paused client would not see that its server is gone.
        async with websockets.connect(url, subprotocols=["midstream.v1.json"], max_queue=None) as socket:
            yield Stranger(socket, json.loads(await socket.recv()))

    def did(self) -> list[str]:
        return self.ledger.read_text().splitlines()


class Stranger:
    """One connection. Frames are kept as they came: an event's text is compared byte for byte."""

    def __init__(self, socket: Any, ready: dict[str, Any]) -> None:
        self.socket = socket
        self.ready = ready
        self.raw: dict[int, str] = {}
        self.events: list[dict[str, Any]] = []
        self.others: list[dict[str, Any]] = []

    async def send(self, type_: str, command_id: str, run_id: str | None = None, **payload: Any) -> None:
        frame = {"v": 1, "type": type_, "command_id": command_id, "payload": payload}
        if run_id is not None:
            frame["run_id"] = run_id
        await self.socket.send(json.dumps(frame))

    async def read(self) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE_S):
            text = await self.socket.recv()
        frame: dict[str, Any] = json.loads(text)
        if "seq" in frame:
            assert frame["seq"] not in self.raw, "an event came twice"
            self.raw[frame["seq"]] = text
            self.events.append(frame)
        else:
            self.others.append(frame)
        return frame

    async def until(self, type_: str, **fields: Any) -> dict[str, Any]:
        while True:
            frame = await self.read()
            if frame["type"] == type_ and all(frame["payload"].get(k) == v for k, v in fields.items()):
                return frame

    async def receipt(self, command_id: str) -> dict[str, Any]:
        return (await self.until("receipt", command_id=command_id))["payload"]

    async def command(self, type_: str, command_id: str, run_id: str | None = None, **payload: Any) -> dict[str, Any]:
        await self.send(type_, command_id, run_id, **payload)
        return await self.receipt(command_id)

    async def to_end(self) -> dict[str, Any]:
        while True:
            frame = await self.read()
            if frame["type"] in ENDS:
                return frame


async def whole(world: World, run_id: str) -> Stranger:
    """Attach from the start and read to the end."""
    async with world.client("reader") as client:
        receipt = await client.command("run.attach", "attach", run_id, since_seq=0)
        assert receipt["status"] == "accepted", receipt
        await client.to_end()
        return client


def same_history(before: dict[int, str], after: dict[int, str]) -> None:
    """Nothing that was seen is missing or different; seqs are dense; one end, the last."""
    assert {seq: after.get(seq) for seq in before} == before
    assert sorted(after) == list(range(1, len(after) + 1))
    ends = [seq for seq, text in after.items() if json.loads(text)["type"] in ENDS]
    assert ends == [max(after)]
