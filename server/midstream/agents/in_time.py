"""What an app hands in - planners, guardrails, hooks, joins - within its time."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from midstream.agents.tools.effect import Effect, Raised, Returned
from midstream.clock import Clock

T = TypeVar("T")


async def in_time(
    work: Callable[[], Coroutine[Any, Any, T]], *, clock: Clock, seconds: float, name: str, late: Exception
) -> T:
    """What `work` returns or raises; `late` when it takes more than `seconds`."""
    effect = Effect(work, timeout_s=seconds, clock=clock, name=name)
    ending = await effect.ending()
    if effect.run_cancelled:
        raise asyncio.CancelledError
    match ending:
        case Returned():
            return ending.value  # type: ignore[no-any-return]
        case Raised(error=Exception() as error):
            raise error
        case Raised():
            # Something inside it was cancelled, not the run: let through, this would end the run's own program.
            raise RuntimeError("cancelled from within") from ending.error
        case _:
            raise late
