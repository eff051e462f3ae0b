"""Tools that a client runs."""

import pytest

from midstream import client_tool
from midstream.testing import call
from midstream_protocol.commands import ClientTool
from tests.agents.kit import acting, agent, check_log

PAGE = ClientTool(name="page", description="Read the page.", input_schema={"properties": {"n": {"type": "integer"}}})


@client_tool(approval="always", timeout=30)
async def apply_edit(path: str) -> str:
    """Apply an edit."""
    raise AssertionError("a client runs this")


@pytest.mark.asyncio
async def test_a_tool_that_a_client_brought():
    async with acting(agent(), [call("page", n=1), "Done."], client_tools=[PAGE]) as (run, model, _):
        asked = (await run.until("tool.requested")).payload
        assert (asked.tool, asked.args, asked.client_id) == ("page", {"n": 1}, "test-client")
        await run.tool_result({"title": "Hi"})
        assert await run.result() == "Done."
        assert model.told() == ['{"title":"Hi"}']
        assert [tool.name for tool in model.requests[0].tools] == ["page"]
        assert run.of_type("tool.completed")[0].via == "client"
        check_log(run)


@pytest.mark.asyncio
async def test_its_arguments_are_checked_here():
    async with acting(agent(), [call("page", n="x"), "Sorry."], client_tools=[PAGE]) as (run, model, _):
        await run.result()
        assert model.told()[0].startswith("invalid_args: ")
        assert run.of_type("tool.requested") == []


@pytest.mark.asyncio
async def test_its_error_goes_to_the_model():
    async with acting(agent(), [call("page"), "Sorry."], client_tools=[PAGE]) as (run, model, _):
        await run.until("tool.requested")
        await run.tool_result(error=("no_page", "No page is open."))
        await run.result()
        assert model.told() == ["no_page: No page is open."]


@pytest.mark.asyncio
async def test_a_client_that_does_not_answer():
    async with acting(agent(), [call("page"), "Sorry."], client_tools=[PAGE]) as (run, model, _):
        await run.until("tool.requested")
        await run.advance(61)
        await run.result()
        assert model.told()[0].startswith("timeout: ")
        assert [p.outcome for p in run.of_type("tool.failed")] == ["unknown"]
        check_log(run)


@pytest.mark.asyncio
async def test_a_declared_one_needs_a_host():
    script = [call("apply_edit", path="a"), "Sorry."]
    async with acting(agent(apply_edit), script) as (run, model, _):
        await run.until("approval.required")
        await run.approve()
        await run.result()
        assert model.requests[0].tools == (), "the model is not told of what nobody offers"
        assert model.told()[0].startswith("client_gone: ")
        assert [p.outcome for p in run.of_type("tool.failed")] == ["not_started"]
        check_log(run)


@pytest.mark.asyncio
async def test_a_declared_one_that_is_offered_and_approved():
    script = [call("apply_edit", path="a"), "Done."]
    async with acting(agent(apply_edit), script, client_tools=[ClientTool(name="apply_edit")]) as (run, model, _):
        await run.until("approval.required")
        await run.approve(edit={"path": "b"})
        asked = (await run.until("tool.requested")).payload
        assert asked.args == {"path": "b"}
        assert asked.expires_in_s == 30
        await run.tool_result("applied")
        await run.result()
        assert model.told()[0].endswith("applied")
        check_log(run)


@pytest.mark.asyncio
async def test_it_is_waited_for_across_a_crash():
    async with acting(agent(), [call("page"), "Done."], client_tools=[PAGE]) as (run, model, _):
        await run.until("tool.requested")
        await run.crash()
        await run.tool_result("late but here")
        assert await run.result() == "Done."
        assert model.told() == ["late but here"]
        assert len(run.of_type("tool.requested")) == 1
        check_log(run)


@pytest.mark.asyncio
async def test_it_can_be_cancelled_alone():
    async with acting(agent(), [call("page"), "On."], client_tools=[PAGE]) as (run, model, _):
        asked = (await run.until("tool.requested")).payload
        await run.cancel(tool_call_id=asked.tool_call_id)
        assert await run.result() == "On."
        assert model.told()[0].startswith("cancelled: ")
        check_log(run)


@pytest.mark.asyncio
async def test_a_schema_that_is_none_is_not_offered_to_the_model():
    odd = ClientTool(name="odd", description="x", input_schema={"type": "nonsense"})
    async with acting(agent(), ["Done."], client_tools=[odd]) as (run, model, _):
        await run.result()
        assert model.requests[0].tools == ()
