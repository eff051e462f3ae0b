"""When text deltas that were gathered are written: windows, kept by one timer for all runs of a process.

The first delta goes at once, and a window begins. What comes in the window waits; at its end what waits is written - as
one event, or with coalescing off in one batch of as many - and the next window begins. Whatever else the run writes
takes along what waits, and ends the window.

Windows end on a grid, so that those of many runs end in one turn of the loop and share commits and wake-ups.
"""

from collections.abc import Callable
from typing import Final, Protocol

from midstream.clock import Clock
from midstream.runs.contract import Limits

_SLOTS: Final = 8
"""Ends of windows in the time of one window: fewer would make all runs write at once and others wait for them."""

_MIN_GRID_S: Final = 0.001

_CROWD: Final = 8
"""Deltas of all runs within `gather_ms` that double how long they are gathered, so that a busy server writes more at a
time.
"""

_ENOUGH: Final = 16
"""Deltas in one batch from which on more would save little: such a run need not gather longer."""

_MOST: Final = 20
"""How many times `gather_ms` it may get: by default as long as a window of coalescing."""


class Gathers(Protocol):
    def ring(self) -> None:
        """Its window is over."""
        ...


class Windows:
    """For one event loop. Times are the clock's `monotonic`, in seconds."""

    def __init__(self, *, limits: Limits, clock: Clock) -> None:
        self.joins: Final = limits.coalesce_ms > 0
        """Whether deltas of one window become one event."""
        self.now: Final = clock.monotonic
        self._clock = clock
        self._span = (limits.coalesce_ms or limits.gather_ms) / 1000
        self._grid = max(self._span / _SLOTS, _MIN_GRID_S)
        self._due: dict[int, dict[Gathers, None]] = {}
        self._timers: dict[int, Callable[[], None]] = {}
        self._since = 0.0
        self._said = 0
        self._crowd = 0.0

    def end_of(self, began: float, ended: float, *, deltas: int) -> float:
        """Until when a run gathers that has just written so many `deltas`, from `began` to `ended`."""
        if self.joins:
            # So that a slow log does not make the windows longer.
            return self._aligned(began + self._span)
        if not self._span:
            return 0.0
        return self._aligned(ended + self._span * self._busy(ended, deltas))

    def hold(self, gathers: Gathers, until: float) -> int:
        """Ring it at that end of a window. Returns what `forget` wants."""
        slot = round(until / self._grid)
        waiting = self._due.get(slot)
        if waiting is None:
            waiting = self._due[slot] = {}
            self._timers[slot] = self._clock.call_later(until - self.now(), lambda: self._over(slot))
        waiting[gathers] = None
        return slot

    def forget(self, gathers: Gathers, slot: int) -> None:
        """It has written before, or is gone."""
        waiting = self._due.get(slot)
        if waiting is None or gathers not in waiting:
            return
        del waiting[gathers]
        if not waiting:
            del self._due[slot]
            self._timers.pop(slot)()

    @property
    def idle(self) -> bool:
        """Whether nobody waits, and no timer runs."""
        return not self._due and not self._timers

    def _over(self, slot: int) -> None:
        del self._timers[slot]
        for gathers in self._due.pop(slot):
            gathers.ring()

    def _aligned(self, until: float) -> float:
        return int(until / self._grid) * self._grid

    def _busy(self, now: float, deltas: int) -> float:
        """How many times longer to gather, by how many deltas were written lately."""
        self._said += deltas
        passed = now - self._since
        # Over the longest gathering: in a shorter time there may be all runs' deltas, or none.
        if passed >= self._span * _MOST:
            self._crowd = self._said * self._span / passed
            self._since, self._said = now, 0
        longer = min(1 + self._crowd / _CROWD, _MOST)
        return longer if deltas <= _ENOUGH else max(1.0, longer * _ENOUGH / deltas)
