"""One server goes while it streams, the next one comes: everybody is told, comes back with a cursor, and misses nothing."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.gateway.peer import Peer

RUNS = 200

PROGRAM = """
import asyncio, sys
from midstream import Midstream, Run, agent
from midstream.serving import serve
from midstream.settings import load_settings

@agent("streaming")
async def streaming(run: Run) -> str:
    for number in range(60):
        await run.say(f"part {number}")
        await asyncio.sleep(0.05)
    return "done"

class Silent:
    name = default_model = "silent"
    async def aclose(self): pass

settings = load_settings()
sys.exit(serve(Midstream([streaming], settings=settings, provider=Silent()), settings=settings))
"""


class Server:
    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.process = process
        self.url = url.replace("http", "ws", 1) + "/v1/ws"


@asynccontextmanager
async def server(folder: Path) -> AsyncIterator[Server]:
    program = folder / "program.py"
    program.write_text(PROGRAM)
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith("MIDSTREAM_")}
    given = {"MIDSTREAM_PORT": "0", "MIDSTREAM_DRAIN_GRACE_S": "1"}
    running = await asyncio.create_subprocess_exec(
        sys.executable, str(program), cwd=folder, env=kept | given, stderr=asyncio.subprocess.PIPE
    )
    assert running.stderr is not None
    try:
        while not (line := (await running.stderr.readline()).decode()).startswith("midstream listens on "):
            assert line, "the server did not start"
        yield Server(running, line.split()[3])
    finally:
        if running.returncode is None:
            running.kill()
        rest = (await running.stderr.read()).decode()
        await running.wait()
        assert "Traceback" not in rest


async def begun(url: str, number: int, all_begun: asyncio.Barrier) -> tuple[str, Peer, str]:
    """One run followed until the server closes: its id, what was seen, and the reason of the close."""
    async with connect(url, proxy=None, open_timeout=30) as socket:
        peer = Peer(socket)
        start = {"input": "go", "agent": "streaming"}
        run_id = (await peer.ask("run.start", start, command_id=f"start-{number}"))["run_id"]
        await all_begun.wait()
        with pytest.raises(ConnectionClosed) as closed:
            await peer.until("never")
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4001
        return run_id, peer, closed.value.rcvd.reason


async def resumed(url: str, run_id: str, since: int) -> Peer:
    async with connect(url, proxy=None, open_timeout=30) as socket:
        peer = Peer(socket)
        await peer.send("run.attach", {"since_seq": since}, run_id=run_id)
        await peer.until("run.completed")
        return peer


@pytest.mark.asyncio
@pytest.mark.slow
async def test_a_rolling_restart_under_load_loses_nothing(tmp_path: Path) -> None:
    all_begun = asyncio.Barrier(RUNS + 1)
    async with server(tmp_path) as old:
        async with asyncio.TaskGroup() as group:
            clients = [group.create_task(begun(old.url, number, all_begun)) for number in range(RUNS)]
            async with asyncio.timeout(60):
                await all_begun.wait()
            old.process.send_signal(signal.SIGTERM)
        seen = [client.result() for client in clients]
        assert await old.process.wait() == 0
    waits = []
    for _, peer, reason in seen:
        told = next(frame for frame in peer.frames if frame["type"] == "connection.draining")["payload"]
        assert json.loads(reason) == told
        waits.append(told["reconnect_in_s"])
    # Not all at once.
    assert len(set(waits)) > RUNS / 10
    async with server(tmp_path) as new:
        rests = await asyncio.gather(*(resumed(new.url, run_id, len(peer.events(run_id))) for run_id, peer, _ in seen))
        for (run_id, before, _), after in zip(seen, rests, strict=True):
            events = [json.loads(raw) for raw in before.events(run_id) + after.events(run_id)]
            assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
            assert events[-1]["type"] == "run.completed"
            assert before.events(run_id)
        # The new server has the old one's log, byte for byte.
        run_id, before, _ = seen[0]
        assert (await resumed(new.url, run_id, 0)).events(run_id)[: len(before.events(run_id))] == before.events(run_id)
        new.process.send_signal(signal.SIGTERM)
        assert await new.process.wait() == 0
