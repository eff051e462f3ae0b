"""One timer for all runs that gather, and longer gathering where many write."""

from typing import Any

import pytest

from midstream.runs.coalesce import Windows
from midstream.runs.contract import Limits
from midstream.testing import ManualClock

pytestmark = pytest.mark.asyncio


class Run:
    def __init__(self) -> None:
        self.rung: list[float] = []

    def waits(self, windows: Windows, clock: ManualClock, until: float) -> Any:
        self.ring = lambda: self.rung.append(clock.monotonic())
        return windows.hold(self, until)


async def test_windows_of_many_runs_end_together() -> None:
    clock = ManualClock()
    windows = Windows(limits=Limits(coalesce_ms=40), clock=clock)
    runs = [Run() for _ in range(1000)]
    for n, run in enumerate(runs):
        # Begun all over 5 ms.
        began = n * 0.005 / 1000
        run.waits(windows, clock, windows.end_of(began, began, deltas=1))
    assert len(clock._callbacks) <= 2
    await clock.advance(0.05)
    assert all(len(run.rung) == 1 and 0.035 <= run.rung[0] <= 0.045 for run in runs)
    assert windows.idle


async def test_who_has_written_before_is_not_rung() -> None:
    clock = ManualClock()
    windows = Windows(limits=Limits(coalesce_ms=40), clock=clock)
    one, other = Run(), Run()
    until = windows.end_of(0, 0, deltas=1)
    slot = one.waits(windows, clock, until)
    other.waits(windows, clock, until)
    windows.forget(one, slot)
    windows.forget(one, slot)
    await clock.advance(1)
    assert (len(one.rung), len(other.rung)) == (0, 1)
    slot = one.waits(windows, clock, windows.end_of(1, 1, deltas=1))
    windows.forget(one, slot)
    assert windows.idle
    assert not clock._callbacks


async def test_a_slow_log_does_not_make_windows_longer() -> None:
    windows = Windows(limits=Limits(coalesce_ms=40), clock=ManualClock())
    assert windows.end_of(1.0, 1.5, deltas=1) <= 1.04


async def test_the_more_is_written_the_longer_it_is_gathered_but_not_for_long() -> None:
    def gathered(deltas_in_2_ms: int, *, each: int = 1) -> float:
        windows = Windows(limits=Limits(coalesce_ms=0, gather_ms=2), clock=ManualClock())
        now = longest = 0.0
        while now < 0.2:
            now += 0.002 * each / deltas_in_2_ms
            longest = windows.end_of(now, now, deltas=each) - now
        return longest

    assert gathered(1) <= 0.003
    assert 0.003 < gathered(10) < 0.006
    assert 0.036 < gathered(1000) <= 0.041
    # One run that fills its batches by itself gains nothing from more.
    assert gathered(1000, each=160) <= 0.005


async def test_off_is_off() -> None:
    windows = Windows(limits=Limits(coalesce_ms=0, gather_ms=0), clock=ManualClock())
    assert windows.end_of(5.0, 5.0, deltas=1) <= 5.0
