"""Which steps of a plan begin now, and which of its results are the run's. Pure."""

from collections.abc import Collection

from midstream.agents.planning.plan import Plan
from midstream_protocol.events import Todo


def begins_now(plan: Plan, *, running: Collection[str], limit: int) -> list[Todo]:
    """The todos that begin now, in the plan's order: ready, not running already, at most `limit` at the same time."""
    ready = [todo for todo in plan.ready() if todo.id not in running]
    return ready[: max(0, limit - len(running))]


def results_of(plan: Plan) -> list[Todo]:
    """The completed todos whose results no other completed todo was given: what the run came to."""
    completed = plan.of_status("completed")
    used = {needed for todo in completed for needed in todo.depends_on or ()}
    return [todo for todo in completed if todo.id not in used]


def is_last(plan: Plan, todo_id: str) -> bool:
    """Whether nothing follows this todo, so that its answer is (part of) the run's."""
    return all(todo_id not in (todo.depends_on or ()) for todo in plan.todos if todo.status != "skipped")


def with_follow_up(plan: Plan, *, title: str, agent: str) -> Plan:
    """The plan with one more todo, after all that it came to."""
    ids = {todo.id for todo in plan.todos}
    number = len(plan.todos) + 1
    while f"todo_{number}" in ids:
        number += 1
    todo = Todo(
        id=f"todo_{number}",
        title=title,
        agent=agent,
        status="pending",
        depends_on=[todo.id for todo in results_of(plan)],
    )
    return Plan(todos=(*plan.todos, todo))
