"""Finish writing a fact although the run is being cancelled: what has happened must be told."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from midstream.tasks import spawn

T = TypeVar("T")


async def settled(writing: Coroutine[Any, Any, T], *, name: str) -> T:
    """`await writing`, but a cancellation waits until it is written. A second one does not."""
    task = spawn(_quiet(writing), name=f"settle:{name}")
    try:
        value, error = await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
    finally:
        task.cancel()
    if error is not None:
        raise error
    return value  # type: ignore[return-value]


async def _quiet(writing: Coroutine[Any, Any, T]) -> tuple[T | None, Exception | None]:
    # Its refusal is raised where it is waited for, and is no news elsewhere.
    try:
        return await writing, None
    except Exception as error:  # noqa: BLE001 - handed on
        return None, error
