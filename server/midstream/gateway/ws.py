"""`GET /v1/ws`: the I/O around a `Connection`. One reader that never waits for work, one writer, one heartbeat."""

import asyncio
import secrets
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs

import structlog
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from midstream.gateway.auth import credentials_of
from midstream.gateway.connection import Connection
from midstream.gateway.dispatch import Dispatcher
from midstream.gateway.socket import Gone, Socket, Stalled
from midstream.gateway.wire import Wire, negotiate
from midstream.log import LogError
from midstream.runs import Principal, SubscriptionLost
from midstream.tasks import spawn, stop
from midstream_protocol.codec import iso_ms
from midstream_protocol.codes import Close
from midstream_protocol.frames import ConnectionDraining, ConnectionReady, PrincipalInfo
from midstream_protocol.ids import is_id, new_id

if TYPE_CHECKING:
    from midstream.gateway.gateway import Gateway

BATCH_BYTES: Final = 64 * 1024
"""Written in one go before other connections have their turn."""

MESSAGES_PER_TURN: Final = 32
"""Inbound messages handled before other connections have their turn: a full buffer is handed over without waiting."""

RECONNECT_IN_S: Final = (0.5, 2.5)
"""Clients of a server that goes down come back spread over this, not all at once."""

_log = structlog.get_logger("midstream.gateway.ws")


def reconnect_in_s() -> float:
    """A client's own delay, so that a restart is not followed by a stampede."""
    low, high = RECONNECT_IN_S
    return round(low + (high - low) * secrets.randbelow(1000) / 1000, 3)


class WebSocketEndpoint:
    """The ASGI application of `/v1/ws`. Its Host and Origin were checked before (door.py)."""

    def __init__(self, gateway: "Gateway") -> None:
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        socket = Socket(scope, receive, send, send_timeout_s=self._gateway.options.send_timeout_s)
        try:
            await self._serve(scope, socket)
        except Gone:
            return

    async def _serve(self, scope: Scope, socket: Socket) -> None:
        offered: list[str] = list(scope.get("subprotocols", ()))
        subprotocol, wire = negotiate(offered)
        # Accepted first, refused after: a browser shows its page a close code, but not an HTTP status.
        await socket.accept(subprotocol)
        if wire is None:
            await socket.close(Close.BAD_REQUEST, "none of the offered subprotocols is spoken here")
            return
        asked = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("client_id", [])
        client_id = asked[0] if asked else new_id("client")
        if not is_id(client_id):
            await socket.close(Close.BAD_REQUEST, "client_id: 1 to 64 letters, digits, _ or -")
            return
        try:
            principal = await self._gateway.authenticator.authenticate(
                credentials_of(dict(Headers(scope=scope)), offered)
            )
        except Exception:  # noqa: BLE001 - an application's own code; the client learns that it failed
            _log.exception("authenticate failed")
            await socket.close(Close.INTERNAL, "credentials could not be checked")
            return
        if principal is None:
            await socket.close(Close.BAD_CREDENTIALS, "bad credentials")
            return
        live = LiveConnection(self._gateway, socket=socket, wire=wire, principal=principal, client_id=client_id)
        if not self._gateway.enter(live):
            await socket.close(Close.TOO_MANY_CONNECTIONS, "too many connections")
            return
        try:
            await live.run()
        finally:
            self._gateway.leave(live)


class LiveConnection:
    """One connected client."""

    def __init__(self, gateway: "Gateway", *, socket: Socket, wire: Wire, principal: Principal, client_id: str) -> None:
        options = gateway.options
        self.id: Final = new_id("conn")
        self._gateway = gateway
        self._socket = socket
        self._more = asyncio.Event()
        self._heartbeat_due = False
        self._reconnect_in_s = reconnect_in_s()
        self._connection = Connection(
            wire=wire,
            limits=options.connection_limits,
            max_errors=options.max_errors,
            notify=self._more.set,
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
        self._connection.send(
            ConnectionReady(
                connection_id=self.id,
                client_id=client_id,
                server=options.server,
                now=iso_ms(gateway.clock.now_ms()),
                heartbeat_s=options.heartbeat_s,
                principal=PrincipalInfo(id=principal.id, name=principal.name),
                limits=options.connection_limits,
            )
        )

    def announce_drain(self) -> None:
        """Tell the client that this server is going; commands are taken until the close."""
        self._connection.send(ConnectionDraining(reconnect_in_s=self._reconnect_in_s))

    def close_for_drain(self) -> None:
        """Write what waits, then close; the reason repeats when to come back."""
        self._connection.close(Close.DRAINING, f'{{"reconnect_in_s":{self._reconnect_in_s}}}')

    async def run(self) -> None:
        """Until either side ends it."""
        reader = spawn(self._read(), name=f"conn:{self.id}/reader")
        writer = spawn(self._write(), name=f"conn:{self.id}/writer")
        self._schedule_heartbeat()
        try:
            done, _ = await asyncio.wait({reader, writer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._cancel_heartbeat()
            self._connection.shut()
            await stop(reader, writer)
        if self._connection.overflowed and self._connection.closing is not None:
            await self._socket.close(self._connection.closing.code, self._connection.closing.reason)
        elif any(not task.cancelled() and task.exception() is not None for task in done):
            await self._socket.close(Close.INTERNAL, "internal error; reconnect and resume")

    async def _read(self) -> None:
        handled = 0
        while (data := await self._socket.receive()) is not None:
            ticket = self._connection.receive(data)
            if ticket is not None:
                self._dispatcher.dispatch(ticket)
            if self._connection.overflowed:
                # The writer may be waiting for room that never comes: `run` ends it.
                return
            handled += 1
            if handled % MESSAGES_PER_TURN == 0:
                await asyncio.sleep(0)

    async def _write(self) -> None:
        connection = self._connection
        try:
            while True:
                await self._more.wait()
                self._more.clear()
                while frames := await self._batch():
                    await self._socket.send(frames, text=connection.wire.text)
                    # Sending waits only when a buffer is full: without this, one busy client starves the others.
                    await asyncio.sleep(0)
                if connection.closing is not None:
                    await self._socket.close(connection.closing.code, connection.closing.reason)
                    return
        except Stalled:
            await self._socket.close(Close.TOO_SLOW, "too slow; reconnect and resume from your cursors")
        except LogError as error:
            # The log has the events; the client comes back for them from its cursor.
            _log.warning("a connection's log cannot be read", connection=self.id, error=str(error))
            await self._socket.close(Close.INTERNAL, "the log cannot be read now; reconnect and resume")
        except Gone:
            return

    async def _batch(self) -> list[bytes]:
        """What to write next: control frames, a heartbeat if one is due, then each ready run in turn."""
        connection = self._connection
        frames = connection.control()
        if connection.closing is not None:
            return frames
        if self._heartbeat_due:
            self._heartbeat_due = False
            frames.append(connection.heartbeat(iso_ms(self._gateway.clock.now_ms())))
        size = sum(map(len, frames))
        while size < BATCH_BYTES and (turn := connection.next_ready()) is not None:
            slot, subscription = turn
            try:
                more = connection.events(slot, await subscription.pull())
            except SubscriptionLost as lost:
                more = connection.lost(slot, lost.reset)
            size += sum(map(len, more))
            frames += more
        return frames

    def _schedule_heartbeat(self) -> None:
        self._cancel_heartbeat = self._gateway.clock.call_later(self._gateway.options.heartbeat_s, self._beat)

    def _beat(self) -> None:
        self._heartbeat_due = True
        self._more.set()
        self._schedule_heartbeat()
