"""The only place that creates tasks. Every task has a name (`run:<id>/actor`) and an owner that ends it."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import structlog

T = TypeVar("T")

_log = structlog.get_logger("midstream.tasks")


def spawn(coroutine: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
    """Start a task. An exception that nobody awaits is logged when it happens, not when garbage is collected."""
    task = asyncio.create_task(coroutine, name=name)
    task.add_done_callback(_report)
    return task


def _report(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("task failed", task=task.get_name(), exc_info=error)


async def stop(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel tasks and wait for their end. Their own exceptions were reported by `spawn`."""
    live = [task for task in tasks if task is not None and not task.done()]
    for task in live:
        task.cancel()
    if live:
        await asyncio.wait(live)
