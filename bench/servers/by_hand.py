"""What one would write without Midstream: `python bench/servers/by_hand.py VARIANT`.

raw       a plain ASGI application: frames that were encoded beforehand, and the loop's turn given to others after each
msgspec   a Starlette loop that builds and encodes each frame with msgspec
json      the same with the standard library's json

Each serves runs (`orders`) on `/v1/ws`, and on `POST /v1/runs` as server-sent events, or as lines by `Accept`; and
sends back what comes on `/echo`. None keeps, orders, resumes or answers for anything. Frames have the form of
Midstream's.
"""

import asyncio
import json
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import uvicorn
from processes import tidy_on_signal
from servers.orders import PIECE, Order, parsed, stamp, turns
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from midstream_protocol.events import Event, MessageDelta
from midstream_protocol.times import iso_ms

RUN = "run_019a4c1e2d3f7a6b8c9d0e1f"
MESSAGE = "msg_019a4c1e2d3f7a6b8c9d0e1f"
STEP = "step_019a4c1e2d3f7a6b8c9d0e1f"
READY = '{"v":1,"type":"connection.ready","payload":{}}'
END = '{"v":1,"seq":%d,"run_id":"' + RUN + '","type":"run.completed","payload":{}}'

Build = Callable[[int, str], str]

_encoder = msgspec.json.Encoder()


def by_msgspec(seq: int, text: str) -> str:
    delta = MessageDelta(message_id=MESSAGE, text=text)
    ts = iso_ms(time.time_ns() // 1_000_000)
    return _encoder.encode(
        Event(v=1, seq=seq, run_id=RUN, type=delta.TYPE, ts=ts, payload=delta, step_id=STEP)
    ).decode()


def by_json(seq: int, text: str) -> str:
    return json.dumps(
        {
            "v": 1,
            "seq": seq,
            "run_id": RUN,
            "type": "message.delta",
            "ts": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "payload": {"message_id": MESSAGE, "text": text},
            "step_id": STEP,
        },
        separators=(",", ":"),
    )


_HEAD, _, _TAIL = by_msgspec(1, "~").partition("~")
_READY_MADE: list[str] = [by_msgspec(seq, PIECE) for seq in range(1, 1001)]


def made_before(seq: int, text: str) -> str:
    """A frame encoded beforehand; a stamped one is put together from what was encoded beforehand."""
    return _READY_MADE[seq % 1000] if text is PIECE else f"{_HEAD}{text}{_TAIL}"


async def frames(order: Order, build: Build) -> AsyncIterator[str]:
    async for number in turns(order):
        yield build(number + 1, stamp() + PIECE if order.stamped else PIECE)
    yield END % (order.count + 1)


def ordered(command: str | bytes) -> Order:
    body = msgspec.json.decode(command)
    return parsed(body.get("payload", body)["input"])


# -- plain ASGI


async def raw(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "websocket":
        await _raw_http(scope, receive, send)
        return
    await receive()
    await send({"type": "websocket.accept"})
    if scope["path"] == "/echo":
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
        return
    await send({"type": "websocket.send", "text": READY})
    while (message := await receive())["type"] == "websocket.receive":
        order = ordered(message["text"])
        if order.every_s or order.stamped:
            async for frame in frames(order, made_before):
                await send({"type": "websocket.send", "text": frame})
            continue
        for number in range(order.count):
            await send({"type": "websocket.send", "text": _READY_MADE[number % 1000]})
            # uvicorn's send does not yield by itself: one connection would starve all others.
            await asyncio.sleep(0)
        await send({"type": "websocket.send", "text": END % (order.count + 1)})


# -- Starlette


def _runs(build: Build) -> Callable[[WebSocket], Any]:
    async def serve(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(READY)
        try:
            while True:
                async for frame in frames(ordered(await websocket.receive_text()), build):
                    await websocket.send_text(frame)
        except WebSocketDisconnect:
            return

    return serve


async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        while True:
            await websocket.send_text(await websocket.receive_text())
    except WebSocketDisconnect:
        return


async def echo_post(request: Request) -> Response:
    return Response(await request.body(), media_type="application/json")


def _streams(build: Build) -> Callable[[Request], Any]:
    async def lines(order: Order) -> AsyncIterator[bytes]:
        async for frame in frames(order, build):
            yield frame.encode() + b"\n"

    async def server_sent(order: Order) -> AsyncIterator[bytes]:
        seq = 0
        async for frame in frames(order, build):
            seq += 1
            yield f"id: {seq}\nevent: message.delta\ndata: {frame}\n\n".encode()

    async def serve(request: Request) -> Response:
        order = ordered(await request.body())
        if "ndjson" in request.headers.get("accept", ""):
            return StreamingResponse(lines(order), media_type="application/x-ndjson")
        return StreamingResponse(server_sent(order), media_type="text/event-stream")

    return serve


def _http(build: Build) -> Starlette:
    return Starlette(
        routes=[
            WebSocketRoute("/v1/ws", _runs(build)),
            WebSocketRoute("/echo", echo),
            Route("/v1/runs", _streams(build), methods=["POST"]),
            Route("/echo", echo_post, methods=["POST"]),
        ]
    )


_raw_http = _http(made_before)


def main(variant: str) -> int:
    tidy_on_signal()
    apps: dict[str, Any] = {"raw": raw, "msgspec": _http(by_msgspec), "json": _http(by_json)}
    config = uvicorn.Config(
        apps[variant],
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        log_level="warning",
        access_log=False,
        lifespan="off",
    )
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        print(listener.getsockname()[1], flush=True)
        uvicorn.Server(config).run(sockets=[listener])
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
