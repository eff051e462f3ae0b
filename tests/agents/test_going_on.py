"""What follows from a failure outside of a plan, and questions asked by a turn that was tried again."""

import pytest

from midstream import Agent, tool
from midstream.agents.rules import AgentRules
from midstream.testing import ManualClock, staged
from midstream_protocol.commands import ResumeFrom
from tests.agents.kit import Watched, acting, agent, check_log, eventually, texts


@pytest.mark.asyncio
async def test_a_run_without_a_plan_that_failed_is_gone_on_with():
    script = [
        {"steps": [{"text": "Half of it."}, {"stop_reason": "pause_turn"}]},
        {"steps": [{"error": "model_denied"}]},
    ]
    clock = ManualClock()
    model = Watched([*script, "The rest."], clock)
    async with staged(agent(), model, clock=clock) as stage:
        first = await stage.start("Tell me all.")
        failed = (await first.ended()).payload
        assert failed.code == "model_denied"
        assert failed.resume.run_id == first.run_id
        again = await stage.start(None, resume=ResumeFrom(run_id=failed.resume.run_id))
        await again.ended()
        said = texts(model.requests[-1].messages)
        assert said[:2] == [("user", "Tell me all."), ("assistant", "Half of it.")]
        check_log(again, ended=False)


@tool(approval="always")
async def send(to: str) -> str:
    """Send something."""
    return f"sent to {to}"


@pytest.mark.asyncio
async def test_a_stage_that_waits_after_a_retried_turn_is_known_to_wait():
    """In the store, too: a restart must not take it for work that was lost."""
    script = {
        "agents": {
            "planner": {"turns": [{"steps": [{"answer": {"todos": [{"title": "Send it"}]}}]}]},
            "desk": {
                "turns": [
                    {
                        "steps": [
                            {"error": {"type": "overloaded", "times": 1}},
                            {"call": {"tool": "send", "args": {"to": "A"}}},
                        ]
                    },
                    {"steps": [{"text": "Sent."}]},
                ]
            },
        },
        "turns": [{"steps": [{"text": "?"}]}],
    }
    desk = Agent("desk", instructions="x", tools=[send], planner=Agent("planner", instructions="x"))
    clock = ManualClock()
    async with staged(desk, Watched(script, clock), clock=clock) as stage:
        run = await stage.start("Go.")
        await run.until("recovery.started")
        await clock.advance(5)
        await run.until("approval.required")
        [actor] = stage.registry._living.actors.values()
        await eventually(lambda: actor._state.log_status() == "waiting")
        await run.approve()
        assert await run.result() == "Sent."
        check_log(run)


@pytest.mark.asyncio
async def test_a_turn_that_failed_for_good_is_closed_before_its_stage():
    script = {
        "agents": {
            "planner": {"turns": [{"steps": [{"answer": {"todos": [{"title": "Send it"}]}}]}]},
            "desk": {"turns": [{"steps": [{"text": "Well"}, {"error": "model_denied"}]}]},
        },
        "turns": [{"steps": [{"text": "?"}]}],
    }
    desk = Agent("desk", instructions="x", planner=Agent("planner", instructions="x"))
    async with acting(desk, script) as (run, _, _stage):
        await run.ended()
        closed = [p.kind for p in run.of_type("run.step") if p.state == "failed"]
        assert closed == ["turn", "stage"]


def test_no_client_takes_the_name_of_the_reading_tool():
    rules = AgentRules(tools={}, steerable=True)
    assert rules.is_server_tool("read_result")
    assert not rules.is_server_tool("open_file")


@pytest.mark.asyncio
async def test_the_simpler_question_still_says_who_is_asked_and_for_what():
    script = [*(["No form."] * 3), {"match": {"must_call": "answer"}, "steps": [{"answer": {"value": [1]}}]}]
    async with acting(agent(output=list[int]), script, input="Count the trams.") as (run, model, _):
        assert await run.result() == [1]
        simpler = model.requests[-1]
        assert simpler.must_call is not None
        assert simpler.system.startswith("Be brief.")
        assert [text for _, text in texts(simpler.messages)] == ["Count the trams. | The answer:\nNo form."]


def planned(*turns: object) -> dict[str, object]:
    return {
        "agents": {
            "planner": {"turns": [{"steps": [{"answer": {"todos": [{"title": "Do it"}]}}]}]},
            "desk": {"turns": list(turns)},
        },
        "turns": [{"steps": [{"text": "?"}]}],
    }


@tool
async def look() -> str:
    """Look."""
    return "seen"


CALLS = {"steps": [{"text": "There are three."}, {"call": {"tool": "look", "args": {}}}]}
EMPTY: dict[str, object] = {"steps": []}


@pytest.mark.asyncio
async def test_a_stage_that_ends_with_an_empty_message_came_to_what_it_said_before():
    desk = Agent("desk", instructions="x", tools=[look], planner=Agent("planner", instructions="x"))
    async with acting(desk, planned(CALLS, EMPTY)) as (run, _, _stage):
        assert await run.result() == "There are three."


@pytest.mark.asyncio
async def test_a_stage_in_which_nothing_was_said_has_failed():
    desk = Agent("desk", instructions="x", planner=Agent("planner", instructions="x"))
    async with acting(desk, planned(EMPTY)) as (run, _, _stage):
        failed = (await run.ended()).payload
        assert (failed.code, failed.resume.run_id) == ("no_answer", run.run_id)
        assert run.of_type("plan.updated")[-1].todos[0].status == "failed"
