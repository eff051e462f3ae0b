"""Whose turn it is: a fair queue of many lanes. Each lane, and all of them, have only so many at work at once. Pure."""

from collections import Counter, OrderedDict, deque
from collections.abc import Hashable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Turns(Generic[Item]):
    """First come first served within a lane; lanes take turns."""

    def __init__(self, *, together: int, each: int) -> None:
        self._together = together
        self._each = each
        # Lanes in which somebody waits, the one whose turn it is first.
        self._waiting: OrderedDict[Hashable, deque[Item]] = OrderedDict()
        self._at_work: Counter[Hashable] = Counter()

    @property
    def at_work(self) -> int:
        return self._at_work.total()

    def wait(self, lane: Hashable, item: Item) -> None:
        self._waiting.setdefault(lane, deque()).append(item)

    def take(self) -> tuple[Hashable, Item] | None:
        """The next one, which is at work until `done`; None: nobody may begin now."""
        if self.at_work >= self._together:
            return None
        lane = next((lane for lane in self._waiting if self._at_work[lane] < self._each), None)
        if lane is None:
            return None
        items = self._waiting[lane]
        item = items.popleft()
        self._waiting.move_to_end(lane)
        if not items:
            del self._waiting[lane]
        self._at_work[lane] += 1
        return lane, item

    def done(self, lane: Hashable) -> None:
        self._at_work[lane] -= 1
        if not self._at_work[lane]:
            del self._at_work[lane]
