"""Approvals, questions, client-run tools and corrections, as a run's program meets them."""

import asyncio

import pytest

from midstream.runs import BadDraft, CorrectionsPending, Port
from midstream_protocol.commands import (
    ApprovalRespond,
    CorrectionRevoke,
    InputRespond,
    RunCorrect,
    ToolError,
    ToolResult,
)
from tests.runs.conftest import Open
from tests.runs.house import soon, types
from tests.runs.say import (
    approval,
    call_record,
    completed,
    delta,
    message,
    question,
    requested,
    result_record,
    said,
    started,
    step,
)
from tests.runs.simple import ME

pytestmark = pytest.mark.asyncio


# -- questions


async def test_two_answers_in_one_beat_have_one_winner(house: Open) -> None:
    async def body(port: Port) -> None:
        answer = await port.ask(approval(port), journal=[call_record()])
        await port.record(started(port))
        await port.record(completed(), journal=[result_record()])
        await port.end(answer.decision)

    server = await house(body)
    run = await server.start()
    reader = await server.attach(run)
    await reader.until("run.status")
    server.held.hold()
    held = asyncio.ensure_future(server.send(run, RunCorrect(text="x")))
    await soon(server.held.waiting.wait())
    answers = [
        asyncio.ensure_future(server.send(run, ApprovalRespond(approval_id="a1", decision=decision)))
        for decision in ("deny", "approve")
    ]
    await asyncio.sleep(0)
    server.held.release()
    first, second, _ = await asyncio.gather(*answers, held)
    assert (first.status, second.code) == ("accepted", "already_resolved")
    assert second.resolution == {"decision": "denied", "by": "local", "at_seq": first.at_seq}
    assert [e.payload.decision for e in await server.log(run, ended=False) if e.type == "approval.resolved"] == [
        "denied"
    ]


async def test_edited_arguments_are_what_runs(house: Open) -> None:
    async def body(port: Port) -> None:
        await port.ask(approval(port), journal=[call_record()])
        args = port.call_args("t1")
        with pytest.raises(BadDraft, match="other arguments"):
            await port.record(started(port, args={"n": 1}))
        await port.record(started(port, args=args))
        await port.record(completed())
        await port.end(args)

    server = await house(body)
    run = await server.start()
    reader = await server.attach(run)
    await reader.until("run.status")
    refused = await server.send(run, ApprovalRespond(approval_id="a1", decision="approve", args={"n": -1}))
    assert (refused.code, [e.path for e in refused.errors or []]) == ("invalid_args", ["/n"])
    await server.send(run, ApprovalRespond(approval_id="a1", decision="approve", args={"n": 7, "secret": "s"}))
    events = await reader.all()
    resolved = next(e.payload for e in events if e.type == "approval.resolved")
    assert (resolved.edited, resolved.args) == (True, {"n": 7, "secret": "***"})
    assert events[-1].payload.result == {"n": 7, "secret": "s"}


async def test_what_was_denied_does_not_start(house: Open) -> None:
    async def body(port: Port) -> None:
        await port.ask(approval(port), journal=[call_record()])
        with pytest.raises(BadDraft, match="denied"):
            await port.record(started(port))
        await port.end(None)

    server = await house(body)
    run = await server.start()
    await (await server.attach(run)).until("run.status")
    await server.send(run, ApprovalRespond(approval_id="a1", decision="deny", reason="no"))
    events = await server.log(run)
    assert (events[-2].type, events[-2].payload.outcome) == ("tool.failed", "not_started")


async def test_an_approval_expires(house: Open) -> None:
    async def body(port: Port) -> None:
        await port.end((await port.ask(approval(port, seconds=5), journal=[call_record()])).decision)

    server = await house(body)
    run = await server.start()
    reader = await server.attach(run)
    await reader.until("run.status")
    await server.clock.advance(4.9)
    assert (await server.registry.view(ME, run)).status == "waiting"
    await server.clock.advance(0.2)
    events = await reader.all()
    assert events[-1].payload.result == "expired"
    late = await server.send(run, ApprovalRespond(approval_id="a1", decision="approve"))
    assert (late.code, late.resolution["decision"]) == ("expired", "expired")  # type: ignore[index]


async def test_an_answer_that_comes_when_its_time_is_over_is_late(house: Open) -> None:
    """Also when the timer has not come to it yet."""

    async def body(port: Port) -> None:
        await port.end((await port.ask(question(port, seconds=5))).decision)

    server = await house(body)
    run = await server.start()
    await (await server.attach(run)).until("run.status")
    server.clock._now += 6
    assert (await server.send(run, InputRespond(input_id="i1", answer="x"))).code == "expired"


async def test_a_client_runs_a_tool_and_only_that_client(house: Open) -> None:
    async def body(port: Port) -> None:
        answer = await port.ask(requested(port))
        await port.end([answer.decision, answer.value])

    server = await house(body)
    run = await server.start()
    reader = await server.attach(run)
    await reader.until("tool.requested")
    stranger = await server.send(run, ToolResult(tool_call_id="t1", ok=True, result=1), client="south")
    assert stranger.code == "forbidden"
    progress = await server.send(run, ToolResult(tool_call_id="t1"), command_id="p1")
    assert (progress.status, (await reader.until("tool.progress")).seq) == ("accepted", progress.at_seq)
    await server.send(run, ToolResult(tool_call_id="t1", ok=True, result={"a": [1]}))
    again = await server.send(run, ToolResult(tool_call_id="t1", ok=False, error=ToolError(code="x", text="y")))
    assert again.code == "already_resolved"
    assert (await reader.all())[-1].payload.result == ["completed", {"a": [1]}]


async def test_a_client_that_does_not_answer_is_given_up(house: Open) -> None:
    async def body(port: Port) -> None:
        answer = await port.ask(requested(port, seconds=5))
        await port.end([answer.decision, answer.code, answer.outcome])

    server = await house(body)
    run = await server.start()
    reader = await server.attach(run)
    await reader.until("tool.requested")
    await server.clock.advance(6)
    assert (await reader.all())[-1].payload.result == ["failed", "timeout", "unknown"]


# -- corrections


async def test_a_correction_now_interrupts_the_message_once(house: Open) -> None:
    async def body(port: Port) -> None:
        told = asyncio.Event()
        count = 0

        def interrupt() -> None:
            nonlocal count
            count += 1
            told.set()

        await port.record(step())
        await port.emit(message())
        await port.emit(delta("half"))
        with port.on_interrupt(interrupt):
            await told.wait()
        await port.record(said("half"))
        taken = await port.corrections(step_id="s1")
        await port.end([count, [c.text for c in taken]])

    server = await house(body)
    run = await server.start()
    reader = await server.attach(run)
    await reader.until("message.delta")
    await server.send(run, RunCorrect(text="left", mode="now"), command_id="k1")
    events = await reader.all()
    assert events[-1].payload.result == [1, ["left"]]
    applied = next(e.payload for e in events if e.type == "correction.applied")
    assert (applied.preempted, applied.step_id) == (True, "s1")
    assert (await server.send(run, CorrectionRevoke(correction_id="k1"))).code == "already_applied"


async def test_a_run_does_not_end_past_a_correction(house: Open) -> None:
    async def body(port: Port) -> None:
        await port.record(step())
        await go.wait()
        with pytest.raises(CorrectionsPending):
            await port.end("too early")
        assert await port.corrections(step_id="s1") == []
        taken = await port.corrections(step_id="s1", ending=True)
        await port.end([c.text for c in taken])

    go = asyncio.Event()
    server = await house(body)
    run = await server.start()
    reader = await server.attach(run)
    await reader.until("run.step")
    await server.send(run, RunCorrect(text="also this", mode="when_idle"))
    go.set()
    assert (await reader.all())[-1].payload.result == ["also this"]


async def test_a_program_that_takes_none_gives_corrections_back(house: Open) -> None:
    async def body(port: Port) -> None:
        await go.wait()
        await port.end(None, return_corrections=True)

    go = asyncio.Event()
    server = await house(body)
    run = await server.start()
    await server.send(run, RunCorrect(text="x"))
    go.set()
    events = await server.log(run)
    assert types(events)[-2:] == ["correction.returned", "run.completed"]


async def test_corrections_wait_for_an_open_approval(house: Open) -> None:
    async def body(port: Port) -> None:
        await port.record(step())
        asked = asyncio.ensure_future(port.ask(approval(port), journal=[call_record()]))
        await held.wait()
        assert await port.corrections(step_id="s1") == []
        await asked
        taken = await port.corrections(step_id="s1")
        await port.end([c.text for c in taken])

    held = asyncio.Event()
    server = await house(body)
    run = await server.start()
    reader = await server.attach(run)
    await reader.until("run.status")
    await server.send(run, RunCorrect(text="x"))
    await reader.until("correction.held")
    held.set()
    await server.send(run, ApprovalRespond(approval_id="a1", decision="approve"))
    assert (await reader.all())[-1].payload.result == ["x"]
