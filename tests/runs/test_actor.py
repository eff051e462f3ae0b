"""One run's actor: durable before visible, control before output, and an end whatever its program does."""

import asyncio
from typing import Any

import pytest

from midstream.runs import BadDraft, Limits, Port, RunFailure, Stopping
from midstream.runs.keys import namespace
from midstream_protocol.commands import (
    InputRespond,
    RunCancel,
    RunCorrect,
    RunLimits,
)
from midstream_protocol.events import (
    Notice,
    ObjectCreated,
    RunFailed,
)
from tests.runs.conftest import Open
from tests.runs.house import soon, types
from tests.runs.say import (
    call_record,
    completed,
    delta,
    for_ever,
    message,
    question,
    said,
    started,
    step,
)
from tests.runs.simple import ME

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
    assert (await server.registry.view(ME, run)).corrections == ()
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


# -- time


@pytest.mark.parametrize("cancel", [None, "after_step"])
async def test_a_run_ends_at_its_deadline(house: Open, cancel: Any) -> None:
    server = await house(for_ever, limits=Limits(run_deadline_s=60))
    run = await server.start()
    if cancel is not None:
        await server.send(run, RunCancel(mode=cancel))
    await server.clock.advance(59)
    assert (await server.registry.view(ME, run)).status == "running"
    await server.clock.advance(2)
    end = (await server.log(run))[-1]
    assert end.type == ("run.failed" if cancel is None else "run.cancelled")
    if cancel is None:
        assert end.payload.code == "deadline"


async def test_a_caller_may_set_an_earlier_deadline(house: Open) -> None:
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
    await server.registry._living.settled(f"{namespace('local')}.{run}")
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
    await server.registry._living.settled(f"{namespace('local')}.{run}")
    assert caught == ["stopping"] * 4
