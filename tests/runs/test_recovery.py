"""After a crash, a restart or a drain the truth is told, and the run goes on from what is durable."""

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from midstream.log import LogUnavailable
from midstream.runs import Limits, Port, Stopping
from midstream.runs.keys import namespace
from midstream.telemetry import exposed
from midstream_protocol.commands import (
    ApprovalRespond,
    ClientTool,
    Command,
    InputRespond,
    RunCancel,
    RunCorrect,
    ToolResult,
)
from midstream_protocol.errors import Conflict, NotFound, ProtocolError, RunEnded
from midstream_protocol.order import verify
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
    speak,
    started,
    step,
)
from tests.runs.simple import ME, start

pytestmark = pytest.mark.asyncio


async def test_what_was_being_said_is_taken_back_and_what_was_being_done_stays_open(house: Open) -> None:
    async def body(port: Port) -> None:
        if port.recovered:
            call = port.call("t1")
            assert call is not None
            assert (call.state, call.attempt, port.call_args("t1")) == ("running", 1, {"n": 1})
            await port.record(started(port, attempt=2))
            await port.record(completed(), journal=[result_record()])
            await port.end([record.kind for record in port.journal])
            return
        await port.record(step())
        await port.record(started(port), journal=[call_record()])
        await port.emit(message())
        await port.emit(delta("lost"))
        await asyncio.Event().wait()

    server = await house(body)
    run = await server.start()
    reader = await server.attach(run)
    await reader.until("message.delta")
    await server.crash()
    await server.open()
    events = await server.log(run)
    assert events[: len(reader.events)] == reader.events
    assert types(events)[len(reader.events) :] == [
        "recovery.started",
        "message.superseded",
        "run.step",
        "run.status",
        "tool.started",
        "tool.completed",
        "run.completed",
    ]
    assert events[-1].payload.result == ["start", "call"]


async def test_a_run_that_crashes_its_server_again_and_again_is_ended(house: Open) -> None:
    async def body(port: Port) -> None:
        await port.record(started(port, attempt=len(server.ports)))
        await asyncio.Event().wait()

    server = await house(body, limits=Limits(max_recoveries=3))
    run = await server.start()
    for _ in range(4):
        reader = await server.attach(run)
        await reader.until("tool.started")
        await server.crash()
        await server.open()
        reader = await server.attach(run)
    events = await server.log(run)
    assert (events[-1].type, events[-1].payload.code) == ("run.failed", "crash_loop")
    assert [e.payload.outcome for e in events if e.type == "tool.failed"] == ["unknown"]


async def test_progress_between_crashes_is_no_crash_loop(house: Open) -> None:
    async def body(port: Port) -> None:
        life = len(server.ports)
        await speak(port, message_id=f"m{life}")
        if life == 6:
            await port.end(None)
            return
        await asyncio.Event().wait()

    server = await house(body, limits=Limits(max_recoveries=2))
    run = await server.start()
    for life in range(1, 6):
        reader = await server.attach(run)
        while (await reader.until("message.completed")).payload.message_id != f"m{life}":
            pass
        await server.crash()
        await server.open()
    assert (await server.log(run))[-1].type == "run.completed"


async def test_a_question_survives_and_is_not_asked_again(house: Open) -> None:
    async def body(port: Port) -> None:
        answer = await port.ask(approval(port), journal=[call_record()])
        await port.record(started(port))
        await port.record(completed())
        await port.end(answer.decision)

    server = await house(body)
    run = await server.start()
    await (await server.attach(run)).until("run.status")
    for _ in range(7):
        # A run that only waits is no crash loop, however often the server is started.
        await server.crash()
        await server.open()
    frame = (await server.attach(run)).attachment.frame("c")
    assert [(p["kind"], p["approval_id"], p["expires_in_s"]) for p in frame.pending] == [("approval", "a1", 60)]
    assert server.registry.live_runs == 0
    assert (await server.send(run, ApprovalRespond(approval_id="a1", decision="approve"))).status == "accepted"
    events = await server.log(run)
    assert types(events).count("approval.required") == 1
    assert "recovery.started" not in types(events)
    assert events[-1].payload.result == "approved"


async def test_a_person_who_is_asked_about_a_repetition_is_waited_for(house: Open) -> None:
    """The call is still `running` by its events, but nothing of it is: the run waits, however often it is restarted."""

    async def body(port: Port) -> None:
        if port.recovered:
            answer = await port.ask(approval(port))
            await port.end(answer.decision)
            return
        await port.record(started(port), journal=[call_record()])
        await asyncio.Event().wait()

    server = await house(body, limits=Limits(max_recoveries=2))
    run = await server.start()
    await (await server.attach(run)).until("tool.started")
    for _ in range(5):
        await server.crash()
        await server.open()
        while "approval.required" not in types(await server.log(run, ended=False)):
            await server.clock.advance(0)
    assert (await server.send(run, ApprovalRespond(approval_id="a1", decision="deny"))).status == "accepted"
    events = await server.log(run)
    assert types(events).count("recovery.started") == 1
    assert events[-1].payload.result == "denied"


async def test_an_approval_expires_while_the_server_is_down(house: Open) -> None:
    async def body(port: Port) -> None:
        await port.end((await port.ask(approval(port, seconds=5), journal=[call_record()])).decision)

    server = await house(body)
    run = await server.start()
    await (await server.attach(run)).until("run.status")
    await server.crash()
    await server.clock.advance(10)
    await server.open()
    assert (await server.log(run))[-1].payload.result == "expired"


async def test_an_approval_expires_although_nobody_woke_the_run(house: Open) -> None:
    """It waits in the log alone; the sweeper finds it when its time has come."""

    async def body(port: Port) -> None:
        await port.end((await port.ask(approval(port, seconds=5), journal=[call_record()])).decision)

    server = await house(body)
    run = await server.start()
    await (await server.attach(run)).until("run.status")
    await server.crash()
    await server.open()
    assert server.registry.live_runs == 0
    reader = await server.attach(run)
    reading = asyncio.ensure_future(reader.all())
    while not reading.done():
        await server.clock.advance(1)
    assert reading.result()[-1].payload.result == "expired"


async def test_a_cancel_right_before_the_crash_is_not_forgotten(house: Open) -> None:
    async def body(port: Port) -> None:
        await port.record(started(port))
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if crashing:
                    raise

    crashing = False
    server = await house(body)
    run = await server.start()
    await (await server.attach(run)).until("tool.started")
    receipt = await server.send(run, RunCancel(reason="stop"), command_id="k1")
    assert receipt.status == "accepted"
    crashing = True
    await server.crash()
    await server.open()
    events = await server.log(run)
    assert (events[-1].type, events[-1].payload.reason) == ("run.cancelled", "stop")
    assert types(events)[(receipt.at_seq or 0) - 1] == "run.cancelling"
    assert await server.send(run, RunCancel(reason="stop"), command_id="k1") == receipt


async def test_receipts_survive_the_crash(house: Open) -> None:
    server = await house(for_ever)
    run = await server.start()
    commands = [
        RunCorrect(text="x"),
        ApprovalRespond(approval_id="none", decision="deny"),
        RunCancel(tool_call_id="none"),
        RunCorrect(text="x" * 300_000),
    ]
    before = [await server.send(run, payload, command_id=f"k{n}") for n, payload in enumerate(commands)]
    await server.crash()
    await server.open()
    after = [await server.send(run, payload, command_id=f"k{n}") for n, payload in enumerate(commands)]
    assert after == before
    assert [r.code for r in before] == [None, "not_found", "unknown_call", "too_large"]
    await server.send(run, RunCancel())
    await server.log(run)
    ended = [await server.send(run, payload, command_id=f"k{n}") for n, payload in enumerate(commands[:1])]
    assert ended == before[:1]


async def test_a_client_result_that_the_program_never_saw(house: Open) -> None:
    """It is in the journal: the program that begins again reads it there."""

    async def body(port: Port) -> None:
        if port.recovered:
            answer = await port.answer("t1")
            await port.end([answer.decision, [r.kind for r in port.journal]])
            return
        await port.record(requested(port))
        await asyncio.Event().wait()

    server = await house(body)
    run = await server.start()
    await (await server.attach(run)).until("tool.requested")
    assert (await server.send(run, ToolResult(tool_call_id="t1", ok=True, result="r"))).status == "accepted"
    await server.crash()
    await server.open()
    assert (await server.log(run))[-1].payload.result == ["completed", ["start", "result"]]


async def test_a_cancel_of_one_call_survives(house: Open) -> None:
    async def body(port: Port) -> None:
        told = asyncio.Event()
        if not port.recovered:
            await port.record(started(port))
        with port.on_cancel_call("t1", told.set):
            if port.recovered:
                await told.wait()
                await port.end("told")
                return
            await asyncio.Event().wait()

    server = await house(body)
    run = await server.start()
    await (await server.attach(run)).until("tool.started")
    await server.send(run, RunCancel(tool_call_id="t1"))
    await server.crash()
    await server.open()
    assert (await server.log(run))[-1].payload.result == "told"


async def test_an_agent_that_is_gone(house: Open) -> None:
    server = await house(for_ever)
    run = await server.start()
    await (await server.attach(run)).pull()
    await server.crash()
    known = server.agents.program, server.agents.rules
    server.agents.program = lambda _start: None  # type: ignore[method-assign, assignment]
    server.agents.rules = lambda _name: None  # type: ignore[method-assign, assignment]
    await server.open()
    assert server.registry.missing_agents == {f"{namespace(ME.id)}.{run}": "a"}
    assert (await server.send(run, RunCorrect(text="x"))).code == "not_steerable"
    await server.clock.advance(11)
    end = (await server.log(run))[-1]
    assert (end.type, end.payload.code) == ("run.failed", "app_changed")
    assert server.registry.missing_agents == {}
    server.agents.program, server.agents.rules = known  # type: ignore[method-assign]


async def test_a_run_of_an_agent_that_is_gone_can_be_cancelled(house: Open) -> None:
    server = await house(for_ever)
    run = await server.start()
    await server.crash()
    server.agents.program = lambda _start: None  # type: ignore[method-assign, assignment]
    await server.open()
    assert (await server.send(run, RunCancel())).status == "accepted"
    assert (await server.log(run))[-1].type == "run.cancelled"


# -- going down in order


async def test_drain_lets_a_turn_reach_its_safe_point(house: Open) -> None:
    async def body(port: Port) -> None:
        if port.recovered:
            await port.end("continued")
            return
        await port.emit(message())
        await go.wait()
        await port.emit(delta("hi"))
        await port.record(said_hi())
        with pytest.raises(Stopping):
            port.check()
        raise Stopping

    def said_hi() -> Any:
        from tests.runs.say import said  # noqa: PLC0415

        return said("hi")

    go = asyncio.Event()
    server = await house(body)
    run = await server.start()
    await (await server.attach(run)).until("message.started")
    draining = asyncio.ensure_future(server.shut())
    await asyncio.sleep(0)
    refused = await server.registry.start(ME, start("x"), client_id="n")
    assert (refused.code, refused.retryable) == ("draining", True)
    go.set()
    await soon(draining)
    await server.open()
    events = await server.log(run)
    assert types(events)[2:] == [
        "message.started",
        "message.delta",
        "message.completed",
        "recovery.started",
        "run.status",
        "run.completed",
    ]


@pytest.mark.parametrize("asking", ["asked", "asks then"])
async def test_drain_does_not_wait_for_people(house: Open, asking: str) -> None:
    """Neither for those who were asked, nor for those who are asked while it goes down."""

    async def body(port: Port) -> None:
        if asking == "asks then" and not port.recovered:
            await port.record(step())
            await go.wait()
        answer = await port.ask(question(port))
        await port.end(answer.value)

    go = asyncio.Event()
    server = await house(body)
    run = await server.start()
    await (await server.attach(run)).until("run.status" if asking == "asked" else "run.step")
    shutting = asyncio.ensure_future(server.shut(grace_s=1000))
    await asyncio.sleep(0)
    go.set()
    await soon(shutting)
    await server.open()
    assert (await server.send(run, InputRespond(input_id="i1", answer="x"))).status == "accepted"
    assert (await server.log(run))[-1].payload.result == "x"


async def test_drain_kills_what_does_not_reach_a_safe_point(house: Open) -> None:
    async def body(port: Port) -> None:
        if port.recovered:
            call = port.call("t1")
            await port.end(call.state if call is not None else None)
        await port.record(started(port))
        try:
            await asyncio.Event().wait()
        finally:
            # What a killed program says is not written: nobody knows whether it is so.
            port.post(completed())

    server = await house(body)
    run = await server.start()
    await (await server.attach(run)).until("tool.started")
    await server.shut(grace_s=0)
    await server.open()
    events = await server.log(run)
    assert events[-1].payload.result == "running"
    assert "tool.completed" not in types(events)


async def test_a_run_that_is_started_or_woken_while_the_server_goes_down_is_left_to_the_next(house: Open) -> None:
    async def body(port: Port) -> None:
        if ending:
            await port.end("next")
            return
        await (port.ask(question(port)) if port.start.input == "hello" else asyncio.Event().wait())

    ending = False
    server = await house(body)
    run = await server.start()
    await (await server.attach(run)).until("run.status")
    await server.crash()
    await server.open()
    before = asyncio.all_tasks()
    command = start("late")
    racing = [
        asyncio.ensure_future(server.registry.start(ME, command, client_id="n")),
        asyncio.ensure_future(server.send(run, RunCorrect(text="x"), command_id="k1")),
    ]
    await asyncio.sleep(0)
    await server.registry.drain(0)
    started_, sent = await asyncio.gather(*racing)
    assert server.registry.live_runs == 0
    await server.registry.aclose()
    server._next_life()
    await asyncio.sleep(0)
    assert not {t.get_name() for t in asyncio.all_tasks() - before if not t.done()} - {"Task"}
    ending = True
    await server.open()
    again = await server.registry.start(ME, command, client_id="n")
    assert again.status == "accepted"
    if started_.status == "accepted":
        assert again == started_
    assert types(await server.log(again.run_id or ""))[-1] == "run.completed"
    resent = await server.send(run, RunCorrect(text="x"), command_id="k1")
    assert resent.status == "accepted"
    assert sent.status == "rejected" or sent == resent


# -- a store that fails at the wrong moment


async def test_a_run_whose_log_cannot_be_read_at_the_start_is_taken_up_later(house: Open) -> None:
    async def body(port: Port) -> None:
        if port.recovered:
            await port.end("back")
            return
        await asyncio.Event().wait()

    server = await house(body)
    run = await server.start()
    await server.crash()
    server.held.broken_reads = LogUnavailable("disk gone")
    await server.open()
    assert server.registry.live_runs == 0
    server.held.broken_reads = None
    reader = await server.attach(run)
    reading = asyncio.ensure_future(reader.all())
    for _ in range(50):
        if not reading.done():
            await server.clock.advance(1)
            await asyncio.sleep(0)
    assert (await soon(reading))[-1].payload.result == "back"


async def test_a_wake_that_fails_is_the_waiters_to_tell_and_no_defect(house: Open) -> None:
    """Who asked is refused and may come again; the server's own log has no trace of a crash."""
    server = await house(for_ever)
    run = await server.start()
    await server.crash()
    server.held.broken_reads = LogUnavailable("disk gone")
    with capture_logs() as logged:
        await server.open()
        receipt = await server.send(run, RunCorrect(text="x"))
    assert (receipt.code, receipt.retryable) == ("unavailable", True)
    assert logged
    assert "task failed" not in [line["event"] for line in logged]


async def test_one_run_that_cannot_be_taken_up_does_not_stop_the_others(house: Open) -> None:
    async def body(port: Port) -> None:
        if port.recovered:
            await port.end("back")
            return
        await asyncio.Event().wait()

    server = await house(body)
    bad = await server.start("bad")
    good = await server.start("good")
    await server.crash()
    program = server.agents.program

    def fails(start_record: Any) -> Any:
        if start_record.run_id == bad:
            raise ZeroDivisionError
        return program(start_record)

    server.agents.program = fails  # type: ignore[method-assign, assignment]
    await server.open()
    assert (await server.log(good))[-1].payload.result == "back"
    assert await server.registry.view(ME, bad)


async def test_a_waking_run_has_one_actor(house: Open) -> None:
    """A command finds it while the sweeper is reading it."""

    async def body(port: Port) -> None:
        await port.end((await port.ask(question(port, seconds=5))).decision)

    server = await house(body)
    run = await server.start()
    await (await server.attach(run)).until("run.status")
    await server.crash()
    await server.open()
    load = server.held.log.load
    reading, go = asyncio.Event(), asyncio.Event()

    async def slow(key: str) -> Any:
        reading.set()
        await go.wait()
        return await load(key)

    server.held.log.load = slow  # type: ignore[method-assign, assignment]
    server.clock._now += 6
    sweeping = asyncio.ensure_future(server.registry._living._claim_due())
    await soon(reading.wait())
    sending = [asyncio.ensure_future(server.send(run, RunCorrect(text=str(n)))) for n in range(5)]
    for _ in range(50):
        await asyncio.sleep(0)
    go.set()
    await sweeping
    assert {(await receipt).code for receipt in sending} <= {None, "run_ended"}
    events = await server.log(run)
    assert len(server.ports) == 2
    header = (await server.store.log.read(f"{namespace(ME.id)}.{run}", after=0)).header
    assert header is not None
    # Made, voided by the restart, and claimed once.
    assert header.fence == 3
    assert verify(events) == []


# -- tools that clients bring


async def test_offers(house: Open) -> None:
    async def body(port: Port) -> None:
        await go.wait()
        await port.end([port.host_of("edit"), sorted(port.client_tools)])

    go = asyncio.Event()
    server = await house(body)
    run = await server.start(client_tools=[ClientTool(name="edit")])
    await server.registry.offer(ME, run, client_id="south", tools=[ClientTool(name="edit"), ClientTool(name="look")])
    with pytest.raises(Conflict):
        await server.registry.offer(ME, run, client_id="south", tools=[ClientTool(name="srv_do")])
    with pytest.raises(NotFound):
        await server.registry.offer(ME, "none", client_id="south", tools=[])
    await server.crash()
    await server.open()
    go.set()
    assert (await server.log(run))[-1].payload.result == ["south", ["edit", "look"]]
    with pytest.raises(RunEnded):
        await server.registry.offer(ME, run, client_id="south", tools=[])


async def test_an_offer_to_a_run_that_is_being_handed_over_is_not_told_that_it_ended(house: Open) -> None:
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
    await (await server.attach(run)).until("run.step")
    draining = asyncio.ensure_future(server.registry.drain(0))
    actor = next(iter(server.registry._living.actors.values()))
    closed, close = asyncio.Event(), actor.mailbox.close

    def closing(reason: Exception | None = None) -> None:
        close(reason)
        closed.set()

    actor.mailbox.close = closing  # type: ignore[method-assign]
    await soon(closed.wait())
    with pytest.raises(ProtocolError) as refused:
        await server.registry.offer(ME, run, client_id="south", tools=[])
    assert refused.value.code == "draining"
    ends.set()
    await soon(draining)


async def test_a_drain_leaves_no_run_that_is_tried_again(house: Open) -> None:
    server = await house(for_ever)
    run = await server.start()
    server.held.broken = LogUnavailable("disk full")
    assert (await server.send(run, RunCorrect(text="x"))).code == "unavailable"
    await server.registry._living.settled(f"{namespace(ME.id)}.{run}")
    assert [t for t in asyncio.all_tasks() if t.get_name().endswith("/retry")]
    await soon(server.registry.drain(1000))
    assert not [t for t in asyncio.all_tasks() if t.get_name().startswith("run:")]


async def test_an_offer_to_a_server_that_goes_down_says_so(house: Open) -> None:
    server = await house(for_ever)
    run = await server.start()
    await server.registry.drain(0)
    with pytest.raises(ProtocolError) as refused:
        await server.registry.offer(ME, run, client_id="south", tools=[])
    assert refused.value.code == "draining"
    sent = Command(type="run.cancel", command_id="k1", run_id=run, payload=RunCancel())
    assert (await server.registry.submit(ME, sent, client_id=None)).code == "draining"


async def test_a_server_that_stood_still_for_longer_than_its_leases_keeps_its_runs(house: Open) -> None:
    """Stopped, or a machine that slept: nobody else had the runs, so their programs go on as if nothing had been."""

    async def body(port: Port) -> None:
        lives.append(port.recovered)
        await go.wait()
        await port.end("ok")

    lives: list[bool] = []
    go = asyncio.Event()
    server = await house(body, limits=Limits(lease_ms=10_000))
    run = await server.start()
    actors = server.registry._living.actors
    [actor] = actors.values()
    server.clock._now += 60
    while actor.lease.expires_at < server.clock.now_ms():
        assert list(actors.values()) == [actor]
        await server.clock.advance(0.1)
    # A look for due runs comes after each renewal.
    await server.clock.advance(5)
    go.set()
    assert types(await server.log(run)) == ["run.started", "message.completed", "run.completed"]
    assert lives == [False]


async def test_a_lease_that_ended_unseen_is_given_to_who_has_the_run(house: Open) -> None:
    async def body(port: Port) -> None:
        lives.append(port.recovered)
        await go.wait()
        await port.end("ok")

    lives: list[bool] = []
    go = asyncio.Event()
    server = await house(body, limits=Limits(lease_ms=10_000))
    run = await server.start()
    living = server.registry._living
    [actor] = living.actors.values()
    fence = actor.lease.fence
    server.clock._now += 60
    # It ends between the renewal and the look for due runs.
    await soon(living._claim_due())
    assert list(living.actors.values()) == [actor]
    assert actor.lease.fence > fence
    go.set()
    assert types(await server.log(run)) == ["run.started", "message.completed", "run.completed"]
    assert lives == [False]


async def test_a_run_whose_lease_was_lost_is_let_go_of_at_once(house: Open) -> None:
    """Its program acts no more: whoever has the run now may be doing the same."""

    async def body(port: Port) -> None:
        lives.append(port.recovered)
        try:
            await for_ever(port) if len(lives) == 1 else await port.end("ok")
        finally:
            stopped.set()

    lives: list[bool] = []
    stopped = asyncio.Event()
    server = await house(body, limits=Limits(lease_ms=10_000))
    run = await server.start()
    renew = server.held.leases.renew

    async def lost(*_: Any, **__: Any) -> None:
        return None

    server.held.leases.renew = lost  # type: ignore[method-assign]
    while not stopped.is_set():
        await server.clock.advance(1)
    server.held.leases.renew = renew  # type: ignore[method-assign]
    # Nobody else had it after all: it is taken up again.
    reading = asyncio.ensure_future(server.log(run))
    while not reading.done():
        # The clock runs ahead of the store: it may be taken up more than once.
        await server.clock.advance(1)
        await asyncio.sleep(0.001)
    assert types(await reading)[-1] == "run.completed"
    assert lives[:2] == [False, True]


async def test_a_recovery_is_counted_once_it_is_in_the_log(house: Open) -> None:
    async def body(port: Port) -> None:
        if port.recovered:
            await port.end("back")
            return
        await asyncio.Event().wait()

    def crashes() -> float:
        lines = exposed().decode().splitlines()
        line = next((each for each in lines if each.startswith('midstream_recoveries_total{kind="crash"}')), "x 0")
        return float(line.rpartition(" ")[2])

    server = await house(body)
    run = await server.start()
    before = crashes()
    await server.crash()
    await server.open()
    assert (await server.log(run))[-1].payload.result == "back"
    assert crashes() == before + 1


__all__ = ["House"]
