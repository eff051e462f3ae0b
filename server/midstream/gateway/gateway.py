"""The gateway: who is connected, what they were promised, and how they are told that the server goes."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from msgspec import Struct, field, structs
from starlette.types import Receive, Scope, Send

from midstream.clock import Clock
from midstream.gateway.auth import Authenticator
from midstream.gateway.beats import Beats
from midstream.gateway.door import Door
from midstream.gateway.flusher import Flusher
from midstream.gateway.options import GatewayOptions
from midstream.gateway.origin import DoorRules
from midstream.gateway.quotas import Quotas
from midstream.gateway.rest import Rest
from midstream.gateway.ws import WebSocketEndpoint
from midstream.runs import Principal, Registry
from midstream.tasks import stop
from midstream.telemetry import Census
from midstream_protocol.errors import QuotaExceeded

CLOSE_GRACE_S: Final = 2.0
"""How long clients may take to read their last frames before the server goes without them."""

AGE_SPREAD: Final = 0.1
"""Connections that came together are told to go over so much of their age more, not all at once."""

RETIRE_GRACE_S: Final = 1.0
"""Between telling a connection that it is too old and closing it: what its client has begun is answered."""


class Readiness(Struct, kw_only=True, frozen=True):
    """`reasons` not to send traffic here now (none: ready); `notes` for the operator that change nothing."""

    reasons: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Client(Protocol):
    """A connection or a stream that is open now."""

    @property
    def transport(self) -> str:
        """A word of telemetry's, of those that connections are counted by."""
        ...

    def announce_drain(self) -> None:
        """Tell it that it will be closed soon, and when to come back."""
        ...

    def close_for_drain(self) -> None:
        """Close it; it comes back with its cursors."""
        ...


class _Stay:
    """What a client's place was taken with, and what will be done about its age."""

    __slots__ = ("address", "cancel", "user")

    def __init__(self, user: str, address: str | None) -> None:
        self.user = user
        self.address = address
        self.cancel: Callable[[], None] | None = None


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
        self.flusher: Final = Flusher()
        self.beats: Final = Beats(clock, interval_s=options.heartbeat_s)
        self.draining = False
        self._clients: dict[Client, _Stay] = {}
        self._quotas = Quotas(
            per_user=options.max_connections_per_user, per_address=options.max_connections_per_address
        )
        self._empty = asyncio.Event()
        self._empty.set()
        rest = Rest(self)
        self._app = Door(rest.routes(WebSocketEndpoint(self)), rules=rules)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    @property
    def connected(self) -> int:
        return len(self._clients)

    def census(self) -> Census:
        """What there is at the moment, for who watches this server."""
        connections = Counter(client.transport for client in self._clients)
        return structs.replace(self.registry.census(), connections=connections)

    def enter(self, client: Client, *, principal: Principal, address: str | None) -> None:
        """Count one more client in, until it `leave`s. Raises `QuotaExceeded`."""
        if len(self._clients) >= self.options.max_connections:
            raise QuotaExceeded("this server has as many connections as it takes: try again later")
        self._quotas.take(principal.id, address)
        stay = self._clients[client] = _Stay(principal.id, address)
        self._empty.clear()
        if self.options.max_connection_age_s:
            age_s = self.options.max_connection_age_s * (1 + AGE_SPREAD * random.random())  # noqa: S311 - no secret
            stay.cancel = self.clock.call_later(age_s, lambda: self._retire(client, stay))
        if self.draining:
            client.announce_drain()

    def leave(self, client: Client) -> None:
        """Its place is free. A client that did not enter, or has left, changes nothing."""
        stay = self._clients.pop(client, None)
        if stay is None:
            return
        self._quotas.give(stay.user, stay.address)
        if stay.cancel is not None:
            stay.cancel()
        if not self._clients:
            self._empty.set()

    def _retire(self, client: Client, stay: _Stay) -> None:
        client.announce_drain()
        stay.cancel = self.clock.call_later(RETIRE_GRACE_S, client.close_for_drain)

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
