"""A correction at every point of a planned run is applied or returned, and then heard by whatever still works."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from midstream import Agent, tool
from midstream.agents.planning.contract import ProposedTodo
from midstream.testing import PlayedRun
from midstream_protocol.commands import RunCorrect
from tests.agents.kit import check_log
from tests.agents.pipeline.kit import Model, desk, echo, follow, said_to, statuses, todos, working

WORD = "In French, please."
TEN = [f"s{n}" for n in range(1, 11)]
NEEDS = {name: set(TEN[:place]) for place, name in enumerate(TEN)} | {
    "begin": set(),
    **{name: {"begin"} for name in ("left", "middle", "right")},
    "end": {"begin", "left", "middle", "right"},
}
"""Which stages are over before each begins."""

MODES = ["next_step", "now", "when_idle"]


@tool(idempotent=True)
async def look() -> str:
    """Look."""
    return "seen"


def looking(request):
    """Whoever has a tool calls it twice, and then says something."""
    return [("look", {})] if request.turn < 2 and request.tools else echo(request)


def side_by_side(**options):
    middle = ("left", "middle", "right")
    plan = todos("begin", *middle, "end", begin=[], **{name: ["begin"] for name in middle}, end=list(middle))
    return desk(plan, tools={"left": [look], "right": [look]}, **options)


async def at_every_point(
    agent: Agent, correction: RunCorrect, check: Callable[[PlayedRun, Model], Any], *, step: int = 1
) -> int:
    """Play the run with the correction after each of its events in turn. At how many it came before the end."""
    for at in itertools.count(1, step):
        async with working(agent, looking) as (run, model, _):
            acted = await follow(run, at=at, act=lambda run=run: run.command(correction))
            assert run.events[-1].type == "run.completed", at
            check_log(run)
            accepted = [p.correction_id for p in run.of_type("correction.accepted")]
            settled = [*run.of_type("correction.applied"), *run.of_type("correction.returned")]
            assert [p.correction_id for p in settled] == accepted, at
            if run.of_type("correction.applied"):
                check(run, model)
            if not acted:
                return at
    raise AssertionError


def heard_from_then_on(_run: PlayedRun, model: Model) -> None:
    """Whoever has heard it hears it in every later call, and whoever begins after that hears it from the start."""
    hears = [(request.agent, WORD in said_to(request)) for request in model.requests]
    assert hears[-1][1]
    of = {name: [heard for each, heard in hears if each == name] for name, _ in hears}
    assert all(heard == sorted(heard) for heard in of.values())
    # Those side by side with the one that took it may have been asked already.
    first = next(name for name, heard in hears if heard)
    after = [name for name in of if NEEDS[name] >= {first}]
    assert all(all(of[name]) for name in after)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.asyncio
async def test_at_every_point_of_ten_stages(mode):
    def check(run, model):
        heard_from_then_on(run, model)
        assert set(statuses(run).values()) == {"completed"}
        assert set(TEN) <= {request.agent for request in model.requests}

    points = await at_every_point(desk(todos(*TEN)), RunCorrect(text=WORD, mode=mode), check)
    assert points > 100


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.asyncio
async def test_at_every_point_of_three_side_by_side(mode):
    def check(run, model):
        heard_from_then_on(run, model)
        assert set(statuses(run).values()) == {"completed"}

    assert await at_every_point(side_by_side(), RunCorrect(text=WORD, mode=mode), check) > 70


def one_more(revision):
    rest = [
        ProposedTodo(id=todo.id, title=todo.title, agent=todo.agent, depends_on=todo.depends_on)
        for todo in revision.plan.todos
        if todo.status in ("pending", "in_progress")
    ]
    return [*rest, ProposedTodo(id="more", title="More", agent="end", depends_on=[todo.id for todo in rest])]


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.asyncio
async def test_at_every_point_with_a_new_plan(mode):
    def check(run, model):
        assert WORD in said_to(model.requests[-1])
        [applied] = run.of_type("correction.applied")
        assert applied.replanned
        updated = [p for p in run.of_type("plan.updated") if p.correction_id]
        assert [p.correction_id for p in updated] == [applied.correction_id]
        assert "more" in statuses(run)
        assert set(statuses(run).values()) == {"completed"}

    correction = RunCorrect(text=WORD, mode=mode, replan=True)
    assert await at_every_point(side_by_side(revised=one_more), correction, check) > 70
