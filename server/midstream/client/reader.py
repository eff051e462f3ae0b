"""One iteration over a run: its own place in the log, and what it has not been given yet."""

import asyncio
from collections import deque
from typing import Final, Protocol

from midstream.client.cursor import place
from midstream.client.updates import Received, Update
from midstream_protocol.frames import RunAttached, RunCaughtUp, RunReset

MAX_UNREAD: Final = 4096
"""Updates kept for a slow reader; what is beyond it reads from the server's log again, when it comes to it."""


class Source(Protocol):
    """The run, to its readers."""

    at: int
    """The last event of the run that came: where the stream is. Before what a reader has, while another reads again."""
    whole: bool
    """The view has caught up once: what is asked for again only now cannot cut that short."""
    over: bool
    """Nothing more comes, because the run has ended or `error` says why."""
    error: Exception | None

    def reread(self, *, since_seq: int, epoch: str | None) -> None:
        """Let the events after `since_seq` come again. Raises why that cannot be."""
        ...

    def passed(self, *, seq: int, epoch: str | None) -> None:
        """A reader has done with everything up to there."""
        ...


class Reader:
    """An async iterator of updates. `seq` is the last event it was given or has waiting.

    `due`: what it begins with is not in the stream and has to be read again.
    """

    def __init__(self, source: Source, *, seq: int, epoch: str | None, due: bool = False) -> None:
        self.seq = seq
        self.claimed = False
        """Somebody iterates it; until then it only keeps the run's beginning."""
        self._source = source
        self._start = seq
        self._given = seq
        self._epoch = epoch
        self._due = due
        self._unread: deque[Update] = deque()
        self._news = asyncio.Event()

    # -- from the run

    def put(self, update: Update, *, at: int) -> None:
        """`at`: the stream's place before this update. What is not this reader's next is passed over."""
        if self._due:
            return
        match update:
            case Received(event=event):
                if place(event, self.seq) != "next":
                    return
                if len(self._unread) >= MAX_UNREAD:
                    self._overflow()
                    return
                self.seq = event.seq
            case RunReset():
                # One that answers an attach for another reader is not for who stands elsewhere in the same history.
                if self.seq != at and (update.epoch == self._epoch or self.seq < at):
                    return
                self.seq, self._epoch = update.snapshot_seq or 0, update.epoch
            case RunAttached():
                if self.seq < at:
                    return
                self._epoch = self._epoch or update.epoch
            case RunCaughtUp():
                if self.seq < at:
                    return
        self._unread.append(update)
        self._news.set()

    def wake(self) -> None:
        """The source is over, or whole."""
        self._news.set()

    def _overflow(self) -> None:
        """Somebody who reads catches up later; of what nobody reads nothing is kept."""
        if not self.claimed:
            self._unread.clear()
            self.seq, self._due = self._start, True

    # -- to its reader

    def __aiter__(self) -> "Reader":
        return self

    async def __anext__(self) -> Update:
        source = self._source
        while True:
            source.passed(seq=self._given, epoch=self._epoch)
            if self._unread:
                return self._take()
            if source.over and source.error is not None:
                raise source.error
            if self._due or self.seq < source.at:
                if source.whole:
                    self._due = False
                    source.reread(since_seq=self.seq, epoch=self._epoch)
            elif source.over:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()

    def _take(self) -> Update:
        update = self._unread.popleft()
        match update:
            case Received(event=event):
                self._given = event.seq
            case RunReset():
                self._given = update.snapshot_seq or 0
            case _:
                pass
        return update
