"""A reader's place in a run: a cursor, not a queue. However slow its reader, it costs one page of memory at most."""

from collections.abc import Callable, Sequence

from midstream.log import Log, Reset
from midstream.runs.tail import Feed
from midstream_protocol.frames import RunReset

PULL_EVENTS = 64
PULL_BYTES = 64 * 1024


class SubscriptionLost(Exception):
    """The reader cannot go on from its cursor; `reset` says from where it can."""

    def __init__(self, reset: RunReset) -> None:
        super().__init__(reset.reason)
        self.reset = reset


class Subscription:
    """`wake` is called on the event loop when there may be more to pull; one call for any number of events."""

    def __init__(self, *, feed: Feed, log: Log, cursor: int, wake: Callable[[], None]) -> None:
        self._feed = feed
        self._log = log
        self.cursor = cursor
        """The last seq handed out."""
        feed.listen(self, wake)

    @property
    def run_id(self) -> str:
        return self._feed.run_id

    @property
    def at_head(self) -> bool:
        return self.cursor >= self._feed.head

    @property
    def ended(self) -> bool:
        """Everything there will ever be was handed out."""
        return self._feed.ended and self.at_head

    async def pull(self, *, max_events: int = PULL_EVENTS, max_bytes: int = PULL_BYTES) -> Sequence[bytes]:
        """The next events as JSON bytes; empty: nothing now. Waits only when it must read the log.

        Raises `SubscriptionLost`, `LogUnavailable`.
        """
        out = self._feed.slice(self.cursor, max_events=max_events, max_bytes=max_bytes)
        if out is None:
            page = await self._log.read(
                self._feed.run, after=self.cursor, epoch=self._feed.epoch, max_events=max_events, max_bytes=max_bytes
            )
            if isinstance(page, Reset):
                raise SubscriptionLost(RunReset(run_id=self.run_id, reason="gone"))
            # Nothing is visible before its actor says so, although the log has it already.
            out = page.events[: max(0, self._feed.head - self.cursor)]
        self.cursor += len(out)
        return out

    def close(self) -> None:
        self._feed.unlisten(self)
