"""A run's log has an end, whatever its program says; and a program that streams is not kept waiting for ever."""

import asyncio
from typing import Any

import pytest

from midstream.log import MemoryStore, Store
from midstream.runs import Limits, Port, Stopping
from midstream.testing import ManualClock
from midstream_protocol.codec import encode
from midstream_protocol.commands import RunCancel, RunCorrect
from midstream_protocol.events import Notice, RunFailed
from tests.runs.conftest import Open
from tests.runs.house import House, soon, types
from tests.runs.say import approval, call_record, delta, for_ever, message, said, started, step

pytestmark = pytest.mark.asyncio


# -- how long a log may get


@pytest.mark.parametrize("coalesce_ms", [0, 40])
@pytest.mark.parametrize("bound", ["events", "bytes"])
async def test_a_run_ends_at_its_bound(house: Open, bound: str, coalesce_ms: int) -> None:
    stopped: list[BaseException] = []

    async def body(port: Port) -> None:
        await port.record(step())
        await port.record(started(port))
        await port.emit(message())
        try:
            while True:
                await port.emit(delta("some text "))
                await asyncio.sleep(0)
        except BaseException as error:
            stopped.append(error)
            raise

    most = {"max_run_events": 50} if bound == "events" else {"max_run_bytes": 8_000}
    server = await house(body, limits=Limits(coalesce_ms=coalesce_ms, coalesce_bytes=10, **most))
    events = await server.log(await server.start())
    end = events[-1].payload
    assert isinstance(end, RunFailed)
    assert (end.code, end.retryable) == ("too_long", False)
    assert [(effect.tool_call_id, effect.outcome) for effect in end.effects] == [("t1", "unknown")]
    assert types(events)[-4:] == ["message.completed", "tool.failed", "run.step", "run.failed"]
    before = events[:-4]
    if bound == "events":
        assert len(before) == 50
    else:
        size = sum(len(encode(event)) for event in before)
        assert 8_000 <= size < 8_000 + len(encode(before[-1]))
    await asyncio.sleep(0)
    assert [type(error) for error in stopped] == [Stopping]


async def test_the_bound_counts_what_was_written_in_earlier_lives(house: Open) -> None:
    async def body(port: Port) -> None:
        if not port.recovered:
            for n in range(15):
                await port.record(Notice(level="info", code="x", text=str(n)))
            await asyncio.Event().wait()
        while True:
            await port.record(Notice(level="info", code="y", text="again"))

    server = await house(body, limits=Limits(max_run_events=30))
    run = await server.start()
    reader = await server.attach(run)
    while len(reader.lines) < 17:
        await reader.until("notice")
    size = next(iter(server.registry._living.actors.values()))._state.size
    assert size == sum(map(len, reader.lines))
    await server.crash()
    await server.open()
    events = await server.log(run)
    assert len(events) == 31
    assert events[-1].payload.code == "too_long"


async def test_a_run_that_is_over_the_bound_of_today_ends_when_it_is_taken_up(store: Store) -> None:
    clock = ManualClock()
    server = await House(store, for_ever, clock=clock).open()
    run = await server.start()
    await server.crash()
    server.limits = Limits(max_run_events=2)
    server._next_life()
    await server.open()
    assert (await server.log(run))[-1].payload.code == "too_long"
    await server.aclose()


async def test_who_cancelled_a_run_that_comes_to_its_bound_is_who_ended_it(house: Open) -> None:
    async def body(port: Port) -> None:
        await port.emit(message())
        while True:
            await port.emit(delta("x"))
            await asyncio.sleep(0)

    server = await house(body, limits=Limits(max_run_events=200, coalesce_ms=0, gather_ms=0))
    run = await server.start()
    await server.send(run, RunCancel(mode="after_step", reason="enough"))
    events = await server.log(run)
    end = events[-1].payload
    assert (events[-1].type, end.by, end.reason) == ("run.cancelled", "local", "enough")
    assert len(events) == 202


async def test_commands_count_too_and_late_ones_are_answered(house: Open) -> None:
    async def body(port: Port) -> None:
        await port.ask(approval(port), journal=[call_record()])

    server = await house(body, limits=Limits(max_run_events=6))
    run = await server.start()
    await (await server.attach(run)).until("run.status")
    first = await server.send(run, RunCorrect(text="a"))
    late = await server.send(run, RunCorrect(text="b"))
    assert (first.status, late.code) == ("accepted", "run_ended")
    end = (await server.log(run))[-1].payload
    assert end.code == "too_long"


# -- how long `emit` waits


def talking(deltas: int, told: list[Any]) -> Any:
    async def body(port: Port) -> None:
        await port.emit(message())
        for n in range(deltas):
            await port.emit(delta(f"{n} "))
            told.append(n)
        await port.record(said("".join(f"{n} " for n in range(deltas))))
        await port.end(None)

    return body


async def test_a_log_that_stalls_keeps_a_stream_waiting_no_longer_than_it_may(clock: ManualClock) -> None:
    told: list[Any] = []
    server = await House(
        MemoryStore(clock=clock), talking(500, told), clock=clock, limits=Limits(output_lane=16, emit_wait_s=10)
    ).open()
    server.held.hold()
    run = await server.start()
    await soon(server.held.waiting.wait())
    await clock.advance(9)
    assert len(told) <= 32, "it waits"
    await clock.advance(2)
    assert len(told) == 500, "the message is let in: its provider is read to the end"
    server.held.release()
    events = await server.log(run)
    assert "".join(e.payload.text for e in events if e.type == "message.delta").split() == [str(n) for n in range(500)]
    assert events[-1].type == "run.completed"
    await server.aclose()


async def test_what_is_no_text_is_let_through_one_by_one(clock: ManualClock) -> None:
    told: list[int] = []

    async def body(port: Port) -> None:
        for n in range(10):
            await port.emit(Notice(level="info", code="x", text=str(n)))
            told.append(n)
        await port.end(None)

    server = await House(
        MemoryStore(clock=clock), body, clock=clock, limits=Limits(output_lane=4, emit_wait_s=10)
    ).open()
    server.held.hold()
    run = await server.start()
    await soon(server.held.waiting.wait())
    await clock.advance(0)
    before = len(told)
    assert before < 9
    await clock.advance(10.5)
    assert len(told) == before + 1
    server.held.release()
    assert [e.payload.text for e in await server.log(run) if e.type == "notice"] == [str(n) for n in range(10)]
    assert not clock._callbacks or server.registry._living._windows.idle
    await server.aclose()
