"""The server as a process: what it says at the start, why it cannot start, and how it goes at a signal."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from midstream import Midstream
from midstream.serving import CannotStart, _greet, bind, url_of
from midstream.settings import Settings
from tests.gateway.peer import Peer

PROGRAM = """
import asyncio, sys
from midstream import Midstream, Run, agent
from midstream.serving import serve
from midstream.settings import BadSettings, load_settings

@agent("counting")
async def counting(run: Run) -> str:
    await run.say("one")
    await run.ask("go on?")
    return "done"

@agent("stuck")
async def stuck(run: Run) -> str:
    await run.say("one")
    await asyncio.Event().wait()

class Silent:
    name = default_model = "silent"
    async def aclose(self): pass

settings = load_settings()
sys.exit(serve(Midstream([counting, stuck], settings=settings, provider=Silent()), settings=settings))
"""


class Process:
    def __init__(self, process: asyncio.subprocess.Process, url: str, said: list[str]) -> None:
        self.process = process
        self.url = url
        self.said = said

    def peer(self) -> connect:
        return connect(self.url.replace("http", "ws", 1) + "/v1/ws", proxy=None)

    async def ended(self) -> tuple[int, str]:
        """Its exit code, and all it said."""
        assert self.process.stderr is not None
        rest = (await self.process.stderr.read()).decode()
        return await self.process.wait(), "".join(self.said) + rest


@asynccontextmanager
async def process(folder: Path, **environment: str) -> AsyncIterator[Process]:
    program = folder / "program.py"
    program.write_text(PROGRAM)
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith("MIDSTREAM_")}
    given = {f"MIDSTREAM_{name.upper()}": value for name, value in {"port": "0", **environment}.items()}
    running = await asyncio.create_subprocess_exec(
        sys.executable, str(program), cwd=folder, env=kept | given, stderr=asyncio.subprocess.PIPE
    )
    assert running.stderr is not None
    said: list[str] = []
    try:
        url = ""
        while line := (await running.stderr.readline()).decode():
            said.append(line)
            if line.startswith("midstream listens on "):
                url = line.split()[3]
                break
        yield Process(running, url, said)
    finally:
        if running.returncode is None:
            running.kill()
        await running.wait()


@pytest.mark.asyncio
async def test_it_says_where_it_listens_what_it_keeps_and_what_to_do_next(tmp_path: Path) -> None:
    async with process(tmp_path, prot="1") as server:
        server.process.send_signal(signal.SIGTERM)
        code, said = await server.ended()
    assert code == 0
    assert f"{server.url} · keeps runs in sqlite://" in said
    assert f"midstream chat --url {server.url}" in said
    assert "MIDSTREAM_PROT is no setting of this server; do you mean MIDSTREAM_PORT?" in said
    assert (tmp_path / ".midstream" / "midstream.db").exists()
    assert "Traceback" not in said


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("console", "built", "told"),
    [("on", True, "Open {url}/ in a browser"), ("on", False, "it is not built"), ("off", True, "")],
)
async def test_it_names_the_page_if_there_is_one(tmp_path: Path, console: str, built: bool, told: str) -> None:
    said: list[str] = []
    sockets = bind("127.0.0.1", 0)
    try:
        url = url_of(sockets[0])
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("midstream.serving.is_built", lambda: built)
            settings = Settings(console=console, store="memory:", workspace=tmp_path)
            _greet(Midstream([], settings=settings), settings, sockets[0], said.append, "midstream")
    finally:
        sockets[0].close()
    text = "".join(said)
    assert f"midstream chat --url {url}" in text
    assert told.format(url=url) in text
    assert ("browser" in text) == (console == "on" and built)


@pytest.mark.asyncio
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_and_the_next_server_goes_on_with_the_same_bytes(
    tmp_path: Path, number: signal.Signals
) -> None:
    async with process(tmp_path) as first:
        async with first.peer() as socket_:
            peer = Peer(socket_)
            run_id = (await peer.ask("run.start", {"input": "x", "agent": "counting"}))["run_id"]
            await peer.by_now("input.required")
            first.process.send_signal(number)
            await peer.until("connection.draining")
            with pytest.raises(ConnectionClosed) as closed:
                await peer.until("never")
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 4001
            assert json.loads(closed.value.rcvd.reason)["reconnect_in_s"] > 0
        code, said = await first.ended()
        assert code == 0
        assert "Traceback" not in said
    async with process(tmp_path) as second, second.peer() as socket_:
        again = Peer(socket_)
        await again.send("run.attach", {"since_seq": 0}, run_id=run_id)
        await again.until("run.caught_up")
        before = peer.events(run_id)
        assert again.events(run_id)[: len(before)] == before
        input_id = (await again.by_now("input.required"))["payload"]["input_id"]
        answer = {"input_id": input_id, "answer": "yes"}
        assert (await again.ask("input.respond", answer, run_id=run_id))["status"] == "accepted"
        await again.by_now("run.completed")


@pytest.mark.asyncio
async def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    async with process(tmp_path, drain_grace_s="600") as server, server.peer() as socket_:
        peer = Peer(socket_)
        await peer.ask("run.start", {"input": "x", "agent": "stuck"})
        await peer.by_now("message.completed")
        server.process.send_signal(signal.SIGTERM)
        await peer.until("connection.draining")
        server.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            code, said = await server.ended()
    assert code == 130
    assert "Traceback" not in said


@pytest.mark.asyncio
async def test_a_second_server_on_one_port_or_one_store_is_told_what_is_wrong(tmp_path: Path) -> None:
    async with process(tmp_path) as first:
        port = first.url.rpartition(":")[2]
        async with process(tmp_path, port=port) as second:
            code, said = await second.ended()
        assert code == 1
        assert f"port {port} on 127.0.0.1 cannot be used" in said
        assert "MIDSTREAM_PORT" in said
        async with process(tmp_path) as third:
            code, said = await third.ended()
        assert code == 1
        assert said.startswith("midstream: cannot start: ")
        assert "Traceback" not in said


def test_names_and_wildcards_are_bound_and_shown() -> None:
    for host, shown in (("127.0.0.1", "http://127.0.0.1:"), ("0.0.0.0", "http://127.0.0.1:"), ("localhost", "http://")):
        sockets = bind(host, 0)
        assert url_of(sockets[0]).startswith(shown)
        assert len({each.getsockname()[1] for each in sockets}) == 1
        for each in sockets:
            each.close()


def test_an_address_of_another_machine() -> None:
    for host in ("203.0.113.7", "no.such.host.invalid"):
        with pytest.raises(CannotStart):
            bind(host, 0)


def test_a_port_in_use_is_free_again_after_the_failure() -> None:
    taken = socket.create_server(("127.0.0.1", 0))
    port = taken.getsockname()[1]
    with taken, pytest.raises(CannotStart, match="is a server running there already"):
        bind("127.0.0.1", port)
    for each in bind("127.0.0.1", port):
        each.close()
