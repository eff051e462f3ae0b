"""Whole runs of a planning agent: the real SDK against a model server, and a scripted model that dies with its server."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from midstream import Agent
from midstream.agents.providers.anthropic import AnthropicProvider
from midstream.testing import ManualClock, PlayedRun, staged
from tests.agents.kit import acting, check_log, eventually
from tests.agents.planning.fakes import ALLOW, PLAN, TITLE, TRIP, desk
from tests.testkit.model_server import (
    ModelServer,
    Received,
    Reply,
    error_reply,
    message,
    model_server,
    text_message,
    tool_block,
)

pytestmark = pytest.mark.asyncio

WHO = {
    "Plan well.": "planner",
    "Only prices.": "scope",
    "Short.": "titler",
    "Find.": "research",
    "Write.": "writing",
    "Help.": "desk",
}
SAID = {
    "planner": "Here is the plan:\n```json\n" + json.dumps(PLAN, indent=1) + "\n```\nGood luck!",
    "scope": json.dumps(ALLOW),
    "titler": json.dumps(TITLE),
    "research": "Three shops.",
    "writing": "The cheapest is the second.",
    "desk": "All at once.",
}


def who(received: Received) -> str:
    system = json.dumps(received.body["system"])
    return next(name for text, name in WHO.items() if text in system)


@asynccontextmanager
async def served(agent: Agent, **replies: Any) -> AsyncIterator[tuple[PlayedRun, ModelServer, ManualClock]]:
    """A run whose models are behind HTTP. A reply is a text, a reply, or a list of them for one request after the other."""
    asked: dict[str, int] = {}

    def answer(received: Received) -> Reply:
        name = who(received)
        given = replies.get(name, SAID[name])
        given = given if isinstance(given, list) else [given]
        reply = given[min(asked.get(name, 0), len(given) - 1)]
        asked[name] = asked.get(name, 0) + 1
        return reply if isinstance(reply, Reply) else Reply(text_message(reply))

    async with model_server(answer) as server:
        provider = AnthropicProvider(api_key=None, base_url=server.base_url, default_model="usual")
        async with staged(agent, provider) as stage:
            run = await stage.start("Compare the prices of three shops.")
            yield run, server, stage.clock
            check_log(run, ended=False)


def shown(run: PlayedRun) -> list[str]:
    kinds = ("plan.created", "thread.titled", "guardrail.triggered", "recovery.started", "run.completed", "run.failed")
    return [event.type for event in run.events if event.type in kinds]


async def test_answers_in_words_make_a_plan_that_is_carried_out():
    async with served(desk()) as (run, server, _):
        assert await run.result() == "The cheapest is the second."
        assert sorted(shown(run)) == ["plan.created", "run.completed", "thread.titled"]
        todos = run.of_type("plan.created")[0].todos
        assert [(todo.id, todo.agent) for todo in todos] == [("find", "research"), ("write", "writing")]
        assert [todo.status for todo in run.of_type("plan.updated")[-1].todos] == ["completed", "completed"]
        assert run.text == "Three shops.The cheapest is the second."
        planner = next(received for received in server.requests if who(received) == "planner")
        assert planner.body["model"] == "big"
        assert planner.body["tool_choice"]["name"] == "propose_plan"


async def test_a_call_of_the_tool_does_as_well():
    call = Reply(message(tool_block(0, "toolu_1", "propose_plan", json.dumps(PLAN)), stop_reason="tool_use"))
    async with served(desk(), planner=call) as (run, _, _):
        await run.result()
        assert len(run.of_type("plan.created")[0].todos) == 2
        assert run.of_type("tool.preparing") == []


@pytest.mark.parametrize("mode", ["gate", "race"])
async def test_a_trip_lets_go_of_every_other_model_and_shows_no_answer(mode: str):
    silent = Reply(silent=True)
    agent = desk(guardrail_mode=mode)
    async with served(agent, planner=silent, titler=silent, scope=json.dumps(TRIP)) as (run, server, _):
        failed = (await run.ended()).payload
        assert (failed.code, failed.text) == ("guardrail", "This is not about prices.")
        assert shown(run) == ["guardrail.triggered", "run.failed"]
        await eventually(lambda: len(server.disconnects) == len(server.requests) - 1)
        assert run.text == ""


async def test_in_a_race_the_work_begins_and_nothing_of_it_is_shown_before_the_verdict():
    async with served(desk(guardrail_mode="race"), scope=Reply(silent=True)) as (run, server, clock):
        await run.until("plan.created")
        await eventually(lambda: any(who(received) == "research" for received in server.requests))
        assert run.text == ""
        await clock.advance(20)
        assert (await run.ended()).payload.code == "guardrail_failed"
        assert run.text == ""
        assert not run.of_type("tool.started")


async def test_a_planner_that_never_answers_costs_its_time_and_the_plan():
    async with served(desk(plan_timeout_s=9), planner=Reply(silent=True)) as (run, server, clock):
        await eventually(lambda: any(who(received) == "planner" for received in server.requests))
        await clock.advance(9)
        assert await run.result() == "All at once."
        assert run.of_type("plan.created")[0].reason == "no_plan"


async def test_a_planner_whose_model_is_overloaded_is_asked_again():
    replies = [error_reply(529, "overloaded_error"), SAID["planner"]]
    # The clock is moved by hand while real answers are on their way: none of them may be late for it.
    patient = desk(plan_timeout_s=1e4, guardrail_timeout_s=1e4, title_timeout_s=1e4)
    async with served(patient, planner=replies) as (run, _, clock):
        recovery = (await run.until("recovery.started")).payload
        assert recovery.kind
        await clock.advance(60)
        await run.result()
        assert run.of_type("plan.created")[0].reason is None


async def test_a_bad_plan_is_given_back_and_mended():
    cut_off = SAID["planner"][:60]
    async with served(desk(), planner=[cut_off, SAID["planner"]]) as (run, server, _):
        await run.result()
        again = [received for received in server.requests if who(received) == "planner"][1]
        assert "Fix your output" in json.dumps(again.body["messages"][-1])
        assert run.of_type("plan.created")[0].reason is None


SCRIPT = {
    "agents": {
        "planner": {"turns": [{"steps": [{"answer": PLAN}]}]},
        "scope": {"turns": [{"steps": [{"delay_s": 5}, {"answer": ALLOW}]}]},
        "titler": {"turns": [{"steps": [{"answer": TITLE}]}]},
        "research": {"turns": [{"steps": [{"text": "Three shops."}]}]},
        "writing": {"turns": [{"steps": [{"text": "The second."}]}]},
    }
}


@pytest.mark.parametrize("mode", ["gate", "race"])
async def test_a_server_that_dies_before_the_verdict_asks_only_for_it(mode: str):
    async with acting(desk(guardrail_mode=mode), SCRIPT) as (run, model, _):
        await run.until("run.step")
        await eventually(lambda: {request.agent for request in model.requests} >= {"planner", "scope", "titler"})
        await run.advance(1)
        await run.crash()
        await run.advance(5)
        assert await run.result() == "The second."
        asked = [request.agent for request in model.requests]
        assert (asked.count("planner"), asked.count("titler"), asked.count("scope")) == (1, 1, 2)
        assert len(run.of_type("plan.created")) == len(run.of_type("thread.titled")) == 1


async def test_a_drain_while_planning_hands_the_run_over():
    async with acting(desk(), SCRIPT) as (run, _, stage):
        await run.until("run.step")
        await stage.registry.drain(0)
        await stage._next_server()
        await run.advance(5)
        assert await run.result() == "The second."


@pytest.mark.parametrize("how", ["now", "after_step"])
async def test_a_cancel_while_planning_ends_the_run(how: Any):
    async with acting(desk(), SCRIPT) as (run, model, _):
        await run.until("run.step")
        await eventually(lambda: model.open)
        await run.cancel(mode=how)
        await run.advance(5)
        assert (await run.ended()).type == "run.cancelled"
        assert run.of_type("plan.created") == []
        assert model.open == 0


async def test_a_thread_is_named_once_however_many_runs_it_has():
    async with acting(desk(), SCRIPT, thread_id="t1") as (run, model, stage):
        await run.advance(5)
        await run.result()
        again = await stage.start("And now four shops.", thread_id="t1")
        await again.advance(5)
        await again.result()
        assert [request.agent for request in model.requests].count("titler") == 1
        assert again.of_type("thread.titled") == []
