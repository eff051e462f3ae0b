"""A run as its readers see it: how far it is durable, and its newest events in memory.

One feed a run, shared by all its readers and fed by its actor. The tail is a convenience: what it no longer holds is
read from the log. A reader is told that there is more, never handed anything: it comes with its cursor.
"""

from collections import deque
from collections.abc import Callable, Sequence

from midstream.runs.taps import Taps


class Feed:
    """`head` and `ended` are durable facts."""

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
        self._tail: deque[bytes] = deque()
        self._bytes = 0
        self._listeners: dict[object, Callable[[], None]] = {}

    @property
    def first(self) -> int:
        """The oldest seq in the tail (head + 1: it is empty)."""
        return self.head - len(self._tail) + 1

    @property
    def idle(self) -> bool:
        return not self._listeners

    @property
    def readers(self) -> int:
        return len(self._listeners)

    def publish(self, events: Sequence[bytes], *, ended: bool) -> None:
        """Durable events, the next ones after `head`."""
        self._tail.extend(events)
        self._bytes += sum(map(len, events))
        self.head += len(events)
        self.ended = ended
        while self._tail and (len(self._tail) > self._max_events or self._bytes > self._max_bytes):
            self._bytes -= len(self._tail.popleft())
        if events:
            self.wake()
            if self._taps:
                self._taps.published(self.run, self.run_id, events)

    def wake(self) -> None:
        for listener in tuple(self._listeners.values()):
            listener()

    def slice(self, after: int, *, max_events: int, max_bytes: int) -> Sequence[bytes] | None:
        """Events after seq `after` out of the tail; None: the tail does not reach back that far."""
        if after >= self.head:
            return ()
        start = after + 1 - self.first
        if start < 0:
            return None
        out: list[bytes] = []
        size = 0
        for index in range(start, min(len(self._tail), start + max_events)):
            data = self._tail[index]
            size += len(data)
            if out and size > max_bytes:
                break
            out.append(data)
        return out

    def listen(self, key: object, wake: Callable[[], None]) -> None:
        self._listeners[key] = wake

    def unlisten(self, key: object) -> None:
        self._listeners.pop(key, None)
        if self.ended and not self._listeners:
            self.forget_tail()

    def catch_up(self, head: int, *, ended: bool) -> None:
        """The log is further than the tail: events are durable that nobody here published."""
        self.head, self.ended = head, ended
        self.forget_tail()
        self.wake()

    def forget_tail(self) -> None:
        """Free the memory: the log has it all."""
        self._tail.clear()
        self._bytes = 0
