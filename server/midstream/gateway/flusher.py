"""The way out of all connections of one event loop: who has something to write says so, and is asked to, once a turn.

No connection has a task that is woken for its events. Waking one costs more than encoding what it would write, and what
comes for one connection within a turn should leave in one system call anyway. Under load that is stretched to a window:
a connection that has written in it waits for the next one, and then writes all it has. Who has not written for as long
never waits, and nobody does in a process that has little to do.
"""

import asyncio
from collections import deque
from typing import Final, Protocol

from midstream.logs import Logger

TURN_S: Final = 0.002
"""How long outlets are asked before the loop's other work has its turn."""

WINDOW_S: Final = 0.003
BUSY_WRITES: Final = 24
"""So many writes in a window cost a tenth of it: from there on, who writes again waits for the next window."""

_log = Logger("midstream.gateway.flusher")


class Outlet(Protocol):
    """One connection's way out. It marks itself at most once until it is asked."""

    wrote_in: int
    """The flusher's: the window in which it last wrote while there was load."""

    def flush(self) -> bool:
        """Write once, a bounded amount. True: there is more, ask again. Never waits."""
        ...

    def fail(self) -> None:
        """`flush` raised: end this connection."""
        ...


class Flusher:
    """For one event loop."""

    def __init__(self) -> None:
        self._fresh: deque[Outlet] = deque()
        self._more: deque[Outlet] = deque()
        """Those that have written and have more: a replay. What has just happened elsewhere goes before them."""
        self._held: list[Outlet] = []
        """Those that wait for the next window."""
        self._window = 1
        self._writes = 0
        """In this window; it is open while there were any."""
        self._due = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def mark(self, outlet: Outlet) -> None:
        """`outlet` has something to write."""
        if outlet.wrote_in == self._window:
            self._held.append(outlet)
            return
        self._fresh.append(outlet)
        if not self._due:
            self._soon()

    def _soon(self) -> None:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        self._due = True
        self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        assert self._loop is not None
        until = self._loop.time() + TURN_S
        fresh, more = self._fresh, self._more
        if not self._writes:
            self._loop.call_later(WINDOW_S, self._next_window)
        # Who has more after this turn's piece waits for the next; however much is fresh, one of those has its own.
        before = len(more)
        self._ask_all(fresh, len(fresh), until)
        self._ask_all(more, before, until)
        self._due = bool(fresh or more)
        if self._due:
            self._loop.call_soon(self._turn)

    def _next_window(self) -> None:
        self._window += 1
        self._writes = 0
        self._fresh.extend(self._held)
        self._held.clear()
        if self._fresh and not self._due:
            self._soon()

    def _ask_all(self, outlets: deque[Outlet], count: int, until: float) -> None:
        """The first `count` of them, while there is time; one in any case."""
        assert self._loop is not None
        now = self._loop.time
        for _ in range(count):
            self._ask(outlets.popleft())
            if now() > until:
                return

    def _ask(self, outlet: Outlet) -> None:
        self._writes += 1
        if self._writes > BUSY_WRITES:
            outlet.wrote_in = self._window
        try:
            if outlet.flush():
                self._more.append(outlet)
        except Exception:  # noqa: BLE001 - one connection's defect is not the others'
            _log.exception("a connection's frames could not be written")
            outlet.fail()
