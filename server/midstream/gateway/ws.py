"""`GET /v1/ws`: one client from its handshake to its end. What it is sent leaves by its outlet (outlets.py)."""

import asyncio
import secrets
from typing import TYPE_CHECKING, ClassVar, Final
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from midstream.gateway.auth import credentials_of
from midstream.gateway.connection import Connection
from midstream.gateway.dispatch import Dispatcher
from midstream.gateway.outlets import outlet_for
from midstream.gateway.quotas import RETRY_AFTER_S, address_of
from midstream.gateway.socket import Gone, Socket
from midstream.gateway.wire import Wire, negotiate
from midstream.logs import Logger
from midstream.runs import Principal
from midstream.telemetry import count_abandoned, count_close
from midstream_protocol.codec import iso_ms
from midstream_protocol.codes import Close
from midstream_protocol.errors import QuotaExceeded
from midstream_protocol.frames import ConnectionDraining, ConnectionReady, PrincipalInfo
from midstream_protocol.ids import is_id, new_id

if TYPE_CHECKING:
    from midstream.gateway.gateway import Gateway

MESSAGES_PER_TURN: Final = 32
"""Inbound messages handled before other connections have their turn: a full buffer is handed over without waiting."""

RECONNECT_IN_S: Final = (0.5, 2.5)
"""Clients of a server that goes down come back spread over this, not all at once."""

_log = Logger("midstream.gateway.ws")


def reconnect_in_s() -> float:
    """A client's own delay, so that a restart is not followed by a stampede."""
    low, high = RECONNECT_IN_S
    return round(low + (high - low) * secrets.randbelow(1000) / 1000, 3)


class WebSocketEndpoint:
    """The ASGI application of `/v1/ws`. Its Host and Origin were checked before (door.py)."""

    def __init__(self, gateway: "Gateway") -> None:
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        socket = Socket(scope, receive, send)
        try:
            live = await self._opened(scope, socket)
            if live is not None:
                await self._serve(live, address_of(scope), socket)
        except Gone:
            pass
        finally:
            if socket.code is not None:
                count_close(socket.code)

    async def _opened(self, scope: Scope, socket: Socket) -> "LiveConnection | None":
        """The client, once it is known who it is; None: it was refused."""
        offered: list[str] = list(scope.get("subprotocols", ()))
        subprotocol, wire = negotiate(offered)
        # Accepted first, refused after: a browser shows its page a close code, but not an HTTP status.
        await socket.accept(subprotocol)
        if wire is None:
            await socket.close(Close.BAD_REQUEST, "none of the offered subprotocols is spoken here")
            return None
        asked = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("client_id", [])
        client_id = asked[0] if asked else new_id("client")
        if not is_id(client_id):
            await socket.close(Close.BAD_REQUEST, "client_id: 1 to 64 letters, digits, _ or -")
            return None
        try:
            principal = await self._gateway.authenticator.authenticate(
                credentials_of(dict(Headers(scope=scope)), offered)
            )
        except Exception:  # noqa: BLE001 - an application's own code; the client learns that it failed
            _log.exception("authenticate failed")
            await socket.close(Close.INTERNAL, "credentials could not be checked")
            return None
        if principal is None:
            await socket.close(Close.BAD_CREDENTIALS, "bad credentials")
            return None
        return LiveConnection(self._gateway, socket=socket, wire=wire, principal=principal, client_id=client_id)

    async def _serve(self, live: "LiveConnection", address: str | None, socket: Socket) -> None:
        try:
            self._gateway.enter(live, principal=live.principal, address=address)
        except QuotaExceeded as full:
            await socket.close(Close.TOO_MANY_CONNECTIONS, f'{{"retry_after_s":{RETRY_AFTER_S},"text":"{full.text}"}}')
            return
        try:
            live.welcome()
            await live.run()
        finally:
            self._gateway.leave(live)


class LiveConnection:
    """One connected client."""

    transport: ClassVar = "ws"

    __slots__ = (
        "_connection",
        "_dispatcher",
        "_gateway",
        "_outlet",
        "_reconnect_in_s",
        "_socket",
        "_welcomed",
        "beat",
        "client_id",
        "id",
        "principal",
    )

    def __init__(self, gateway: "Gateway", *, socket: Socket, wire: Wire, principal: Principal, client_id: str) -> None:
        options = gateway.options
        self.id = new_id("conn")
        self.client_id = client_id
        self.principal = principal
        self._welcomed = False
        self._gateway = gateway
        self._socket = socket
        self._reconnect_in_s = reconnect_in_s()
        self._outlet = outlet_for(socket, flusher=gateway.flusher, options=options, clock=gateway.clock, name=self.id)
        self.beat = self._outlet.beat
        self._connection = self._outlet.connection = Connection(
            wire=wire,
            limits=options.connection_limits,
            max_errors=options.max_errors,
            notify=self._outlet.notify,
        )
        self._dispatcher = Dispatcher(
            connection=self._connection,
            registry=gateway.registry,
            authenticator=gateway.authenticator,
            principal=principal,
            client_id=client_id,
            name=self.id,
            tasks=gateway.tasks,
        )

    def welcome(self) -> None:
        """The first frame."""
        gateway, options = self._gateway, self._gateway.options
        self._connection.send(
            ConnectionReady(
                connection_id=self.id,
                client_id=self.client_id,
                server=options.server,
                now=iso_ms(gateway.clock.now_ms()),
                heartbeat_s=options.heartbeat_s,
                principal=PrincipalInfo(id=self.principal.id, name=self.principal.name),
                limits=options.connection_limits,
            )
        )
        self._welcomed = True
        if gateway.draining:
            self.announce_drain()

    def announce_drain(self) -> None:
        """Tell the client that this server is going; commands are taken until the close."""
        if self._welcomed:
            self._connection.send(ConnectionDraining(reconnect_in_s=self._reconnect_in_s))

    def close_for_drain(self) -> None:
        """Write what waits, then close; the reason repeats when to come back."""
        self._connection.close(Close.DRAINING, f'{{"reconnect_in_s":{self._reconnect_in_s}}}')

    async def run(self) -> None:
        """Until either side ends it."""
        beats = self._gateway.beats
        place = beats.add(self)
        try:
            await self._outlet.along(self._read)
        finally:
            beats.remove(self, place)
            abandoned = self._connection.shut()
            if self._connection.closing is None:
                for _ in range(abandoned):
                    count_abandoned("ws")

    async def _read(self) -> None:
        handled = 0
        while (data := await self._socket.receive()) is not None:
            ticket = self._connection.receive(data)
            if ticket is not None:
                self._dispatcher.dispatch(ticket)
            if self._connection.overflowed:
                # The way out may wait for room that never comes: the outlet ends it.
                return
            handled += 1
            if handled % MESSAGES_PER_TURN == 0:
                await asyncio.sleep(0)
