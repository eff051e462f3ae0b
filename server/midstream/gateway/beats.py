"""The heartbeats of all connections from one timer, spread over the interval so that they do not all beat at once."""

from collections.abc import Callable
from typing import Final, Protocol

from midstream.clock import Clock

SLICES: Final = 32
"""Parts of the interval. Fewer where they would be shorter than `SHORTEST_S`."""

SHORTEST_S: Final = 0.05


class Beating(Protocol):
    def beat(self) -> None: ...


class Beats:
    """Each of `members` beats every `interval_s`, the first time within it. The timer runs while there are any."""

    def __init__(self, clock: Clock, *, interval_s: float) -> None:
        count = max(1, min(SLICES, int(interval_s / SHORTEST_S)))
        self._clock = clock
        self._step_s = interval_s / count
        self._slices: list[dict[Beating, None]] = [{} for _ in range(count)]
        self._now = 0
        self._size = 0
        self._cancel: Callable[[], None] | None = None

    def add(self, member: Beating) -> int:
        """It beats first after about a whole interval. Returns its place, for `remove`."""
        # The slice that has just beaten has the longest to wait.
        self._slices[self._now][member] = None
        self._size += 1
        if self._cancel is None:
            self._wait()
        return self._now

    def remove(self, member: Beating, place: int) -> None:
        del self._slices[place][member]
        self._size -= 1

    def _wait(self) -> None:
        self._cancel = self._clock.call_later(self._step_s, self._step)

    def _step(self) -> None:
        self._now = (self._now + 1) % len(self._slices)
        for member in tuple(self._slices[self._now]):
            member.beat()
        if self._size:
            self._wait()
        else:
            self._cancel = None
