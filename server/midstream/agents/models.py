"""Which model answers one agent of a run, and the tries of one call: admitted, measured, sent to the next model."""

import asyncio
import random
from collections.abc import Callable
from typing import Final

from midstream.agents.definition import AgentLimits
from midstream.agents.limiter import Limiter, Pass
from midstream.agents.providers.contract import DEFAULT_IDLE_TIMEOUT_S, ModelError, Provider
from midstream.agents.recovery import (
    MAX_SHRINKS,
    Measure,
    NextModel,
    Shrink,
    Wait,
    backoff_s,
    kind_of,
    measure_for,
    recovering,
)
from midstream.runs.port import Port
from midstream.telemetry import count_model_call
from midstream_protocol.events import Notice, Payload

NOTICED_S: Final = 1.0
"""A wait for a turn of the model that people are told of, if it is longer."""


class Models:
    """The models of one agent in one run, the first wanted first. One that cannot be had is not asked again."""

    def __init__(
        self,
        provider: Provider,
        names: tuple[str, ...],
        limiter: Limiter,
        limits: AgentLimits,
        idle_timeout_s: float = DEFAULT_IDLE_TIMEOUT_S,
    ) -> None:
        """`names` may be empty or hold "": the provider's default."""
        self.provider: Final = provider
        self.limiter: Final = limiter
        self.limits: Final = limits
        self.idle_timeout_s: Final = idle_timeout_s
        self._names = tuple(dict.fromkeys(name or provider.default_model for name in names or ("",)))
        self._at = 0

    @property
    def name(self) -> str:
        """The one that answers now."""
        return self._names[self._at]

    @property
    def left(self) -> int:
        """How many come after it."""
        return len(self._names) - self._at - 1

    @property
    def window(self) -> int | None:
        """Tokens that it reads at most, where its provider knows."""
        # An app's own provider may be from before there was such a question.
        window: Callable[[str], int | None] | None = getattr(self.provider, "window", None)
        return window(self.name) if window is not None else None

    def fall_back(self) -> tuple[str, str]:
        """Go on to the next: the one that could not be had, and the one that answers from now on."""
        self._at += 1
        return self._names[self._at - 1], self.name


class Tries:
    """The tries of one model call. Before each: `admitted`; after a failed one: `measure`, then `recover`."""

    def __init__(self, port: Port, models: Models) -> None:
        self.count = 1
        """All tries, the one that comes now included."""
        self._port = port
        self._models = models
        self._limiter = models.limiter
        self._most = models.limits.max_model_attempts * (models.left + 1)
        self._made = 0
        self._of_this = 1
        self._shrinks = 0
        self._after_s = 0.0
        self._again = False
        self._told = False
        self._pass: Pass | None = None

    @property
    def most(self) -> int:
        """Tries there may be, all models together, besides those with a shorter conversation."""
        return self._most

    async def admitted(self, *, step_id: str | None, cut: "asyncio.Future[None] | None" = None) -> bool:
        """Wait until the model may be asked. False: `cut` came first, and this is to be called again.

        Raises the model's error if that takes too long, `Stopping`.
        """
        clock, name = self._port.clock, self._models.name
        wait_s = self._limiter.wait_s(name, clock=clock, after_s=self._after_s, again=self._again)
        if not self._told and wait_s > NOTICED_S:
            kind = kind_of(self._limiter.because(name, clock=clock))
            attempt = self._made + 1
            await recovering(
                self._port, kind=kind, attempt=attempt, max_attempts=self._most, wait_s=wait_s, step_id=step_id
            )
            self._told = True
        self._pass = await self._limiter.admit(name, clock=clock, after_s=self._after_s, again=self._again, cut=cut)
        if self._pass is None:
            self._after_s, self._told = 0.0, False
            return False
        return True

    @property
    def told(self) -> bool:
        """Whether people were told of the wait before this try, and so are to be told that it is over."""
        return self._told

    @property
    def may_shrink(self) -> bool:
        """Whether the call may be made once more with a shorter conversation."""
        return self._shrinks < MAX_SHRINKS

    def opened(self) -> None:
        """The model took the call."""
        if self._pass is not None:
            self._limiter.answered(self._pass, clock=self._port.clock)

    def measure(self, error: ModelError) -> Measure:
        """What to do about a try that failed."""
        models, jitter = self._models, random.random()  # noqa: S311 - to spread tries
        measure = measure_for(
            error,
            tries=self._of_this,
            most=models.limits.max_model_attempts,
            models_left=models.left,
            shrinks=self._shrinks,
            jitter=jitter,
            max_wait_s=self._limiter.pace.max_wait_s,
        )
        if self._pass is not None:
            count_model_call(error.code)
            # What nobody waits for does not hold up others: each hears it from the provider itself.
            asked_s = error.retry_after_s or 0.0
            kept_s = asked_s if asked_s <= self._limiter.pace.max_wait_s else 0.0
            wait_s = measure.wait_s if isinstance(measure, Wait) else max(kept_s, backoff_s(1, jitter))
            self._limiter.failed(self._pass, error, clock=self._port.clock, wait_s=wait_s)
            self._pass = None
        return measure

    async def recover(self, measure: Wait | NextModel | Shrink, *, step_id: str | None) -> None:
        """Begin the next try: say so, and go on to the next model if that is it. Raises `Stopping`."""
        port, models = self._port, self._models
        self.count += 1
        self._after_s, self._again, self._told = 0.0, False, False
        more: list[Payload] = []
        wait_s = 0.0
        match measure:
            case Shrink():
                self._shrinks += 1
                attempt, most = self._shrinks, MAX_SHRINKS
                await recovering(port, kind=measure.kind, attempt=attempt, max_attempts=most, step_id=step_id)
                return
            case NextModel():
                self._made += 1
                self._of_this = 1
                before, now = models.fall_back()
                text = f"{before} cannot be had, {now} answers."
                more = [Notice(level="warning", code="model_fallback", text=text)]
            case Wait():
                self._made += 1
                self._of_this += 1
                self._after_s, self._again, self._told = measure.wait_s, True, True
                wait_s = self._limiter.wait_s(models.name, clock=port.clock, after_s=measure.wait_s, again=True)
        await recovering(
            port,
            *more,
            kind=measure.kind,
            attempt=self._made + 1,
            max_attempts=self._most,
            wait_s=wait_s,
            step_id=step_id,
        )
