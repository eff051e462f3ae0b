"""Heartbeats of many from one timer."""

import pytest

from midstream.gateway.beats import SLICES, Beats
from midstream.testing import ManualClock

pytestmark = pytest.mark.asyncio


class Member:
    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.times: list[float] = []

    def beat(self) -> None:
        self.times.append(self.clock.monotonic())


@pytest.mark.parametrize("interval_s", [0.02, 10.0])
async def test_each_beats_once_an_interval_whenever_it_came(interval_s: float) -> None:
    clock = ManualClock()
    beats = Beats(clock, interval_s=interval_s)
    members = []
    for _ in range(5):
        members.append(member := Member(clock))
        beats.add(member)
        await clock.advance(interval_s * 0.3)
    await clock.advance(interval_s * 4)
    for number, member in enumerate(members):
        came = number * interval_s * 0.3
        assert came < member.times[0] <= came + interval_s * (1 + 1 / SLICES)
        gaps = [after - before for before, after in zip(member.times, member.times[1:], strict=False)]
        assert gaps
        assert gaps == pytest.approx([interval_s] * len(gaps))


async def test_they_do_not_all_beat_at_once() -> None:
    clock = ManualClock()
    beats = Beats(clock, interval_s=10.0)
    members = [Member(clock) for _ in range(SLICES)]
    for member in members:
        beats.add(member)
        await clock.advance(10.0 / SLICES)
    await clock.advance(10.0)
    assert len({member.times[0] for member in members}) > SLICES / 2


async def test_who_has_gone_does_not_beat_and_nobody_needs_no_timer() -> None:
    clock = ManualClock()
    beats = Beats(clock, interval_s=1.0)
    stays, goes = Member(clock), Member(clock)
    places = [(member, beats.add(member)) for member in (stays, goes)]
    await clock.advance(1.01)
    beats.remove(*places[1])
    await clock.advance(3.0)
    assert len(stays.times) == 4
    assert len(goes.times) == 1
    beats.remove(*places[0])
    await clock.advance(1.0)
    assert not clock._callbacks
    # And it begins again.
    beats.add(goes)
    await clock.advance(1.1)
    assert len(goes.times) == 2
