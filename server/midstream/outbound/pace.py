"""How often a chat is written to: one call at a time, a while between two. Shared by all who write into one chat."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from midstream.clock import Clock, SystemClock

DEFAULT_INTERVAL_S: Final = 1.0


class Pace:
    """Who waits is let in first come first served, `interval_s` after the call before was answered: however long calls
    are on their way, the platform never sees two within the interval.
    """

    def __init__(self, interval_s: float = DEFAULT_INTERVAL_S, *, clock: Clock | None = None) -> None:
        self.interval_s: Final = interval_s
        self._clock: Clock = clock or SystemClock()
        self._free_at = 0.0
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until something may be said. What is said should be made up inside, so that it is new."""
        async with self._turn:
            while (wait := self._free_at - self._clock.monotonic()) > 0:
                await self._clock.sleep(wait)
            yield

    def spent(self) -> None:
        """Something was said just now, whatever came of it."""
        self.hold(self.interval_s)

    def hold(self, seconds: float) -> None:
        """Nobody says anything for so long."""
        self._free_at = max(self._free_at, self._clock.monotonic() + seconds)
