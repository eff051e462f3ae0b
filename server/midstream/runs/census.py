"""What there is in this process at the moment: runs, readers, and how far these are behind. For who watches the server.

It is asked for when somebody looks, so that a run pays nothing for it. A reader at the head costs one comparison.
"""

from collections import Counter
from collections.abc import Iterable
from itertools import accumulate

from midstream.runs.actor import Actor
from midstream.runs.tail import Feed
from midstream.telemetry import Census, mean_event_bytes


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
    """The bytes of the newest events, for each of these numbers of them. Those that are not in memory any more are
    taken to have `mean` bytes.
    """
    held = min(feed.head - feed.first + 1, max(behind))
    newest = feed.slice(feed.head - held, max_events=held, max_bytes=1 << 30) or ()
    # The size of no event, of the newest, of the newest two, …
    sizes = list(accumulate(map(len, reversed(newest)), initial=0))
    last = len(sizes) - 1
    return [sizes[min(lag, last)] + round(max(0, lag - last) * mean) for lag in behind]
