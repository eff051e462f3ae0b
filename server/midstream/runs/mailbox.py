"""A run's mailbox: two lanes into one writer. Control is taken before output, so that a cancel never waits behind a
thousand deltas; output is bounded, so that a slow log slows the model and not the memory.

Text deltas may wait for the end of their window (see coalesce.py); anything else makes all that waits due at once.

No reply outlives the mailbox: closing it answers everybody who waits.
"""

import asyncio
from typing import Any

from midstream.clock import Clock
from midstream.runs.coalesce import Windows
from midstream.runs.contract import Limits, Stopping
from midstream.runs.inputs import Input, Said


class Posted:
    """One input on its way, with the reply that somebody may wait for."""

    __slots__ = ("item", "reply")

    def __init__(self, item: Input, reply: "asyncio.Future[Any] | None") -> None:
        self.item = item
        self.reply = reply


Taken = Posted | Said


class Mailbox:
    """For one event loop: every method is called on it."""

    __slots__ = (
        "_bound",
        "_clock",
        "_closed",
        "_control",
        "_drafts",
        "_gathered",
        "_held",
        "_join_bytes",
        "_last",
        "_output",
        "_overdue",
        "_patience_s",
        "_room",
        "_until",
        "_wake",
        "_windows",
        "due",
        "durable_seq",
    )

    def __init__(self, *, limits: Limits, windows: Windows, clock: Clock) -> None:
        self._bound = limits.output_lane
        self._join_bytes = limits.coalesce_bytes
        self._patience_s = limits.emit_wait_s
        self._windows = windows
        self._clock = clock
        # Lists: they are taken whole or nearly so, and an empty deque is ten times as large.
        self._control: list[Posted] = []
        self._output: list[Taken] = []
        self._drafts = 0
        """In the output lane: each delta counts."""
        self._last: Said | None = None
        """The newest of the output lane, if it can grow."""
        self._gathered = 0
        """Bytes of the deltas that came since something was taken."""
        self._until = 0.0
        """Until then deltas wait for each other."""
        self._held: int | None = None
        """Where the windows know that some do."""
        self._wake: asyncio.Future[None] | None = None
        self._room: list[asyncio.Future[None]] = []
        self._overdue = False
        self._closed: Exception | None = None
        self.due = False
        """Whether there is something that the actor takes now."""
        self.durable_seq = 0
        """The newest event that is durable: what the actor has published."""

    @property
    def has_room(self) -> bool:
        """Whether the next delta is let in."""
        return self._drafts < self._bound or self._overdue

    def say(self, message_id: str, text: str, step_id: str | None) -> bool:
        """One text delta into the output lane. False: it is full. Raises the reason if the mailbox is closed."""
        if self._closed is not None:
            raise self._closed
        if not self.has_room:
            return False
        self._drafts += 1
        size = len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))
        last = self._last
        if (
            last is not None
            and last.size + size <= self._join_bytes
            and last.message_id == message_id
            and last.step_id == step_id
        ):
            last.texts.append(text)
            last.size += size
        else:
            self._last = last = Said(message_id, step_id, text, size)
            self._output.append(last)
        if not self.due:
            self._gathered += size
            if self._windows.now() >= self._until or self._gathered >= self._join_bytes or self._drafts >= self._bound:
                self.ring()
            elif self._held is None:
                self._held = self._windows.hold(self, self._until)
        return True

    def put_control(self, item: Input, *, reply: "asyncio.Future[Any] | None" = None) -> None:
        """Never waits. If the mailbox is closed, the reply gets the reason."""
        if self._closed is not None:
            _fail(reply, self._closed)
            return
        self._control.append(Posted(item, reply))
        self.ring()

    def put_output(self, item: Input, *, reply: "asyncio.Future[Any] | None" = None) -> bool:
        """False: the lane is full. Raises the reason if the mailbox is closed."""
        if self._closed is not None:
            raise self._closed
        if self._drafts >= self._bound:
            return False
        self._append(item, reply)
        return True

    def force_output(self, item: Input) -> None:
        """Over the bound: the few closings that cancelled work leaves behind, and what has waited long enough. Dropped
        when closed: then the run's end, or its recovery, closes what is open.
        """
        if self._closed is None:
            self._append(item, None)

    async def room(self) -> None:
        """Wait until there may be room in the output lane, or the mailbox is closed."""
        await self._wait(self._new_room())

    async def room_in_time(self) -> bool:
        """The same, `emit_wait_s` at most; whether it was in time."""
        room = self._new_room()
        late = False

        def give_up() -> None:
            nonlocal late
            if not room.done():
                late = True
                room.set_result(None)
                self._room.remove(room)

        cancel = self._clock.call_later(self._patience_s, give_up)
        try:
            await self._wait(room)
        finally:
            cancel()
        return not late

    def let_in(self) -> None:
        """Keep deltas waiting no more until the actor takes something: who streams a message to us must be read, or
        gives up. What that can come to is one message: its end is recorded, and that waits.
        """
        self._overdue = True

    def wakened(self) -> "asyncio.Future[None]":
        """Done when something is due. Only the actor waits for it."""
        self._wake = asyncio.get_running_loop().create_future()
        return self._wake

    def take(self, limit: int) -> list[Taken]:
        """All that waits, control first, at most `limit` inputs. Only the actor calls this."""
        control, output = self._control, self._output
        taken: list[Taken] = []
        if control:
            taken += control[:limit]
            del control[:limit]
        if len(taken) + len(output) <= limit:
            taken += output
            output.clear()
            self._drafts = 0
        elif (room := limit - len(taken)) > 0:
            for item in output[:room]:
                self._drafts -= len(item.texts) if type(item) is Said else 1
                taken.append(item)
            del output[:room]
        self._last, self._gathered, self._overdue = None, 0, False
        self.due = bool(control or output)
        self._let_go()
        if self._room:
            self._make_room()
        return taken

    def gather(self, until: float) -> None:
        """Deltas that come before `until` (the windows' time) wait for it or for something else (0: they do not)."""
        self._until = until

    def ring(self) -> None:
        """What waits is due."""
        self.due = True
        wake = self._wake
        if wake is not None:
            self._wake = None
            if not wake.done():
                wake.set_result(None)

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
        self._last = None
        self._let_go()
        self._make_room()

    def _append(self, item: Input, reply: "asyncio.Future[Any] | None") -> None:
        self._output.append(Posted(item, reply))
        self._drafts += 1
        self._last = None
        self.ring()

    def _new_room(self) -> "asyncio.Future[None]":
        room: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._room.append(room)
        return room

    async def _wait(self, room: "asyncio.Future[None]") -> None:
        try:
            await room
        except asyncio.CancelledError:
            # The place that this writer was given is the next one's.
            self._make_room()
            raise

    def _let_go(self) -> None:
        if self._held is not None:
            self._windows.forget(self, self._held)
            self._held = None

    def _make_room(self) -> None:
        free = self._bound - self._drafts
        while self._room and (free > 0 or self._closed is not None):
            room = self._room.pop(0)
            if not room.done():
                room.set_result(None)
                free -= 1


def _fail(reply: "asyncio.Future[Any] | None", reason: Exception) -> None:
    if reply is not None and not reply.done():
        reply.set_exception(reason)
        # The one who asked may have been cancelled; an exception nobody reads is then no news.
        reply.exception()
