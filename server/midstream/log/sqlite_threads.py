"""The threads of the SQLite store: how work gets to them and answers come back to the event loop.

`sqlite3` blocks, so it never runs on the loop. Each thread owns one connection that no other thread touches.
"""

import asyncio
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

from midstream.log.contract import LogUnavailable
from midstream.log.sqlite_schema import connect_reader
from midstream.logs import Logger

T = TypeVar("T")

# The outcome of one piece of work: who waits for it, its result, and what it raised instead.
Answer = tuple["asyncio.Future[Any]", Any, Exception | None]
_log = Logger("midstream.log")


class Replies:
    """Brings answers from threads to the loop: one wake-up for all that come before the loop turns."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._answers: deque[Answer] = deque()
        self._woken = False

    def give(self, answers: Iterable[Answer]) -> None:
        """From any thread."""
        self._answers.extend(answers)
        # `_woken` falls before the answers are taken, so one put here after that finds it False and wakes again.
        if self._woken:
            return
        self._woken = True
        try:
            self._loop.call_soon_threadsafe(self._deliver)
        except RuntimeError:
            # The loop is closed: nobody is left who could be told.
            _log.warning("answers of the log came after the event loop was closed", answers=len(self._answers))

    def call(self, function: Callable[[], None]) -> None:
        """Have it called on the loop. From any thread."""
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:
            _log.warning("an answer of the log came after the event loop was closed")

    def _deliver(self) -> None:
        self._woken = False
        while self._answers:
            settle((self._answers.popleft(),))


def settle(answers: Iterable[Answer]) -> None:
    """Tell those who wait. On the loop."""
    for future, result, error in answers:
        if not future.done():
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
        elif error is not None:
            # Its caller was cancelled, and would not learn that the write it began did not happen.
            _log.warning("work on the log failed after its caller had gone", exc_info=error)


class Readers:
    """Threads that answer reads, each on a state of the file that is whole."""

    def __init__(self, path: Path, *, loop: asyncio.AbstractEventLoop, count: int) -> None:
        self._path = path
        self._loop = loop
        self._replies = Replies(loop)
        self._work: SimpleQueue[tuple[Callable[[sqlite3.Connection], Any] | None, asyncio.Future[Any]]] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._main, name=f"sqlite-reader-{number}", daemon=True) for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    async def run(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """Raises `LogUnavailable`."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._work.put((read, future))
        return await future

    async def aclose(self) -> None:
        """Answer what waits, then end the threads."""
        ends = [self._loop.create_future() for _ in self._threads]
        for end in ends:
            self._work.put((None, end))
        for end in ends:
            await end
        for thread in self._threads:
            thread.join()

    def _main(self) -> None:
        connection: sqlite3.Connection | None = None
        while True:
            read, future = self._work.get()
            if read is None:
                break
            try:
                connection = connection or connect_reader(self._path)
                answer: Answer = (future, read(connection), None)
            except sqlite3.Error as error:
                # A connection that failed may be in any state; the next read gets a new one.
                if connection is not None:
                    connection.close()
                    connection = None
                answer = (future, None, LogUnavailable(f"cannot read {self._path}: {error}"))
            except Exception as error:  # noqa: BLE001 - it is the caller's, who awaits it
                answer = (future, None, error)
            self._replies.give((answer,))
        if connection is not None:
            connection.close()
        self._replies.give(((future, None, None),))
