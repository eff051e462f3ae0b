"""Which steps begin, whatever plan: pure, and for every plan that can be."""

from hypothesis import given
from hypothesis import strategies as st

from midstream.agents.pipeline.schedule import begins_now, is_last, results_of, with_follow_up
from midstream.agents.planning.plan import OVER, Plan
from midstream_protocol.events import Todo

STATES = ["completed", "failed", "skipped"]


@st.composite
def plans(draw, *, status="pending"):
    """A plan without cycles: a todo depends on some before it."""
    count = draw(st.integers(1, 8))
    todos = []
    for number in range(count):
        needs = draw(st.sets(st.integers(0, number - 1), max_size=3)) if number else set()
        todos.append(
            Todo(
                id=f"t{number}",
                title=f"T{number}",
                agent="a",
                status=status,
                depends_on=[f"t{n}" for n in sorted(needs)],
            )
        )
    # In any order: what is shown first need not be done first.
    return Plan(todos=tuple(draw(st.permutations(todos))))


@given(plans(), st.integers(1, 4), st.data())
def test_every_plan_comes_to_its_end(plan, limit, data):
    running: list[str] = []
    ended: list[str] = []
    while not plan.over:
        for todo in begins_now(plan, running=running, limit=limit):
            assert todo.id not in running
            assert set(todo.depends_on) <= set(ended)
            plan = plan.marked(todo.id, "in_progress")
            running.append(todo.id)
        assert 0 < len(running) <= limit
        over = data.draw(st.sampled_from(running))
        running.remove(over)
        ended.append(over)
        plan = plan.marked(over, data.draw(st.sampled_from(STATES)))
    assert sorted(ended) == sorted(todo.id for todo in plan.todos)
    assert begins_now(plan, running=running, limit=limit) == []


@given(plans(status="completed"))
def test_the_results_of_a_completed_plan_are_its_ends(plan):
    assert results_of(plan) == plan.sinks()
    assert {todo.id for todo in results_of(plan)} == {todo.id for todo in plan.todos if is_last(plan, todo.id)}


@given(plans(), st.data())
def test_what_failed_or_was_left_out_is_no_result_and_hides_none(plan, data):
    for todo in plan.todos:
        plan = plan.marked(todo.id, data.draw(st.sampled_from(STATES)))
    found = results_of(plan)
    assert bool(found) == bool(plan.of_status("completed"))
    assert all(todo.status == "completed" for todo in found)
    for todo in plan.of_status("completed"):
        if todo not in found:
            assert any(todo.id in other.depends_on for other in plan.of_status("completed"))


@given(plans(status="completed"), st.integers(1, 3))
def test_a_follow_up_comes_after_everything(plan, times):
    for _ in range(times):
        before = plan
        plan = with_follow_up(plan, title="More", agent="a")
        [new] = [todo for todo in plan.todos if todo not in before.todos]
        assert new.id not in {todo.id for todo in before.todos}
        assert set(new.depends_on) == {todo.id for todo in results_of(before)}
        assert begins_now(plan, running=(), limit=1) == [new]
        assert all(todo.status in OVER for todo in before.todos)
        plan = plan.marked(new.id, "completed")
        assert results_of(plan) == [plan.todo(new.id)]
