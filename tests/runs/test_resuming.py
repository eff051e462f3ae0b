"""Going on with a run that failed: in a new run of its thread, by its agent, with its journal at hand."""

import asyncio
from typing import Any

import msgspec
import pytest

from midstream.log import JournalRecord, LogUnavailable
from midstream.runs import Port, Principal, RunFailure
from midstream.runs.contract import GO_ON
from midstream_protocol.commands import Command, ResumeFrom, RunCancel, RunStart
from midstream_protocol.events import PlanCreated, Resume, Todo
from midstream_protocol.frames import Receipt
from tests.runs.conftest import Open
from tests.runs.house import House, soon
from tests.runs.simple import ME

pytestmark = pytest.mark.asyncio


class Desk:
    """Fails the first time, after a note in its journal; a run that resumes it ends with that note."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self, port: Port) -> None:
        await self.go.wait()
        before = await port.resumed()
        if before is not None:
            notes = [msgspec.json.decode(record.data) for record in before if record.kind == "note"]
            await port.end({"notes": notes, "input": port.start.input, "resume": port.start.resume})
        elif port.start.input == "fine":
            await port.end("ok")
        else:
            note = JournalRecord(kind="note", key="n", data=msgspec.json.encode(f"done for {port.start.input}"))
            todo = Todo(id="t1", title="Read", agent="a", status="completed")
            await port.record(PlanCreated(todos=[todo]), journal=[note])
            resume = Resume(text="Go on.", run_id=port.start.run_id)
            raise RunFailure("model_error", "The model is gone.", retryable=True, resume=resume)


def resuming(run_id: str, *, command_id: str = "k", **fields: Any) -> Command:
    payload = RunStart(resume=ResumeFrom(run_id=run_id), **fields)
    return Command(type=RunStart.TYPE, command_id=command_id, payload=payload)


async def ask(server: House, command: Command, who: Principal = ME) -> Receipt:
    receipt = await soon(server.registry.start(who, command, client_id=None))
    assert isinstance(receipt, Receipt)
    return receipt


async def failed(server: House, text: str = "work", **fields: Any) -> str:
    run = await server.start(text, **fields)
    assert (await server.log(run))[-1].type in {"run.failed", "run.cancelled"}
    return run


async def test_a_failed_run_is_gone_on_with_in_a_new_run_of_its_thread(house: Open) -> None:
    server = await house(Desk())
    run = await failed(server, thread_id="t")
    end = (await server.log(run))[-1].payload
    assert (end.resume, end.completed) == (Resume(text="Go on.", run_id=run), ["Read"])
    command = resuming(end.resume.run_id)
    receipt = await ask(server, command)
    assert (receipt.status, receipt.as_, receipt.thread_id) == ("accepted", "started", "t")
    assert receipt.run_id != run
    events = await server.log(str(receipt.run_id))
    assert events[-1].payload.result == {"notes": ["done for work"], "input": GO_ON, "resume": run}
    assert (events[1].payload.role, events[1].payload.text) == ("user", GO_ON)
    # Once, however often it is asked, also by a server that knows nothing but its log.
    assert await ask(server, command) == receipt
    await server.shut()
    await server.open()
    assert await ask(server, command) == receipt
    assert (await server.registry.thread(ME, "t")).runs == (run, receipt.run_id)


async def test_it_may_be_told_what_to_do_besides(house: Open) -> None:
    server = await house(Desk())
    run = await failed(server)
    receipt = await ask(server, resuming(run, input="shorter", agent="a", limits=None))
    assert (await server.log(str(receipt.run_id)))[-1].payload.result["input"] == "shorter"


async def test_a_cancelled_run_can_be_gone_on_with(house: Open) -> None:
    desk = Desk()
    desk.go.clear()
    server = await house(desk)
    run = await server.start("work")
    await server.send(run, RunCancel())
    await server.log(run)
    desk.go.set()
    receipt = await ask(server, resuming(run))
    assert (await server.log(str(receipt.run_id)))[-1].payload.result["resume"] == run


async def test_a_crash_forgets_nothing_of_it(house: Open) -> None:
    desk = Desk()
    server = await house(desk)
    run = await failed(server)
    desk.go.clear()
    receipt = await ask(server, resuming(run))
    await server.crash()
    desk.go.set()
    await server.open()
    assert (await server.log(str(receipt.run_id)))[-1].payload.result["notes"] == ["done for work"]


async def test_what_cannot_be_gone_on_with_is_refused(house: Open) -> None:
    desk = Desk()
    server = await house(desk)
    run = await failed(server, thread_id="t")
    fine = await server.start("fine")
    await server.log(fine)
    desk.go.clear()
    going = await server.start("work")
    for command, code, word in (
        (resuming("nothing"), "not_found", "no such run"),
        (resuming(fine), "conflict", "has completed"),
        (resuming(going), "conflict", "has not ended"),
        (resuming(run, thread_id="u"), "conflict", "another thread"),
        (resuming(run, agent="b"), "conflict", "another agent"),
    ):
        refused = await ask(server, command)
        assert (refused.status, refused.code) == ("rejected", code)
        assert word in (refused.text or "")
    theirs = await ask(server, resuming(run), who=Principal(id="other", name="other"))
    assert theirs.code == "not_found"
    # Nothing was made of any of it: the id is free.
    assert (await ask(server, resuming(run, thread_id="t", agent="a"))).status == "accepted"


async def test_it_is_a_start_like_any_other(house: Open) -> None:
    desk = Desk()
    server = await house(desk)
    run = await failed(server, thread_id="t")
    desk.go.clear()
    other = await server.start("work", thread_id="t")
    assert (await ask(server, resuming(run))).code == "busy"
    correct = await ask(server, resuming(run, input="x", if_busy="correct"))
    assert (correct.code, "resume" in (correct.text or "")) == ("conflict", True)
    queued = await ask(server, resuming(run, if_busy="queue"))
    assert (queued.as_, queued.thread_id) == ("queued", "t")
    changed = await ask(server, resuming(other, command_id="k", if_busy="queue"))
    assert changed.code == "conflict"
    desk.go.set()
    await server.log(other)
    assert (await server.log(str(queued.run_id)))[-1].payload.result["resume"] == run


async def test_a_run_that_resumes_none_has_none(house: Open) -> None:
    async def body(port: Port) -> None:
        await port.end([await port.resumed(), port.start.resume])

    server = await house(body)
    run = await server.start()
    assert (await server.log(run))[-1].payload.result == [None, None]


async def test_a_journal_that_cannot_be_read_fails_the_run_and_says_so(house: Open) -> None:
    desk = Desk()
    server = await house(desk)
    run = await failed(server)
    desk.go.clear()
    receipt = await ask(server, resuming(run))
    server.held.broken_reads = LogUnavailable("disk")
    desk.go.set()
    await server.registry._living.settled(next(iter(server.registry._living.actors)))
    server.held.broken_reads = None
    end = (await server.log(str(receipt.run_id)))[-1].payload
    assert (end.code, end.retryable) == ("unavailable", True)
