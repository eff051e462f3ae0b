"""After a crash or a restart the truth is told, and the run goes on from what is durable."""

import asyncio

import pytest
from structlog.testing import capture_logs

from midstream.runs import Limits, Port
from midstream.runs.keys import namespace
from midstream.telemetry import exposed
from midstream_protocol.commands import (
    ApprovalRespond,
    ClientTool,
    RunCancel,
    RunCorrect,
    ToolResult,
)
from midstream_protocol.errors import Conflict, NotFound, RunEnded
from tests.runs.conftest import Open
from tests.runs.house import types
from tests.runs.say import (
    approval,
    call_record,
    completed,
    delta,
    for_ever,
    message,
    requested,
    result_record,
    speak,
    started,
    step,
)
from tests.runs.simple import ME

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
    with capture_logs() as logs:
        for _ in range(4):
            reader = await server.attach(run)
            await reader.until("tool.started")
            await server.crash()
            await server.open()
            reader = await server.attach(run)
        events = await server.log(run)
    assert (events[-1].type, events[-1].payload.code) == ("run.failed", "crash_loop")
    (told,) = [line for line in logs if "given up" in line["event"]]
    assert told["error_id"] == events[-1].payload.error_id != ""
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
    with capture_logs() as logs:
        await server.clock.advance(11)
        end = (await server.log(run))[-1]
    assert (end.type, end.payload.code) == ("run.failed", "app_changed")
    assert [line["error_id"] for line in logs if "given up" in line["event"]] == [end.payload.error_id]
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
