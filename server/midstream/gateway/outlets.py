"""How a connection's frames leave: written at once where the server has a way for it, else by a task through ASGI."""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Final, Protocol

from midstream.clock import Clock
from midstream.gateway.connection import Connection, Slot
from midstream.gateway.flusher import Flusher
from midstream.gateway.options import GatewayOptions
from midstream.gateway.socket import Gone, Socket
from midstream.gateway.uvicorn_ws import Direct
from midstream.log import LogError
from midstream.logs import Logger
from midstream.runs import SubscriptionLost
from midstream.tasks import spawn, stop
from midstream.telemetry import observe_delivery
from midstream_protocol.codec import iso_ms
from midstream_protocol.codes import Close

BATCH_BYTES: Final = 64 * 1024
"""Written in one go before other connections have their turn."""

PULL_EVENTS: Final = 64
"""Events of one run before the connection's other runs have their turn."""

FRAMES_PER_TURN: Final = 16
"""Frames sent one by one before other connections have their turn; so many must be taken within the send timeout."""

PROGRESS_CHECKS: Final = 4
"""Looks at a full socket within the send timeout."""

TOO_SLOW: Final = "too slow; reconnect and resume from your cursors"
LOG_FAILED: Final = "the log cannot be read now; reconnect and resume"
INTERNAL: Final = "internal error; reconnect and resume"

Read = Callable[[], Awaitable[None]]

_log = Logger("midstream.gateway.outlets")


class Outlet(Protocol):
    """The way out of one connection. `notify` is for the connection: there is something to write."""

    connection: Connection

    def notify(self) -> None: ...

    def beat(self) -> None:
        """A heartbeat is due."""
        ...

    async def along(self, read: Read) -> None:
        """Write for as long as `read` reads, or until this side ends it."""
        ...


def outlet_for(socket: Socket, *, flusher: Flusher, options: GatewayOptions, clock: Clock, name: str) -> Outlet:
    """The best way out that the server has. Give it its `connection` before anything else."""
    if socket.direct is not None:
        return DirectOutlet(socket.direct, flusher=flusher, options=options, clock=clock, name=name)
    return PlainOutlet(socket, options=options, clock=clock, name=name)


class _Batches:
    """What a connection writes next, in bounded pieces."""

    __slots__ = ("_clock", "_max_frames", "beat_due", "connection", "live")

    connection: Connection

    def __init__(self, *, max_frames: int, clock: Clock) -> None:
        self._max_frames = max_frames
        self._clock = clock
        self.beat_due = False
        self.live = False
        """The last batch had events of a run that was caught up."""

    def next(self) -> tuple[list[bytes], Slot | None]:
        """Control frames, a heartbeat if one is due, then each ready run in turn; and the run whose events must be read
        from the log (`page`) before it can go on.
        """
        connection = self.connection
        self.live = False
        frames = connection.control()
        if connection.closing is not None:
            return frames, None
        if self.beat_due:
            self.beat_due = False
            frames.append(connection.heartbeat(iso_ms(self._clock.now_ms())))
        room, size = self._max_frames, 0
        if frames:
            room, size = room - len(frames), sum(map(len, frames))
        while room > 0 and size < BATCH_BYTES and (turn := connection.next_ready()) is not None:
            slot, subscription = turn
            live = slot.caught_up
            most = min(PULL_EVENTS, room)
            pulled = subscription.take(max_events=most, max_bytes=BATCH_BYTES - size)
            if pulled is None:
                slot.paged = True
                return frames, slot
            if more := connection.events(slot, pulled):
                self.live |= live
                room -= len(more)
                size += sum(map(len, more))
                frames += more
        return frames, None

    async def page(self, slot: Slot) -> list[bytes]:
        """The next frames of a run that is behind, from the log. They must be written before anything waits.

        Raises `LogError`.
        """
        connection, subscription = self.connection, slot.subscription
        assert subscription is not None, "only attached runs are behind"
        try:
            pulled = await subscription.pull(max_events=self._max_frames, max_bytes=BATCH_BYTES)
        except SubscriptionLost as lost:
            slot.paged = False
            return connection.lost(slot, lost.reset)
        slot.paged = False
        return connection.events(slot, pulled)


class DirectOutlet:
    """Through the server's own protocol object: no task, except to read the log for a client that is behind."""

    __slots__ = (
        "_batches",
        "_behind",
        "_cancel_check",
        "_clock",
        "_direct",
        "_ended",
        "_flusher",
        "_marked",
        "_name",
        "_pager",
        "_progress_at",
        "_since",
        "_timeout_s",
        "_unsent",
        "wrote_in",
    )

    def __init__(self, direct: Direct, *, flusher: Flusher, options: GatewayOptions, clock: Clock, name: str) -> None:
        self.wrote_in = 0
        self._direct = direct
        self._flusher = flusher
        self._clock = clock
        self._name = name
        self._timeout_s = options.send_timeout_s
        self._batches = _Batches(max_frames=options.frames_per_write, clock=clock)
        self._marked = False
        """It will be asked, or told that there is room: nothing to do when more comes."""
        self._since = 0.0
        """When what waits began to wait."""
        self._ended = False
        self._behind: list[Slot] = []
        """Runs whose next events are read from the log, in turn."""
        self._pager: asyncio.Task[None] | None = None
        self._cancel_check: Callable[[], None] | None = None
        self._unsent = 0
        self._progress_at = 0.0
        direct.bound(options.write_buffer_bytes)
        direct.watch(self._room)

    @property
    def connection(self) -> Connection:
        return self._batches.connection

    @connection.setter
    def connection(self, connection: Connection) -> None:
        self._batches.connection = connection

    def notify(self) -> None:
        if not self._marked:
            self._marked = True
            self._since = monotonic()
            self._flusher.mark(self)

    def beat(self) -> None:
        self._batches.beat_due = True
        self.notify()

    async def along(self, read: Read) -> None:
        try:
            await read()
            closing = self.connection.closing
            if closing is not None and self.connection.overflowed:
                # It does not read: nothing that waits can be written.
                self._shut(closing.code, closing.reason)
        except Exception:  # noqa: BLE001 - whatever it is, the client learns that it may come back
            _log.exception("a connection failed", connection=self._name)
            self.fail()
        finally:
            self._end()
            await stop(self._pager)

    # -- for the flusher

    def flush(self) -> bool:
        if self._ended:
            return False
        if not self._direct.ready():
            self._wait_for_room()
            return False
        batches = self._batches
        frames, behind = batches.next()
        if frames:
            self._direct.write(frames, text=batches.connection.wire.text)
            if batches.live:
                observe_delivery(monotonic() - self._since)
        if behind is not None:
            self._behind.append(behind)
            if self._pager is None:
                self._pager = spawn(self._read_log(), name=f"conn:{self._name}/log")
        if batches.connection.waiting:
            return self._more()
        self._marked = False
        return False

    def fail(self) -> None:
        self._shut(Close.INTERNAL, INTERNAL)

    def _more(self) -> bool:
        closing = self.connection.closing
        if closing is not None and not self.connection.control_waits:
            self._shut(closing.code, closing.reason)
            return False
        if not self._batches.live:
            # A replay: what it brings has been durable for long, and only what is live counts.
            self._since = monotonic()
        return True

    # -- a client that is behind

    async def _read_log(self) -> None:
        """One page of each such run in turn, while there is room."""
        batches = self._batches
        try:
            while self._behind and not self._ended and self._direct.ready():
                frames = await batches.page(self._behind.pop(0))
                if frames:
                    self._direct.write(frames, text=batches.connection.wire.text)
                await asyncio.sleep(0)
        except LogError as error:
            # The log has the events; the client comes back for them from its cursor.
            _log.warning("a connection's log cannot be read", connection=self._name, error=str(error))
            self._shut(Close.INTERNAL, LOG_FAILED)
        except Exception:  # noqa: BLE001 - whatever it is, the client learns that it may come back
            _log.exception("a connection failed", connection=self._name)
            self.fail()
        finally:
            self._pager = None
            later, self._behind = self._behind, []
            for slot in later:
                slot.paged = False
                self.connection.wake(slot)

    # -- a client that does not read

    def _wait_for_room(self) -> None:
        self._unsent = self._direct.unsent()
        self._progress_at = self._clock.monotonic()
        self._check_later()

    def _check_later(self) -> None:
        self._cancel_check = self._clock.call_later(self._timeout_s / PROGRESS_CHECKS, self._check)

    def _check(self) -> None:
        unsent, now = self._direct.unsent(), self._clock.monotonic()
        if unsent < self._unsent:
            self._unsent, self._progress_at = unsent, now
        elif now - self._progress_at >= self._timeout_s:
            closing = self.connection.closing
            self._shut(*((closing.code, closing.reason) if closing is not None else (Close.TOO_SLOW, TOO_SLOW)))
            return
        self._check_later()

    def _room(self) -> None:
        if self._cancel_check is not None:
            self._cancel_check()
            self._cancel_check = None
            self._flusher.mark(self)

    # -- the end

    def _shut(self, code: int, reason: str) -> None:
        if not self._ended:
            self._end()
            self._direct.shut(code, reason)

    def _end(self) -> None:
        self._ended = self._marked = True
        if self._cancel_check is not None:
            self._cancel_check()
            self._cancel_check = None


class PlainOutlet:
    """Through ASGI, one `send` a frame, by a task of its own: for servers that have nothing better."""

    def __init__(self, socket: Socket, *, options: GatewayOptions, clock: Clock, name: str) -> None:
        self._socket = socket
        self._clock = clock
        self._name = name
        self._timeout_s = options.send_timeout_s
        self._sending_at: float | None = None
        """Since when what is being sent is not taken; looked at now and then, for a timeout a send costs too much."""
        self._stalled = False
        self._cancel_check: Callable[[], None] | None = None
        self._writer: asyncio.Task[None] | None = None
        self._batches = _Batches(max_frames=options.frames_per_write, clock=clock)
        self._more = asyncio.Event()
        self._since = 0.0

    @property
    def connection(self) -> Connection:
        return self._batches.connection

    @connection.setter
    def connection(self, connection: Connection) -> None:
        self._batches.connection = connection

    def notify(self) -> None:
        if not self._more.is_set():
            self._since = monotonic()
            self._more.set()

    def beat(self) -> None:
        self._batches.beat_due = True
        self.notify()

    async def along(self, read: Read) -> None:
        reader = spawn(_awaited(read), name=f"conn:{self._name}/reader")
        writer = self._writer = spawn(self._write(), name=f"conn:{self._name}/writer")
        try:
            done, _ = await asyncio.wait({reader, writer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if self._cancel_check is not None:
                self._cancel_check()
            await stop(reader, writer)
        closing = self.connection.closing
        if self._stalled:
            await self._socket.close(Close.TOO_SLOW, TOO_SLOW)
        elif self.connection.overflowed and closing is not None:
            await self._socket.close(closing.code, closing.reason)
        elif any(not task.cancelled() and task.exception() is not None for task in done):
            await self._socket.close(Close.INTERNAL, INTERNAL)

    async def _write(self) -> None:
        try:
            while True:
                await self._more.wait()
                self._more.clear()
                await self._write_all()
                closing = self.connection.closing
                if closing is not None:
                    await self._socket.close(closing.code, closing.reason)
                    return
        except LogError as error:
            _log.warning("a connection's log cannot be read", connection=self._name, error=str(error))
            await self._socket.close(Close.INTERNAL, LOG_FAILED)
        except Gone:
            return

    async def _write_all(self) -> None:
        text = self.connection.wire.text
        while True:
            frames, behind = self._batches.next()
            live = self._batches.live
            if behind is not None:
                frames += await self._batches.page(behind)
            if not frames:
                return
            for start in range(0, len(frames), FRAMES_PER_TURN):
                if start:
                    # Sending waits only when a buffer is full: without this, one busy client starves the others.
                    await asyncio.sleep(0)
                self._sending_at = self._clock.monotonic()
                if self._cancel_check is None:
                    self._cancel_check = self._clock.call_later(self._timeout_s, self._check)
                await self._socket.send(frames[start : start + FRAMES_PER_TURN], text=text)
                self._sending_at = None
            if live:
                observe_delivery(monotonic() - self._since)
            if not self.connection.waiting:
                return
            await asyncio.sleep(0)

    def _check(self) -> None:
        self._cancel_check = None
        if self._sending_at is None or self._writer is None:
            return
        left_s = self._sending_at + self._timeout_s - self._clock.monotonic()
        if left_s > 0:
            self._cancel_check = self._clock.call_later(left_s, self._check)
        else:
            self._stalled = True
            self._writer.cancel()


async def _awaited(read: Read) -> None:
    await read()
