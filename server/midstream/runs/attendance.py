"""Whether anybody follows a run, and what its starter wants when nobody does, or keeps up (`on_abandon`, `on_lag`).

A run that is to pause goes on with what it has begun and asks here before its next model call. Nobody is attached while
its feed has no reader; a reader keeps up while it is at most `lag_events` behind the head.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from midstream.clock import Clock
from midstream.runs.contract import StartRecord
from midstream.runs.tail import Feed
from midstream_protocol.commands import CancelAfter
from midstream_protocol.events import RunStatusChanged

_PAUSED: Final = "paused"
"""The phase of a run that waits for a reader."""

_QUIETLY_S: Final = 0.25
"""A pause that is over within this is not told: who starts a run attaches a moment later."""

_ALONE: Final = "Paused until somebody is attached"
_BEHIND: Final = "Paused until somebody who is attached keeps up"


class Attendance:
    """One run's, for its actor and its port. `cancel` is called when nobody was attached for too long; `tell` writes
    what people are told.
    """

    def __init__(
        self,
        *,
        start: StartRecord,
        feed: Feed,
        lag_events: int,
        clock: Clock,
        cancel: Callable[[], None],
        tell: Callable[[RunStatusChanged], None],
    ) -> None:
        asked = start.on_abandon
        self._cancel_after_s = asked.cancel_after_s if isinstance(asked, CancelAfter) else None
        self._pauses_alone = asked == "pause"
        self._pauses_behind = start.on_lag == "pause"
        self._feed = feed
        self._lag = lag_events
        self._clock = clock
        self._cancel = cancel
        self._tell = tell
        self._told = False
        self._telling: Callable[[], None] | None = None
        self._leaving: Callable[[], None] | None = None
        self._waiting: set[asyncio.Future[None]] = set()

    @staticmethod
    def matters(start: StartRecord) -> bool:
        """Whether this run's starter wants anything."""
        return start.on_abandon not in (None, "continue") or start.on_lag not in (None, "continue")

    def begin(self) -> None:
        self._feed.watch(self._changed, lag=self._lag if self._pauses_behind else None)
        self._changed()

    def end(self) -> None:
        self._feed.unwatch(self._changed)
        for timer in (self._telling, self._leaving):
            if timer is not None:
                timer()
        self._telling = self._leaving = None
        self.hurry()

    def hurry(self) -> None:
        """Let those who wait look again: the run is to end, or is handed over."""
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    def missing(self) -> str | None:
        """Why nothing new may begin, for people; None: it may."""
        if self._feed.idle:
            return _ALONE if self._pauses_alone else None
        return _BEHIND if self._pauses_behind and not self._feed.keeps_up(self._lag) else None

    async def changed(self) -> None:
        """Wait until it may be otherwise. People are told once, however many wait."""
        if not self._told and self._telling is None:
            self._telling = self._clock.call_later(_QUIETLY_S, self._pause)
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(waiting)
        try:
            await waiting
        finally:
            self._waiting.discard(waiting)

    def go_on(self) -> None:
        """Nothing is missing, and somebody goes on."""
        if self._telling is not None:
            self._telling()
            self._telling = None
        if self._told:
            self._told = False
            self._tell(RunStatusChanged(status="running", phase="working", text="Working"))

    def _pause(self) -> None:
        self._telling = None
        text = self.missing()
        if text is not None and self._waiting:
            self._told = True
            self._tell(RunStatusChanged(status="running", phase=_PAUSED, text=text))

    def _changed(self) -> None:
        """Somebody came, left, or caught up."""
        if self._cancel_after_s is not None:
            self._count(self._cancel_after_s)
        if self._waiting and self.missing() is None:
            self.hurry()

    def _count(self, seconds: float) -> None:
        if not self._feed.idle:
            if self._leaving is not None:
                self._leaving()
                self._leaving = None
        elif self._leaving is None:
            self._leaving = self._clock.call_later(seconds, self._left)

    def _left(self) -> None:
        self._leaving = None
        self._cancel()
