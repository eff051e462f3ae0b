"""The gateway: who is connected, what they were promised, and how they are told that the server goes."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from msgspec import Struct, field
from starlette.types import Receive, Scope, Send

from midstream.clock import Clock
from midstream.gateway.auth import Authenticator
from midstream.gateway.door import Door
from midstream.gateway.options import GatewayOptions
from midstream.gateway.origin import DoorRules
from midstream.gateway.rest import Rest
from midstream.gateway.ws import WebSocketEndpoint
from midstream.runs import Registry
from midstream.tasks import stop

CLOSE_GRACE_S: Final = 2.0
"""How long clients may take to read their last frames before the server goes without them."""


class Readiness(Struct, kw_only=True, frozen=True):
    """`reasons` not to send traffic here now (none: ready); `notes` for the operator that change nothing."""

    reasons: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Client(Protocol):
    """A connection or a stream that is open now."""

    def announce_drain(self) -> None: ...

    def close_for_drain(self) -> None: ...


class Gateway:
    """An ASGI application for `http` and `websocket` scopes, over one registry."""

    def __init__(
        self,
        *,
        registry: Registry,
        authenticator: Authenticator,
        rules: DoorRules,
        options: GatewayOptions,
        clock: Clock,
        agents: Callable[[], list[dict[str, Any]]],
        readiness: Callable[[], Awaitable[Readiness]],
    ) -> None:
        """`agents` describes what can be started."""
        self.registry: Final = registry
        self.authenticator: Final = authenticator
        self.options: Final = options
        self.clock: Final = clock
        self.agents: Final = agents
        self.readiness: Final = readiness
        self.tasks: Final[set[asyncio.Task[Any]]] = set()
        """Commands under way. They outlive the connection they came from, not the gateway."""
        self.draining = False
        self._clients: set[Client] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        rest = Rest(self)
        self._app = Door(rest.routes(WebSocketEndpoint(self)), rules=rules)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    @property
    def connected(self) -> int:
        return len(self._clients)

    def enter(self, client: Client) -> bool:
        """Count one more client in; False: there are as many as allowed."""
        if len(self._clients) >= self.options.max_connections:
            return False
        self._clients.add(client)
        self._empty.clear()
        if self.draining:
            client.announce_drain()
        return True

    def leave(self, client: Client) -> None:
        self._clients.discard(client)
        if not self._clients:
            self._empty.set()

    def announce_drain(self) -> None:
        """Tell everybody, those who still come included. Commands are taken until `close`."""
        if not self.draining:
            self.draining = True
            for client in tuple(self._clients):
                client.announce_drain()

    async def close(self) -> None:
        """End every connection, each with its last frames written if its client reads them in time."""
        self.draining = True
        for client in tuple(self._clients):
            client.close_for_drain()
        try:
            async with asyncio.timeout(CLOSE_GRACE_S):
                await self._empty.wait()
        except TimeoutError:
            pass
        await stop(*self.tasks)
