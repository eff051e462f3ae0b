"""Ended runs are compacted, and deleted, when it is time; and a compacted run answers as before."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream.log import Record, SqliteStore
from midstream.runs import Limits, Port
from midstream.runs.keys import namespace
from midstream.runs.retention import COMPACTED, ENDED, Ended, due
from midstream.testing import ManualClock
from midstream_protocol.commands import (
    ApprovalRespond,
    ClientTool,
    CommandPayload,
    CorrectionRevoke,
    InputRespond,
    ResumeFrom,
    RunCancel,
    RunCorrect,
    ToolResult,
)
from midstream_protocol.events import UsageUpdated
from midstream_protocol.view import view_to_builtins
from tests.runs.conftest import Open
from tests.runs.house import House, types
from tests.runs.say import approval, call_record, completed, for_ever, question, requested, speak, started, step
from tests.runs.simple import ME

SPACE = namespace(ME.id)


async def eventful(port: Port) -> None:
    """One of each thing that a late command may be about."""
    if port.start.input == "wait":
        await for_ever(port)
    if port.start.input == "ask":
        await port.ask(question(port, seconds=9999))
    await port.record(step())
    await speak(port, "word " * 100)
    await port.ask(approval(port), journal=[call_record()])
    await port.record(started(port))
    await port.record(completed())
    await port.ask(question(port))
    await port.ask(requested(port, call_id="t2"))
    await port.record(step("completed"))
    if port.start.input == "fail":
        raise RuntimeError
    await port.end({"said": len(await port.history())}, return_corrections=True)


LATE: list[CommandPayload] = [
    RunCancel(),
    RunCancel(tool_call_id="t1"),
    RunCancel(tool_call_id="none"),
    RunCorrect(text="x"),
    CorrectionRevoke(correction_id="none"),
    ApprovalRespond(approval_id="a1", decision="deny"),
    ApprovalRespond(approval_id="i1", decision="deny"),
    InputRespond(input_id="i1", answer="x"),
    InputRespond(input_id="none", answer="x"),
    ToolResult(tool_call_id="t2", ok=True, result=1),
    ToolResult(tool_call_id="t1", ok=True, result=1),
]


async def lived(server: House, text: str = "go", **fields: object) -> str:
    """An eventful run that has ended."""
    run = await server.start(text, client_tools=[ClientTool(name="edit", description="")], **fields)
    reader = await server.attach(run)
    await server.send(run, RunCorrect(text="faster", mode="when_idle"), command_id=f"{run}-c1")
    await reader.until("approval.required")
    await server.send(run, ApprovalRespond(approval_id="a1", decision="approve"), command_id=f"{run}-k1")
    await reader.until("input.required")
    await server.send(run, InputRespond(input_id="i1", answer="x"))
    await reader.until("tool.requested")
    await server.send(run, ToolResult(tool_call_id="t2", ok=True, result="r"))
    await reader.all()
    reader.close()
    return run


async def trimmed(server: House, run: str) -> bool:
    """Whether the run's events are gone."""
    reader = await server.attach(run)
    reader.close()
    reset = reader.attachment.reset
    return reset is not None and reset.reason == "trimmed"


async def passes(server: House, seconds: float, *, until: Callable[[], Awaitable[bool]] | None = None) -> None:
    """Time, and whatever is done in it. A store of threads answers in real time: `until` something is seen."""
    for _ in range(4):
        await server.clock.advance(seconds / 4)
    for _ in range(5000):
        await asyncio.sleep(0.001)
        await server.clock.advance(0.05)
        if until is None or await until():
            return
    pytest.fail("it was not done in time")


async def compacted(server: House, seconds: float, *runs: str) -> None:
    """Time, in which these runs are compacted."""

    async def done() -> bool:
        return {r.id.partition(".")[2] for r in await server.store.records.list(COMPACTED)} >= {
            f"{SPACE}.{run}" for run in runs
        }

    await passes(server, seconds, until=done)


async def kept(server: House, *runs: str, seconds: float) -> None:
    """Time, in which all but these runs are deleted."""

    async def done() -> bool:
        return {each.view.run_id for each in (await server.registry.list_runs(ME))[0]} == set(runs)

    await passes(server, seconds, until=done)


@pytest.mark.asyncio
async def test_a_compacted_run_answers_as_before(house: Open) -> None:
    server = await house(eventful, limits=Limits(compact_after_s=100))
    run, twin = await lived(server, thread_id="t"), await lived(server, thread_id="u")
    before = await server.log(run)
    receipts = [await server.send(twin, payload) for payload in LATE]
    view = view_to_builtins(await server.registry.view(ME, run))
    events = len(before)
    await passes(server, 50)
    assert not await trimmed(server, run)
    for life in range(2):
        await compacted(server, 200, run, twin)
        assert view_to_builtins(await server.registry.view(ME, run)) == view
        found, _ = await server.registry.list_runs(ME)
        assert {each.view.run_id for each in found} == {twin, run}
        for seq in range(events + 2):
            reader = await server.attach(run, since_seq=seq)
            reset = reader.attachment.reset
            if seq in (events - 1, events):
                assert reset is None
                assert await reader.all() == before[seq:]
            else:
                assert reset is not None
                assert (reset.reason, reset.snapshot, reset.snapshot_seq) == (
                    "trimmed" if seq < events else "ahead",
                    view,
                    events,
                )
                assert await reader.all() == []
            reader.close()
        assert (await server.send(run, CorrectionRevoke(correction_id=f"{run}-c1"))).code == "already_applied"
        again = [await server.send(run, payload, command_id=f"{life}-{n}") for n, payload in enumerate(LATE)]
        # `i1` and the like are the same in both runs, but what was closed when is not always.
        assert [(r.status, r.code, r.resolution, r.thread_id) for r in again] == [
            (r.status, r.code, r.resolution, r.thread_id) for r in receipts
        ]
        known = await server.send(run, ApprovalRespond(approval_id="a1", decision="approve"), command_id=f"{run}-k1")
        assert known.status == "accepted"
        await server.crash()
        await server.open()
    further = await lived(server, thread_id="t")
    assert (await server.log(further))[-1].payload.result == {"said": 1}


@pytest.mark.asyncio
async def test_a_failed_run_can_be_resumed_although_it_was_compacted(house: Open) -> None:
    server = await house(eventful, limits=Limits(compact_after_s=100))
    run = await lived(server, "fail")
    await compacted(server, 200, run)
    assert await trimmed(server, run)
    server.body = for_ever
    again = await server.start(resume=ResumeFrom(run_id=run), text="more")
    assert (await server.registry.view(ME, again)).status == "running"


@pytest.mark.asyncio
async def test_a_start_that_is_sent_again_finds_the_compacted_run(house: Open) -> None:
    server = await house(eventful, limits=Limits(compact_after_s=100))
    run = await lived(server, run_id="mine")
    await compacted(server, 200, run)
    assert await server.start("go", client_tools=[ClientTool(name="edit", description="")], run_id="mine") == run


@pytest.mark.asyncio
async def test_a_run_that_is_read_is_compacted_later(house: Open) -> None:
    server = await house(eventful, limits=Limits(compact_after_s=100))
    run = await lived(server)
    reader = await server.attach(run)
    await passes(server, 200)
    assert types(await reader.all())[-1] == "run.completed"
    reader.close()
    await compacted(server, 100, run)
    assert await trimmed(server, run)


@pytest.mark.asyncio
async def test_only_runs_whose_time_is_over_are_deleted(house: Open) -> None:
    server = await house(eventful, limits=Limits(run_ttl_s=1000, compact_after_s=300, run_deadline_s=0))
    old = await lived(server)
    waiting = await server.start("ask", thread_id="t")
    running = await server.start("wait")
    queued = await server.start("x", thread_id="t", if_busy="queue")
    await compacted(server, 600, old)
    young = await lived(server)
    await kept(server, young, queued, running, waiting, seconds=600)
    await compacted(server, 0, young)
    assert await server.store.log.load(f"{SPACE}.{old}") is None
    assert [r.id.partition(".")[2] for r in await server.store.records.list(COMPACTED)] == [f"{SPACE}.{young}"]
    assert not [r for r in await server.store.records.list(ENDED) if r.id.endswith(old)]


@pytest.mark.asyncio
async def test_a_damaged_run_does_not_keep_the_others(house: Open) -> None:
    server = await house(eventful, limits=Limits(run_ttl_s=100))
    runs = [await lived(server, thread_id=f"t{n}") for n in range(20)]
    erase, seen = server.registry._erasing._erase, set()

    async def fails(ended: Ended) -> None:
        if ended.run_id == runs[0] and ended.run_id not in seen:
            seen.add(ended.run_id)
            raise RuntimeError
        await erase(ended)

    server.registry._erasing._erase = fails  # type: ignore[method-assign]
    await kept(server, runs[0], seconds=150)
    await kept(server, seconds=70)


@pytest.mark.asyncio
async def test_the_id_of_a_run_that_is_due_may_be_another_runs_by_now(house: Open) -> None:
    server = await house(eventful, limits=Limits(run_ttl_s=100))
    run = await lived(server, run_id="mine")
    record = (await server.store.records.list(ENDED))[0]
    await server.registry.delete(ME, run)
    await server.clock.advance(1)
    await server.start("wait", run_id="mine")
    await server.store.records.put(ENDED, record.id, record.data)

    async def crossed_out() -> bool:
        return not await server.store.records.list(ENDED)

    await passes(server, 200, until=crossed_out)
    assert (await server.registry.view(ME, "mine")).status == "running"


@pytest.mark.asyncio
async def test_the_file_shrinks_when_a_run_is_compacted(tmp_path: Path, clock: ManualClock) -> None:
    async def body(port: Port) -> None:
        for n in range(3000):
            await port.emit(
                UsageUpdated(input_tokens=n, output_tokens=0, cached_input_tokens=0, total_tokens=n, by_model={})
            )
        await port.end(None)

    path = tmp_path / "log.db"
    limits = Limits(compact_after_s=100)
    server = await House(SqliteStore(path, clock=clock), body, clock=clock, limits=limits).open()
    run = await server.start()
    await server.log(run)
    await server.shut()
    full = path.stat().st_size
    await server.open()
    await compacted(server, 200, run)
    shrinking = server.registry._erasing._shrinking
    assert shrinking is not None
    while not shrinking.done():
        await server.clock.advance(1)
    await server.aclose()
    assert path.stat().st_size < full / 4


# -- pure


@given(
    ages=st.lists(st.integers(0, 400), max_size=12),
    split=st.integers(0, 12),
    ttl=st.sampled_from([0, 100, 200]),
    after=st.sampled_from([0, 50, 150, 300]),
)
def test_what_is_due(ages: list[int], split: int, ttl: int, after: int) -> None:
    now_ms = 10_000_000
    records = [
        Record(id=each.id, version=1, data=msgspec.json.encode(each))
        for n, age in enumerate(sorted(ages, reverse=True))
        for each in [
            Ended(space="s", run_id=f"r{n}", thread_id="t", created_ms=0, ended_ms=now_ms - age * 1000),
        ]
    ]
    compacted, whole = records[:split], records[split:]
    limits = Limits(run_ttl_s=ttl, compact_after_s=after)
    found = {each.ended.run_id: each.what for each in due(whole, compacted, limits=limits, now_ms=now_ms)}
    for record in records:
        ended = msgspec.json.decode(record.data, type=Ended)
        age = (now_ms - ended.ended_ms) / 1000
        if ttl and age >= ttl:
            assert found.pop(ended.run_id) == "delete"
        elif after and age >= after and record in whole:
            assert found.pop(ended.run_id) == "compact"
    assert found == {}
