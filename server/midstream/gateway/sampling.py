"""Which events one reader of the feed is given, when there are more than it may have (pure: time is handed in).

What changes the state of a run goes first; deltas and progress fill what room is left, the first of them that come.
The order in which they happened is kept, so what is older than what was given already is dropped. All of it is counted.
"""

from collections import deque
from math import ceil
from typing import Final

MAX_FACTS: Final = 512
"""Events of a changed state that wait for one reader; over this the oldest are dropped, for a dashboard shows now."""

MAX_QUEUE_BYTES: Final = 1024 * 1024
"""All that waits for one reader, the last event that came aside."""

GATHER_S: Final = 0.1
"""Between two times that a reader is given something: a busy one gets several events at once."""

SAVED_S: Final = 0.2
"""How much of its rate a quiet reader may have saved up."""

_ROUNDING: Final = 1e-9
"""Of a sum of floats: who waited for one token has one."""

_CHATTER: Final = (".delta", ".progress")


def is_chatter(kind: str) -> bool:
    """Whether events of this type only show how far something is: the next such event says it again, or says more."""
    return kind.endswith(_CHATTER)


class Sampler:
    """One reader's queue. `rate` is what it may have, in events a second.

    `given` and `dropped` count what became of all that was put and does not wait any more.
    """

    def __init__(self, *, rate: float, now: float) -> None:
        self._rate = rate
        self._most = max(1.0, rate * SAVED_S)
        self._tokens = self._most
        self._refilled = now
        self._due = now
        self._facts: deque[tuple[int, bytes]] = deque()
        self._chatter: deque[tuple[int, bytes]] = deque()
        self._max_chatter = ceil(self._most)
        self._size = 0
        self._number = 0
        self.sated = False
        """No more chatter is taken now: whoever has some may count it as dropped without putting it."""
        self.given = 0
        self.dropped = 0

    @property
    def empty(self) -> bool:
        return not (self._facts or self._chatter)

    def put(self, event: bytes, *, chatter: bool) -> None:
        """The next event that the reader wants."""
        if chatter and self.sated:
            self.dropped += 1
            return
        self._number += 1
        self._size += len(event)
        if chatter:
            self._chatter.append((self._number, event))
            self.sated = len(self._chatter) >= self._max_chatter
        else:
            self._facts.append((self._number, event))
            if len(self._facts) > MAX_FACTS:
                self._drop(self._facts)
        while self._size > MAX_QUEUE_BYTES and len(self._facts) + len(self._chatter) > 1:
            self._drop(self._chatter or self._facts)

    def wait_s(self, now: float) -> float | None:
        """How long until it may be given something; None: nothing waits."""
        if self.empty:
            return None
        self._refill(now)
        return max(0.0, self._due - now, (1.0 - self._tokens) / self._rate)

    def take(self, now: float) -> list[bytes]:
        """What it is given now, in order."""
        self._refill(now)
        room = int(self._tokens + _ROUNDING)
        if not room or now < self._due or self.empty:
            return []
        taken = [self._facts.popleft() for _ in range(min(room, len(self._facts)))]
        if left := room - len(taken):
            taken = sorted([*taken, *(self._chatter.popleft() for _ in range(min(left, len(self._chatter))))])
        while self._chatter and self._chatter[0][0] < taken[-1][0]:
            # It would come after what happened later.
            self._drop(self._chatter)
        self.sated = len(self._chatter) >= self._max_chatter
        self._size -= sum(len(event) for _, event in taken)
        self._tokens -= len(taken)
        self._due = now + GATHER_S
        self.given += len(taken)
        return [event for _, event in taken]

    def _refill(self, now: float) -> None:
        self._tokens = min(self._most, self._tokens + (now - self._refilled) * self._rate)
        self._refilled = now

    def _drop(self, queue: deque[tuple[int, bytes]]) -> None:
        """The oldest of it."""
        self._size -= len(queue.popleft()[1])
        self.dropped += 1
