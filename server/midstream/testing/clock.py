"""A clock that stands still until it is told to move."""

import asyncio
import heapq
import itertools
from collections.abc import Callable
from typing import Final

_START_MS: Final = 1_767_225_600_000
_TURNS_OF_THE_LOOP: Final = 20


class ManualClock:
    """A clock that moves when it is told to (`midstream.clock.Clock`)."""

    def __init__(self, *, start_ms: int = _START_MS) -> None:
        self._start_ms = start_ms
        self._now = 0.0
        self._timers: list[tuple[float, int]] = []
        # Apart from the heap: a timer that was cancelled must not keep alive what it would have called.
        self._callbacks: dict[int, Callable[[], object]] = {}
        self._count = itertools.count()

    def now_ms(self) -> int:
        return self._start_ms + round(self._now * 1000)

    def monotonic(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not woken.done():
                woken.set_result(None)

        cancel = self.call_later(seconds, wake)
        try:
            await woken
        finally:
            cancel()

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Callable[[], None]:
        if seconds <= 0:
            # Due already: that needs no time to pass.
            return asyncio.get_running_loop().call_soon(callback).cancel
        number = next(self._count)
        heapq.heappush(self._timers, (self._now + seconds, number))
        self._callbacks[number] = callback

        def cancel() -> None:
            self._callbacks.pop(number, None)

        return cancel

    async def advance(self, seconds: float) -> None:
        """Move on, calling back each timer at its time, and let what they wake do its work."""
        # What is about to set its timer sets it from now, not from then.
        await _let_others_run()
        end = self._now + seconds
        while self._timers and self._timers[0][0] <= end:
            due, number = heapq.heappop(self._timers)
            callback = self._callbacks.pop(number, None)
            if callback is None:
                continue
            self._now = max(self._now, due)
            callback()
            await _let_others_run()
        self._now = end
        await _let_others_run()


async def _let_others_run() -> None:
    for _ in range(_TURNS_OF_THE_LOOP):
        await asyncio.sleep(0)
