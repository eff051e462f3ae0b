"""A model that cannot be had: tried again with patience, and given up with a word."""

import pytest

from midstream import tool
from midstream.agents.providers.contract import (
    BadModelRequest,
    ContextTooLong,
    ModelDenied,
    ModelError,
    ModelFailed,
    ModelOverloaded,
    ModelRateLimited,
    ModelStalled,
    ModelUnreachable,
)
from midstream.agents.recovery import (
    BACKOFF_S,
    MAX_BACKOFF_S,
    MAX_SHRINKS,
    GiveUp,
    NextModel,
    Shrink,
    Wait,
    measure_for,
)
from midstream.testing import calls
from midstream_protocol.commands import ClientTool
from tests.agents.kit import acting, agent, check_log

# The table: error × (first, at the limit with a model left, at the limit with none).
WAITS = [
    (ModelRateLimited, "rate_limit"),
    (ModelOverloaded, "overloaded"),
    (ModelUnreachable, "model_error"),
    (ModelStalled, "model_error"),
    (ModelFailed, "model_error"),
]
NEVER = [ModelDenied, BadModelRequest]


@pytest.mark.parametrize(("error", "kind"), WAITS)
def test_what_may_pass_is_waited_for_then_the_next_model_then_the_end(error: type[ModelError], kind: str):
    failed = error("no")
    for tries, wait_s in ((1, BACKOFF_S), (2, 2 * BACKOFF_S)):
        assert measure_for(failed, tries=tries, most=3, models_left=1) == Wait(kind=kind, wait_s=wait_s)
    assert measure_for(failed, tries=3, most=3, models_left=1) == NextModel(kind="model_error")
    assert measure_for(failed, tries=3, most=3, models_left=0) == GiveUp(code=error.code, text="no", retryable=True)


@pytest.mark.parametrize("error", NEVER)
def test_what_will_not_pass_goes_to_the_next_model_at_once(error: type[ModelError]):
    assert measure_for(error("no"), tries=1, most=3, models_left=1) == NextModel(kind="model_error")
    given_up = GiveUp(code=error.code, text="no", retryable=False)
    assert measure_for(error("no"), tries=1, most=3, models_left=0) == given_up


def test_what_is_too_long_is_shortened_and_no_other_model_is_asked():
    failed = ContextTooLong("long")
    for shrinks in range(MAX_SHRINKS):
        assert measure_for(failed, tries=9, most=3, models_left=1, shrinks=shrinks) == Shrink(kind="context")
    over = measure_for(failed, tries=1, most=3, models_left=1, shrinks=MAX_SHRINKS)
    assert over == GiveUp(code="context_too_long", text="long", retryable=False)


@pytest.mark.parametrize(
    ("asked", "tries", "jitter", "wait_s"),
    [
        (None, 1, 0.0, BACKOFF_S / 2),
        (None, 1, 1.0, BACKOFF_S),
        (None, 3, 1.0, 4 * BACKOFF_S),
        (None, 60, 1.0, MAX_BACKOFF_S),
        (None, 5000, 0.0, MAX_BACKOFF_S / 2),
        (30.0, 1, 1.0, 30.0),
        (0.1, 1, 0.0, BACKOFF_S / 2),
        (MAX_BACKOFF_S, 1, 1.0, MAX_BACKOFF_S),
    ],
)
def test_how_long(asked: float | None, tries: int, jitter: float, wait_s: float):
    failed = ModelRateLimited("no", retry_after_s=asked)
    measure = measure_for(failed, tries=tries, most=9999, models_left=0, jitter=jitter)
    assert measure == Wait(kind="rate_limit", wait_s=wait_s)


@pytest.mark.parametrize(("left", "measure"), [(1, NextModel), (0, GiveUp)])
def test_a_wait_that_nobody_waits_is_as_if_it_could_not_be_had(left: int, measure: type):
    failed = ModelOverloaded("no", retry_after_s=MAX_BACKOFF_S + 1)
    assert isinstance(measure_for(failed, tries=1, most=3, models_left=left), measure)
    assert isinstance(measure_for(failed, tries=1, most=3, models_left=left, max_wait_s=90), Wait)


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
