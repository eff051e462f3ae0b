"""Whole planned runs: who works when, what each is told, what is shown, and what it comes to."""

import asyncio
from dataclasses import dataclass

import pytest

from midstream import AgentLimits, tool
from midstream.agents.pipeline.contract import Abort, Finish, Go, Retry
from midstream.agents.pipeline.hooks import continue_failed, note, retry_failed, stop_when, validated
from midstream.agents.planning.contract import Allow, Planning, ProposedTodo, Stop
from midstream.agents.providers.contract import BadModelRequest
from midstream_protocol.commands import RunCorrect, RunLimits
from tests.agents.kit import check_log, texts
from tests.agents.pipeline.kit import Model, desk, echo, said_to, stages, statuses, todos, working

SPREAD = {"begin": [], "left": ["begin"], "right": ["begin"], "end": ["left", "right"]}


def spread(**options):
    """One, then two side by side, then one."""
    return desk(todos("begin", "left", "right", "end", **SPREAD), **options)


@tool(idempotent=True)
async def look(at: str = "it") -> str:
    """Look."""
    return f"seen {at}"


@pytest.mark.asyncio
async def test_one_after_the_other_each_with_its_brief():
    async with working(desk(todos("research", "writing"))) as (run, model, _):
        assert await run.result() == "writing did it. "
        assert stages(run) == [
            ("research", "started", None),
            ("research", "completed", None),
            ("writing", "started", None),
            ("writing", "completed", None),
        ]
        assert statuses(run) == {"research": "completed", "writing": "completed"}
        [first, second] = model.requests
        assert first.system == "You do research."
        assert (first.agent, first.turn) == ("research", 0)
        assert "You are on step 1 of 2: Do research" in said_to(first)
        assert "1. Do research (research; done)" in said_to(second)
        assert "## Do research\n\nresearch did it." in said_to(second)
        # A stage has its own conversation: what another said is in the brief, and nowhere else.
        assert [who for who, _ in texts(second.messages)] == ["user"]
        shown = [p.text for p in run.of_type("run.status")]
        assert shown[-2:] == ["Step 1 of 2: Do research", "Step 2 of 2: Do writing"]
        check_log(run)


@pytest.mark.asyncio
async def test_turns_stand_in_the_step_of_their_stage():
    def answer(request):
        return [("look", {})] if request.turn == 0 else "Done."

    async with working(desk(todos("research"), tools={"research": [look]}), answer) as (run, _, _stage):
        await run.result()
        steps = [e.payload for e in run.events if e.type == "run.step" and e.payload.state == "started"]
        [plan, stage, *turns] = steps
        assert (plan.kind, stage.kind, stage.todo_id, stage.index, stage.of) == ("plan", "stage", "research", 1, 1)
        assert [(turn.kind, turn.parent_step_id) for turn in turns] == [("turn", stage.step_id)] * 2
        started = next(e for e in run.events if e.type == "tool.started")
        assert started.step_id == turns[0].step_id


@pytest.mark.asyncio
async def test_independent_ones_work_side_by_side():
    model = Model(echo)
    model.hold = {"left": asyncio.Event(), "right": asyncio.Event()}
    async with working(spread(), model) as (run, _, _stage):
        await model.was_asked("left")
        await model.was_asked("right")
        assert not model.of("end")
        model.hold["right"].set()
        await run.until("run.step", lambda p: p.todo_id == "right" and p.state == "completed")
        assert not model.of("end")
        model.hold["left"].set()
        assert await run.result() == "end did it. "
        told = said_to(model.of("end")[0])
        assert "## Do left\n\nleft did it." in told
        assert "## Do right\n\nright did it." in told
        assert "begin did it." not in told
        # Their events are told apart by their steps.
        step_of = {p.step_id: p.todo_id for p in run.of_type("run.step") if p.kind == "stage"}
        parent = {p.step_id: step_of[p.parent_step_id] for p in run.of_type("run.step") if p.kind == "turn"}
        messages = {e.payload.agent: parent[e.step_id] for e in run.events if e.type == "message.started"}
        assert messages == {name: name for name in ("begin", "left", "right", "end")}
        check_log(run)


@pytest.mark.asyncio
async def test_no_more_than_allowed_at_the_same_time():
    names = ["a", "b", "c", "d", "e"]
    plan = todos(*names, **dict.fromkeys(names, ()))
    running = most = 0

    class Counting(Model):
        async def stream(self, request):
            nonlocal running, most
            running += 1
            most = max(most, running)
            try:
                await asyncio.sleep(0)
                async for event in super().stream(request):
                    yield event
            finally:
                running -= 1

    plan[0] = ProposedTodo(id="a", title="A", agent="a", depends_on=[])
    agent = desk(plan, planning=Planning(parallel_stages=2))
    async with working(agent, Counting(echo)) as (run, _, _stage):
        await run.result()
        assert most == 2
        assert set(statuses(run).values()) == {"completed"}


# -- hooks


@pytest.mark.asyncio
async def test_a_stage_is_done_again_until_it_is_right():
    def answer(request):
        if request.agent != "research":
            return echo(request)
        return "With sources." if "no sources" in said_to(request) else "Without."

    hooks = [validated(lambda result: "no sources" if result.text == "Without. " else None)]
    async with working(desk(todos("research", "writing"), hooks=hooks), answer) as (run, model, _):
        await run.result()
        assert stages(run)[:4] == [
            ("research", "started", None),
            ("research", "completed", None),
            ("research", "started", 2),
            ("research", "completed", 2),
        ]
        assert "has to be done again:\nno sources" in said_to(model.of("research")[1])
        assert "With sources." in said_to(model.of("writing")[0])
        assert "Without." not in said_to(model.of("writing")[0])


@pytest.mark.asyncio
async def test_a_stage_that_is_never_right_ends_the_run():
    hooks = [validated(lambda _: "no sources")]
    agent = desk(todos("research", "writing"), hooks=hooks, limits=AgentLimits(max_stage_attempts=2))
    async with working(agent) as (run, model, _):
        failed = (await run.ended()).payload
        assert (failed.code, failed.text) == ("stage_failed", "no sources")
        assert len(model.of("research")) == 2
        assert statuses(run) == {"research": "failed", "writing": "skipped"}
        check_log(run)


@pytest.mark.asyncio
async def test_a_note_is_told_to_what_comes_after():
    hooks = [note(lambda result: f"heard of {result.todo.id}" if result.todo.id == "a" else None)]
    async with working(desk(todos("a", "b", "c"), hooks=hooks)) as (run, model, _):
        await run.result()
        assert "heard of a" not in said_to(model.of("a")[0])
        assert "heard of a" in said_to(model.of("b")[0])
        assert "heard of a" in said_to(model.of("c")[0])


@pytest.mark.asyncio
async def test_stopping_early():
    model = Model(echo)
    model.hold = {"right": asyncio.Event()}
    hooks = [stop_when(lambda result, _plan: result.todo.id == "left")]
    async with working(spread(hooks=hooks), model) as (run, _, _stage):
        assert await run.result() == "left did it. "
        assert statuses(run) == {"begin": "completed", "left": "completed", "right": "skipped", "end": "skipped"}
        assert not model.of("end")
        check_log(run)


@pytest.mark.asyncio
async def test_without_a_hook_a_failed_stage_ends_the_run():
    model = Model(lambda request: BadModelRequest("No such thing.") if request.agent == "left" else echo(request))
    model.hold = {"right": asyncio.Event()}
    async with working(spread(), model) as (run, _, _stage):
        failed = (await run.ended()).payload
        assert (failed.code, failed.text, failed.completed) == ("model_bad_request", "No such thing.", ["Do begin"])
        assert statuses(run)["left"] == "failed"
        assert failed.resume.run_id == run.run_id
        assert "step 2 of 4, “Do left”" in failed.resume.text
        left = next(p for p in run.of_type("run.step") if p.todo_id == "left")
        assert failed.resume.step_id == left.step_id
        assert not model.of("end")
        check_log(run)


@pytest.mark.parametrize("hooks", [[retry_failed(1), continue_failed()], [continue_failed("left"), retry_failed(1)]])
@pytest.mark.asyncio
async def test_trying_again_and_going_on_without(hooks):
    def answer(request):
        return BadModelRequest("No such thing.") if request.agent == "left" else echo(request)

    async with working(spread(hooks=hooks), answer) as (run, model, _):
        assert await run.result() == "end did it. "
        assert len(model.of("left")) == 2
        assert "[This step failed: No such thing.]" in said_to(model.of("end")[0])
        assert statuses(run)["left"] == "failed"
        check_log(run)


@pytest.mark.asyncio
async def test_hooks_may_say_anything():
    said = {"a": Go(note="n"), "b": Retry("again"), "c": Abort("That is enough.")}
    asked = []

    async def hook(result, plan):
        asked.append((result.todo.id, result.attempt, plan.todo(result.todo.id).status))
        return said[result.todo.id] if result.attempt == 1 else None

    async with working(desk(todos("a", "b", "c", "d"), hooks=[hook])) as (run, _model, _):
        failed = (await run.ended()).payload
        assert (failed.code, failed.text) == ("stage_failed", "That is enough.")
        assert asked == [
            ("a", 1, "in_progress"),
            ("b", 1, "in_progress"),
            ("b", 2, "in_progress"),
            ("c", 1, "in_progress"),
        ]


@pytest.mark.parametrize("bad", [ValueError("canary-hidden"), "go"])
@pytest.mark.asyncio
async def test_a_hook_that_breaks_fails_the_run_without_its_words(bad):
    async def hook(_result, _plan):
        if isinstance(bad, Exception):
            raise bad
        return bad

    async with working(desk(todos("a", "b"), hooks=[hook])) as (run, _, _stage):
        failed = (await run.ended()).payload
        assert (failed.code, failed.text) == ("hook_failed", "A check after this step failed.")
        assert failed.resume is not None
        check_log(run)


# -- what it comes to


@pytest.mark.asyncio
async def test_several_ends_are_joined():
    plan = todos("a", "b", a=[], b=[])
    async with working(desk(plan)) as (run, _, _stage):
        assert await run.result() == "## Do a\n\na did it. \n\n## Do b\n\nb did it. "

    async def join(results, _plan):
        return {result.todo.id: result.text.strip() for result in results}

    async with working(desk(plan, join=join)) as (run, _, _stage):
        assert await run.result() == {"a": "a did it.", "b": "b did it."}
    async with working(spread(join=join)) as (run, model, _stage):
        assert await run.result() == "end did it. "
        assert '{"left":"left did it.","right":"right did it."}' in said_to(model.of("end")[0])


@pytest.mark.asyncio
async def test_a_join_that_breaks():
    async def join(_results, _plan):
        raise KeyError("canary-hidden")

    async with working(desk(todos("a", "b", a=[], b=[]), join=join)) as (run, _, _stage):
        failed = (await run.ended()).payload
        assert (failed.code, failed.text) == ("join_failed", "The results could not be put together.")
        assert failed.resume.text == "Start a run with this `resume`: it goes on with what its steps came to."
        check_log(run)


@dataclass
class Verdict:
    best: str
    score: int


@pytest.mark.asyncio
async def test_a_specialist_with_a_typed_answer():
    def answer(request):
        if request.agent != "judge":
            return echo(request)
        if request.turn == 0:
            return "It is X!"
        return 'Of course: {"best": "X", "score": 3}'

    async with working(desk(todos("judge"), agents={"judge": {"output": Verdict}}), answer) as (run, model, _):
        assert await run.result() == {"best": "X", "score": 3}
        assert '"score"' in model.requests[0].system
        assert "JSON" in said_to(model.requests[1])
        [recovered] = run.of_type("recovery.started")
        assert (recovered.kind, recovered.attempt, recovered.max_attempts) == ("validation", 1, 3)
        # What the run does is told again, for a recovery is over with that.
        assert [p.text for p in run.of_type("run.status")][1:] == ["Step 1 of 1: Do judge"] * 2
        check_log(run)


@pytest.mark.asyncio
async def test_the_typed_answer_of_the_whole_run():
    def answer(request):
        if request.must_call:
            return [(request.must_call, {"best": "Y", "score": 1})]
        return echo(request)

    async with working(desk(todos("a", "b"), output=Verdict), answer) as (run, model, _):
        assert await run.result() == {"best": "Y", "score": 1}
        assert "score" not in model.of("b")[0].system
        check_log(run)


@pytest.mark.asyncio
async def test_only_the_last_answer_streams():
    def answer(request):
        return [("look", {})] if request.turn == 0 and request.tools else echo(request)

    agent = spread(stream="final", tools={"left": [look]})
    async with working(agent, answer) as (run, _, _stage):
        assert await run.result() == "end did it. "
        assert run.text == "end did it. "
        assert [p.agent for p in run.of_type("message.started")] == ["end"]
        assert len(run.of_type("tool.started")) == 1
        assert len(run.of_type("tool.completed")) == 1
        assert run.of_type("tool.preparing") == []
        assert len([p for p in run.of_type("run.step") if p.kind == "stage"]) == 8
        check_log(run)


# -- limits


@pytest.mark.asyncio
async def test_the_callers_limit_of_calls_is_the_whole_runs():
    def answer(request):
        return [("look", {})] if request.turn < 2 else echo(request)

    twice = [ProposedTodo(id="one", title="One", agent="a"), ProposedTodo(id="two", title="Two", agent="a")]
    async with working(desk(twice, tools={"a": [look]}), answer) as (first, _, stage):
        await first.result()
        run = await stage.start("x", limits=RunLimits(max_tool_calls=3))
        await run.result()
        assert len(run.of_type("tool.completed")) == 3
        assert [p.code for p in run.of_type("tool.failed")] == ["budget_exhausted"]
        assert [(p.kind, p.attempt) for p in run.of_type("recovery.started")] == [("tool_limit", 1)]
        check_log(run)


@pytest.mark.asyncio
async def test_the_callers_limit_of_turns_is_the_whole_runs():
    async with working(desk(todos("a", "b", "c"))) as (first, _, stage):
        await first.result()
        run = await stage.start("x", limits=RunLimits(max_turns=2))
        failed = (await run.ended()).payload
        assert failed.code == "turn_limit"
        assert failed.completed == ["Do a", "Do b"]
        assert failed.resume is not None
        check_log(run)


@pytest.mark.asyncio
async def test_a_tool_of_another_specialist_is_not_run():
    ran = []

    @tool(idempotent=True)
    async def pay() -> str:
        ran.append(1)
        return "paid"

    def answer(request):
        return [("pay", {})] if request.turn == 0 else echo(request)

    async with working(desk(todos("a", "b"), tools={"b": [pay]}), answer) as (run, model, _):
        await run.result()
        assert ran == [1]
        assert [p.code for p in run.of_type("tool.failed")] == ["unknown_tool"]
        assert [t.name for t in model.of("a")[0].tools] == []
        check_log(run)


# -- corrections


@pytest.mark.asyncio
async def test_all_that_run_hear_it_and_it_is_applied_once():
    gate = asyncio.Event()

    @tool(idempotent=True)
    async def wait() -> str:
        await gate.wait()
        return "waited"

    def answer(request):
        return (
            [("wait" if request.agent == "left" else "look", {})]
            if request.turn == 0 and request.tools
            else echo(request)
        )

    model = Model(answer)
    async with working(spread(tools={"left": [wait], "right": [look]}), model) as (run, _, _stage):
        await run.until("tool.started", lambda p: p.tool == "wait")
        await run.correct("In French.")
        gate.set()
        await run.result()
        [applied] = run.of_type("correction.applied")
        for name in ("left", "end"):
            assert "In French." in said_to(model.of(name)[-1])
        assert "In French." not in said_to(model.of("left")[0])
        assert not applied.replanned
        check_log(run)


@pytest.mark.asyncio
async def test_a_new_plan_stops_the_stage_that_it_drops():
    waits, stopped = asyncio.Event(), asyncio.Event()

    @tool
    async def wait() -> str:
        waits.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            stopped.set()
            raise
        return "never"

    def answer(request):
        return [("wait", {})] if request.agent == "left" else echo(request)

    def revised(revision):
        assert [todo.status for todo in revision.plan.todos] == ["completed", "in_progress", "completed", "pending"]
        assert revision.outcomes == {"begin": "begin did it. ", "right": "right did it. "}
        return [ProposedTodo(id="new", title="New", agent="end", depends_on=["right"])]

    async with working(spread(tools={"left": [wait]}, revised=revised), answer) as (run, model, _):
        await run.until("run.step", lambda p: p.todo_id == "right" and p.state == "completed")
        await run.until("plan.updated")
        await asyncio.wait_for(waits.wait(), 10)
        receipt = await run.command(RunCorrect(text="Not the left one.", mode="now", replan=True))
        assert await run.result() == "end did it. "
        assert stopped.is_set()
        updated = [p for p in run.of_type("plan.updated") if p.correction_id]
        assert [p.correction_id for p in updated] == [receipt.command_id]
        assert {todo: status for todo, status in statuses(run).items() if todo != "new"} == {
            "begin": "completed",
            "right": "completed",
            "left": "skipped",
        }
        assert "Not the left one." in said_to(model.of("end")[0])
        check_log(run)


@pytest.mark.asyncio
async def test_one_that_comes_when_all_is_done_gets_a_step_of_its_own():
    model = Model(echo)
    async with working(desk(todos("a", "b")), model) as (run, _, _stage):
        model.hold = {"b": asyncio.Event()}
        await model.was_asked("b")
        await run.correct("And shorter.", mode="when_idle")
        model.hold["b"].set()
        assert await run.result() == "b did it. "
        assert "And shorter." in said_to(model.of("b")[-1])
        check_log(run)


# -- stopping


@pytest.mark.parametrize("mode", ["now", "after_step"])
@pytest.mark.asyncio
async def test_cancelling(mode):
    model = Model(echo)
    model.hold = {"left": asyncio.Event(), "right": asyncio.Event()}
    async with working(spread(), model) as (run, _, _stage):
        await model.was_asked("left")
        await model.was_asked("right")
        await run.cancel(mode=mode)
        for held in model.hold.values():
            held.set()
        assert (await run.ended()).type == "run.cancelled"
        assert not model.of("end")
        check_log(run)


@pytest.mark.asyncio
async def test_a_restart_in_order_goes_on_where_it_was():
    model = Model(echo)
    model.hold = {"left": asyncio.Event(), "right": asyncio.Event()}
    async with working(spread(), model) as (run, _, _stage):
        await model.was_asked("left")
        await model.was_asked("right")
        restarting = asyncio.ensure_future(run.restart())
        await asyncio.sleep(0)
        for held in model.hold.values():
            held.set()
        await restarting
        assert await run.result() == "end did it. "
        assert {name: len(model.of(name)) for name in ("begin", "end")} == {"begin": 1, "end": 1}
        assert len(run.of_type("plan.created")) == 1
        check_log(run)


# -- guardrails in a race


@pytest.mark.parametrize("allowed", [True, False])
@pytest.mark.asyncio
async def test_in_a_race_nothing_leaves_before_the_verdict(allowed):
    verdict = asyncio.Event()
    ran = []

    async def guard(_request):
        await verdict.wait()
        return Allow() if allowed else Stop("Not that.")

    @tool(idempotent=True)
    async def act() -> str:
        ran.append(1)
        return "acted"

    def answer(request):
        return [("act", {})] if request.turn == 0 and request.tools else echo(request)

    agent = desk(
        todos("a", "b"),
        tools={"a": [act]},
        guardrails=[guard],
        planning=Planning(guardrail_mode="race"),
        stream="final",
    )
    model = Model(answer)
    async with working(agent, model) as (run, _, _stage):
        await model.was_asked("a")
        for _ in range(50):
            await asyncio.sleep(0)
        await run.until("plan.created")
        assert ran == []
        assert run.of_type("message.started") == []
        verdict.set()
        if allowed:
            assert await run.result() == "b did it. "
            assert ran == [1]
        else:
            failed = (await run.ended()).payload
            assert (failed.code, failed.text) == ("guardrail", "Not that.")
            assert ran == []
            assert run.of_type("message.delta") == []
            assert run.of_type("tool.started") == []
            assert [p.reason for p in run.of_type("guardrail.triggered")] == ["Not that."]
        check_log(run)


# -- threads


@pytest.mark.asyncio
async def test_the_next_run_of_the_thread_knows_what_this_one_came_to():
    async with working(desk(todos("a", "b"))) as (first, model, stage):
        await first.result()
        second = await stage.start("And now?", thread_id=first.events[0].payload.thread_id)
        await second.result()
        assert texts(model.of("a")[-1].messages)[:2] == [("user", "Go."), ("assistant", "b did it. ")]
        check_log(second)


@pytest.mark.asyncio
async def test_finish_and_its_result_in_a_hook():
    async def hook(result, _plan):
        return Finish({"stopped at": result.todo.id})

    async with working(desk(todos("a", "b"), hooks=[hook])) as (run, _, _stage):
        assert await run.result() == {"stopped at": "a"}
