"""Order without waiting: work under one key runs in the order given, work under different keys side by side.

A connection's commands to one run take effect in the order sent, and a run that is slow to wake holds up nobody else.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from midstream.tasks import spawn


class Lanes:
    """For one connection. The tasks it starts are also put into `tasks`, whose owner outlives the connection: a
    command that was received is carried out, although its sender hung up.
    """

    def __init__(self, tasks: set[asyncio.Task[None]]) -> None:
        self._tasks = tasks
        self._last: dict[str, asyncio.Task[None]] = {}

    def run(self, keys: Iterable[str], work: Callable[[], Awaitable[None]], *, name: str) -> None:
        """Run `work` after all that was given before under one of `keys` has ended, however it ended."""
        keys = tuple(keys)
        before = {self._last[key] for key in keys if key in self._last}
        task = spawn(self._after(before, work), name=name)
        self._tasks.add(task)
        for key in keys:
            self._last[key] = task
        task.add_done_callback(lambda done: self._forget(keys, done))

    @staticmethod
    async def _after(before: set[asyncio.Task[None]], work: Callable[[], Awaitable[None]]) -> None:
        if before:
            await asyncio.wait(before)
        await work()

    def _forget(self, keys: tuple[str, ...], task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        for key in keys:
            if self._last.get(key) is task:
                del self._last[key]
