"""A reader's place in a run: a cursor, not a queue. However slow its reader, it costs one page of memory at most."""

from collections.abc import Callable, Sequence

from midstream.log import Log, Reset
from midstream.runs.merging import merged
from midstream.runs.tail import Feed
from midstream_protocol.frames import RunReset

PULL_EVENTS = 64
PULL_BYTES = 64 * 1024

MERGE_EVENTS = 1024
MERGE_BYTES = 256 * 1024
"""Read at a time for a merged replay: what is joined is joined within one such page."""


class SubscriptionLost(Exception):
    """The reader cannot go on from its cursor; `reset` says from where it can."""

    def __init__(self, reset: RunReset) -> None:
        super().__init__(reset.reason)
        self.reset = reset


class Subscription:
    """`wake` is called on the event loop when there may be more to pull; one call for any number of events."""

    def __init__(self, *, feed: Feed, log: Log, cursor: int, wake: Callable[[], None], merge_until: int = 0) -> None:
        """`merge_until`: events up to this seq are handed out merged (see merging.py)."""
        self._feed = feed
        self._log = log
        self._merge_until = merge_until
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
        """The next events as JSON bytes; empty: nothing now. Waits only when it must read the log. A merged replay is
        pulled in pages of its own size.

        Raises `SubscriptionLost`, `LogUnavailable`.
        """
        merging = self.cursor < self._merge_until
        if merging:
            # Not beyond: what is live is never merged.
            max_events, max_bytes = min(MERGE_EVENTS, self._merge_until - self.cursor), MERGE_BYTES
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
        return merged(out) if merging else out

    def close(self) -> None:
        self._feed.unlisten(self)
