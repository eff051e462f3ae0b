"""Which runs there are and how far their readers are behind, as operators are told."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream.runs.census import EXACT_EVENTS, bytes_behind, census
from midstream.runs.tail import Feed
from midstream.telemetry import exposed
from tests.runs.conftest import Open
from tests.runs.test_parking import APPROVE, Effects, parked, waits


def feed_with(sizes: list[int], *, head: int = 0, kept: int = 1000) -> Feed:
    feed = Feed(run="x.r", run_id="r", epoch="e", head=head, ended=False, events=kept, size=1 << 20)
    feed.publish([b"x" * size for size in sizes], ended=False)
    return feed


class Reader:
    def __init__(self, cursor: int) -> None:
        self.cursor = cursor


def actor(feed: Feed, status: str | None) -> Any:
    feed.status = status
    return SimpleNamespace(feed=feed, ended=feed.ended)


def test_all_readers_and_the_slowest():
    one, two = feed_with([10, 20, 30]), feed_with([5])
    for feed, cursor in ((one, 3), (one, 2), (one, 0), (two, 1)):
        feed.listen(Reader(cursor), lambda: None)
    # Who only waits for the end has no place in the run.
    two.listen(object(), lambda: None)
    found = census([actor(one, "waiting"), actor(two, "running"), actor(feed_with([]), None)], [one, two])
    assert dict(found.runs) == {"waiting": 1, "running": 2}
    assert (found.readers, found.lag_events, found.lag_events_max) == (4, 4, 3)
    assert (found.lag_bytes, found.lag_bytes_max) == (90, 60)


def test_nobody_is_there():
    found = census([], [feed_with([1, 2])])
    assert (found.readers, found.lag_events_max, found.lag_bytes_max, dict(found.runs)) == (0, 0, 0, {})


@given(
    st.lists(st.integers(1, 50), max_size=30),
    st.integers(1, 40),
    st.lists(st.integers(1, 60), min_size=1),
    st.floats(0, 100),
)
def test_bytes_are_exact_for_what_is_in_memory(sizes: list[int], kept: int, behind: list[int], mean: float):
    held = sizes[-kept:]
    for lag, size in zip(behind, bytes_behind(feed_with(sizes, head=100, kept=kept), behind, mean=mean), strict=True):
        assert size == sum(held[-lag:]) + round(max(0, lag - len(held)) * mean)


def test_bytes_of_what_is_far_behind_are_reckoned():
    # Old events of 10 bytes, newest of 1.
    feed = feed_with([10] * 300 + [1] * EXACT_EVENTS, head=1000)
    lags = [EXACT_EVENTS, EXACT_EVENTS + 100, EXACT_EVENTS + 300, EXACT_EVENTS + 500]
    assert bytes_behind(feed, lags, mean=5.0) == [128, 1128, 3128, 4128]


def counted(name: str) -> float:
    return next(float(line.split()[1]) for line in exposed().decode().splitlines() if line.startswith(f"{name} "))


@pytest.mark.asyncio
async def test_runs_are_counted_while_they_are_in_memory_and_when_they_leave_it_and_come_back(house: Open) -> None:
    server = await house(Effects())
    before = [counted("midstream_runs_parked_total"), counted("midstream_runs_woken_total")]
    run = await waits(server)
    assert dict(server.registry.census().runs) == {"waiting": 1}
    reader = await server.attach(run)
    assert server.registry.census().lag_events == server.registry.census().lag_events_max > 0
    await reader.pull()
    assert (server.registry.census().readers, server.registry.census().lag_events) == (1, 0)
    await parked(server)
    # Its reader is still there.
    assert (dict(server.registry.census().runs), server.registry.census().readers) == ({}, 1)
    assert counted("midstream_runs_parked_total") == before[0] + 1
    assert counted("midstream_runs_woken_total") == before[1]
    await server.send(run, APPROVE)
    await reader.all()
    reader.close()
    assert counted("midstream_runs_woken_total") == before[1] + 1
    assert counted("midstream_runs_parked_total") == before[0] + 1
    assert dict(server.registry.census().runs) == {}
