"""The board: a correction is taken once, and heard by everybody."""

import asyncio

import pytest

from midstream.agents.journal import journal_record
from midstream.agents.pipeline.board import Board
from midstream.agents.planning.contract import Correction
from midstream.agents.planning.plan import sequence
from midstream.agents.records import PlanRecord, StageRecord, TurnRecord
from midstream.runs.contract import CorrectionRecord, Stopping
from tests.agents.pipeline.fakes import FakeOrchestrator, FakePort


def board(port, plan=None, journal=()):
    return Board(port=port, orchestrator=FakeOrchestrator(plan), journal=journal)


def ids(corrections):
    return [each.correction_id for each in corrections]


@pytest.mark.asyncio
async def test_taken_once_and_heard_by_all():
    port = FakePort()
    its = board(port)
    its.enter("a")
    its.enter("b")
    port.add("c1")
    assert ids(await its.hear(stage="a", step_id="step_a", known=())) == ["c1"]
    port.add("c2")
    assert ids(await its.hear(stage="b", step_id="step_b", known=())) == ["c1", "c2"]
    assert ids(await its.hear(stage="a", step_id="step_a", known={"c1"})) == ["c2"]
    assert port.taken == [("c1", "step_a", False), ("c2", "step_b", False)]
    assert its.unheard == []


@pytest.mark.asyncio
async def test_two_at_the_same_time_take_it_once():
    port = FakePort()
    its = board(port)
    port.add("c1")
    port.slow.clear()
    both = [asyncio.ensure_future(its.hear(stage=name, step_id=f"step_{name}", known=())) for name in ("a", "b")]
    await asyncio.sleep(0)
    port.slow.set()
    assert [ids(heard) for heard in await asyncio.gather(*both)] == [["c1"], ["c1"]]
    assert len(port.taken) == 1


@pytest.mark.asyncio
async def test_one_who_is_stopped_while_taking_it_loses_nothing():
    port = FakePort()
    its = board(port)
    port.add("c1", replan=True)
    port.slow.clear()
    taking = asyncio.ensure_future(its.hear(stage="a", step_id="step_a", known=()))
    for _ in range(3):
        await asyncio.sleep(0)
    taking.cancel()
    port.slow.set()
    with pytest.raises(asyncio.CancelledError):
        await taking
    assert ids(its.corrections) == ["c1"]
    assert ids(its.unheard) == ["c1"]


@pytest.mark.asyncio
async def test_what_waits_for_idleness_waits_for_the_last_one():
    port = FakePort()
    plan = sequence([("One", "a"), ("Two", "b")])
    orchestrator = FakeOrchestrator(plan.marked("todo_1", "in_progress"))
    its = Board(port=port, orchestrator=orchestrator, journal=())
    its.enter("a")
    port.add("c1", mode="when_idle")
    assert await its.hear(stage="a", step_id="s", known=(), ending=True) == []
    orchestrator.plan = plan.marked_all(["todo_1", "todo_2"], "in_progress")
    its.enter("b")
    assert await its.hear(stage="a", step_id="s", known=(), ending=True) == []
    its.leave("b")
    assert await its.hear(stage="a", step_id="s", known=()) == []
    assert ids(await its.hear(stage="a", step_id="s", known=(), ending=True)) == ["c1"]


@pytest.mark.asyncio
async def test_one_that_replans_is_owed_to_the_plan():
    port = FakePort()
    its = board(port, sequence([("One", "a")]))
    port.add("c1")
    assert not its.replan_due
    port.add("c2", replan=True)
    assert its.replan_due
    await its.hear(stage="a", step_id="s", known=())
    assert port.taken == [("c1", "s", False), ("c2", "s", True)]
    assert its.news.is_set()
    assert its.owes
    assert its.take_owed() == [Correction(correction_id="c2", text="c2!", replanned=True)]
    assert not its.owes


@pytest.mark.asyncio
async def test_without_a_plan_nothing_is_planned_anew():
    port = FakePort()
    its = board(port)
    port.add("c1", replan=True)
    assert not its.replan_due
    await its.hear(stage="", step_id="s", known=())
    assert port.taken == [("c1", "s", False)]


@pytest.mark.asyncio
async def test_a_run_that_stops_takes_nothing():
    port = FakePort()
    its = board(port)
    port.add("c1")
    port.stopping = True
    with pytest.raises(Stopping):
        await its.hear(stage="a", step_id="s", known=())
    assert port.taken == []


def test_what_the_journal_has():
    def taken(key, *, replanned=False):
        return journal_record("correction", key, CorrectionRecord(text=key, message_id="m", replanned=replanned))

    brief = StageRecord(todo_id="t", agent="a", attempt=1, step_id="s", brief="x", heard=("c1",))
    journal = [
        taken("c1"),
        journal_record("stage", "st", brief),
        taken("c2", replanned=True),
        journal_record("plan", "2", PlanRecord(todos=(), corrections=("c2",))),
        journal_record("turn", "m1", TurnRecord(stop_reason="end_turn", stage="st", heard=("c2",))),
        taken("c3", replanned=True),
        taken("c4"),
    ]
    its = board(FakePort(), sequence([("One", "a")]), journal)
    assert ids(its.corrections) == ["c1", "c2", "c3", "c4"]
    assert ids(its.unheard) == ["c3", "c4"]
    assert ids(its.take_owed()) == ["c3"]
