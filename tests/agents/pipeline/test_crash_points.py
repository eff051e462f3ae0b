"""The server dies between any two events of a planned run: the same plan, no stage done twice, and a proper end."""

from collections import Counter

import pytest

from midstream import tool
from midstream.agents.pipeline.hooks import note, retry_failed
from midstream.agents.planning.contract import ProposedTodo
from midstream.agents.providers.contract import ModelDenied
from midstream_protocol.commands import ResumeFrom, RunCorrect
from tests.agents.kit import check_log
from tests.agents.pipeline.kit import desk, echo, follow, said_to, stages, statuses, todos, working

WORD = "In French, please."


@tool(idempotent=True)
async def look() -> str:
    """Look."""
    return "seen"


def looking(request):
    """Whoever has a tool calls it once, and then says something."""
    return [("look", {})] if request.turn == 0 and request.tools else echo(request)


def three(**options):
    return desk(todos("a", "b", "c"), tools={"a": [look], "c": [look]}, **options)


def spread(**options):
    plan = todos("begin", "left", "right", "end", begin=[], left=["begin"], right=["begin"], end=["left", "right"])
    return desk(plan, tools={"left": [look], "right": [look]}, **options)


async def length(agent, answer) -> int:
    async with working(agent, answer) as (run, _model, _):
        await run.ended()
        return len(run.events)


@pytest.mark.slow
@pytest.mark.parametrize("make", [three, spread])
@pytest.mark.asyncio
async def test_between_any_two_events(make):
    agent = make(hooks=[note(lambda result: f"noted {result.todo.id}")])
    for at in range(1, await length(agent, looking)):
        async with working(agent, looking) as (run, model, _):
            assert await follow(run, at=at, act=run.crash), at
            assert run.events[-1].type == "run.completed", at
            check_log(run)
            assert len(run.of_type("plan.created")) == 1, at
            assert set(statuses(run).values()) == {"completed"}, at
            # What was completed is not done again.
            completed = Counter(todo for todo, state, _attempt in stages(run) if state == "completed")
            assert set(completed.values()) == {1}, at
            asked = Counter((request.agent, request.turn) for request in model.requests)
            assert sum(asked.values()) - len(asked) <= 2, at
            last = said_to(model.requests[-1])
            assert "noted a" in last or "noted left" in last, at
            assert last.count("You are on step") == 1, at


@pytest.mark.asyncio
async def test_while_a_stage_is_tried_again():
    def answer(request):
        if request.agent == "b" and "has to be done again" not in said_to(request):
            return ModelDenied("Not now.")
        return echo(request)

    agent = desk(todos("a", "b", "c"), hooks=[retry_failed(1)])
    for at in range(1, await length(agent, answer)):
        async with working(agent, answer) as (run, model, _):
            await follow(run, at=at, act=run.crash)
            assert run.events[-1].type == "run.completed", at
            check_log(run)
            assert max(attempt or 1 for _, _, attempt in stages(run)) == 2, at
            assert set(statuses(run).values()) == {"completed"}, at
            assert "It failed: Not now." in said_to(model.of("b")[-1]), at


def one_more(revision):
    rest = [
        ProposedTodo(id=todo.id, title=todo.title, agent=todo.agent, depends_on=todo.depends_on)
        for todo in revision.plan.todos
        if todo.status in ("pending", "in_progress")
    ]
    return [*rest, ProposedTodo(id="more", title="More", agent="end", depends_on=[todo.id for todo in rest])]


@pytest.mark.slow
@pytest.mark.parametrize("replan", [False, True])
@pytest.mark.parametrize("begin", [3, 12, 24, 36, 48])
@pytest.mark.asyncio
async def test_soon_after_a_correction(replan, begin):
    agent = spread(revised=one_more)
    correction = RunCorrect(text=WORD, mode="next_step", replan=replan or None)
    for after in range(0, 14, 2):
        async with working(agent, looking) as (run, model, _):
            while len(run.events) < begin:
                await run._more("an event")
            await run.command(correction)
            await follow(run, at=begin + after, act=run.crash)
            assert run.events[-1].type == "run.completed", after
            check_log(run)
            [applied] = run.of_type("correction.applied")
            assert WORD in said_to(model.requests[-1]), after
            assert applied.replanned == replan
            assert set(statuses(run).values()) == {"completed"}, after
            updated = {p.correction_id for p in run.of_type("plan.updated") if p.correction_id}
            assert updated == ({applied.correction_id} if replan else set()), after
            assert ("more" in statuses(run)) == replan


@pytest.mark.slow
@pytest.mark.asyncio
async def test_a_failed_run_is_gone_on_with_from_its_failed_stage():
    at, acted = 0, True
    while acted:
        at += 1
        acted = await gone_on_with(crash_at=at)
    assert at > 30


async def gone_on_with(*, crash_at):
    """Whether the crash came before the end."""
    broken = True

    def answer(request):
        return ModelDenied("Not now.") if broken and request.agent == "b" else looking(request)

    async with working(three(), answer, input="Compare them.") as (first, model, stage):
        await first.until("plan.created")
        await first.correct(WORD)
        failed = (await first.ended()).payload
        assert failed.completed == ["Do a", "look: Look"]
        broken = False
        run = await stage.start("Once more.", resume=ResumeFrom(run_id=failed.resume.run_id))
        acted = await follow(run, at=crash_at, act=run.crash)
        assert run.events[-1].type == "run.completed", crash_at
        check_log(run)
        [created] = run.of_type("plan.created")
        assert [todo.status for todo in created.todos] == ["completed", "pending", "pending"]
        assert {todo for todo, _, _ in stages(run)} == {"b", "c"}
        told = said_to(model.of("b")[-1])
        # What was asked is all there, once, and so is what was done.
        for said in ("Compare them.", WORD, "Once more.", "## Do a\n\na did it."):
            assert told.count(said) == 1, (crash_at, said)
        assert len(model.of("a")) == 2
    return acted


@pytest.mark.asyncio
async def test_going_on_may_fail_and_be_gone_on_with_again():
    broken = {"b", "c"}

    def answer(request):
        return ModelDenied("Not now.") if request.agent in broken else echo(request)

    async with working(three(), answer, input="Compare them.") as (first, model, stage):
        await first.ended()
        broken = {"c"}
        second = await stage.start("Again.", resume=ResumeFrom(run_id=first.run_id))
        failed = (await second.ended()).payload
        assert (failed.code, failed.resume.run_id) == ("model_denied", second.run_id)
        broken = set()
        third = await stage.start("Again!", resume=ResumeFrom(run_id=second.run_id))
        assert await third.result() == "c did it. "
        assert [len(model.of(name)) for name in "abc"] == [1, 2, 2]
        told = said_to(model.of("c")[-1])
        assert "Compare them.\nAgain.\nAgain!" in told
        assert "## Do b\n\nb did it." in told
        check_log(third)
