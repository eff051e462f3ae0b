"""Hooks and joins of an app have their time."""

import asyncio

import pytest

from midstream import Agent, Planning
from midstream.agents.in_time import in_time
from midstream.runs.contract import RunFailure
from midstream.testing import ManualClock, staged
from tests.agents.kit import Watched, check_log, eventually

LATE = RunFailure("hook_failed", "too late")
SCRIPT = {
    "agents": {
        "planner": {
            "turns": [{"steps": [{"answer": {"todos": [{"title": "One"}, {"title": "Two", "depends_on": []}]}}]}]
        },
        "desk": {"turns": [{"steps": [{"text": "Done."}]}]},
    },
    "turns": [{"steps": [{"text": "?"}]}],
}


async def for_ever(*_: object) -> None:
    await asyncio.Event().wait()


@pytest.mark.asyncio
async def test_what_it_returns_and_raises():
    async def returns() -> int:
        return 3

    async def raises() -> int:
        raise KeyError("x")

    clock = ManualClock()
    assert await in_time(returns, clock=clock, seconds=1, name="x", late=LATE) == 3
    with pytest.raises(KeyError):
        await in_time(raises, clock=clock, seconds=1, name="x", late=LATE)


@pytest.mark.asyncio
async def test_what_cancels_itself_does_not_cancel_who_waits():
    async def cancels() -> None:
        raise asyncio.CancelledError

    with pytest.raises(RuntimeError):
        await in_time(cancels, clock=ManualClock(), seconds=1, name="x", late=LATE)


@pytest.mark.asyncio
async def test_a_late_one():
    clock = ManualClock()
    asked = asyncio.ensure_future(in_time(for_ever, clock=clock, seconds=5, name="x", late=LATE))
    await clock.advance(4.9)
    assert not asked.done()
    await clock.advance(0.2)
    with pytest.raises(RunFailure) as failed:
        await asked
    assert failed.value is LATE


@pytest.mark.asyncio
@pytest.mark.parametrize(("option", "code"), [("hooks", "hook_failed"), ("join", "join_failed")])
async def test_a_run_does_not_wait_for_ever(option, code):
    called = asyncio.Event()

    async def hangs(*_: object) -> None:
        called.set()
        await asyncio.Event().wait()

    desk = Agent(
        "desk",
        instructions="x",
        planner=Agent("planner", instructions="x"),
        planning=Planning(hook_timeout_s=7),
        **{option: [hangs] if option == "hooks" else hangs},
    )
    clock = ManualClock()
    async with staged(desk, Watched(SCRIPT, clock), clock=clock) as stage:
        run = await stage.start("Go.")
        await eventually(called.is_set)
        await clock.advance(8)
        end = (await run.ended()).payload
        assert (end.code, end.resume.run_id) == (code, run.run_id)
        assert "7 s" in end.text
        check_log(run)
