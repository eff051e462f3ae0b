"""A model that cannot be had: tried again with patience, and given up with a word."""

import pytest

from midstream import tool
from midstream.agents.turn import BACKOFF_S
from midstream.testing import calls
from midstream_protocol.commands import ClientTool
from tests.agents.kit import acting, agent, check_log


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("rate_limited", "rate_limit"),
        ("overloaded", "overloaded"),
        ("model_error", "model_error"),
        ("model_unreachable", "model_error"),
        ("model_stalled", "model_error"),
    ],
)
@pytest.mark.asyncio
async def test_tried_again(error, kind):
    script = [[{"text": "Half"}, {"error": {"type": error, "times": 1}}, {"text": " whole."}]]
    async with acting(agent(), script) as (run, _, _stage):
        started = (await run.until("recovery.started")).payload
        assert (started.kind, started.attempt, started.max_attempts) == (kind, 2, 3)
        assert BACKOFF_S / 2 <= started.wait_s <= BACKOFF_S
        await run.advance(BACKOFF_S)
        assert await run.result() == "Half whole."
        assert [p.reason for p in run.of_type("message.superseded")] == [error]
        steps = [(p.kind, p.state, p.attempt) for p in run.of_type("run.step")]
        assert steps == [
            ("turn", "started", None),
            ("turn", "failed", None),
            ("retry", "started", 2),
            ("retry", "completed", 2),
        ]
        check_log(run)


@pytest.mark.asyncio
async def test_the_providers_own_wait_is_kept():
    script = [[{"error": {"type": "rate_limited", "times": 1, "retry_after_s": 30}}, {"text": "x"}]]
    async with acting(agent(), script) as (run, _, _stage):
        assert (await run.until("recovery.started")).payload.wait_s == 30
        await run.advance(29)
        assert not run.of_type("run.completed")
        await run.advance(1)
        assert await run.result() == "x"


@pytest.mark.asyncio
async def test_given_up_after_some_tries():
    async with acting(agent(), [[{"error": "overloaded"}]]) as (run, model, _):
        await run.until("recovery.started")
        await run.advance(BACKOFF_S)
        await run.until("recovery.started")
        await run.advance(2 * BACKOFF_S)
        failed = (await run.ended()).payload
        assert (failed.code, failed.retryable) == ("overloaded", True)
        assert len(model.requests) == 3
        check_log(run)


@pytest.mark.parametrize("error", ["model_denied", "context_too_long", "model_bad_request"])
@pytest.mark.asyncio
async def test_what_will_not_get_better_is_not_tried_again(error):
    async with acting(agent(), [[{"text": "x"}, {"error": error}]]) as (run, model, _):
        failed = (await run.ended()).payload
        assert (failed.code, failed.retryable) == (error, False)
        assert len(model.requests) == 1
        check_log(run)


@pytest.mark.asyncio
async def test_a_wait_that_is_too_long_is_not_waited():
    async with acting(agent(), [[{"error": {"type": "rate_limited", "retry_after_s": 600}}]]) as (run, model, _):
        assert (await run.ended()).payload.code == "rate_limited"
        assert len(model.requests) == 1


@pytest.mark.asyncio
async def test_cancelled_while_it_waits_for_the_next_try():
    async with acting(agent(), [[{"error": "overloaded"}]]) as (run, model, _):
        await run.until("recovery.started")
        await run.cancel()
        await run.until("run.cancelled")
        assert len(model.requests) == 1
        check_log(run)


@pytest.mark.asyncio
async def test_a_failed_run_names_what_was_done_as_people_saw_it():
    @tool(label="Look at {path}")
    async def look(path: str) -> str:
        return path

    @tool(approval="always", label="Pay {amount}")
    async def pay(amount: int) -> int:
        return amount

    script = [
        calls(("look", {"path": "a.txt"}), ("pay", {"amount": 7}), ("page", {"n": 1})),
        [{"error": "model_denied"}],
    ]
    page = ClientTool(name="page", description="A page.", input_schema={"type": "object"})
    async with acting(agent(look, pay), script, client_tools=[page]) as (run, _, _stage):
        await run.until("approval.required")
        await run.approve(edit={"amount": 3})
        await run.until("tool.completed", lambda payload: payload.preview == "3")
        await run.tool_result("the page")
        failed = (await run.ended()).payload
        assert failed.completed == ["look: Look at a.txt", "pay: Pay 3", "page: Page"]
        check_log(run)
