"""How the runs of one process share a model that is short of room: who may call it when.

While a model answers, everybody passes at once. After a 429 or 529 nobody calls before the time, and those who wait
come back one by one, first come first served, at a pace that quickens with each answer and slows with each new refusal:
a hundred runs that failed together do not come back together. What is asked again for another reason is paced too.
"""

import asyncio
import heapq
import itertools
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from midstream.agents.providers.contract import ModelError, ModelOverloaded, ModelRateLimited
from midstream.clock import Clock


class Pace(Struct, kw_only=True, frozen=True):
    """Bounds of the sharing, in seconds."""

    spacing_s: float = 0.05
    """Between two who come back, at the least. The pace begins at twice this."""
    max_spacing_s: float = 2.0
    """Between two who come back, at the most, however often the model refuses."""
    max_wait_s: float = 60.0
    """A provider that asks for more than this is not waited for."""
    patience_s: float = 180.0
    """How long one call waits for its turn, others before it included."""
    max_waiting: int = 1_000
    """Calls that wait for one model; one more fails as the model does."""


DEFAULT_PACE: Final = Pace()

_SLOW_DOWN: Final = 2.0
_SPEED_UP: Final = 0.8


class Pass(Struct, kw_only=True, frozen=True):
    """Leave to call a model. `period` says which refusals came before it."""

    model: str
    period: int


class _Waiter(Struct, kw_only=True):
    pass_at: float
    let: "asyncio.Future[None]"


class _Gate:
    """One model. All in the loop's thread; time is the clock's monotonic."""

    def __init__(self, clock: Clock, pace: Pace) -> None:
        self._clock = clock
        self._pace = pace
        self._closed_until = 0.0
        self._next_at = 0.0
        self._spacing_s = 0.0
        self._waiting: list[tuple[float, int, _Waiter]] = []
        self._count = itertools.count()
        self._disarm: Callable[[], None] | None = None
        self.period = 0
        self.error: type[ModelError] = ModelRateLimited

    @property
    def free(self) -> bool:
        return not self._spacing_s and not self._waiting and self._clock.monotonic() >= self._closed_until

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def wait_s(self, after_s: float) -> float:
        """How long one who comes now will wait, as things stand."""
        now = self._clock.monotonic()
        ahead = sum(1 for due, _, _ in self._waiting if due <= now + after_s)
        first = max(now + after_s, self._closed_until, self._next_at)
        return max(0.0, first - now) + ahead * self._gap

    async def turn(self, after_s: float, *, cut: "asyncio.Future[None] | None") -> bool:
        """Wait for the turn. False: `cut` came first, or nothing came for as long as anybody waits."""
        now = self._clock.monotonic()
        waiter = _Waiter(pass_at=now + after_s, let=asyncio.get_running_loop().create_future())
        entry = (waiter.pass_at, next(self._count), waiter)
        heapq.heappush(self._waiting, entry)
        give_up = self._clock.call_later(after_s + self._pace.patience_s, lambda: _settle(waiter.let))
        self._arm()
        try:
            await asyncio.wait({waiter.let, *([cut] if cut is not None else [])}, return_when=asyncio.FIRST_COMPLETED)
            return entry not in self._waiting
        finally:
            give_up()
            if entry in self._waiting:
                self._waiting.remove(entry)
                heapq.heapify(self._waiting)
            self._arm()

    def refused(self, error: ModelError, period: int, *, wait_s: float) -> None:
        self.error = type(error)
        self._closed_until = max(self._closed_until, self._clock.monotonic() + wait_s)
        # Calls that were under way together are one refusal, not a hundred.
        if period == self.period:
            self.period += 1
            slower = max(self._spacing_s, self._pace.spacing_s) * _SLOW_DOWN
            self._spacing_s = min(slower, self._pace.max_spacing_s)
        self._arm()

    def answered(self, period: int) -> None:
        if period != self.period or not self._spacing_s:
            return
        self._spacing_s *= _SPEED_UP
        if self._spacing_s < self._pace.spacing_s:
            # Free for those who come new; those who still wait keep the least distance.
            self._spacing_s = 0.0
        self._arm()

    @property
    def _gap(self) -> float:
        return max(self._spacing_s, self._pace.spacing_s)

    def _arm(self) -> None:
        if self._disarm is not None:
            self._disarm()
            self._disarm = None
        if self._waiting:
            at = max(self._waiting[0][0], self._closed_until, self._next_at)
            self._disarm = self._clock.call_later(max(0.0, at - self._clock.monotonic()), self._let_one)

    def _let_one(self) -> None:
        self._disarm = None
        now = self._clock.monotonic()
        # A timer may be early by the clock's resolution, or the gate was closed meanwhile.
        if self._waiting and now >= max(self._waiting[0][0], self._closed_until, self._next_at) - _RESOLUTION_S:
            _, _, waiter = heapq.heappop(self._waiting)
            self._next_at = now + self._gap
            _settle(waiter.let)
        self._arm()


_RESOLUTION_S: Final = 1e-3


class Limiter:
    """One for all runs of a process. Safe to use from all of them."""

    def __init__(self, pace: Pace = DEFAULT_PACE) -> None:
        self.pace: Final = pace
        self._gates: dict[str, _Gate] = {}

    def wait_s(self, model: str, *, clock: Clock, after_s: float = 0.0, again: bool = False) -> float:
        """How long `admit` would take, as things stand."""
        gate = self._gate(model, clock)
        return 0.0 if gate.free and not again else gate.wait_s(after_s)

    async def admit(
        self,
        model: str,
        *,
        clock: Clock,
        after_s: float = 0.0,
        again: bool = False,
        cut: "asyncio.Future[None] | None" = None,
    ) -> Pass | None:
        """Leave to call `model`, `after_s` from now at the earliest. `again`: it is being asked again, so it keeps its
        distance from others also where the model is free.

        None: `cut` was done first. Raises `ModelRateLimited` or `ModelOverloaded` when the turn does not come.
        """
        gate = self._gate(model, clock)
        if gate.free and not again and after_s <= 0:
            return Pass(model=model, period=gate.period)
        if gate.waiting >= self.pace.max_waiting:
            raise gate.error("Too many runs wait for this model.", retry_after_s=float("inf"))
        if await gate.turn(after_s, cut=cut):
            return Pass(model=model, period=gate.period)
        if cut is not None and cut.done():
            return None
        raise gate.error("The model did not become free in time.", retry_after_s=float("inf"))

    def because(self, model: str, *, clock: Clock) -> type[ModelError]:
        """What the model said when it last had no room."""
        return self._gate(model, clock).error

    def failed(self, given: Pass, error: ModelError, *, clock: Clock, wait_s: float) -> None:
        """A call failed. One that says there is no room closes the model for everybody, for `wait_s`."""
        if isinstance(error, ModelRateLimited | ModelOverloaded):
            self._gate(given.model, clock).refused(error, given.period, wait_s=min(wait_s, self.pace.max_wait_s))

    def answered(self, given: Pass, *, clock: Clock) -> None:
        """A call was answered."""
        self._gate(given.model, clock).answered(given.period)

    def _gate(self, model: str, clock: Clock) -> _Gate:
        gate = self._gates.get(model)
        if gate is None:
            gate = self._gates[model] = _Gate(clock, self.pace)
        return gate


def _settle(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
