"""A run as its readers see it: how far it is durable, and its newest events in memory.

One feed a run, shared by all its readers and fed by its actor. The tail is a convenience: what it no longer holds is
read from the log. A reader is told that there is more, never handed anything: it comes with its cursor.
"""

from collections.abc import Callable, Sequence

from midstream.runs.state import OpenQuestion, RunState
from midstream.runs.taps import Taps


class Feed:
    """`head` and `ended` are durable facts."""

    __slots__ = (
        "_bytes",
        "_listeners",
        "_max_bytes",
        "_max_events",
        "_start",
        "_tail",
        "_taps",
        "_wakes",
        "_watched_lag",
        "_watcher",
        "agent",
        "ended",
        "epoch",
        "head",
        "questions",
        "run",
        "run_id",
        "status",
        "thread_id",
    )

    def __init__(
        self,
        *,
        run: str,
        run_id: str,
        epoch: str,
        head: int,
        ended: bool,
        events: int,
        size: int,
        taps: Taps | None = None,
    ) -> None:
        self.run = run
        self.run_id = run_id
        self.epoch = epoch
        self.head = head
        self.ended = ended
        self._max_events = events
        self._max_bytes = size
        self._taps = taps
        # Not a deque, which is ten times as large when it is empty and slower to look into: what left it is blanked,
        # and cut off when it is the larger part.
        self._tail: list[bytes] = []
        self._start = 0
        """Where the oldest event of the tail is in it."""
        self._bytes = 0
        self._listeners: dict[object, Callable[[], None]] = {}
        self._wakes: tuple[Callable[[], None], ...] | None = ()
        """The listeners as they are walked, for one may come or go meanwhile; None: to be made anew."""
        self._watcher: Callable[[], None] | None = None
        self._watched_lag: int | None = None
        self.status: str | None = None
        """At `head`, as are the three below; None: nobody here has said yet."""
        self.thread_id = ""
        self.agent = ""
        self.questions: tuple[OpenQuestion, ...] = ()

    @property
    def first(self) -> int:
        """The oldest seq in the tail (head + 1: it is empty)."""
        return self.head - len(self._tail) + self._start + 1

    @property
    def idle(self) -> bool:
        return not self._listeners

    @property
    def readers(self) -> int:
        return len(self._listeners)

    @property
    def tail_bytes(self) -> int:
        return self._bytes

    @property
    def cursors(self) -> list[int]:
        """How far those are that take its events."""
        return [key.cursor for key in self._listeners if hasattr(key, "cursor")]

    def publish(self, events: Sequence[bytes], *, ended: bool) -> None:
        """Durable events, the next ones after `head`."""
        tail = self._tail
        tail.extend(events)
        self._bytes += sum(map(len, events))
        self.head += len(events)
        self.ended = ended
        if len(tail) - self._start > self._max_events or self._bytes > self._max_bytes:
            self._trim()
        if events:
            self.wake()
            if self._taps:
                self._taps.published(self.run, self.run_id, events)

    def recall(self, events: Sequence[bytes]) -> None:
        """The events up to `head`, which whoever wrote them has at hand still."""
        if not self._tail:
            self._tail.extend(events)
            self._bytes = sum(map(len, events))

    def stands(self, state: RunState) -> None:
        """What the run's writer knows of it at `head`, so that who attaches needs no fold of the log."""
        self.status = state.status
        self.thread_id = state.thread_id
        self.agent = state.agent
        self.questions = tuple(state.questions.values()) if state.questions else ()

    def wake(self) -> None:
        if self._wakes is None:
            self._wakes = tuple(self._listeners.values())
        for wake in self._wakes:
            wake()

    def slice(self, after: int, *, max_events: int, max_bytes: int) -> Sequence[bytes] | None:
        """Events after seq `after` out of the tail; None: the tail does not reach back that far."""
        if self._watched_lag is not None and self.head - after <= self._watched_lag and self._watcher is not None:
            self._watcher()
        if after >= self.head:
            return ()
        start = self._start + after + 1 - self.first
        if start < self._start:
            return None
        out = self._tail[start : start + max_events]
        size = 0
        for count, data in enumerate(out):
            size += len(data)
            if count and size > max_bytes:
                return out[:count]
        return out

    def keeps_up(self, lag: int) -> bool:
        """Whether a reader is at most `lag` events behind."""
        return any(self.head - getattr(key, "cursor", self.head) <= lag for key in self._listeners)

    def watch(self, watcher: Callable[[], None], *, lag: int | None = None) -> None:
        """Call it when a reader comes or goes and, with `lag`, when one reads on that is no more than so far behind."""
        self._watcher, self._watched_lag = watcher, lag

    def unwatch(self, watcher: Callable[[], None]) -> None:
        if self._watcher == watcher:
            self._watcher = self._watched_lag = None

    def listen(self, key: object, wake: Callable[[], None]) -> None:
        """`key` is the reader; its `cursor`, if it has one, is the last seq that it has taken."""
        self._listeners[key] = wake
        self._changed()

    def unlisten(self, key: object) -> None:
        self._listeners.pop(key, None)
        self._changed()
        if self.ended and not self._listeners:
            self.forget_tail()

    def _changed(self) -> None:
        self._wakes = None
        if self._watcher is not None:
            self._watcher()

    def catch_up(self, head: int, *, ended: bool) -> None:
        """The log is further than the tail: events are durable that nobody here published."""
        self.head, self.ended = head, ended
        # Who takes the run up says how it stands.
        self.status = None
        self.forget_tail()
        self.wake()

    def forget_tail(self) -> None:
        """Free the memory: the log has it all."""
        self._tail.clear()
        self._start = self._bytes = 0

    def _trim(self) -> None:
        tail, start = self._tail, self._start
        while start < len(tail) and (len(tail) - start > self._max_events or self._bytes > self._max_bytes):
            self._bytes -= len(tail[start])
            tail[start] = b""
            start += 1
        if start * 2 > len(tail):
            del tail[:start]
            start = 0
        self._start = start
