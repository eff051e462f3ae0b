"""The loop: turns, calls, budgets, stop reasons, a thread's history."""

import asyncio

import pytest

from midstream import Agent, AgentLimits, tool
from midstream.testing import call, calls
from midstream_protocol.commands import RunLimits
from tests.agents.kit import acting, agent, check_log, texts


@tool
async def add(a: int, b: int = 1) -> int:
    """Add two numbers."""
    return a + b


@pytest.mark.asyncio
async def test_a_model_that_only_answers():
    async with acting(agent(), [[{"chunks": ["Hel", "lo"]}]]) as (run, model, _):
        assert await run.result() == "Hello"
        check_log(run)
        assert run.text == "Hello"
        assert [e.payload.state for e in run.events if e.type == "run.step"] == ["started", "completed"]
        assert model.requests[0].system == "Be brief."
        assert texts(model.requests[0].messages) == [("user", "Go.")]


@pytest.mark.asyncio
async def test_a_call_is_run_and_its_answer_told():
    async with acting(agent(add), [call("add", a=2), "Three."]) as (run, model, _):
        assert await run.result() == "Three."
        check_log(run)
        assert model.told() == ["3"]
        kinds = [e.type for e in run.events if e.type.startswith("tool.")]
        assert kinds == ["tool.preparing", "tool.started", "tool.completed"]
        [done] = run.of_type("tool.completed")
        assert (done.preview, done.via) == ("3", "tool")
        assert model.requests[0].tools[0].input_schema["required"] == ["a"]


@pytest.mark.asyncio
async def test_calls_of_one_message_run_at_once_and_are_told_in_order():
    gate = asyncio.Event()
    running = 0

    @tool
    async def wait(n: int) -> int:
        nonlocal running
        running += 1
        if running == 3:
            gate.set()
        await gate.wait()
        await asyncio.sleep(0.001 * (3 - n))
        return n

    script = [calls(*(("wait", {"n": n}) for n in range(3)), text="Look."), "Done."]
    async with acting(agent(wait), script) as (run, model, _):
        assert await run.result() == "Done."
        assert model.told() == ["0", "1", "2"]
        check_log(run)


@pytest.mark.asyncio
async def test_usage_is_the_sum_over_the_run():
    script = [
        {"steps": [{"call": {"tool": "add", "args": {"a": 1}}}, {"usage": {"input_tokens": 10, "output_tokens": 2}}]},
        {"steps": [{"text": "x"}, {"usage": {"input_tokens": 20, "output_tokens": 3, "cached_input_tokens": 9}}]},
    ]
    async with acting(agent(add), script) as (run, _, _stage):
        usage = (await run.ended()).payload.usage
        assert (usage.input_tokens, usage.output_tokens, usage.cached_input_tokens) == (30, 5, 9)
        assert usage.total_tokens == 35
        assert list(usage.by_model) == ["scripted"]


@pytest.mark.asyncio
async def test_the_last_turn_answers_without_tools():
    limits = AgentLimits(max_turns=2)
    async with acting(agent(add, limits=limits), [call("add", a=1), "That is all."]) as (run, model, _):
        assert await run.result() == "That is all."
        assert model.requests[0].tools
        assert model.requests[1].tools == ()
        assert "used up" in model.told()[-1]


@pytest.mark.asyncio
async def test_a_model_that_calls_on_after_its_budget_is_ended():
    limits = AgentLimits(max_turns=2)
    async with acting(agent(add, limits=limits), [call("add", a=1), call("add", a=2)]) as (run, _, _stage):
        assert await run.result() == ""
        assert [p.code for p in run.of_type("tool.failed")] == ["budget_exhausted"]
        check_log(run)


@pytest.mark.asyncio
async def test_the_runs_own_limits_lower_the_agents():
    script = [calls(("add", {"a": 1}), ("add", {"a": 2}), ("add", {"a": 3})), "Done."]
    async with acting(agent(add), script) as (_, model, stage):
        run = await stage.start("x", limits=RunLimits(max_tool_calls=2))
        assert await run.result() == "Done."
        assert [p.preview for p in run.of_type("tool.completed")] == ["2", "3"]
        assert [p.code for p in run.of_type("tool.failed")] == ["budget_exhausted"]
        assert model.told()[-1].startswith("[You reached the limit of tool calls; continue from where you left off")
        assert [(p.kind, p.attempt, p.max_attempts) for p in run.of_type("recovery.started")] == [("tool_limit", 1, 3)]
        check_log(run)


@pytest.mark.asyncio
async def test_the_limit_of_calls_is_renewed_three_times_and_then_it_must_answer():
    script = [*(call("add", a=n) for n in range(8)), "That is all."]
    limits = AgentLimits(max_tool_calls=1)
    async with acting(agent(add, limits=limits), script) as (run, model, _):
        assert await run.result() == "That is all."
        # Every second call is one too many: the model keeps all it has, and is told to go on.
        assert [p.preview for p in run.of_type("tool.completed")] == ["1", "3", "5", "7"]
        recovered = [(p.kind, p.attempt, p.max_attempts) for p in run.of_type("recovery.started")]
        assert recovered == [("tool_limit", n, 3) for n in (1, 2, 3)]
        told = [said for request in model.requests for _, said in texts(request.messages[-1:])]
        assert sum("continue from where you left off" in said for said in told) == 3
        assert [request.tools == () for request in model.requests] == [False] * 8 + [True]
        assert "used up" in told[-1]
        assert len(model.requests[-1].messages) == 17
        check_log(run)


@pytest.mark.asyncio
async def test_where_no_call_is_allowed_no_tool_is_offered():
    async with acting(agent(add), ["One."]) as (first, model, stage):
        await first.result()
        run = await stage.start("x", limits=RunLimits(max_tool_calls=0))
        await run.result()
        assert [bool(request.tools) for request in model.requests] == [True, False]


@pytest.mark.asyncio
async def test_a_model_that_calls_on_when_it_must_answer_is_ended():
    limits = AgentLimits(max_tool_calls=1, max_continuations=0)
    async with acting(agent(add, limits=limits), [call("add", a=n) for n in range(5)]) as (run, model, _):
        assert await run.result() == ""
        assert len(model.requests) == 3
        assert [p.code for p in run.of_type("tool.failed")] == ["budget_exhausted"] * 2
        assert run.of_type("recovery.started") == []
        check_log(run)


@pytest.mark.asyncio
async def test_a_crash_at_any_point_neither_repeats_nor_forgets_the_limit():
    script = [*(call("add", a=n) for n in range(4)), "Done."]
    limits = AgentLimits(max_tool_calls=1, max_continuations=1)
    steady = tool(idempotent=True, name="add")(add.fn)
    async with acting(agent(steady, limits=limits), script) as (run, _, _stage):
        await run.result()
        events = len(run.events)
    for after in range(1, events):
        async with acting(agent(steady, limits=limits), script) as (run, model, _):
            while len(run.events) < after:
                await run._more("an event")
            await run.crash()
            assert await run.result() == "Done."
            recovered = [p.attempt for p in run.of_type("recovery.started") if p.kind == "tool_limit"]
            assert recovered == [1], after
            assert len(run.of_type("tool.completed")) == 2
            said = [said for _, said in texts(model.requests[-1].messages)]
            assert sum("continue from where you left off" in each for each in said) == 1
            assert "used up" in said[-1]
            check_log(run)


@pytest.mark.asyncio
async def test_a_thread_remembers_its_runs():
    async with acting(agent(add), [call("add", a=1), "Two.", "Again two."]) as (first, model, stage):
        await first.result()
        second = await stage.start("And again?", thread_id=first.events[0].payload.thread_id)
        assert await second.result() == "Again two."
        assert texts(model.requests[-1].messages) == [
            ("user", "Go."),
            ("assistant", "<call>"),
            ("user", "2"),
            ("assistant", "Two."),
            ("user", "And again?"),
        ]
        check_log(second)


@pytest.mark.asyncio
async def test_instructions_may_depend_on_the_run():
    asked = Agent("tester", instructions=lambda info: f"For {info.principal.name}: {info.metadata['tone']}")
    async with acting(asked, ["Yes."], metadata={"tone": "dry"}) as (run, model, _):
        await run.result()
        assert model.requests[0].system == "For Tester: dry"


@pytest.mark.asyncio
async def test_pause_turn_asks_the_model_to_go_on():
    script = [[{"text": "Half "}, {"stop_reason": "pause_turn"}], "done."]
    async with acting(agent(), script) as (run, model, _):
        assert await run.result() == "done."
        assert texts(model.requests[1].messages)[-1] == ("assistant", "Half ")


@pytest.mark.parametrize(
    ("reason", "code"), [("refusal", "refused"), ("model_context_window_exceeded", "context_too_long")]
)
@pytest.mark.asyncio
async def test_stop_reasons_that_end_a_run(reason, code):
    async with acting(agent(), [[{"text": "No."}, {"stop_reason": reason}]]) as (run, _, _stage):
        assert (await run.ended()).payload.code == code
        check_log(run)


@pytest.mark.asyncio
async def test_a_text_that_was_cut_is_still_an_answer():
    async with acting(agent(), [[{"text": "So much"}, {"stop_reason": "max_tokens"}]]) as (run, _, _stage):
        assert await run.result() == "So much"
        assert run.of_type("message.completed")[-1].stop_reason == "max_tokens"


@pytest.mark.asyncio
async def test_nothing_of_a_cut_off_message_is_run():
    ran = []

    @tool
    async def note(text: str) -> str:
        ran.append(text)
        return "ok"

    cut = [
        {"call": {"tool": "note", "args": {"text": "whole"}}},
        {"raw_call": {"tool": "note", "json": '{"text": "ha'}},
        {"stop_reason": "max_tokens"},
    ]
    async with acting(agent(note), [cut, call("note", text="short"), "Done."]) as (run, model, _):
        assert await run.result() == "Done."
        assert ran == ["short"]
        assert [(p.code, p.outcome) for p in run.of_type("tool.failed")] == [("truncated", "not_started")] * 2
        assert all("cut off" in told for told in model.told(1))
        check_log(run)


@pytest.mark.asyncio
async def test_a_model_that_is_always_cut_off_is_given_up():
    cut = [{"raw_call": {"tool": "add", "json": "{"}}, {"stop_reason": "max_tokens"}]
    async with acting(agent(add), [cut] * 5) as (run, model, _):
        assert (await run.ended()).payload.code == "truncated"
        assert len(model.requests) == 3


@pytest.mark.asyncio
async def test_broken_arguments_go_back_to_the_model():
    async with acting(agent(add), [[{"raw_call": {"tool": "add", "json": "[1]"}}], "Sorry."]) as (run, model, _):
        assert await run.result() == "Sorry."
        assert model.told() == ["invalid_args: The arguments are not a JSON object."]
        assert [p.outcome for p in run.of_type("tool.failed")] == ["not_started"]
