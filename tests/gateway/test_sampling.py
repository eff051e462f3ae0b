"""Which events a reader of the feed is given: bounded, in order, and what matters before what does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream.gateway.sampling import (
    GATHER_S,
    MAX_FACTS,
    MAX_QUEUE_BYTES,
    SAVED_S,
    Sampler,
    is_chatter,
)
from midstream_protocol.events import EVENTS

# (seconds that pass, facts and chatter that come, in order)
MOMENTS = st.lists(
    st.tuples(st.floats(0, 3), st.lists(st.booleans(), max_size=30)),
    max_size=30,
)


def test_chatter_is_what_the_next_event_says_again():
    assert {kind for kind in EVENTS if is_chatter(kind)} == {"message.delta", "reasoning.delta", "tool.progress"}


@given(MOMENTS, st.floats(0.1, 100))
def test_it_gives_no_more_than_its_rate_in_order_and_counts_the_rest(moments: list, rate: float):
    sampler = Sampler(rate=rate, now=0.0)
    now, put = 0.0, 0
    given_at: list[tuple[float, int]] = []
    for passed, coming in moments:
        now += passed
        for chatter in coming:
            put += 1
            sampler.put(b"%d" % put, chatter=chatter)
        given_at += [(now, int(event)) for event in sampler.take(now)]
    numbers = [number for _, number in given_at]
    assert numbers == sorted(set(numbers))
    for start, _ in given_at:
        for end, _ in given_at:
            among = sum(start <= at <= end for at, _ in given_at)
            assert among <= rate * max(0.0, end - start) + max(1.0, rate * SAVED_S) + 1e-6
    while (wait_s := sampler.wait_s(now)) is not None:
        now += wait_s
        given_at += [(now, int(event)) for event in sampler.take(now)]
    assert sampler.given == len(given_at)
    assert sampler.given + sampler.dropped == put


@given(st.lists(st.booleans(), max_size=200), st.floats(1, 100))
def test_no_fact_is_lost_to_chatter(coming: list[bool], rate: float):
    sampler = Sampler(rate=rate, now=0.0)
    for number, chatter in enumerate(coming):
        sampler.put(b"%d" % number, chatter=chatter)
    found, now = [], 0.0
    while (wait_s := sampler.wait_s(now)) is not None:
        now += wait_s
        found += sampler.take(now)
    facts = [b"%d" % number for number, chatter in enumerate(coming) if not chatter]
    assert [event for event in found if event in facts] == facts
    if len(coming) <= rate * SAVED_S:
        assert len(found) == len(coming)


def test_what_waits_is_bounded_in_number_and_bytes():
    sampler = Sampler(rate=1.0, now=0.0)
    for number in range(MAX_FACTS + 10):
        sampler.put(b"%d" % number, chatter=False)
    assert sampler.dropped == 10
    assert sampler.take(0.0) == [b"10"]
    large = b"x" * (MAX_QUEUE_BYTES // 4)
    for _ in range(6):
        sampler.put(large, chatter=False)
    assert sampler.dropped > MAX_FACTS
    # One that is larger than all the room is given nevertheless.
    sampler.put(b"y" * (2 * MAX_QUEUE_BYTES), chatter=False)
    assert [len(event) for event in sampler.take(10.0)] == [2 * MAX_QUEUE_BYTES]
    assert sampler.empty


def test_the_first_goes_at_once_and_a_busy_reader_gets_several_together():
    sampler = Sampler(rate=50.0, now=0.0)
    sampler.put(b"1", chatter=True)
    assert sampler.wait_s(0.0) == 0
    assert sampler.take(0.0) == [b"1"]
    assert sampler.wait_s(0.0) is None
    sampler.put(b"2", chatter=True)
    sampler.put(b"3", chatter=False)
    assert sampler.take(GATHER_S / 2) == []
    assert sampler.wait_s(GATHER_S / 2) == pytest.approx(GATHER_S / 2)
    assert sampler.take(GATHER_S) == [b"2", b"3"]
