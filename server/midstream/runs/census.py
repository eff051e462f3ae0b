"""What there is in this process at the moment: runs, readers, and how far these are behind. For who watches the server.

It is asked for when somebody looks, so that a run pays nothing for it. A reader at the head costs one comparison.
"""

from collections import Counter
from collections.abc import Iterable
from itertools import accumulate
from typing import Final

from midstream.runs.actor import Actor
from midstream.runs.tail import Feed
from midstream.telemetry import Census, mean_event_bytes

EXACT_EVENTS: Final = 128
"""Newest events of a run whose sizes are added up one by one: who looks must not wait for a thousand of each run."""


def census(actors: Iterable[Actor], feeds: Iterable[Feed]) -> Census:
    """All but the connections."""
    mean = mean_event_bytes()
    readers = events = most_events = size = most_size = 0
    for feed in feeds:
        cursors = feed.cursors
        readers += len(cursors)
        behind = [feed.head - cursor for cursor in cursors if cursor < feed.head]
        if not behind:
            continue
        sizes = bytes_behind(feed, behind, mean=mean)
        events += sum(behind)
        size += sum(sizes)
        most_events = max(most_events, *behind)
        most_size = max(most_size, *sizes)
    return Census(
        runs=Counter(actor.feed.status or "running" for actor in actors if not actor.ended),
        readers=readers,
        lag_events=events,
        lag_events_max=most_events,
        lag_bytes=size,
        lag_bytes_max=most_size,
    )


def bytes_behind(feed: Feed, behind: list[int], *, mean: float) -> list[int]:
    """The bytes of the newest events, for each of these numbers of them. The newest are added up; the others in memory
    are taken to be as large as each other, and those that are not in memory any more to have `mean` bytes.
    """
    held = feed.head - feed.first + 1
    exact = min(held, EXACT_EVENTS, max(behind))
    newest = feed.slice(feed.head - exact, max_events=exact, max_bytes=1 << 30) or ()
    # The size of no event, of the newest, of the newest two, …
    sizes = list(accumulate(map(len, reversed(newest)), initial=0))
    exact = len(sizes) - 1
    each = (feed.tail_bytes - sizes[exact]) / (held - exact) if held > exact else 0.0
    return [
        sizes[min(lag, exact)] + round(max(0, min(lag, held) - exact) * each + max(0, lag - held) * mean)
        for lag in behind
    ]
