"""An ASGI application on a real uvicorn server on loopback, on the test's own loop.

async with served(app) as server:
    async with server.websocket() as socket: ...
    await server.http.get("/healthz")
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from starlette.types import ASGIApp
from websockets.asyncio.client import ClientConnection, connect

from midstream.serving import DrainingServer, bind, server_config, url_of
from midstream.settings import Settings
from midstream.tasks import spawn


class Served:
    def __init__(self, url: str, server: DrainingServer) -> None:
        self.url = url
        self.server = server
        self.http = httpx2.AsyncClient(base_url=url, timeout=10.0, trust_env=False)

    def websocket(self, path: str = "/v1/ws", **options: Any) -> Any:
        """A context manager: one connected client of the `websockets` library."""
        return connect(self.url.replace("http", "ws", 1) + path, proxy=None, max_size=None, **options)


@asynccontextmanager
async def served(
    app: ASGIApp, *, settings: Settings | None = None, drain: Callable[[], Awaitable[None]] | None = None
) -> AsyncIterator[Served]:
    """`app` is started already (its lifespan is not run)."""
    sockets = bind("127.0.0.1", 0)
    listening = asyncio.Event()
    config = server_config(app, settings or Settings())
    server = DrainingServer(config, drain=drain, on_listening=listening.set)
    # `serve` would also take the signals of the test process.
    running = spawn(server._serve(sockets), name="served")
    await listening.wait()
    client = Served(url_of(sockets[0]), server)
    try:
        yield client
    finally:
        await client.http.aclose()
        server.begin_exit()
        await running


__all__ = ["ClientConnection", "Served", "served"]
