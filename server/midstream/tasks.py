"""The only place that creates tasks. Every task has a name (`run:<id>/actor`) and an owner that ends it."""

import asyncio
import concurrent.futures
from collections.abc import Coroutine
from functools import partial
from typing import Any, TypeVar

from midstream.logs import Logger

T = TypeVar("T")

_log = Logger("midstream.tasks")


def spawn(
    coroutine: Coroutine[Any, Any, T], *, name: str, expected: tuple[type[Exception], ...] = ()
) -> asyncio.Task[T]:
    """Start a task. Its exception is logged when it happens, not when garbage is collected.

    `expected` are exceptions that whoever awaits the task deals with: they are not logged here.
    """
    task = asyncio.create_task(coroutine, name=name)
    # Not a closure: an idle run has two tasks, and there may be many.
    task.add_done_callback(partial(_report, expected=expected) if expected else _report)
    return task


def spawn_elsewhere(coroutine: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> concurrent.futures.Future[T]:
    """Start a task in the loop of another thread. Who waits for it there gets its exception."""
    return asyncio.run_coroutine_threadsafe(coroutine, loop)


def _report(task: asyncio.Task[Any], expected: tuple[type[Exception], ...] = ()) -> None:
    if task.cancelled() or (error := task.exception()) is None or isinstance(error, expected):
        return
    _log.error("task failed", task=task.get_name(), exc_info=error)


async def stop(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel tasks and wait for their end. Their own exceptions were reported by `spawn`."""
    live = [task for task in tasks if task is not None and not task.done()]
    for task in live:
        task.cancel()
    if live:
        await asyncio.wait(live)
