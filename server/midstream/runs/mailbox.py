"""A run's mailbox: two lanes into one writer. Control is taken before output, so that a cancel never waits behind a
thousand deltas; output is bounded, so that a slow log slows the model and not the memory.

No reply outlives the mailbox: closing it answers everybody who waits.
"""

import asyncio
from collections import deque
from typing import Any

from midstream.runs.contract import Stopping
from midstream.runs.inputs import Input


class Posted:
    """One input on its way, with the reply that somebody may wait for."""

    __slots__ = ("item", "reply")

    def __init__(self, item: Input, reply: "asyncio.Future[Any] | None") -> None:
        self.item = item
        self.reply = reply


class Mailbox:
    """For one event loop: every method is called on it."""

    def __init__(self, *, output_lane: int) -> None:
        self._bound = output_lane
        self._control: deque[Posted] = deque()
        self._output: deque[Posted] = deque()
        self._wake: asyncio.Future[None] | None = None
        self._room: deque[asyncio.Future[None]] = deque()
        self._closed: Exception | None = None
        self.durable_seq = 0
        """The newest event that is durable: what the actor has published."""

    def put_control(self, item: Input, *, reply: "asyncio.Future[Any] | None" = None) -> None:
        """Never waits. If the mailbox is closed, the reply gets the reason."""
        if self._closed is not None:
            _fail(reply, self._closed)
            return
        self._control.append(Posted(item, reply))
        self._notify()

    async def put_output(self, item: Input, *, reply: "asyncio.Future[Any] | None" = None) -> None:
        """Waits while the lane is full. Raises the reason if the mailbox is closed."""
        while self._closed is None and len(self._output) >= self._bound:
            room: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._room.append(room)
            try:
                await room
            except asyncio.CancelledError:
                # The place that this writer was given is the next one's.
                self._make_room()
                raise
        if self._closed is not None:
            raise self._closed
        self._output.append(Posted(item, reply))
        self._notify()

    def force_output(self, item: Input) -> None:
        """Over the bound, for the few closings that cancelled work leaves behind. Dropped when closed: then the
        run's end, or its recovery, closes what is open.
        """
        if self._closed is None:
            self._output.append(Posted(item, None))
            self._notify()

    async def take(self, limit: int) -> list[Posted]:
        """Everything that waits, control first, at most `limit`; waits for the first. Only the actor calls this."""
        while not self._control and not self._output:
            self._wake = asyncio.get_running_loop().create_future()
            try:
                await self._wake
            finally:
                self._wake = None
        taken: list[Posted] = []
        while self._control and len(taken) < limit:
            taken.append(self._control.popleft())
        while self._output and len(taken) < limit:
            taken.append(self._output.popleft())
        self._make_room()
        return taken

    @property
    def idle(self) -> bool:
        return not self._control and not self._output

    def close(self, reason: Exception | None = None) -> None:
        """Answer all who wait, now and later, with `reason` (default `Stopping`)."""
        if self._closed is not None:
            return
        self._closed = reason if reason is not None else Stopping()
        for posted in (*self._control, *self._output):
            _fail(posted.reply, self._closed)
        self._control.clear()
        self._output.clear()
        self._make_room()

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def _make_room(self) -> None:
        free = self._bound - len(self._output)
        while self._room and (free > 0 or self._closed is not None):
            room = self._room.popleft()
            if not room.done():
                room.set_result(None)
                free -= 1


def _fail(reply: "asyncio.Future[Any] | None", reason: Exception) -> None:
    if reply is not None and not reply.done():
        reply.set_exception(reason)
        # The one who asked may have been cancelled; an exception nobody reads is then no news.
        reply.exception()
