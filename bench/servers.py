"""The servers that are measured, each a process of its own: `python bench/servers.py VARIANT [SQLITE_PATH]`.

One line tells its port when it listens; it serves until it is terminated.

raw      what the stack can do: a hand-written Starlette loop on uvicorn that sends frames encoded beforehand
msgspec  the same loop, encoding each frame with its own seq and time
memory   Midstream, keeping runs in memory
sqlite   Midstream, keeping runs in SQLite: durable before visible

Each connection asks for one run: 200 deltas of a few words and an end. All four send frames of the same form.
"""

import asyncio
import re
import socket
import sys
import time
from typing import Final

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from midstream.agents.definition import Agent
from midstream.agents.providers.script import Script, Step, Turn
from midstream.agents.providers.scripted import ScriptedProvider
from midstream.app import Midstream
from midstream.clock import SystemClock
from midstream.serving import serve
from midstream.settings import load_settings
from midstream_protocol.events import Event, MessageDelta
from midstream_protocol.times import iso_ms

DELTAS: Final = 200
PIECE: Final = "some words "

READY: Final = '{"v":1,"type":"connection.ready","payload":{}}'
END: Final = '{"v":1,"seq":201,"run_id":"run_019a4c1e2d3f7a6b8c9d0e1f","type":"run.completed","payload":{}}'

_encoder = msgspec.json.Encoder()


def frame(seq: int) -> str:
    delta = MessageDelta(message_id="msg_019a4c1e2d3f7a6b8c9d0e1f", text=PIECE)
    event = Event(
        v=1,
        seq=seq,
        run_id="run_019a4c1e2d3f7a6b8c9d0e1f",
        type=delta.TYPE,
        ts=iso_ms(time.time_ns() // 1_000_000),
        payload=delta,
        step_id="step_019a4c1e2d3f7a6b8c9d0e1f",
    )
    return _encoder.encode(event).decode()


class HandWritten:
    """A loop that serves runs without keeping, ordering or answering for anything."""

    def __init__(self, *, encoded: bool) -> None:
        self._frames = [frame(seq) for seq in range(1, DELTAS + 1)] if encoded else None

    async def run(self, websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(READY)
        try:
            while True:
                await websocket.receive_text()
                for index in range(DELTAS):
                    await websocket.send_text(frame(index + 1) if self._frames is None else self._frames[index])
                    # uvicorn's send does not yield by itself: one connection would starve all others.
                    await asyncio.sleep(0)
                await websocket.send_text(END)
        except WebSocketDisconnect:
            return


def serve_by_hand(*, encoded: bool) -> int:
    app = Starlette(routes=[WebSocketRoute("/v1/ws", HandWritten(encoded=encoded).run)])
    config = uvicorn.Config(app, ws="websockets-sansio", ws_per_message_deflate=False, log_level="warning")
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        print(listener.getsockname()[1], flush=True)
        uvicorn.Server(config).run(sockets=[listener])
    return 0


def serve_midstream(store: str) -> int:
    settings = load_settings(port=0, log_level="warning", store=store)
    script = Script(turns=(Turn(steps=(Step(chunks=(PIECE,) * DELTAS),)),), loop=True)
    app = Midstream(
        [Agent("bench", instructions="Answer.")],
        provider=ScriptedProvider(script, clock=SystemClock()),
        settings=settings,
    )
    return serve(app, settings=settings, say=print_port)


def print_port(line: str) -> None:
    if found := re.search(r"listens on http://127\.0\.0\.1:(\d+)", line):
        print(found[1], flush=True)
    elif "cannot start" in line:
        sys.stderr.write(line)


def main(variant: str, path: str = "") -> int:
    match variant:
        case "raw":
            return serve_by_hand(encoded=True)
        case "msgspec":
            return serve_by_hand(encoded=False)
        case "memory":
            return serve_midstream("memory:")
        case "sqlite":
            return serve_midstream(f"sqlite:///{path}")
        case _:
            sys.stderr.write(f"{variant!r} is no variant\n")
            return 2


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
