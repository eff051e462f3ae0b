"""The model asks the user."""

import pytest

from midstream.testing import Refused, call
from tests.agents.kit import acting, agent, check_log

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
        assert [p.status for p in run.of_type("run.status")] == ["running", "waiting", "running", "running"]
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
async def test_the_call_can_be_cancelled():
    async with acting(agent(can_ask=True), SCRIPT) as (run, model, _):
        await run.until("input.required")
        await run.cancel(tool_call_id=run.of_type("tool.preparing")[0].tool_call_id)
        await run.result()
        assert model.told() == ["cancelled: The user cancelled the question."]
        check_log(run)


@pytest.mark.asyncio
async def test_an_agent_that_may_not_ask_has_no_such_tool():
    async with acting(agent(), SCRIPT) as (run, model, _):
        await run.result()
        assert model.requests[0].tools == ()
        assert model.told()[0].startswith("unknown_tool")
