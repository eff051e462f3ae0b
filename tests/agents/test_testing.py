"""What users test their agents with."""

import asyncio
import weakref

import pytest

from midstream import Agent, Midstream, tool
from midstream.log import Batch, LogUnavailable, MemoryStore
from midstream.testing import ManualClock, Refused, answer, call, play, played
from midstream.testing.mortal import MortalStore


@tool(approval="always")
async def pay(amount: int) -> str:
    """Pay."""
    return f"paid {amount}"


@pytest.mark.asyncio
async def test_a_clock_that_is_told_to_move():
    clock = ManualClock()
    began, log = clock.now_ms(), []
    clock.call_later(2, lambda: log.append(("two", clock.monotonic())))
    clock.call_later(1, lambda: log.append(("one", clock.monotonic())))
    clock.call_later(1.5, lambda: log.append("never"))()
    clock.call_later(0, lambda: log.append("now"))
    sleeping = asyncio.ensure_future(clock.sleep(3))
    await clock.advance(2.5)
    assert log == ["now", ("one", 1.0), ("two", 2.0)]
    assert clock.now_ms() == began + 2500
    assert not sleeping.done()
    await clock.advance(0.5)
    assert sleeping.done()


@pytest.mark.asyncio
async def test_a_cancelled_sleep_leaves_nothing():
    clock = ManualClock()
    sleeping = asyncio.ensure_future(clock.sleep(1))
    await asyncio.sleep(0)
    sleeping.cancel()
    await asyncio.wait([sleeping])
    await clock.advance(2)
    await clock.sleep(0)
    assert clock.monotonic() == 2


@pytest.mark.asyncio
async def test_the_example_of_the_module():
    shop = Agent("shop", instructions="…", tools=[pay])
    async with play(shop, [call("pay", amount=50), "Done."], input="Pay.") as run:
        await run.until("approval.required")
        await run.approve(edit={"amount": 5})
        assert await run.result() == "Done."
        assert run.of_type("tool.completed")[0].preview == "paid 5"
        assert (await run.view()).status == "completed"


@pytest.mark.asyncio
async def test_a_whole_app():
    app = Midstream([Agent("shop", instructions="…")])
    async with play(app, ["Hello."]) as run:
        assert await run.result() == "Hello."
        assert run.text == "Hello."


@pytest.mark.parametrize(
    "script",
    [
        {"agents": {"shop": ["Hello."]}},
        {"turns": ["Bye."], "agents": {"shop": {"turns": [[{"text": "Hello."}]]}}},
        {"turns": ["Hello."], "agents": {"bank": [answer(allow=True)]}},
    ],
)
@pytest.mark.asyncio
async def test_a_script_for_several_agents(script):
    async with play(Agent("shop", instructions="…"), script) as run:
        assert await run.result() == "Hello."


@pytest.mark.asyncio
async def test_what_needs_no_time_is_caught_up_with():
    waits = [{"text": "One."}, {"delay_s": 5}, {"text": " Two."}]
    async with play(Agent("shop", instructions="…"), [waits]) as run:
        new = await run.catch_up()
        assert new == run.events
        assert run.text == "One."
        assert await run.catch_up() == []
        await run.advance(5)
        assert (await run.catch_up())[-1].type == "run.completed"
        assert run.text == "One. Two."


@pytest.mark.asyncio
async def test_what_does_not_come_is_said(monkeypatch):
    monkeypatch.setattr(played, "PATIENCE_S", 0.05)
    async with play(Agent("shop", instructions="…", tools=[pay]), [call("pay", amount=1), "Done."]) as run:
        await run.until("approval.required")
        with pytest.raises(AssertionError, match=r"nothing happens, and tool\.started did not come: run\.started"):
            await run.until("tool.started")
        with pytest.raises(AssertionError, match=r"nothing waits for this \(input\)"):
            await run.answer("x")
        await run.approve()
        await run.result()
        with pytest.raises(AssertionError, match="ended without"):
            await run.until("plan.created")


@pytest.mark.asyncio
async def test_a_run_that_fails_has_no_result():
    async with play(Agent("shop", instructions="…"), [[{"error": "model_denied"}]]) as run:
        with pytest.raises(AssertionError, match="did not complete"):
            await run.result()
        with pytest.raises(Refused):
            await run.cancel()


@pytest.mark.asyncio
async def test_a_dead_server_begins_nothing():
    store = MemoryStore(clock=ManualClock())
    await store.open()
    mortal = MortalStore(store)
    mortal.dead = True
    with pytest.raises(LogUnavailable):
        await mortal.log.create(
            "r", fingerprint="f", batch=Batch(batch_id="b", status="running"), owner="me", lease_ms=1
        )
    assert await store.log.load("r") is None


def test_a_cancelled_timer_keeps_nothing_alive():
    class Thing:
        def ring(self) -> None:
            """Nobody hears."""

    clock, thing = ManualClock(), Thing()
    gone = weakref.ref(thing)
    clock.call_later(1000, thing.ring)()
    del thing
    assert gone() is None
