"""When programs begin: after the answers to the starts that came with theirs.

A start is short and its first work is long. In the order of the loop, the work of the first of two hundred starts would
come before the answer to the last. So when many come at once, all but the first few wait until what was ready before
them has had its turn, and begin over several turns of the loop, between which new starts are heard.
"""

import asyncio
from collections import deque
from typing import Final

_FREE: Final = 2
"""Programs that begin without waiting, if none did in the last turns."""

_AT_ONCE: Final = 8
"""Programs that begin in one turn of the loop; of very many a part."""

_PART: Final = 8

_TURNS: Final = 3
"""Turns of the loop that others have first: to make the runs, to attach their clients, to send what they are told."""


class Pace:
    """One for all runs of an event loop."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._free = _FREE
        self._turning = False

    async def turn(self) -> None:
        """Wait until it is this program's turn to begin."""
        loop = asyncio.get_running_loop()
        if not self._turning:
            self._turning = True
            loop.call_soon(self._turn, _TURNS)
        if self._free:
            self._free -= 1
            return
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.append(turn)
        await turn

    def _turn(self, left: int) -> None:
        loop = asyncio.get_running_loop()
        if left:
            loop.call_soon(self._turn, left - 1)
            return
        for _ in range(max(_AT_ONCE, len(self._waiting) // _PART)):
            if not self._waiting:
                break
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
        if self._waiting:
            loop.call_soon(self._turn, 0)
        else:
            self._turning, self._free = False, _FREE
