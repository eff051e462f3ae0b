"""A reader's place in a run: a cursor, not a queue. However slow its reader, it costs one page of memory at most."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

from msgspec import Struct

from midstream.log import Log, Reset
from midstream.runs.merging import Joiner
from midstream.runs.tail import Feed
from midstream.telemetry import count_reset
from midstream_protocol.frames import RunReset

Lost = Literal["trimmed", "too_far", "gone"]

PULL_EVENTS = 512
PULL_BYTES = 64 * 1024

MERGE_EVENTS = 1024
MERGE_BYTES = 256 * 1024
"""Of a merged replay: what is read at a time, and what is joined before it is handed out, over how many pages ever."""

_SAMPLE = 256
"""Events that say how big the rest of a replay will be. Fewer do if they come to half of what may be replayed."""


class Window(Struct, kw_only=True, frozen=True):
    """How much a reader is sent to catch up. What is more is replaced by a snapshot (`run.reset`, `too_far`)."""

    events: int
    size: int
    """Bytes: counted in what was sent of a replay, guessed for what is left of it (see `_SAMPLE`)."""


class SubscriptionLost(Exception):
    """The reader cannot go on from its cursor; `reset` says from where it can."""

    def __init__(self, reset: RunReset) -> None:
        super().__init__(reset.reason)
        self.reset = reset


class Watch:
    """Somebody who waits for what becomes of a run and reads nothing: attached, and never behind."""

    def __init__(self, *, feed: Feed, wake: Callable[[], None]) -> None:
        self._feed = feed
        feed.listen(self, wake)

    @property
    def ended(self) -> bool:
        return self._feed.ended

    @property
    def head_seq(self) -> int:
        return self._feed.head

    def close(self) -> None:
        self._feed.unlisten(self)


class Subscription:
    """`wake` is called on the event loop when there may be more to pull; one call for any number of events."""

    def __init__(
        self,
        *,
        feed: Feed,
        log: Log,
        cursor: int,
        wake: Callable[[], None],
        merge_until: int = 0,
        window: Window | None = None,
        resync: Callable[[Lost], Awaitable[RunReset]] | None = None,
    ) -> None:
        """`merge_until`: events up to this seq are handed out merged (see merging.py). `resync` makes a reset with a
        snapshot, for a reason; without it a reader that cannot go on has lost its run.
        """
        self._feed = feed
        self._log = log
        self._merge_until = merge_until
        self._window = window
        self._resync = resync
        self._seen = 0
        """Events read from the log since it was last served from memory."""
        self._seen_bytes = 0
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
        return self._feed.ended and self.cursor >= self._feed.head

    @property
    def merging(self) -> bool:
        return self.cursor < self._merge_until

    def take(self, *, max_events: int = PULL_EVENTS, max_bytes: int = PULL_BYTES) -> Sequence[bytes] | None:
        """As `pull`, without waiting; None: it must be pulled."""
        if self.cursor < self._merge_until:
            return None
        out = self._feed.slice(self.cursor, max_events=max_events, max_bytes=max_bytes)
        if out is not None:
            self._seen = self._seen_bytes = 0
            self.cursor += len(out)
        return out

    async def pull(self, *, max_events: int = PULL_EVENTS, max_bytes: int = PULL_BYTES) -> Sequence[bytes]:
        """The next events as JSON bytes; empty: nothing now. Waits only when it must read the log. A merged replay is
        pulled in pages of its own size.

        Raises `SubscriptionLost`, `LogUnavailable`.
        """
        if self.cursor < self._merge_until:
            return await self._joined()
        out = self.take(max_events=max_events, max_bytes=max_bytes)
        if out is not None:
            return out
        if self._too_far():
            raise await self._lost("too_far")
        out = await self._read(self.cursor, max_events=max_events, max_bytes=max_bytes)
        self.cursor += len(out)
        self._seen += len(out)
        self._seen_bytes += sum(map(len, out))
        return out

    def close(self) -> None:
        self._feed.unlisten(self)

    async def _joined(self) -> Sequence[bytes]:
        joiner, cursor = Joiner(), self.cursor
        while cursor < self._merge_until and joiner.size < MERGE_BYTES:
            # Not beyond: what is live is never merged.
            wanted = min(MERGE_EVENTS, self._merge_until - cursor)
            page = self._feed.slice(cursor, max_events=wanted, max_bytes=MERGE_BYTES)
            if page is None:
                page = await self._read(cursor, max_events=wanted, max_bytes=MERGE_BYTES)
            if not page:
                break
            joiner.add(page)
            cursor += len(page)
            # Joining an hour takes a while: others have their turn.
            await asyncio.sleep(0)
        self.cursor = cursor
        return joiner.closed()

    async def _read(self, after: int, *, max_events: int, max_bytes: int) -> Sequence[bytes]:
        feed = self._feed
        page = await self._log.read(feed.run, after=after, epoch=feed.epoch, max_events=max_events, max_bytes=max_bytes)
        if isinstance(page, Reset):
            raise await self._lost("trimmed" if page.reason == "trimmed" else "gone")
        # Nothing is visible before its actor says so, although the log has it already.
        visible = feed.head - after
        return page.events if len(page.events) <= visible else page.events[: max(0, visible)]

    def _too_far(self) -> bool:
        window, behind = self._window, self._feed.head - self.cursor
        if window is None:
            return False
        sampled = self._seen >= _SAMPLE or self._seen_bytes * 2 >= window.size
        return behind > window.events or (sampled and self._seen_bytes / self._seen * behind > window.size)

    async def _lost(self, reason: Lost) -> SubscriptionLost:
        if self._resync is None or reason == "gone":
            count_reset("gone")
            return SubscriptionLost(RunReset(run_id=self.run_id, reason="gone"))
        reset = await self._resync(reason)
        if reset.snapshot_seq is not None:
            self.cursor, self._merge_until = reset.snapshot_seq, 0
            self._seen = self._seen_bytes = 0
        return SubscriptionLost(reset)
