"""A plan made anew for a correction, while the work goes on."""

from typing import Any

import msgspec
import pytest

from midstream.agents.asking import Question
from midstream.agents.conversation import Text, UserMessage
from midstream.agents.planning.contract import Correction, ProposedTodo, Request, Revision
from midstream.agents.planning.orchestrator import Orchestrator
from midstream.agents.planning.plan import Plan
from midstream.agents.planning.progress import unrevised
from midstream.agents.records import PlanRecord
from midstream.tasks import spawn, stop
from tests.agents.planning.fakes import (
    ALLOW,
    PLAN,
    TITLE,
    After,
    FakeAsks,
    FakePort,
    desk,
    never,
    orchestrated,
    prose,
    turns,
)

CORRECTION = Correction(correction_id="c_1", text="In French, please.", replanned=True)


async def working(port: FakePort, *answers: Any, **options: Any) -> tuple[Orchestrator, FakeAsks]:
    """A plan whose first step runs, and a planner that answers next what is given."""
    asks = FakeAsks(planner=[PLAN, *answers], titler=TITLE, scope=ALLOW)
    orchestrator = orchestrated(desk(**options), port, asks)
    await orchestrator.prepare()
    await orchestrator.finish()
    assert orchestrator.plan is not None
    await orchestrator.mark(orchestrator.plan.marked("find", "in_progress"))
    return orchestrator, asks


def states(plan: Plan | None) -> list[tuple[str, str]]:
    assert plan is not None
    return [(todo.id, todo.status) for todo in plan.todos]


def records(port: FakePort) -> list[PlanRecord]:
    return [msgspec.json.decode(r.data, type=PlanRecord) for r in port.written if r.kind == "plan"]


@pytest.mark.asyncio
async def test_the_new_plan_says_which_correction_it_is_for():
    port = FakePort()
    new = {"todos": [{"id": "find", "title": "Find the prices"}, {"title": "Write it in French", "agent": "writing"}]}
    orchestrator, asks = await working(port, new)
    earlier = Correction(correction_id="c_0", text="Shorter.", replanned=True)
    plan = await orchestrator.revise([earlier, CORRECTION], outcomes={"find": "12 shops"})
    assert plan == orchestrator.plan
    assert states(plan) == [("find", "in_progress"), ("todo_2", "pending")]
    updated = port.of_type("plan.updated")[-1]
    assert (updated.reason, updated.correction_id) == ("correction", "c_1")
    assert updated.todos == list(plan.todos)
    assert records(port)[-1].corrections == ("c_0", "c_1")
    # The record, the event and the end of its step are one write.
    assert [payload.TYPE for payload in port.batches[-1][0]] == ["plan.updated", "run.step"]
    told = asks.asked[-1].messages[-1]
    assert isinstance(told, UserMessage)
    said = "\n".join(part.text for part in told.parts if isinstance(part, Text))
    assert '"id":"write"' in said
    assert "find came to: 12 shops" in said
    assert "Shorter.\nIn French, please." in said


@pytest.mark.asyncio
async def test_what_ends_while_the_planner_thinks_stays_ended():
    port, answer = FakePort(), After({"todos": [{"title": "Draw it", "agent": "writing"}]})
    orchestrator, _ = await working(port, answer)
    revising = spawn(orchestrator.revise([CORRECTION], outcomes={}), name="test")
    await turns()
    await orchestrator.mark(orchestrator.plan.marked("find", "completed"))
    answer.let.set()
    assert states(await revising) == [("find", "completed"), ("todo_1", "pending")]
    # "write" was dropped before it began; its id is never given again.
    assert [todo.id for todo in port.of_type("plan.updated")[-1].todos] == ["find", "todo_1"]


@pytest.mark.asyncio
async def test_a_running_todo_that_is_dropped_is_skipped():
    orchestrator, _ = await working(FakePort(), {"todos": [{"title": "Draw it", "agent": "writing"}]})
    assert states(await orchestrator.revise([CORRECTION], outcomes={})) == [("find", "skipped"), ("todo_1", "pending")]


@pytest.mark.asyncio
async def test_an_id_that_a_dropped_todo_had_is_not_given_to_other_work():
    first, second = {"todos": ["Draw it"]}, {"todos": [{"id": "write", "title": "Sing it"}]}
    orchestrator, _ = await working(FakePort(), first, second)
    await orchestrator.revise([CORRECTION], outcomes={})
    assert "write" not in [todo.id for todo in (await orchestrator.revise([CORRECTION], outcomes={})).todos]


@pytest.mark.parametrize(
    "answer", [prose("No."), {"todos": []}, {"todos": [{"title": "A", "agent": "x"}]}, RuntimeError("hunter2"), never]
)
@pytest.mark.asyncio
async def test_a_revision_that_fails_keeps_the_plan_and_is_settled(answer: Any):
    port = FakePort()
    orchestrator, _ = await working(port, answer, plan_timeout_s=5)
    before = orchestrator.plan
    revising = spawn(orchestrator.revise([CORRECTION], outcomes={}), name="test")
    await turns()
    await port.clock.advance(5)
    assert await revising is None
    assert orchestrator.plan == before
    [notice] = port.of_type("notice")
    assert notice.code == "replan_failed"
    assert "hunter2" not in notice.text
    assert records(port)[-1] == PlanRecord(todos=before.todos, corrections=("c_1",), asked=records(port)[-1].asked)
    assert unrevised(port.written) == []
    assert port.of_type("run.step")[-1].state == "failed"


@pytest.mark.asyncio
async def test_a_revision_is_mended_once_too():
    orchestrator, asks = await working(FakePort(), prose("No."), {"todos": ["Draw it"]})
    assert [todo.title for todo in (await orchestrator.revise([CORRECTION], outcomes={})).todos][-1] == "Draw it"
    assert [question.turn for question in asks.asked if question.agent == "planner"] == [0, 1, 2]


@pytest.mark.asyncio
async def test_a_planner_function_is_told_what_there_is():
    seen: list[Revision | None] = []

    async def planner(_request: Request, revision: Revision | None) -> list[ProposedTodo]:
        seen.append(revision)
        return [ProposedTodo(title="A" if revision is None else "B")]

    port = FakePort()
    orchestrator = orchestrated(desk(planner=planner), port, FakeAsks(titler=TITLE, scope=ALLOW))
    await orchestrator.prepare()
    await orchestrator.revise([CORRECTION], outcomes={"todo_1": "x"})
    assert seen[1] == Revision(
        corrections=("In French, please.",), plan=Plan(todos=records(port)[0].todos), outcomes={"todo_1": "x"}
    )
    await orchestrator.aclose()


@pytest.mark.asyncio
async def test_leaving_stops_the_planner():
    orchestrator, asks = await working(FakePort(), never)
    revising = spawn(orchestrator.revise([CORRECTION], outcomes={}), name="test")
    await turns()
    assert asks.open == {"planner"}
    await stop(revising)
    assert asks.open == set()


@pytest.mark.asyncio
async def test_plans_are_written_in_the_order_in_which_they_became_current():
    port = FakePort()
    orchestrator, _ = await working(port)
    write, waits = port.record, [30, 10, 0]

    async def record(*payloads: Any, **given: Any) -> int:
        await turns(waits.pop(0))
        return await write(*payloads, **given)

    port.record = record  # type: ignore[method-assign]
    marking = []
    for todo_id, status in (("find", "completed"), ("write", "in_progress"), ("write", "completed")):
        marking.append(spawn(orchestrator.mark(orchestrator.plan.marked(todo_id, status)), name="test"))  # type: ignore[arg-type]
        await turns(1)
    for task in marking:
        await task
    shown = [[todo.status for todo in each.todos] for each in port.of_type("plan.updated")][-3:]
    assert shown == [["completed", "pending"], ["completed", "in_progress"], ["completed", "completed"]]


@pytest.mark.parametrize(
    ("policy", "asked", "otherwise"),
    [
        ("asked", True, False),
        ("always", True, True),
        ("never", False, False),
        (lambda text, plan: "French" in text and len(plan.todos) == 2, True, True),
        (lambda text, plan: False, True, False),
        (lambda text, plan: text.missing, True, False),
    ],
)
@pytest.mark.asyncio
async def test_which_corrections_make_the_plan_anew(policy: Any, asked: bool, otherwise: bool):
    orchestrator, _ = await working(FakePort(), replan=policy)
    assert orchestrator.replans("In French", asked=True) is asked
    assert orchestrator.replans("In French", asked=False) is otherwise


@pytest.mark.asyncio
async def test_before_there_is_a_plan_nothing_is_made_anew():
    asks = FakeAsks(planner=PLAN, titler=TITLE, scope=ALLOW)
    assert not orchestrated(desk(replan="always"), FakePort(), asks).replans("Now", asked=True)


@pytest.mark.asyncio
async def test_a_long_outcome_is_told_in_short():
    seen: list[Question] = []

    async def answer(question: Question) -> Any:
        seen.append(question)
        return {"todos": ["Draw it"]}

    orchestrator, _ = await working(FakePort(), answer)
    await orchestrator.revise([CORRECTION], outcomes={"find": "x" * 100_000})
    assert len(str(seen[0].messages)) < 5_000
