"""Cancelling a run or one call: nothing new begins, and the end says what became of everything."""

import asyncio

import pytest

from midstream.runs import Limits, Port, Stopping
from midstream.runs.actor import STRAYS
from midstream_protocol.commands import (
    ApprovalRespond,
    RunCancel,
    RunCorrect,
)
from midstream_protocol.events import (
    MessageCompleted,
    RunCancelled,
    ToolFailed,
    ToolPreparing,
)
from tests.runs.conftest import Open
from tests.runs.house import types
from tests.runs.say import (
    approval,
    call_record,
    completed,
    delta,
    for_ever,
    message,
    result_record,
    said,
    started,
    step,
)

pytestmark = pytest.mark.asyncio


async def test_cancel_closes_what_is_open_and_says_what_became_of_it(house: Open) -> None:
    async def body(port: Port) -> None:
        await port.record(started(port, "done"))
        await port.record(completed("done"))
        await port.record(started(port, "under_way"))
        await port.emit(message())
        await port.emit(delta("half"))
        await port.ask(approval(port, call_id="asked"), journal=[call_record("asked")])

    server = await house(body)
    run = await server.start()
    reader = await server.attach(run)
    await reader.until("run.status")
    await server.send(run, RunCorrect(text="left", mode="when_idle"))
    receipt = await server.send(run, RunCancel(reason="wrong file"))
    events = await reader.all()
    assert types(events)[receipt.at_seq - 1] == "run.cancelling"  # type: ignore[operator]
    end = events[-1].payload
    assert isinstance(end, RunCancelled)
    assert (end.by, end.reason, end.mode) == ("local", "wrong file", "now")
    assert {e.tool_call_id: e.outcome for e in end.effects} == {
        "done": "completed",
        "under_way": "unknown",
        "asked": "not_started",
    }
    returned = [e.payload for e in events if e.type == "correction.returned"]
    assert [(r.text, r.reason) for r in returned] == [("left", "cancelled")]
    late = await server.send(run, ApprovalRespond(approval_id="a1", decision="approve"))
    assert (late.code, late.resolution["decision"]) == ("already_resolved", "cancelled")  # type: ignore[index]


async def test_a_cancelled_program_may_close_what_it_has_open(house: Open) -> None:
    async def body(port: Port) -> None:
        await port.record(started(port))
        try:
            await asyncio.Event().wait()
        finally:
            port.post(completed(), journal=[result_record()])

    server = await house(body)
    run = await server.start()
    await (await server.attach(run)).until("tool.started")
    await server.send(run, RunCancel())
    end = (await server.log(run))[-1].payload
    assert [e.outcome for e in end.effects] == ["completed"]


async def test_no_call_is_prepared_after_an_immediate_cancel(house: Open) -> None:
    """What is said with it, the end of the message that held the call, still counts."""
    calls = ("t1", "t2")
    gate = asyncio.Event()

    async def body(port: Port) -> None:
        await port.emit(message())
        await port.emit(ToolPreparing(tool_call_id="t1", message_id="m1", tool="edit_file", label="Edit"))
        try:
            await asyncio.Event().wait()
        finally:
            await port.emit(delta("so far"))
            await port.emit(ToolPreparing(tool_call_id="t2", message_id="m1", tool="edit_file", label="Edit"))
            cut = MessageCompleted(message_id="m1", role="assistant", text="so far", state="interrupted")
            failed = [
                ToolFailed(tool_call_id=each, code="cancelled", text="No.", outcome="not_started", retryable=False)
                for each in calls
            ]
            port.post(cut, *failed)
            gate.set()

    server = await house(body)
    run = await server.start()
    await (await server.attach(run)).until("tool.preparing")
    await server.send(run, RunCancel())
    await gate.wait()
    log = await server.log(run)
    after = types(log)[types(log).index("run.cancelling") + 1 :]
    assert after == ["message.delta", "message.completed", "tool.failed", "run.cancelled"]
    assert [effect.tool_call_id for effect in log[-1].payload.effects] == ["t1"]


async def test_a_program_that_does_not_end_is_left_behind(house: Open) -> None:
    ends = asyncio.Event()

    async def body(port: Port) -> None:
        await port.record(step())
        while not ends.is_set():
            try:
                await ends.wait()
            except asyncio.CancelledError:
                continue

    server = await house(body, limits=Limits(cancel_grace_s=3))
    run = await server.start()
    reader = await server.attach(run)
    await reader.until("run.step")
    await server.send(run, RunCancel())
    await server.clock.advance(2.9)
    assert "run.cancelled" not in types(await server.log(run, ended=False))
    await server.clock.advance(0.2)
    assert types(await reader.all())[-1] == "run.cancelled"
    # The run is over for everybody although its program is not.
    assert (await server.send(run, RunCancel())).code == "run_ended"
    assert len(STRAYS) <= 1
    ends.set()


async def test_a_second_cancel_skips_the_grace(house: Open) -> None:
    ends = asyncio.Event()

    async def body(port: Port) -> None:
        await port.record(step())
        while not ends.is_set():
            try:
                await ends.wait()
            except asyncio.CancelledError:
                continue

    server = await house(body)
    run = await server.start()
    reader = await server.attach(run)
    await reader.until("run.step")
    await server.send(run, RunCancel(reason="first"))
    again = await server.send(run, RunCancel(), command_id="again")
    assert again.status == "accepted"
    events = await reader.all()
    assert [e.payload.escalated for e in events if e.type == "run.cancelling"] == [False, True]
    assert events[-1].payload.reason == "first"
    assert await server.send(run, RunCancel(), command_id="again") == again
    ends.set()


async def test_cancel_after_the_step_lets_it_finish(house: Open) -> None:
    go = asyncio.Event()

    async def body(port: Port) -> None:
        await port.emit(message())
        await port.emit(delta("hi"))
        await port.record(started(port))
        await go.wait()
        await port.record(completed())
        await port.record(said("hi"))
        with pytest.raises(Stopping):
            await port.record(started(port, "t2"))
        port.check()
        raise AssertionError("unreachable")

    server = await house(body)
    run = await server.start()
    reader = await server.attach(run)
    await reader.until("tool.started")
    await server.send(run, RunCancel(mode="after_step"))
    go.set()
    events = await reader.all()
    assert types(events)[-4:] == ["run.cancelling", "tool.completed", "message.completed", "run.cancelled"]
    assert events[-1].payload.mode == "after_step"


async def test_cancel_now_hurries_one_after_the_step(house: Open) -> None:
    server = await house(for_ever)
    run = await server.start()
    await server.send(run, RunCancel(mode="after_step"))
    await server.send(run, RunCancel(mode="after_step"))
    events = await server.log(run)
    assert [(e.payload.mode, e.payload.escalated) for e in events if e.type == "run.cancelling"] == [
        ("after_step", False),
        ("now", True),
    ]


async def test_one_call_is_cancelled_and_the_run_goes_on(house: Open) -> None:
    async def body(port: Port) -> None:
        stop = asyncio.Event()
        await port.record(started(port))
        with port.on_cancel_call("t1", stop.set):
            await stop.wait()
        await port.record(completed())
        await port.end("went on")

    server = await house(body)
    run = await server.start()
    reader = await server.attach(run)
    await reader.until("tool.started")
    receipt = await server.send(run, RunCancel(tool_call_id="t1"))
    assert receipt.status == "accepted"
    assert (await reader.all())[-1].payload.result == "went on"
    assert (await server.send(run, RunCancel(tool_call_id="t1"))).code == "already_resolved"
    assert (await server.send(run, RunCancel(tool_call_id="t2"))).code == "unknown_call"


async def test_a_call_that_is_cancelled_before_anybody_listens_is_cancelled_all_the_same(house: Open) -> None:
    async def body(port: Port) -> None:
        told: list[str] = []
        await port.ask(approval(port), journal=[call_record()])
        await go.wait()
        with port.on_cancel_call("t1", lambda: told.append("cancel")):
            await port.end(told)

    go = asyncio.Event()
    server = await house(body)
    run = await server.start()
    reader = await server.attach(run)
    await reader.until("run.status")
    await server.send(run, ApprovalRespond(approval_id="a1", decision="approve"))
    await server.send(run, RunCancel(tool_call_id="t1"))
    go.set()
    assert (await reader.all())[-1].payload.result == ["cancel"]
