"""python-socketio: an event to one client for each delta. No agent, no log, no resuming."""

import socket
from typing import Any

import socketio
import uvicorn

DELTAS = 200
PIECE = "some words "

server = socketio.AsyncServer(async_mode="asgi", transports=["websocket"])


@server.on("go")
async def go(sid: str, order: dict[str, Any]) -> None:
    del order
    for number in range(DELTAS):
        await server.emit("delta", {"seq": number + 1, "text": PIECE}, to=sid)
        await server.sleep(0)
    await server.emit("end", {}, to=sid)


def main() -> None:
    config = uvicorn.Config(
        socketio.ASGIApp(server),
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        log_level="warning",
        access_log=False,
    )
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        print(listener.getsockname()[1], flush=True)
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
