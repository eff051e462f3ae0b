"""The pipeline alone: stages, orchestrator and run are fakes."""

import asyncio
from typing import Any

import pytest

from midstream import Agent, AgentLimits
from midstream.agents.journal import journal_record
from midstream.agents.pipeline.board import Board
from midstream.agents.pipeline.contract import Assignment, StageResult
from midstream.agents.pipeline.hooks import continue_failed, stop_when
from midstream.agents.pipeline.pipeline import Pipeline
from midstream.agents.planning.contract import Planning
from midstream.agents.planning.plan import Plan, sequence
from midstream.agents.records import OutcomeRecord, PlanRecord, StageEndRecord, StageRecord
from midstream.runs.contract import RunFailure, Stopping
from midstream_protocol.events import Todo
from tests.agents.kit import eventually
from tests.agents.pipeline.fakes import FakeOrchestrator, FakePort


def todo(name, *depends_on, status="pending"):
    return Todo(id=name, title=f"Do {name}", agent=name, status=status, depends_on=list(depends_on))


def spread():
    return Plan(todos=(todo("a"), todo("b", "a"), todo("c", "a"), todo("d", "b", "c")))


async def no_planner(_request, _revision):
    raise AssertionError("nothing is planned here")


class World:
    """A pipeline, and stages that answer at once, with what `answers` says, or when their `gate` is opened."""

    def __init__(
        self, plan: Plan, *, revised: Any = None, journal: Any = (), spent: bool = False, **options: Any
    ) -> None:
        self.port = FakePort()
        self.orchestrator = FakeOrchestrator(plan, revised=revised)
        self.board = Board(port=self.port, orchestrator=self.orchestrator, journal=journal)
        self.answers: dict[str, Any] = {}
        self.gates: dict[str, asyncio.Event] = {}
        self.assigned: list[Assignment] = []
        self.stopped: list[str] = []
        self.pipeline = Pipeline(
            agent=Agent("desk", instructions="x", planner=no_planner, **options),
            port=self.port,
            orchestrator=self.orchestrator,
            board=self.board,
            works=self.work,
            journal=journal,
            spent=lambda: spent,
        )

    async def work(self, assignment: Assignment) -> StageResult:
        name = assignment.todo.id
        self.assigned.append(assignment)
        try:
            if name in self.gates:
                await self.gates[name].wait()
        except asyncio.CancelledError:
            self.stopped.append(name)
            raise
        await self.board.hear(stage=assignment.stage_id, step_id=assignment.step.step_id, known=assignment.heard)
        answer = self.answers.get(name, f"{name}.")
        if isinstance(answer, StageResult | Exception):
            if isinstance(answer, Exception):
                raise answer
            return answer
        return StageResult(todo=assignment.todo, ok=True, text=answer, attempt=assignment.attempt)

    def failing(self, name: str) -> None:
        self.answers[name] = StageResult(
            todo=todo(name), ok=False, text="Half.", code="overloaded", error="Overloaded.", retryable=True
        )

    async def until_assigned(self, name: str) -> None:
        for _ in range(1000):
            if name in [each.todo.id for each in self.assigned]:
                return
            await asyncio.sleep(0)
        raise AssertionError(f"{name} never began")

    @property
    def names(self) -> list[str]:
        return [each.todo.id for each in self.assigned]

    @property
    def status(self) -> dict[str, str]:
        assert self.orchestrator.plan is not None
        return {each.id: each.status for each in self.orchestrator.plan.todos}


async def run(world: World) -> Any:
    return (await asyncio.wait_for(world.pipeline.run(), 10)).result


@pytest.mark.asyncio
async def test_the_plan_is_carried_out_in_its_order():
    world = World(spread())
    assert await run(world) == "d."
    assert world.names == ["a", "b", "c", "d"]
    marks = [mark for mark, _ in world.orchestrator.marks]
    assert marks[0] == {"a": "in_progress", "b": "pending", "c": "pending", "d": "pending"}
    # Those that begin together are told together.
    assert {"a": "completed", "b": "in_progress", "c": "in_progress", "d": "pending"} in marks
    assert marks[-1] == dict.fromkeys("abcd", "completed")
    assert world.port.open_steps == []
    assert [each.last for each in world.assigned] == [False, False, False, True]


@pytest.mark.asyncio
async def test_nothing_more_begins_when_the_run_is_to_stop():
    world = World(spread(), planning=Planning(parallel_stages=1))
    world.answers["b"] = Stopping()
    with pytest.raises(Stopping):
        await run(world)
    assert world.names == ["a", "b"]


@pytest.mark.asyncio
async def test_siblings_reach_their_end_when_the_run_is_to_stop():
    world = World(spread())
    world.gates["c"] = asyncio.Event()
    world.answers["b"] = Stopping()
    running = asyncio.ensure_future(run(world))
    await world.until_assigned("c")
    for _ in range(20):
        await asyncio.sleep(0)
    assert not running.done()
    world.gates["c"].set()
    with pytest.raises(Stopping):
        await running
    assert world.stopped == []
    assert world.status == {"a": "completed", "b": "in_progress", "c": "completed", "d": "pending"}


@pytest.mark.asyncio
async def test_nothing_begins_beside_what_still_runs_either():
    world = World(Plan(todos=(todo("a"), todo("b"), todo("c", "a"))))
    world.gates |= {"a": asyncio.Event(), "b": asyncio.Event()}
    running = asyncio.ensure_future(run(world))
    await world.until_assigned("b")
    world.gates["a"].set()
    for _ in range(3):
        await asyncio.sleep(0)
    world.port.stopping = True
    for _ in range(20):
        await asyncio.sleep(0)
    assert world.stopped == []
    world.port.stopping = False
    world.gates["b"].set()
    with pytest.raises(Stopping):
        await running
    assert world.names == ["a", "b"]
    assert world.status == {"a": "completed", "b": "completed", "c": "pending"}


@pytest.mark.parametrize("error", [ValueError("defect"), RunFailure("hook_failed", "x")])
@pytest.mark.asyncio
async def test_a_failure_stops_the_siblings_before_the_run_fails(error):
    world = World(spread())
    world.gates["c"] = asyncio.Event()
    world.answers["b"] = error
    with pytest.raises(type(error)):
        await run(world)
    assert world.stopped == ["c"]
    assert "d" not in world.names


@pytest.mark.asyncio
async def test_a_failed_stage_says_how_to_go_on():
    world = World(spread())
    world.gates["c"] = asyncio.Event()
    world.failing("b")
    with pytest.raises(RunFailure) as raised:
        await run(world)
    failure = raised.value
    assert (failure.code, failure.text, failure.retryable) == ("overloaded", "Overloaded.", True)
    assert failure.resume is not None
    assert failure.resume.run_id == "run_1"
    assert world.status["b"] == "failed"
    assert world.port.open_steps == []


@pytest.mark.asyncio
async def test_going_on_without_a_failed_stage():
    world = World(spread(), hooks=[continue_failed()])
    world.failing("b")
    assert await run(world) == "d."
    assert "[This step failed: Overloaded.]" in world.assigned[-1].brief
    world = World(Plan(todos=(todo("a"),)), hooks=[continue_failed()])
    world.failing("a")
    assert await run(world) == ""


@pytest.mark.asyncio
async def test_a_cancelled_pipeline_stops_everything_and_waits_for_it():
    world = World(spread())
    world.gates |= {"b": asyncio.Event(), "c": asyncio.Event()}
    running = asyncio.ensure_future(run(world))
    await world.until_assigned("c")
    await world.until_assigned("b")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert sorted(world.stopped) == ["b", "c"]


@pytest.mark.asyncio
async def test_stopping_early_leaves_the_rest_out():
    world = World(spread(), hooks=[stop_when(lambda result, _plan: result.todo.id == "b")])
    world.gates["c"] = asyncio.Event()
    assert await run(world) == "b."
    assert world.stopped == ["c"]
    assert world.status == {"a": "completed", "b": "completed", "c": "skipped", "d": "skipped"}
    assert world.orchestrator.marks[-1][1] == "finished"


# -- corrections


@pytest.mark.asyncio
async def test_a_correction_after_everything_gets_a_step_of_its_own():
    world = World(sequence([("One", "a"), ("Two", "b")]))
    assert await run(world) == "todo_2."
    world.port.add("c1", mode="when_idle")
    piped = await world.pipeline.go_on()
    assert piped.result == "todo_3."
    assert world.names == ["todo_1", "todo_2", "todo_3"]
    follow_up = world.assigned[-1]
    assert (follow_up.todo.title, follow_up.todo.agent) == ("Follow the correction: c1!", "b")
    assert follow_up.todo.depends_on == ["todo_2"]
    assert "c1!" in follow_up.brief
    assert "todo_2." in follow_up.brief
    assert follow_up.heard == ("c1",)
    # One that was withdrawn meanwhile is no reason to do anything.
    assert (await world.pipeline.go_on()).result == "todo_3."
    assert len(world.assigned) == 3


@pytest.mark.asyncio
async def test_a_correction_after_everything_may_make_the_plan_anew():
    def more(plan: Plan) -> Plan:
        return Plan(todos=(*plan.todos, todo("x", "todo_1")))

    world = World(sequence([("One", "a")]), revised=more)
    await run(world)
    world.port.add("c1", replan=True)
    assert (await world.pipeline.go_on()).result == "x."
    assert world.orchestrator.revisions == [(["c1"], {"todo_1": "todo_1."})]
    assert world.names == ["todo_1", "x"]


@pytest.mark.asyncio
async def test_one_for_which_no_plan_comes_is_followed_all_the_same():
    world = World(sequence([("One", "a")]))
    await run(world)
    world.port.add("c1", replan=True)
    assert (await world.pipeline.go_on()).result == "todo_2."
    assert world.assigned[-1].todo.title == "Follow the correction: c1!"


@pytest.mark.asyncio
async def test_with_no_turns_left_it_says_so():
    world = World(sequence([("One", "a")]), spent=True)
    piped = await world.pipeline.run()
    assert piped.spent
    world.port.add("c1")
    assert (await world.pipeline.go_on()).result == "todo_1."
    assert len(world.assigned) == 1


@pytest.mark.asyncio
async def test_no_stage_begins_while_the_plan_is_made_anew_and_running_ones_go_on():
    def without_d(plan: Plan) -> Plan:
        return Plan(todos=(*(each for each in plan.todos if each.id != "d"), todo("e", "b", "c")))

    world = World(spread(), revised=without_d)
    world.gates |= {"b": asyncio.Event(), "c": asyncio.Event()}
    world.orchestrator.thinking.clear()
    running = asyncio.ensure_future(run(world))
    await world.until_assigned("c")
    world.port.add("c1", mode="now", replan=True)
    world.gates["b"].set()
    world.gates["c"].set()
    for _ in range(50):
        await asyncio.sleep(0)
    assert world.status == {"a": "completed", "b": "completed", "c": "completed", "d": "pending"}
    assert world.names == ["a", "b", "c"]
    world.orchestrator.thinking.set()
    assert await running == "e."
    assert world.names == ["a", "b", "c", "e"]
    assert world.assigned[-1].heard == ("c1",)


@pytest.mark.asyncio
async def test_a_running_stage_that_the_new_plan_drops_is_stopped():
    def without_b(plan: Plan) -> Plan:
        return plan.marked("b", "skipped").marked("d", "skipped")

    world = World(spread(), revised=without_b)
    world.gates |= {"b": asyncio.Event(), "c": asyncio.Event()}
    running = asyncio.ensure_future(run(world))
    await world.until_assigned("c")
    world.port.add("c1", mode="now", replan=True)
    await eventually(lambda: world.stopped and len(world.port.open_steps) == 1)
    assert world.stopped == ["b"]
    assert [step.todo_id for step in world.port.open_steps] == ["c"]
    world.gates["c"].set()
    assert await running == "c."


# -- from the journal


def stage(name, *, attempt=1):
    record = StageRecord(todo_id=name, agent=name, attempt=attempt, step_id="s", brief=f"Brief of {name}.")
    return journal_record("stage", f"st_{name}{attempt}", record)


def end(name, verdict="", *, attempt=1, **fields):
    record = StageEndRecord(ok=True, text=f"{name} before.", verdict=verdict, **fields)
    return journal_record("stage_end", f"st_{name}{attempt}", record)


@pytest.mark.parametrize(
    ("journal", "done"),
    [
        ([], [("a", 1), ("b", 1)]),
        ([stage("a")], [("a", 1), ("b", 1)]),
        ([stage("a"), end("a")], [("b", 1)]),
        ([stage("a"), end("a"), end("a", "go")], [("b", 1)]),
        ([stage("a"), end("a"), end("a", "retry", why="again")], [("a", 2), ("b", 1)]),
        ([stage("a"), end("a"), end("a", "retry", why="again"), stage("a", attempt=2)], [("a", 2), ("b", 1)]),
        ([stage("a"), end("a", "finish", result="early")], []),
    ],
)
@pytest.mark.asyncio
async def test_it_goes_on_where_the_journal_ends(journal, done):
    world = World(Plan(todos=(todo("a", status="in_progress"), todo("b", "a"))), journal=journal)
    result = await run(world)
    assert [(each.todo.id, each.attempt) for each in world.assigned] == done
    assert result == ("b." if done else "early")
    briefs = [each.brief for each in world.assigned]
    if len(journal) == 1:
        assert briefs[0] == "Brief of a."
    if done and done[0][0] == "b":
        assert "a before." in briefs[0]
    if done and done[0] == ("a", 2):
        assert briefs[0] == "Brief of a." if len(journal) == 4 else "again" in briefs[0]


@pytest.mark.asyncio
async def test_an_abort_that_was_decided_still_ends_the_run():
    journal = [stage("a"), end("a", "abort", why="Enough.")]
    world = World(Plan(todos=(todo("a", status="in_progress"), todo("b", "a"))), journal=journal)
    with pytest.raises(RunFailure, match="Enough"):
        await run(world)
    assert world.assigned == []


@pytest.mark.asyncio
async def test_a_run_that_stopped_early_stays_so_until_something_is_said():
    journal = [stage("a"), end("a", "finish", result="early")]
    plan = Plan(todos=(todo("a", status="completed"), todo("b", "a", status="skipped")))
    world = World(plan, journal=journal)
    assert await run(world) == "early"
    assert (await world.pipeline.go_on()).result == "early"
    world.port.add("c1")
    assert (await world.pipeline.go_on()).result == "todo_3."
    assert world.names == ["todo_3"]


@pytest.mark.asyncio
async def test_what_everything_came_to_is_not_made_again():
    journal = [stage("a"), end("a", "go"), journal_record("outcome", "", OutcomeRecord(result={"joined": 1}))]
    world = World(Plan(todos=(todo("a", status="completed"),)), journal=journal)
    assert await run(world) == {"joined": 1}
    assert world.port.journal == []


@pytest.mark.asyncio
async def test_but_what_was_done_since_counts():
    plans = [journal_record("plan", str(n), PlanRecord(todos=())) for n in range(2)]
    outcome = journal_record("outcome", "", OutcomeRecord(result="old"))
    journal = [plans[0], stage("a"), end("a", "go"), outcome, plans[1], stage("b"), end("b", "go")]
    world = World(Plan(todos=(todo("a", status="completed"), todo("b", "a", status="completed"))), journal=journal)
    assert await run(world) == "b before."


@pytest.mark.asyncio
async def test_what_a_stage_is_given_is_bounded():
    limits = AgentLimits(max_outcome_chars=1000)
    world = World(sequence([("One", "a"), ("Two", "b")]), limits=limits)
    world.answers["todo_1"] = "x" * 100_000
    await run(world)
    assert len(world.assigned[1].brief) < 2000
