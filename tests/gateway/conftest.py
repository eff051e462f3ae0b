"""A gateway over a real registry and a memory store, with small programs instead of models, on a real server."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from starlette.types import ASGIApp, Receive, Scope, Send

from midstream.clock import Clock, SystemClock
from midstream.gateway.auth import authenticator
from midstream.gateway.gateway import Gateway, Readiness
from midstream.gateway.options import GatewayOptions
from midstream.gateway.origin import door_rules
from midstream.log import MemoryStore
from midstream.runs import Limits, Registry
from midstream.settings import Settings
from tests.gateway.peer import Peer
from tests.gateway.talk import TalkAgents
from tests.testkit.served import Served, served


class House:
    """One server under test. `agents` holds the gates of its programs."""

    def __init__(self, gateway: Gateway, registry: Registry, agents: TalkAgents, server: Served) -> None:
        self.gateway = gateway
        self.registry = registry
        self.agents = agents
        self.server = server

    @asynccontextmanager
    async def peer(
        self, path: str = "/v1/ws", *, ready: bool = True, msgpack: bool = False, **options: Any
    ) -> AsyncIterator[Peer]:
        if msgpack:
            options["subprotocols"] = ["midstream.v1.msgpack"]
        async with self.server.websocket(path, **options) as socket:
            peer = Peer(socket, msgpack=msgpack)
            if ready:
                assert (await peer.receive())["type"] == "connection.ready"
            yield peer

    async def empty(self) -> None:
        """Nobody is connected any more."""
        async with asyncio.timeout(5):
            await self.gateway._empty.wait()

    async def drain(self) -> None:
        self.gateway.announce_drain()
        await self.registry.drain()
        await self.gateway.close()


Open = Callable[..., Awaitable[House]]


def both_ways_out() -> Any:
    """For a test module: `way_out = both_ways_out()`. Each of its tests is run with our protocol class's own way out, and
    with nothing but ASGI's `send`, as on any other server.
    """

    @pytest.fixture(params=["direct", "plain"])
    def way_out(request: pytest.FixtureRequest) -> str:
        return str(request.param)

    return way_out


@pytest.fixture
def way_out() -> str:
    return "direct"


def without_extensions(app: ASGIApp) -> ASGIApp:
    """As a server runs it that has none of ours."""

    async def plain(scope: Scope, receive: Receive, send: Send) -> None:
        kept = {"websocket.http.response": {}} if scope["type"] == "websocket" else {}
        await app({**scope, "extensions": kept}, receive, send)

    return plain


@pytest_asyncio.fixture
async def open_house(way_out: str) -> AsyncIterator[Open]:
    async with AsyncExitStack() as stack:

        async def open_(
            *,
            limits: Limits | None = None,
            token: str | None = None,
            authenticate: Any = None,
            max_frame_bytes: int | None = None,
            store: Any = None,
            allowed_origins: tuple[str, ...] = (),
            clock: Clock | None = None,
            **options: Any,
        ) -> House:
            agents = TalkAgents()
            real = SystemClock()
            registry = Registry(
                store=store or MemoryStore(clock=real),
                agents=agents,
                # Deltas are not joined: tests count them.
                limits=limits or Limits(drain_grace_s=0.2, coalesce_ms=0),
                clock=real,
            )
            await registry.open()
            stack.push_async_callback(registry.aclose)
            if max_frame_bytes is not None:
                options["max_frame_bytes"] = max_frame_bytes

            async def readiness() -> Readiness:
                return Readiness(reasons=["draining"] if gateway.draining else [])

            gateway = Gateway(
                registry=registry,
                authenticator=authenticator(authenticate, token=token),
                rules=door_rules(bound_host="127.0.0.1", allowed_hosts=(), allowed_origins=allowed_origins),
                options=GatewayOptions(**{"heartbeat_s": 600.0, **options}),
                clock=clock or real,
                agents=lambda: [{"name": "a"}],
                readiness=readiness,
            )
            wired = {"max_frame_bytes", "ping_interval_s", "ping_timeout_s"} & options.keys()
            settings = Settings(**{name: options[name] for name in wired})
            app = gateway if way_out == "direct" else without_extensions(gateway)
            server = await stack.enter_async_context(served(app, settings=settings))
            stack.push_async_callback(gateway.close)
            return House(gateway, registry, agents, server)

        yield open_


@pytest_asyncio.fixture
async def house(open_house: Open) -> House:
    return await open_house()
