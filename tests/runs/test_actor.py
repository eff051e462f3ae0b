"""One run's actor: durable before visible, control before output, and an end whatever its program does."""

import asyncio
from typing import Any

import pytest

from midstream.log import Fenced, LogUnavailable, MemoryStore
from midstream.runs import BadDraft, CorrectionsPending, Limits, Port, RunFailure, Stopping
from midstream.runs.actor import STRAYS
from midstream_protocol.commands import (
    ApprovalRespond,
    CorrectionRevoke,
    InputRespond,
    RunCancel,
    RunCorrect,
    ToolError,
    ToolResult,
)
from midstream_protocol.events import (
    MessageCompleted,
    Notice,
    ObjectCreated,
    RunCancelled,
    RunFailed,
    ToolFailed,
    ToolPreparing,
)
from tests.runs.conftest import Open
from tests.runs.house import House, soon, types
from tests.runs.say import (
    approval,
    call_record,
    completed,
    delta,
    for_ever,
    message,
    question,
    requested,
    result_record,
    said,
    speak,
    started,
    step,
)

pytestmark = pytest.mark.asyncio


# -- writing


async def test_what_is_said_is_in_the_log_in_that_order(house: Open) -> None:
    async def body(port: Port) -> None:
        await port.emit(message())
        await port.emit(delta("he"))
        await port.emit(delta("llo"))
        assert await port.record(said("hello")) == 5
        await port.end({"ok": True})

    server = await house(body)
    events = await server.log(await server.start())
    assert types(events) == [
        "run.started",
        "message.completed",
        "message.started",
        "message.delta",
        "message.completed",
        "run.completed",
    ]
    assert events[-1].payload.result == {"ok": True}


async def test_emit_takes_no_facts(house: Open) -> None:
    async def body(port: Port) -> None:
        with pytest.raises(BadDraft, match="record"):
            await port.emit(started(port))
        await port.end(None)

    server = await house(body)
    assert types(await server.log(await server.start()))[-1] == "run.completed"


async def test_a_draft_out_of_order_is_refused_and_the_run_goes_on(house: Open) -> None:
    async def body(port: Port) -> None:
        with pytest.raises(BadDraft, match="not open"):
            await port.record(said("x"))
        await port.emit(delta("nobody waits for this refusal"))
        await port.end(None)

    server = await house(body)
    events = await server.log(await server.start())
    assert types(events) == ["run.started", "message.completed", "run.completed"]


async def test_nothing_is_visible_before_it_is_durable_receipts_neither(house: Open) -> None:
    server = await house(for_ever)
    run = await server.start()
    reader = await server.attach(run)
    await reader.until("message.completed")
    server.held.hold()
    waiting = asyncio.ensure_future(server.send(run, RunCorrect(text="left")))
    await soon(server.held.waiting.wait())
    assert await reader.attachment.subscription.pull() == ()
    assert (await server.registry.view(_me(), run)).corrections == ()
    late = await server.attach(run)
    assert late.attachment.frame("c").head_seq == 2
    assert not waiting.done()
    server.held.release()
    receipt = await waiting
    assert (await reader.until("correction.accepted")).seq == receipt.at_seq
    assert (await late.until("correction.accepted")).seq == receipt.at_seq


async def test_a_full_lane_makes_emit_wait(house: Open) -> None:
    admitted = 0

    async def body(port: Port) -> None:
        nonlocal admitted
        await port.emit(message())
        for _ in range(100):
            await port.emit(delta("x"))
            admitted += 1
        await port.record(said("x" * 100))
        await port.end(None)

    server = await house(body, limits=Limits(output_lane=4))
    server.held.hold()
    run = await server.start()
    await soon(server.held.waiting.wait())
    for _ in range(50):
        await asyncio.sleep(0)
    # One batch is being written, the lane is full, and nothing else was let in.
    assert admitted <= 2 * 4
    server.held.release()
    await server.log(run)
    assert admitted == 100


async def test_a_cancel_is_taken_before_what_was_said_before_it(house: Open) -> None:
    async def body(port: Port) -> None:
        server.held.hold()
        await port.emit(message())
        await soon(server.held.waiting.wait())
        for n in range(100):
            await port.emit(delta(f"{n} "))
        cancel.append(asyncio.ensure_future(server.send(port.start.run_id, RunCancel())))
        await asyncio.sleep(0)
        server.held.release()
        await asyncio.Event().wait()

    cancel: list[Any] = []
    server = await house(body)
    events = await server.log(await server.start())
    at = types(events).index("run.cancelling")
    assert types(events)[at:] == ["run.cancelling", "message.delta", "message.completed", "run.cancelled"]
    assert events[-2].payload.state == "interrupted"
    assert (await cancel[0]).at_seq == at + 1


async def test_several_facts_and_their_journal_are_one_step(house: Open) -> None:
    """Told `Stopping`, a program knows that nothing of it was written."""

    async def body(port: Port) -> None:
        await port.record(step())
        try:
            await until_cancelled(port)
        except asyncio.CancelledError:
            with pytest.raises(Stopping):
                await port.record(Notice(level="info", code="x", text="first"), started(port), journal=[call_record()])
            raise

    server = await house(body)
    run = await server.start()
    await (await server.attach(run)).until("run.step")
    await server.send(run, RunCancel())
    events = await server.log(run)
    assert "notice" not in types(events)


async def until_cancelled(_port: Port) -> None:
    await asyncio.Event().wait()


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
    assert (await server.registry.view(_me(), run)).status == "waiting"
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


# -- cancel


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


# -- time


@pytest.mark.parametrize("cancel", [None, "after_step"])
async def test_a_run_ends_at_its_deadline(house: Open, cancel: Any) -> None:
    server = await house(for_ever, limits=Limits(run_deadline_s=60))
    run = await server.start()
    if cancel is not None:
        await server.send(run, RunCancel(mode=cancel))
    await server.clock.advance(59)
    assert (await server.registry.view(_me(), run)).status == "running"
    await server.clock.advance(2)
    end = (await server.log(run))[-1]
    assert end.type == ("run.failed" if cancel is None else "run.cancelled")
    if cancel is None:
        assert end.payload.code == "deadline"


async def test_a_caller_may_set_an_earlier_deadline(house: Open) -> None:
    from midstream_protocol.commands import RunLimits  # noqa: PLC0415

    server = await house(for_ever)
    run = await server.start(limits=RunLimits(deadline_s=30))
    await server.clock.advance(31)
    assert (await server.log(run))[-1].payload.code == "deadline"


# -- how programs end


async def test_a_failure_with_a_code(house: Open) -> None:
    async def body(port: Port) -> None:
        await port.record(started(port))
        await port.record(completed())
        raise RunFailure("rate_limited", "The model is busy.", retryable=True) from ValueError("secret")

    server = await house(body)
    end = (await server.log(await server.start()))[-1].payload
    assert isinstance(end, RunFailed)
    assert (end.code, end.text, end.retryable, end.completed) == (
        "rate_limited",
        "The model is busy.",
        True,
        ["srv_do: Do"],
    )


@pytest.mark.parametrize("way", ["raises", "returns", "cancels itself", "stops itself"])
async def test_a_program_that_goes_wrong_fails_its_run(house: Open, way: str) -> None:
    async def body(_port: Port) -> None:
        if way == "raises":
            raise ValueError("a secret")
        if way == "cancels itself":
            raise asyncio.CancelledError
        if way == "stops itself":
            raise Stopping

    server = await house(body)
    events = await server.log(await server.start())
    assert (events[-1].type, events[-1].payload.code) == ("run.failed", "internal")
    assert "secret" not in events[-1].payload.text


@pytest.mark.parametrize("result", [float("nan"), "\ud800", 2**60, {1: b"x"}, object()])
async def test_any_result_can_be_told(house: Open, result: Any) -> None:
    async def body(port: Port) -> None:
        await port.end(result)

    server = await house(body)
    assert (await server.log(await server.start()))[-1].type == "run.completed"


async def test_a_failure_in_words_that_cannot_be_told(house: Open) -> None:
    async def body(_port: Port) -> None:
        raise RunFailure("io", "no such file: \udcff")

    server = await house(body)
    end = (await server.log(await server.start()))[-1]
    assert (end.type, end.payload.code) == ("run.failed", "io")


async def test_what_cannot_be_decided_costs_one_command_and_not_the_run(house: Open, monkeypatch: Any) -> None:
    """An app's check that raises, a schema of a client's that is none: the command is refused, the run goes on."""

    async def body(port: Port) -> None:
        await port.end((await port.ask(question(port), journal=[])).value)

    def fails(*_: Any) -> Any:
        raise ZeroDivisionError

    server = await house(body)
    run = await server.start()
    await (await server.attach(run)).until("run.status")
    with monkeypatch.context() as patch:
        patch.setattr("midstream.runs.commands._resolution", fails)
        patch.setattr("midstream.runs.commands._open", fails)
        receipt = await server.send(run, InputRespond(input_id="i1", answer="x"))
    assert (receipt.code, receipt.retryable) == ("invalid", None)
    assert (await server.send(run, InputRespond(input_id="i1", answer="y"))).status == "accepted"
    assert (await server.log(run))[-1].payload.result == "y"


async def test_an_event_that_cannot_be_encoded_is_refused(house: Open) -> None:
    async def body(port: Port) -> None:
        with pytest.raises(BadDraft, match="cannot be written"):
            await port.record(ObjectCreated(object_id="o1", kind="x", data=object()))
        await port.end(None)

    server = await house(body)
    assert types(await server.log(await server.start())) == ["run.started", "message.completed", "run.completed"]


async def test_an_actor_that_fails_answers_all_that_wait(house: Open, monkeypatch: Any) -> None:
    """Also those whose command it had taken out of its mailbox."""

    def fails(*_: Any) -> Any:
        raise ZeroDivisionError

    server = await house(for_ever)
    run = await server.start()
    await server.log(run, ended=False)
    with monkeypatch.context() as patch:
        patch.setattr("midstream.runs.actor.run_beat", fails)
        receipt = await server.send(run, RunCorrect(text="x"))
    assert (receipt.code, receipt.retryable) == ("unavailable", True)
    await server.registry._living.settled(f"{_space()}.{run}")
    assert (await server.send(run, RunCorrect(text="x"))).status == "accepted"
    events = await server.log(run, ended=False)
    assert types(events)[2:] == ["recovery.started", "run.status", "correction.accepted"]


async def test_a_command_to_a_run_that_just_ended_is_answered_at_once(house: Open) -> None:
    """Although its program has not returned."""
    go = asyncio.Event()

    async def body(port: Port) -> None:
        await port.end(None)
        await go.wait()

    server = await house(body)
    run = await server.start()
    await (await server.attach(run)).all()
    assert server.registry.live_runs == 1
    assert (await server.send(run, RunCancel())).code == "run_ended"
    assert server.registry.live_runs == 1
    go.set()


async def test_nobody_waits_for_an_actor_that_is_gone(house: Open) -> None:
    """Commands that arrive while the end is being written are answered by the end."""
    caught: list[str] = []

    async def body(port: Port) -> None:
        await port.record(step())
        asked = asyncio.ensure_future(port.ask(question(port)))
        await go.wait()
        server.held.hold()
        await port.end(None)
        for again in (port.answer("i9"), port.record(step("completed")), port.emit(message()), port.end(None)):
            try:
                await again
            except Stopping:
                caught.append("stopping")
        assert (await asked).decision == "expired"

    go = asyncio.Event()
    server = await house(body)
    run = await server.start()
    await (await server.attach(run)).until("input.required")
    go.set()
    await soon(server.held.waiting.wait())
    late = [asyncio.ensure_future(server.send(run, RunCorrect(text=str(n)))) for n in range(3)]
    await asyncio.sleep(0)
    server.held.release()
    assert [(await receipt).code for receipt in late] == ["run_ended"] * 3
    await server.registry._living.settled(f"{_space()}.{run}")
    assert caught == ["stopping"] * 4


# -- a log that fails


async def test_a_run_goes_on_when_its_log_is_back(house: Open) -> None:
    seen: list[BaseException] = []

    async def body(port: Port) -> None:
        if port.recovered:
            await port.end("recovered")
            return
        await port.record(Notice(level="info", code="x", text=""))
        await go.wait()
        try:
            await port.record(step())
        except BaseException as error:
            seen.append(error)
            raise

    go = asyncio.Event()
    server = await house(body)
    run = await server.start()
    reader = await server.attach(run)
    await reader.until("notice")
    server.held.broken = LogUnavailable("disk full")
    go.set()
    await server.registry._living.settled(f"{_space()}.{run}")
    receipt = await server.send(run, RunCorrect(text="x"), command_id="k1")
    assert (receipt.code, receipt.retryable) == ("unavailable", True)
    for _ in range(10):
        await server.clock.advance(1)
    server.held.broken = None
    reading = asyncio.ensure_future(reader.all())
    while not reading.done():
        await server.clock.advance(1)
    events = reading.result()
    assert events[-1].payload.result == "recovered"
    assert [e.payload.attempt for e in events if e.type == "recovery.started"] == [1]
    # Stopped, or killed first; never told of a log.
    assert [type(error) for error in seen] in ([Stopping], [asyncio.CancelledError])
    assert await server.log(run) == events


async def test_a_fenced_actor_says_no_more(house: Open) -> None:
    """Another writer owns the run: nothing of ours is written, and we do not fight for it."""

    async def body(port: Port) -> None:
        ports.append(port)
        await go.wait()
        await speak(port)

    ports: list[Port] = []
    go = asyncio.Event()
    server = await house(body)
    run = await server.start()
    await (await server.attach(run)).pull()
    store = server.store
    assert isinstance(server.store, MemoryStore) or store is not None
    key = f"{_space()}.{run}"
    lease = next(iter(server.registry._living.actors.values())).lease
    await store.leases.release(lease)
    other = await store.leases.claim(key, owner="other", now_ms=server.clock.now_ms(), lease_ms=10**9)
    assert other is not None
    go.set()
    receipt = await server.send(run, RunCorrect(text="x"))
    assert receipt.code == "unavailable"
    living = server.registry._living
    # The store answers from its own thread, so how far this has come no number of turns of the loop can say.
    for actor in list(living.actors.values()):
        await soon(asyncio.wait([actor.task]))
    await server.clock.advance(30)
    if living._retries:
        await soon(asyncio.wait(list(living._retries.values())))
        await asyncio.sleep(0)
    assert living._retries == {}
    assert server.registry.live_runs == 0
    assert types(await server.log(run, ended=False)) == ["run.started", "message.completed"]
    with pytest.raises(Fenced):
        await store.log.append(key, fence=lease.fence, prev_seq=2, batch=_batch())


def _batch() -> Any:
    from midstream.log import Batch  # noqa: PLC0415

    return Batch(batch_id="x", status="running")


def _me() -> Any:
    from tests.runs.simple import ME  # noqa: PLC0415

    return ME


def _space() -> str:
    from midstream.runs.keys import namespace  # noqa: PLC0415

    return namespace("local")


__all__ = ["House"]
