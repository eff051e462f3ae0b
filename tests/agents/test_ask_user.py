"""The model asks the user."""

import asyncio

import pytest

from midstream import tool
from midstream.testing import Refused, call, calls
from tests.agents.kit import acting, agent, check_log, eventually

SCRIPT = [call("ask_user", question="Which one?", choices=["a", "b"]), "Done."]


@pytest.mark.asyncio
async def test_asked_and_answered():
    async with acting(agent(can_ask=True), SCRIPT) as (run, model, _):
        asked = (await run.until("input.required")).payload
        assert (asked.question, asked.choices) == ("Which one?", ["a", "b"])
        assert (await run.view()).status == "waiting"
        with pytest.raises(Refused):
            await run.answer("c")
        await run.answer("b")
        assert await run.result() == "Done."
        assert model.told() == ["b"]
        check_log(run)


@pytest.mark.asyncio
async def test_it_is_still_asked_after_a_crash_and_only_once():
    async with acting(agent(can_ask=True), SCRIPT) as (run, model, _):
        await run.until("input.required")
        await run.crash()
        await run.answer("a")
        assert await run.result() == "Done."
        assert model.told() == ["a"]
        assert len(run.of_type("input.required")) == 1
        shown = [p.status for p in run.of_type("run.status")]
        assert shown == ["running", "waiting", *["running"] * (len(shown) - 2)]
        check_log(run)


@pytest.mark.asyncio
async def test_an_answer_survives_a_crash_before_the_call_is_over():
    async with acting(agent(can_ask=True), SCRIPT) as (run, model, stage):
        append = stage._mortal.log.append

        async def dying(key, **batch):
            if any(b'"tool.completed"' in event for event in batch["batch"].events):
                stage._mortal.dead = True
            return await append(key, **batch)

        stage._mortal.log.append = dying
        await run.until("input.required")
        await run.answer("a")
        await eventually(lambda: stage._mortal.dead)
        await run.crash()
        assert await run.result() == "Done."
        assert model.told() == ["a"]
        assert len(run.of_type("tool.started")) == 1
        check_log(run)


@pytest.mark.asyncio
async def test_nobody_answers():
    async with acting(agent(can_ask=True), SCRIPT) as (run, model, _):
        await run.until("input.required")
        await run.advance(3601)
        await run.result()
        assert model.told() == ["input_expired: The user did not answer in time."]
        check_log(run)


@pytest.mark.asyncio
async def test_the_call_can_be_cancelled_and_its_question_with_it():
    gate = asyncio.Event()

    @tool
    async def wait() -> str:
        await gate.wait()
        return "waited"

    script = [calls(("ask_user", {"question": "Which one?"}), ("wait", {})), "Done."]
    async with acting(agent(wait, can_ask=True), script) as (run, model, _):
        await run.until("input.required")
        asking = next(p for p in run.of_type("tool.preparing") if p.tool == "ask_user").tool_call_id
        await run.cancel(tool_call_id=asking)
        await run.until("tool.failed")
        view = await run.view()
        assert not view.pending, "nobody is asked any more, although the run goes on"
        assert view.status == "running"
        with pytest.raises(Refused, match="already_resolved"):
            await run.answer("a", input_id=run.of_type("input.required")[0].input_id)
        gate.set()
        assert await run.result() == "Done."
        assert model.told() == ["cancelled: The question was cancelled.", "waited"]
        [resolved] = run.of_type("input.resolved")
        assert resolved.by == "system"
        check_log(run)


@pytest.mark.asyncio
async def test_a_question_withdrawn_by_a_cancel_of_the_run_did_not_expire():
    async with acting(agent(can_ask=True), SCRIPT) as (run, _, _stage):
        await run.until("input.required")
        await run.cancel(mode="after_step")
        await run.until("run.cancelled")
        assert [p.code for p in run.of_type("tool.failed")] == ["cancelled"]
        check_log(run)


@pytest.mark.asyncio
async def test_an_agent_that_may_not_ask_has_no_such_tool():
    async with acting(agent(), SCRIPT) as (run, model, _):
        await run.result()
        assert model.requests[0].tools == ()
        assert model.told()[0].startswith("unknown_tool")
