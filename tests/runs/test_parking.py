"""A run that waits for people leaves the memory, and comes back as if it had never gone."""

import asyncio
import random
from typing import Any

import pytest

from midstream.log import JournalRecord
from midstream.runs import Limits, Port, Stopping
from midstream.runs.parking import left_in_order, parked_record, patience_s, without_marks
from midstream_protocol.commands import (
    ApprovalRespond,
    CancelAfter,
    ClientTool,
    CommandPayload,
    InputRespond,
    RunCancel,
    ToolResult,
)
from tests.runs.conftest import Open
from tests.runs.house import House, soon, types
from tests.runs.say import approval, call_record, completed, question, requested, started, step
from tests.runs.simple import ME

SECONDS = 10_000
"""How long the questions here stand open."""

APPROVE = ApprovalRespond(approval_id="a1", decision="approve")


class Effects:
    """A program that asks, acts, and says what it was told; and how often it acted."""

    def __init__(self, *, leaves: asyncio.Event | None = None) -> None:
        self.acted = 0
        self.leaves = leaves
        self.leaving = asyncio.Event()

    async def __call__(self, port: Port) -> None:
        try:
            answer = await port.ask(approval(port, seconds=SECONDS), journal=[call_record()])
        except Stopping:
            self.leaving.set()
            if self.leaves is not None:
                await self.leaves.wait()
            raise
        await port.record(started(port))
        self.acted += 1
        await port.record(completed())
        await port.end([answer.decision, [record.kind for record in port.journal]])


async def waits(server: House, **fields: Any) -> str:
    """A run that waits for an answer."""
    run = await server.start(**fields)
    reader = await server.attach(run)
    while (await reader.until("run.status")).payload.status != "waiting":
        pass
    reader.close()
    return run


async def parked(server: House, seconds: float = 40) -> None:
    """Long enough for whatever waits to be parked."""
    await server.clock.advance(seconds)
    for _ in range(1000):
        if not server.registry.live_runs:
            return
        await server.clock.advance(0)
    pytest.fail("it is not parked")


@pytest.mark.asyncio
async def test_a_run_that_waits_leaves_the_memory_and_goes_on_when_it_is_answered(house: Open) -> None:
    effects = Effects()
    server = await house(effects)
    run = await waits(server)
    before = await server.log(run, ended=False)
    assert (await server.registry.view(ME, run)).status == "waiting"
    await server.clock.advance(28)
    assert server.registry.live_runs == 1
    await parked(server, 5)
    assert not [task.get_name() for task in asyncio.all_tasks() if run in task.get_name()]
    living = server.registry._living
    assert not living._feeds
    assert not living._leaving
    assert server.registry._views._views == {}
    assert await server.log(run, ended=False) == before
    assert server.registry.live_runs == 0, "looking at it does not wake it"
    assert (await server.send(run, APPROVE)).status == "accepted"
    events = await server.log(run)
    assert types(events)[len(before) :][0] == "approval.resolved"
    assert "recovery.started" not in types(events)
    assert (effects.acted, events[-1].payload.result) == (1, ["approved", ["start", "call"]])


@pytest.mark.asyncio
async def test_who_is_attached_sees_it_go_on(house: Open) -> None:
    server = await house(Effects())
    run = await waits(server)
    reader = await server.attach(run)
    await reader.pull()
    await parked(server)
    late = await server.attach(run, since_seq=3)
    await server.send(run, APPROVE)
    assert [e.type for e in (await reader.all())][-1] == "run.completed"
    assert reader.events[3:] == await late.all()


@pytest.mark.parametrize("answer", [APPROVE, RunCancel(reason="stop")], ids=["answer", "cancel"])
@pytest.mark.asyncio
async def test_what_comes_while_it_is_being_parked_counts(house: Open, answer: CommandPayload) -> None:
    effects = Effects(leaves=asyncio.Event())
    server = await house(effects)
    run = await waits(server)
    await server.clock.advance(40)
    await soon(effects.leaving.wait())
    assert effects.leaves is not None
    sending = asyncio.ensure_future(server.send(run, answer))
    attaching = asyncio.ensure_future(server.attach(run))
    await asyncio.sleep(0)
    effects.leaves.set()
    receipt = await soon(sending)
    assert (receipt.status, receipt.code) == ("accepted", None)
    events = await (await attaching).all()
    assert types(events)[-1] == ("run.completed" if answer is APPROVE else "run.cancelled")
    assert "recovery.started" not in types(events)
    assert effects.acted == (answer is APPROVE)


@pytest.mark.asyncio
async def test_an_answer_that_comes_after_the_mark_is_taken_too(house: Open) -> None:
    """The store is slow: the mark is being written when the answer comes."""
    effects = Effects()
    server = await house(effects)
    run = await waits(server)
    server.held.hold()
    await server.clock.advance(40)
    await soon(server.held.waiting.wait())
    sending = asyncio.ensure_future(server.send(run, APPROVE))
    await asyncio.sleep(0)
    server.held.release()
    assert (await soon(sending)).status == "accepted"
    events = await server.log(run)
    assert (effects.acted, types(events)[-1]) == (1, "run.completed")
    assert "recovery.started" not in types(events)


@pytest.mark.asyncio
async def test_a_question_expires_while_its_run_is_parked(house: Open) -> None:
    async def body(port: Port) -> None:
        await port.end((await port.ask(approval(port, seconds=100), journal=[call_record()])).decision)

    server = await house(body)
    run = await waits(server)
    await parked(server)
    reader = await server.attach(run)
    reading = asyncio.ensure_future(reader.all())
    await server.clock.advance(70)
    assert (await soon(reading))[-1].payload.result == "expired"


@pytest.mark.asyncio
async def test_the_deadline_of_a_parked_run_is_kept(house: Open) -> None:
    server = await house(Effects(), limits=Limits(run_deadline_s=100))
    run = await waits(server)
    await parked(server)
    reading = asyncio.ensure_future((await server.attach(run)).all())
    await server.clock.advance(70)
    assert (await soon(reading))[-1].payload.code == "deadline"


@pytest.mark.asyncio
async def test_a_client_answers_for_a_run_that_is_parked(house: Open) -> None:
    async def body(port: Port) -> None:
        answer = await port.ask(requested(port, seconds=SECONDS))
        await port.end([answer.decision, [record.kind for record in port.journal]])

    server = await house(body)
    run = await server.start(client_tools=[ClientTool(name="edit", description="", input_schema={})])
    await (await server.attach(run)).until("tool.requested")
    await parked(server)
    await server.registry.offer(ME, run, client_id="south", tools=[ClientTool(name="x", description="")])
    await parked(server)
    assert (await server.send(run, ToolResult(tool_call_id="t1", ok=True, result="r"))).status == "accepted"
    events = await server.log(run)
    assert events[-1].payload.result[0] == "completed"
    assert "recovery.started" not in types(events)


@pytest.mark.asyncio
async def test_only_what_merely_waits_is_parked(house: Open) -> None:
    async def body(port: Port) -> None:
        match port.start.input:
            case "works":
                await port.record(step())
                await asyncio.Event().wait()
            case "waits and works":
                await port.record(approval(port, seconds=SECONDS), journal=[call_record()])
                await asyncio.Event().wait()
            case _:
                await port.ask(question(port, seconds=SECONDS))

    server = await house(body)
    await server.start("works")
    await server.start("waits and works")
    await waits(server, text="asks", on_abandon=CancelAfter(cancel_after_s=5000))
    await waits(server, text="asks", thread_id="t")
    await server.start("asks", thread_id="t", if_busy="queue")
    assert server.registry.live_runs == 5
    await server.clock.advance(100)
    assert server.registry.live_runs == 4
    assert [port.start.input for port in server.ports if port.stopping] == ["asks"]


@pytest.mark.asyncio
async def test_it_can_be_turned_off(house: Open) -> None:
    server = await house(Effects(), limits=Limits(park_after_s=0))
    await waits(server)
    await server.clock.advance(1000)
    assert server.registry.live_runs == 1


@pytest.mark.asyncio
async def test_those_that_wait_make_room_for_new_ones(house: Open) -> None:
    server = await house(Effects(), limits=Limits(max_live_runs=4))
    for _ in range(4):
        await waits(server)
    await parked(server, 2)
    await waits(server)


@pytest.mark.asyncio
async def test_parked_and_woken_again_and_again(house: Open) -> None:
    async def body(port: Port) -> None:
        answers = [(await port.ask(question(port, key=f"i{n}", seconds=SECONDS))).value for n in range(10)]
        await port.end(answers)

    server = await house(body, limits=Limits(max_recoveries=2))
    run = await server.start()
    for n in range(10):
        reader = await server.attach(run)
        while (await reader.until("input.required")).payload.input_id != f"i{n}":
            pass
        reader.close()
        await parked(server)
        if n == 5:
            await server.shut()
            await server.open()
        if n == 7:
            await server.crash()
            await server.open()
        assert (await server.send(run, InputRespond(input_id=f"i{n}", answer=n))).status == "accepted"
    events = await server.log(run)
    assert events[-1].payload.result == list(range(10))
    assert types(events).count("input.required") == 10
    assert "recovery.started" not in types(events)


@pytest.mark.parametrize("seed", range(15))
@pytest.mark.asyncio
async def test_whatever_happens_in_between_each_answer_is_acted_on_once(house: Open, seed: int) -> None:
    """Parked, answered while it is parked, restarted, killed, read and left, in any order."""
    dice = random.Random(seed)
    acted: list[int] = []

    async def body(port: Port) -> None:
        for n in range(6):
            key = f"t{n}"
            answer = await port.ask(
                approval(port, key=f"a{n}", call_id=key, seconds=SECONDS), journal=[call_record(key)]
            )
            call = port.call(key)
            if answer.decision != "approved" or (call is not None and call.state == "completed"):
                continue
            if call is None or call.attempt == 0:
                await port.record(started(port, key))
                acted.append(n)
            await port.record(completed(key))
        await port.end("done")

    server = await house(body)
    run = await server.start()
    readers, answered, killed = [], 0, 0
    while answered < 6:
        match dice.choice(["park", "park slowly", "answer", "answer", "read", "leave", "shut", "kill"]):
            case "park":
                await server.clock.advance(40)
            case "park slowly":
                await server.clock.advance(dice.choice([1, 29, 31]))
                for _ in range(dice.randrange(40)):
                    await asyncio.sleep(0)
            case "answer":
                reader = await server.attach(run)
                await reader.pull()
                waiting = [e.payload.approval_id for e in reader.events if e.type == "approval.required"]
                reader.close()
                if f"a{answered}" in waiting:
                    receipt = await server.send(run, ApprovalRespond(approval_id=f"a{answered}", decision="approve"))
                    assert (receipt.status, receipt.code) == ("accepted", None)
                    answered += 1
            case "read":
                readers.append(await server.attach(run))
            case "leave" if readers:
                readers.pop().close()
            case ("shut" | "kill") as way:
                readers.clear()
                killed += way == "kill"
                await (server.shut() if way == "shut" else server.crash())
                await server.open()
        await asyncio.sleep(0)
    events = await server.log(run)
    assert events[-1].payload.result == "done"
    assert acted == sorted(set(acted)), "a call runs once"
    assert [e.payload.decision for e in events if e.type == "approval.resolved"] == ["approved"] * 6
    assert types(events).count("approval.required") == 6
    assert types(events).count("recovery.started") <= killed


@pytest.mark.asyncio
async def test_a_crash_after_the_mark_is_a_crash(house: Open) -> None:
    """The mark says what was true when it was written, and nothing of what came after."""

    async def body(port: Port) -> None:
        await port.ask(approval(port, seconds=SECONDS), journal=[call_record()])
        if not port.recovered or port.journal[-1].kind != "note":
            await port.record(journal=[JournalRecord(kind="note", key="n", data=b"{}")])
            noted.set()
            await asyncio.Event().wait()
        await port.end("second life")

    noted = asyncio.Event()
    server = await house(body)
    run = await waits(server)
    await parked(server)
    await server.send(run, APPROVE)
    await soon(noted.wait())
    await server.crash()
    await server.open()
    events = await server.log(run)
    assert types(events).count("recovery.started") == 1
    assert events[-1].payload.result == "second life"


# -- pure


def test_the_mark_counts_only_as_the_last_thing_written() -> None:
    start = JournalRecord(kind="start", key="r", data=b"{}")
    mark = parked_record("r", 7)
    assert left_in_order([start, mark], 7)
    assert not left_in_order([start, mark], 8)
    assert not left_in_order([start, mark, start], 7)
    assert not left_in_order([start], 1)
    assert list(without_marks([start, mark, start])) == [start, start]


@pytest.mark.parametrize(
    ("live", "limits", "expected"),
    [
        (0, Limits(park_after_s=0), None),
        (0, Limits(), 30),
        (5_000, Limits(), 30),
        (7_500, Limits(), 15),
        (10_000, Limits(), 0),
        (10_001, Limits(), 0),
    ],
)
def test_patience(live: int, limits: Limits, expected: float | None) -> None:
    assert patience_s(live, limits) == expected
