"""Plain functions in threads of their own. A thread cannot be stopped: whoever stops waiting leaves it running.

A thread each, and daemons, instead of a pool: one that hangs must neither use up a place nor hold up the end of the
process.
"""

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import Any, Final

_left: Final[set[threading.Thread]] = set()


def left_running() -> int:
    """Threads of calls that nobody waits for any more and that have not ended."""
    _forget_ended()
    return len(_left)


def _forget_ended() -> None:
    _left.difference_update([thread for thread in _left if not thread.is_alive()])


async def in_thread(work: Callable[[], Any], *, name: str) -> Any:
    """What `work()` returns or raises, in the caller's context. Cancelled, it returns and the thread goes on."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()
    context = contextvars.copy_context()

    def settle(value: Any, error: BaseException | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(value)
        else:
            done.set_exception(error)

    def run() -> None:
        value: Any = None
        raised: BaseException | None = None
        try:
            value = context.run(work)
        except StopIteration as error:
            # A future cannot carry it; inside a coroutine it would be this too.
            raised = RuntimeError(f"raised StopIteration: {error}")
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            raised = error
        try:
            loop.call_soon_threadsafe(settle, value, raised)
        except RuntimeError:
            # The loop is closed: nobody waits.
            return

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        return await done
    except asyncio.CancelledError:
        _forget_ended()
        _left.add(thread)
        raise
