"""An app's hooks and joins, within their time."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from midstream.agents.tools.effect import Effect, Raised, Returned
from midstream.clock import Clock
from midstream.runs.contract import RunFailure

T = TypeVar("T")


async def in_time(
    work: Callable[[], Coroutine[Any, Any, T]], *, clock: Clock, seconds: float, name: str, late: RunFailure
) -> T:
    """What `work` returns or raises; `late` when it takes more than `seconds`."""
    effect = Effect(work, timeout_s=seconds, clock=clock, name=name)
    ending = await effect.ending()
    if effect.run_cancelled:
        raise asyncio.CancelledError
    match ending:
        case Returned():
            return ending.value  # type: ignore[no-any-return]
        case Raised():
            raise ending.error
        case _:
            raise late
