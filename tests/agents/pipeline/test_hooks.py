"""Hooks: who is followed, and the ones that come with us."""

import pytest

from midstream.agents.pipeline.contract import Abort, Finish, Go, Retry, StageResult
from midstream.agents.pipeline.hooks import (
    Said,
    continue_failed,
    decided,
    note,
    retry_failed,
    run_hooks,
    stop_when,
    validated,
)
from midstream.agents.planning.plan import Plan
from midstream.runs.contract import RunFailure, Stopping
from midstream_protocol.events import Todo

TODO = Todo(id="t", title="T", agent="research", status="in_progress", depends_on=[])
PLAN = Plan(todos=(TODO,))
OK = StageResult(todo=TODO, ok=True, text="Fine.", attempt=2)
BAD = StageResult(todo=TODO, ok=False, text="Half.", attempt=1, code="overloaded", error="Overloaded.")


def says(verdict):
    async def hook(_result, _plan):
        return verdict

    return hook


@pytest.mark.parametrize(
    ("verdicts", "followed", "notes"),
    [
        ([], None, ()),
        ([None, None], None, ()),
        ([None, Go()], Go(), ()),
        ([Go("a"), Go("b")], Go(), ("a", "b")),
        ([Go("a"), Retry("w"), Go("b")], Retry("w"), ("a",)),
        ([None, Finish(1), Abort("x")], Finish(1), ()),
        ([Abort("x"), Finish(1)], Abort("x"), ()),
    ],
)
@pytest.mark.asyncio
async def test_the_first_that_says_something_else_than_go_is_followed(verdicts, followed, notes):
    said = await run_hooks([says(verdict) for verdict in verdicts], OK, PLAN)
    assert said == Said(verdict=followed, notes=notes)


@pytest.mark.parametrize(
    ("result", "verdict", "follows"),
    [
        (OK, None, Go()),
        (BAD, None, Abort("Overloaded.")),
        (BAD, Go(), Go()),
        (BAD, Retry("w"), Retry("w")),
        (OK, Retry("w"), Retry("w")),
        (OK, Finish(2), Finish(2)),
    ],
)
def test_what_follows(result, verdict, follows):
    assert decided(result, Said(verdict=verdict), max_attempts=3) == follows


def test_attempts_are_bounded():
    assert decided(OK, Said(verdict=Retry("w")), max_attempts=2) == Abort("w")
    assert decided(BAD, Said(verdict=Retry("w")), max_attempts=1) == Abort("Overloaded.")


@pytest.mark.asyncio
async def test_the_ones_that_come_with_us():
    async def one(hook, result):
        return (await run_hooks([hook], result, PLAN)).verdict

    check = validated(lambda result: "wrong" if result.attempt < 2 else None)
    assert await one(check, OK) is None
    assert await one(check, StageResult(todo=TODO, ok=True, text="", attempt=1)) == Retry("wrong")
    assert await one(check, BAD) is None
    assert await one(stop_when(lambda _result, _plan: True), OK) == Finish("Fine.")
    typed = StageResult(todo=TODO, ok=True, text="x", value={"n": 1})
    assert await one(stop_when(lambda _result, _plan: True), typed) == Finish({"n": 1})
    assert await one(stop_when(lambda _result, _plan: True), BAD) is None
    assert await one(retry_failed(1), BAD) == Retry("It failed: Overloaded.")
    assert await one(retry_failed(0), BAD) is None
    assert await one(retry_failed(1), OK) is None
    assert await one(continue_failed(), BAD) == Go()
    assert await one(continue_failed("research"), BAD) == Go()
    assert await one(continue_failed("writing"), BAD) is None
    assert await one(continue_failed(), OK) is None
    said = await run_hooks([note(lambda result: result.text), note(lambda _: None)], OK, PLAN)
    assert said == Said(verdict=Go(), notes=("Fine.",))


@pytest.mark.asyncio
async def test_one_that_is_no_coroutine_will_do():
    assert (await run_hooks([lambda _result, _plan: Go("plain")], OK, PLAN)).notes == ("plain",)


@pytest.mark.parametrize("hook", [says("go"), says(Go), lambda _result, _plan: 1 / 0])
@pytest.mark.asyncio
async def test_one_that_breaks(hook):
    with pytest.raises(RunFailure) as raised:
        await run_hooks([hook], OK, PLAN)
    assert (raised.value.code, raised.value.text) == ("hook_failed", "A check after this step failed.")


@pytest.mark.parametrize("error", [RunFailure("own", "My words."), Stopping()])
@pytest.mark.asyncio
async def test_what_a_hook_may_raise(error):
    async def hook(_result, _plan):
        raise error

    with pytest.raises(type(error)) as raised:
        await run_hooks([hook], OK, PLAN)
    assert raised.value is error
