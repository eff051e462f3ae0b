"""A tool's function while it runs: in a task of its own, with a timeout, and stopped from three sides.

What became of it is told as it is. That it was asked to stop does not mean that it did not finish.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, Literal

from msgspec import Struct

from midstream.clock import Clock
from midstream.tasks import spawn

Why = Literal["timeout", "cancelled"]

STOP_GRACE_S: Final = 3.0
"""Seconds a cancelled tool may take to clean up; shorter than a cancelled run's grace, so that its end is recorded."""


class Returned(Struct, kw_only=True, frozen=True):
    value: Any


class Raised(Struct, kw_only=True, frozen=True):
    error: BaseException


class Stopped(Struct, kw_only=True, frozen=True):
    """It was cancelled, or did not end within the grace (`lingers`)."""

    lingers: bool


Ending = Returned | Raised | Stopped


class Effect:
    """`work` is called when its task begins: one that is stopped before that has done nothing.

    `why` is who stopped it first, None while nobody did. `run_cancelled`: the run itself was, so nothing follows.
    """

    def __init__(
        self, work: Callable[[], Coroutine[Any, Any, Any]], *, timeout_s: float, clock: Clock, name: str
    ) -> None:
        self.why: Why | None = None
        self.run_cancelled = False
        self._clock = clock
        self._timeout_s = timeout_s
        self._given_up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._grace_over: Any = None
        self._task = spawn(_caught(work), name=name)

    def stop(self, why: Why) -> None:
        if self.why is not None or self._task.done():
            return
        self.why = why
        self._task.cancel()
        self._grace_over = self._clock.call_later(STOP_GRACE_S, self._give_up)

    async def ending(self) -> Ending:
        """Wait for it. Raises nothing but a second cancellation: the first is told by `run_cancelled`."""
        timeout = self._clock.call_later(self._timeout_s, lambda: self.stop("timeout"))
        try:
            try:
                await self._over()
            except asyncio.CancelledError:
                self.run_cancelled = True
                self.stop("cancelled")
                await self._over()
        finally:
            timeout()
            if self._grace_over is not None:
                self._grace_over()
            self._task.cancel()
        if not self._task.done():
            return Stopped(lingers=True)
        return Stopped(lingers=False) if self._task.cancelled() else self._task.result()

    async def _over(self) -> None:
        waited: set[asyncio.Future[Any]] = {self._task, self._given_up}
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)

    def _give_up(self) -> None:
        if not self._given_up.done():
            self._given_up.set_result(None)


async def _caught(work: Callable[[], Coroutine[Any, Any, Any]]) -> Ending:
    task = asyncio.current_task()
    assert task is not None
    try:
        return Returned(value=await work())
    except asyncio.CancelledError as error:
        if task.cancelling():
            raise
        # Nobody cancelled this call: something inside it was, and that is a failure like another.
        return Raised(error=error)
    except Exception as error:  # noqa: BLE001 - the tool's failure is the answer of its call
        return Raised(error=error)
