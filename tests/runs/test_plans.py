"""A plan is the program's while it works, and told to its end by the run."""

from typing import Any

import pytest

from midstream.runs import Port, RunFailure
from midstream_protocol.commands import RunCancel
from midstream_protocol.events import PlanCreated, PlanUpdated, Todo
from tests.runs.conftest import Open
from tests.runs.say import call_record, completed, for_ever, started

pytestmark = pytest.mark.asyncio


def plan(*statuses: Any, created: bool = False) -> PlanCreated | PlanUpdated:
    todos = [Todo(id=f"t{n}", title=f"Do {n}", agent="a", status=status) for n, status in enumerate(statuses)]
    return PlanCreated(todos=todos) if created else PlanUpdated(todos=todos)


@pytest.mark.parametrize("how", ["completed", "failed", "cancelled"])
async def test_no_todo_is_left_open(house: Open, how: str) -> None:
    async def body(port: Port) -> None:
        await port.record(plan("pending", "pending", "pending", "pending", "pending", created=True))
        await port.record(started(port), journal=[call_record()])
        await port.record(completed())
        await port.record(plan("completed", "skipped", "failed", "in_progress", "pending"))
        if how == "failed":
            raise RunFailure("model_error", "The model is gone.")
        if how == "cancelled":
            await for_ever(port)
        await port.end("ok")

    server = await house(body)
    run = await server.start()
    reader = await server.attach(run)
    await reader.until("plan.updated")
    if how == "cancelled":
        await server.send(run, RunCancel())
    events = await server.log(run)
    *_, closing, end = events
    assert [todo.status for todo in closing.payload.todos] == ["completed", "skipped", "failed", "failed", "skipped"]
    assert closing.payload.reason == {"completed": "run_completed", "failed": "run_failed"}.get(how, how)
    assert end.type == f"run.{how}"
    if how == "failed":
        assert end.payload.completed == ["Do 0", "srv_do: Do"]


async def test_a_plan_that_is_done_is_not_told_again(house: Open) -> None:
    async def body(port: Port) -> None:
        await port.record(plan("pending", "pending", created=True))
        await port.record(plan("completed", "skipped"))
        await port.end("ok")

    server = await house(body)
    run = await server.start()
    assert [e.type for e in await server.log(run)][-2:] == ["plan.updated", "run.completed"]
    assert [e.type for e in await server.log(run)].count("plan.updated") == 1
