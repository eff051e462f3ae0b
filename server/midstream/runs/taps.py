"""Who looks at all runs as they go: dashboards, webhooks. A tap is called with what was just published; it keeps what
it wants and never waits, so that it costs the run that publishes next to nothing.
"""

from collections.abc import Callable, Sequence
from typing import Final

Tap = Callable[[str, str, Sequence[bytes]], None]
"""Called with the run's store key, its run id, and encoded events in order; with none when the run was taken up: the
log may then have more than was ever published here. It must not raise, wait or keep the list.
"""


class Taps:
    """For one event loop."""

    def __init__(self) -> None:
        self._taps: Final[dict[object, Tap]] = {}

    def __bool__(self) -> bool:
        return bool(self._taps)

    def add(self, key: object, tap: Tap) -> None:
        self._taps[key] = tap

    def remove(self, key: object) -> None:
        self._taps.pop(key, None)

    def published(self, run: str, run_id: str, events: Sequence[bytes]) -> None:
        for tap in tuple(self._taps.values()):
            tap(run, run_id, events)
