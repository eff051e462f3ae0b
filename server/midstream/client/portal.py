"""An event loop in a thread of its own, for programs that have none, or have one that is not to be waited in."""

import asyncio
import atexit
import contextlib
import threading
import weakref
from collections.abc import Coroutine
from concurrent.futures import CancelledError
from typing import Any, Final, TypeVar

from midstream.tasks import spawn_elsewhere

T = TypeVar("T")

CLOSE_TIMEOUT_S: Final = 5.0
"""For what is left to end when the portal closes: longer than a connection takes to say good-bye."""


class Portal:
    """Also ends with the program, if nobody closed it before."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        # A daemon: a program that forgets to close it must still come to its end.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()
        _open.add(self)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it there, and wait; its result or its exception. From any thread but the portal's own.

        An interrupt (Ctrl-C) cancels it.
        """
        if threading.current_thread() is self._thread or not self._thread.is_alive():
            work.close()
            if self._thread.is_alive():
                raise RuntimeError("this would wait for itself; in an async function use the async midstream.client")
            raise RuntimeError("this client is closed; connect again")
        future = spawn_elsewhere(work, self._loop)
        try:
            return future.result()
        except CancelledError:
            raise RuntimeError("this client was closed while something waited for it") from None
        except BaseException:
            # Interrupted, or its own exception, which this does not touch.
            future.cancel()
            raise

    def close(self) -> None:
        """Everything that runs there is cancelled."""
        _open.discard(self)
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(CLOSE_TIMEOUT_S)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            tasks = asyncio.all_tasks(self._loop)
            for task in tasks:
                task.cancel()
            with contextlib.suppress(TimeoutError):
                self._loop.run_until_complete(_ended(tasks))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()


async def _ended(tasks: set[asyncio.Task[Any]]) -> None:
    async with asyncio.timeout(CLOSE_TIMEOUT_S):
        await asyncio.gather(*tasks, return_exceptions=True)


_open: "weakref.WeakSet[Portal]" = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for portal in list(_open):
        portal.close()
