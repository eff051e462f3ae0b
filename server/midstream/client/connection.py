"""The I/O around `core`: one task keeps one link to the server, and makes a new one whenever that ends.

The libraries' own reconnecting is not used: when to come back, and with what, is the core's to decide.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from midstream.client.actions import Action, Changed, Drop, Failed, Reconnect, Renew, Send, State, Warned
from midstream.client.address import Address
from midstream.client.core import ClientCore
from midstream.client.credentials import Credentials
from midstream.client.errors import Unreachable
from midstream.client.http_link import open_http
from midstream.client.link import Link, LinkClosed
from midstream.client.websocket_link import CLOSE_TIMEOUT_S, open_websocket
from midstream.clock import Clock
from midstream.logs import Logger
from midstream.tasks import spawn, stop

_LOST: Final = 1006

_log = Logger("midstream.client")


class Connection:
    """`on_action` gets what is not the connection's own to do, in order; `on_failed` why it ended for good."""

    def __init__(
        self,
        core: ClientCore,
        address: Address,
        *,
        client_id: str,
        credentials: Credentials,
        clock: Clock,
        on_action: Callable[[Action], None],
        on_state: Callable[[State, str], None] | None,
        on_failed: Callable[[Exception], None],
    ) -> None:
        self.error: Exception | None = None
        """Why there is no connection any more, nor ever will be."""
        self._core = core
        self._address = address
        self._client_id = client_id
        self._credentials = credentials
        self._clock = clock
        self._on_action = on_action
        self._on_state = on_state
        self._on_failed = on_failed
        self._usable = asyncio.Event()
        self._outbox: asyncio.Queue[bytes] = asyncio.Queue()
        self._dropped = asyncio.Event()
        self._drop_code = _LOST
        self._delay_s = 0.0
        self._at_once = asyncio.Event()
        self._disarm: Callable[[], None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._renewing: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Until the first connection is ready. Raises why there is none."""
        self._task = spawn(self._keep(), name=f"client:{self._client_id}/connection")
        await self._usable.wait()
        if self.error is not None:
            raise self.error

    async def aclose(self) -> None:
        connected = self._core.state == "ready"
        self.perform(self._core.close())
        if self._task is not None and connected:
            await asyncio.wait([self._task], timeout=CLOSE_TIMEOUT_S)
        await stop(self._task, self._renewing)

    def reconnect(self) -> None:
        """Do not wait for the next attempt."""
        self._at_once.set()

    def perform(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Send(data):
                    self._outbox.put_nowait(data)
                case Drop(code):
                    self._drop_code = code
                    self._dropped.set()
                case Changed(state, reason):
                    if state == "ready":
                        self._usable.set()
                        # Armed for the wait for this; what is waited for now may be over sooner.
                        self._disarmed()
                    if self._on_state is not None:
                        self._on_state(state, reason)
                case Reconnect(delay_s):
                    self._delay_s = delay_s
                case Renew():
                    self._renew()
                case Warned(text):
                    _log.warning("refused by the server", text=text)
                case Failed(error):
                    self._failed(error)
                case _:
                    self._on_action(action)

    def _failed(self, error: Exception) -> None:
        self.error = error
        self._usable.set()
        self._on_failed(error)

    # -- the token

    def _renew(self) -> None:
        if self._renewing is None or self._renewing.done():
            self._renewing = spawn(self._new_token(), name=f"client:{self._client_id}/token")

    async def _new_token(self) -> None:
        try:
            token = await self._credentials.token()
        except Unreachable as error:
            # The server closes with 4005 when the time is up, and the next connection asks again.
            _log.warning("no new token", error=str(error))
            return
        if token is not None:
            self.perform(self._core.refresh(token))

    # -- the link

    async def _keep(self) -> None:
        try:
            while True:
                await self._connection()
                if self._core.state == "closed":
                    return
                await self._pause()
        except Exception as defect:
            # Ours, or of `on_state`: nobody may wait for a connection that nobody keeps.
            self._failed(defect)
            raise

    async def _pause(self) -> None:
        self._at_once.clear()
        sleeping = spawn(self._clock.sleep(self._delay_s), name=f"client:{self._client_id}/pause")
        told = spawn(self._at_once.wait(), name=f"client:{self._client_id}/at-once")
        try:
            await asyncio.wait([sleeping, told], return_when=asyncio.FIRST_COMPLETED)
        finally:
            await stop(sleeping, told)

    async def _open(self) -> Link:
        token = await self._credentials.token()
        if self._core.transport == "http":
            return await open_http(self._address, client_id=self._client_id, token=token, clock=self._clock)
        return await open_websocket(self._address, client_id=self._client_id, token=token)

    async def _connection(self) -> None:
        """One connection, from the attempt to its end."""
        self._outbox = asyncio.Queue()
        self._dropped.clear()
        try:
            link = await self._open()
        except Unreachable as error:
            self.perform(self._core.unreachable(error))
            return
        except LinkClosed as closed:
            self.perform(self._core.closed(closed.code, closed.reason, now=self._clock.monotonic()))
            return
        self.perform(self._core.opened(now=self._clock.monotonic()))
        self._arm()
        reader = spawn(self._read(link), name=f"client:{self._client_id}/reader")
        writer = spawn(self._write(link), name=f"client:{self._client_id}/writer")
        dropped = spawn(self._dropped.wait(), name=f"client:{self._client_id}/drop")
        try:
            await asyncio.wait([reader, dropped], return_when=asyncio.FIRST_COMPLETED)
            code, reason = reader.result() if reader.done() else (self._drop_code, "")
        finally:
            self._disarmed()
            await stop(reader, writer, dropped)
            await self._end(link)
        self.perform(self._core.closed(code, reason, now=self._clock.monotonic()))

    async def _read(self, link: Link) -> tuple[int, str]:
        """Feed the core until the link ends; its close code and reason."""
        try:
            while True:
                data = await link.receive()
                self.perform(self._core.received(data, now=self._clock.monotonic()))
                self._arm()
        except LinkClosed as closed:
            return closed.code, closed.reason

    async def _write(self, link: Link) -> None:
        with contextlib.suppress(LinkClosed):  # the reader reports it
            while True:
                await link.send(await self._outbox.get())

    async def _end(self, link: Link) -> None:
        """A closing handshake if that was our wish, else the plain end: the other side does not answer any more."""
        wished = self._core.state == "closed" and self._drop_code != _LOST
        await link.close(self._drop_code if wished else None)

    def _arm(self) -> None:
        """One timer, set anew only when it rings: frames come far more often than silence."""
        if self._disarm is not None or (due := self._core.wake_at) is None:
            return
        self._disarm = self._clock.call_later(due - self._clock.monotonic(), self._ring)

    def _disarmed(self) -> None:
        if self._disarm is not None:
            self._disarm()
            self._disarm = None

    def _ring(self) -> None:
        self._disarm = None
        self.perform(self._core.tick(now=self._clock.monotonic()))
        self._arm()
