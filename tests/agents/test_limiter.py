"""Runs that share a model: nobody calls before the time, and those who waited come back one by one."""

import asyncio
from itertools import pairwise

import pytest

from midstream.agents.limiter import Limiter, Pace
from midstream.agents.providers.contract import (
    ModelOverloaded,
    ModelRateLimited,
    ModelStalled,
)
from midstream.tasks import spawn, stop
from midstream.testing.clock import ManualClock

pytestmark = pytest.mark.asyncio

PACE = Pace(spacing_s=0.1, max_spacing_s=2.0, patience_s=600.0, max_waiting=200)


async def refuse(limiter: Limiter, clock: ManualClock, *, wait_s: float, error: type = ModelRateLimited) -> None:
    """One call is made, and refused."""
    leave = await limiter.admit("m", clock=clock)
    limiter.failed(leave, error("no"), clock=clock, wait_s=wait_s)


async def test_who_meets_no_refusal_waits_for_nobody():
    limiter, clock = Limiter(PACE), ManualClock()
    for _ in range(1000):
        leave = await limiter.admit("m", clock=clock)
        limiter.answered(leave, clock=clock)
    assert clock.monotonic() == 0


async def test_a_hundred_runs_that_are_refused_come_back_apart_and_all_get_through():
    limiter, clock = Limiter(PACE), ManualClock()
    calls: list[tuple[float, int]] = []
    through: list[int] = []

    async def run(number: int) -> None:
        after_s, again = 0.0, False
        while True:
            leave = await limiter.admit("m", clock=clock, after_s=after_s, again=again)
            calls.append((clock.monotonic(), number))
            # Two a second is what the model has room for, and the first calls come all at once.
            recent = [at for at, _ in calls if clock.monotonic() - at < 1.0]
            await clock.sleep(0.05)
            if len(recent) <= 2:
                limiter.answered(leave, clock=clock)
                through.append(number)
                return
            after_s, again = 1.0, True
            limiter.failed(leave, ModelRateLimited("no"), clock=clock, wait_s=after_s)

    runs = [spawn(run(number), name=f"run:{number}") for number in range(100)]
    await clock.advance(0)
    assert len(calls) == 100
    await clock.advance(600)
    assert all(task.done() for task in runs)
    assert sorted(through) == list(range(100))
    after = [at for at, _ in calls[100:]]
    assert after[0] == pytest.approx(1.05)
    assert min(b - a for a, b in pairwise(after)) >= PACE.spacing_s - 1e-6


async def test_first_come_first_served():
    limiter, clock = Limiter(PACE), ManualClock()
    await refuse(limiter, clock, wait_s=5)
    order: list[int] = []

    async def run(number: int) -> None:
        await limiter.admit("m", clock=clock)
        order.append(number)

    waiting = [spawn(run(number), name=f"run:{number}") for number in range(10)]
    await clock.advance(4.9)
    assert order == []
    await clock.advance(5)
    assert order == list(range(10))
    await stop(*waiting)


@pytest.mark.parametrize("error", [ModelRateLimited, ModelOverloaded])
async def test_a_refusal_is_for_everybody_who_asks_that_model(error):
    limiter, clock = Limiter(PACE), ManualClock()
    await refuse(limiter, clock, wait_s=7, error=error)
    assert limiter.because("m", clock=clock) is error
    assert limiter.wait_s("m", clock=clock) == pytest.approx(7)
    assert limiter.wait_s("another", clock=clock) == 0
    await clock.advance(7)
    assert await limiter.admit("m", clock=clock) is not None


async def test_one_run_that_stalls_holds_up_nobody_but_comes_back_paced():
    limiter, clock = Limiter(PACE), ManualClock()
    await refuse(limiter, clock, wait_s=7, error=ModelStalled)
    assert limiter.wait_s("m", clock=clock) == 0
    calls: list[float] = []

    async def again() -> None:
        await limiter.admit("m", clock=clock, after_s=1.0, again=True)
        calls.append(clock.monotonic())

    waiting = [spawn(again(), name=f"run:{number}") for number in range(5)]
    await clock.advance(2)
    assert calls == pytest.approx([1.0, 1.1, 1.2, 1.3, 1.4])
    await stop(*waiting)


async def test_a_refusal_of_one_who_came_back_slows_all_and_answers_quicken():
    limiter, clock = Limiter(PACE), ManualClock()

    async def gap() -> float:
        calls: list[float] = []

        async def run() -> None:
            await limiter.admit("m", clock=clock)
            calls.append(clock.monotonic())

        waiting = [spawn(run(), name="run") for _ in range(2)]
        await clock.advance(100)
        await stop(*waiting)
        return calls[1] - calls[0]

    await refuse(limiter, clock, wait_s=1)
    await clock.advance(1)
    first = await gap()
    leave = await limiter.admit("m", clock=clock)
    limiter.failed(leave, ModelRateLimited("no"), clock=clock, wait_s=1)
    # What was under way with it is the same refusal.
    limiter.failed(leave, ModelRateLimited("no"), clock=clock, wait_s=1)
    await clock.advance(1)
    slower = await gap()
    assert slower == pytest.approx(2 * first)
    waits = spawn(limiter.admit("m", clock=clock), name="one")
    await clock.advance(10)
    leave = await waits
    for _ in range(3):
        limiter.answered(leave, clock=clock)
    assert first < await gap() < slower
    for _ in range(20):
        limiter.answered(leave, clock=clock)
    assert await gap() == 0


async def test_a_wait_that_is_cut_or_left_gives_its_place_up():
    limiter, clock = Limiter(PACE), ManualClock()
    await refuse(limiter, clock, wait_s=30)
    cut = asyncio.get_running_loop().create_future()
    first = spawn(limiter.admit("m", clock=clock, cut=cut), name="cut")
    second = spawn(limiter.admit("m", clock=clock), name="left")
    third = spawn(limiter.admit("m", clock=clock), name="stays")
    await clock.advance(1)
    cut.set_result(None)
    await stop(second)
    assert await first is None
    await clock.advance(28.9)
    assert not third.done()
    await clock.advance(0.1)
    assert (await third) is not None
    assert clock.monotonic() == 30


async def test_nobody_waits_for_ever_and_not_everybody_waits():
    limiter, clock = Limiter(Pace(patience_s=20, max_waiting=1)), ManualClock()
    await refuse(limiter, clock, wait_s=30, error=ModelOverloaded)
    waiting = spawn(limiter.admit("m", clock=clock), name="waits", expected=(ModelOverloaded,))
    await clock.advance(0)
    with pytest.raises(ModelOverloaded, match="Too many"):
        await limiter.admit("m", clock=clock)
    await clock.advance(20)
    with pytest.raises(ModelOverloaded, match="in time"):
        await waiting


async def test_no_refusal_closes_a_model_for_longer_than_a_run_waits():
    limiter, clock = Limiter(Pace(max_wait_s=60)), ManualClock()
    await refuse(limiter, clock, wait_s=3600)
    assert limiter.wait_s("m", clock=clock) == pytest.approx(60)
