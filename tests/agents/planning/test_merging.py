"""From a proposal to the plan: whatever a planner says, a plan that can be carried out, or sentences that help it."""

from collections.abc import Collection
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream.agents.planning.contract import ProposedTodo
from midstream.agents.planning.merging import NOTHING, Team, merged
from midstream.agents.planning.plan import OVER, Plan
from midstream.agents.planning.proposal import MAX_PROBLEMS, BadPlan, proposed
from midstream_protocol.events import Todo
from midstream_protocol.ids import is_id

TEAM = Team(names=("research", "writing"), usual="desk", max_todos=6, max_title_chars=40)


def plan_of(*todos: dict[str, Any] | str, before: Plan = NOTHING, used: tuple[str, ...] = ()) -> Plan:
    return merged(proposed({"todos": list(todos)}, limit=50), team=TEAM, before=before, used=used)


def before(*todos: tuple[str, str, str] | tuple[str, str, str, list[str]]) -> Plan:
    return Plan(
        todos=tuple(
            Todo(id=each[0], title=each[1], agent="research", status=each[2], depends_on=list(each[3:4] and each[3]))
            for each in todos
        )
    )


def short(plan: Plan) -> list[tuple[str, str, str, list[str]]]:
    return [(todo.id, todo.title, todo.status, todo.depends_on or []) for todo in plan.todos]


# -- the first plan


def test_steps_without_dependencies_follow_each_other():
    plan = plan_of("A", "B", "C")
    assert short(plan) == [
        ("todo_1", "A", "pending", []),
        ("todo_2", "B", "pending", ["todo_1"]),
        ("todo_3", "C", "pending", ["todo_2"]),
    ]


def test_where_one_says_what_it_depends_on_the_others_may_begin_at_once():
    plan = plan_of({"id": "a", "title": "A"}, {"id": "b", "title": "B"}, {"title": "C", "depends_on": ["a", "b", "a"]})
    assert short(plan) == [("a", "A", "pending", []), ("b", "B", "pending", []), ("todo_3", "C", "pending", ["a", "b"])]
    assert [todo.id for todo in plan_of({"title": "A", "depends_on": []}, "B").ready()] == ["todo_1", "todo_2"]


def test_agents_are_those_named_or_the_usual_one():
    plan = plan_of({"title": "A", "agent": "Writing"}, {"title": "B", "agent": ""}, {"title": "C", "agent": None})
    assert [todo.agent for todo in plan.todos] == ["writing", "desk", "desk"]


def test_ids_are_kept_where_they_can_be():
    plan = plan_of(
        {"id": "todo_2", "title": "A"},
        {"title": "B"},
        {"id": "step 3", "title": "C", "depends_on": ["todo_2"]},
        {"id": 4, "title": "D", "depends_on": ["step 3", "todo_5"]},
        {"title": "E"},
    )
    assert [todo.id for todo in plan.todos] == ["todo_2", "todo_3", "todo_4", "4", "todo_5"]
    assert plan.todo("4").depends_on == ["todo_4", "todo_5"]
    assert all(is_id(todo.id) for todo in plan.todos)


def test_two_todos_of_one_id_are_told_apart_as_long_as_nothing_depends_on_it():
    assert [todo.id for todo in plan_of({"id": "a", "title": "A"}, {"id": "a", "title": "B"}).todos] == ["a", "todo_2"]
    with pytest.raises(BadPlan, match="several todos have this id"):
        plan_of({"id": "a", "title": "A"}, {"id": "a", "title": "B"}, {"title": "C", "depends_on": ["a"]})


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ({"todos": []}, "no todos"),
        ({"todos": "all of it"}, "no list of todos"),
        ({"steps": ["A"]}, "no list of todos"),
        (None, "no list of todos"),
        (17, "no list of todos"),
        ({"todos": ["A"] * 1000}, "1,000 todos and at most 50"),
        ({"todos": ["A"] * 7}, "7 todos and at most 6"),
        ({"todos": [{"title": ""}]}, "Todo 1 has no `title`"),
        ({"todos": [{"title": " \n "}]}, "Todo 1 has no `title`"),
        ({"todos": [{"agent": "research"}]}, "Todo 1 has no `title`"),
        ({"todos": ["A", {"title": 3}]}, "Todo 2: `title` is no text"),
        ({"todos": [{"title": ["A"]}]}, "Todo 1: `title` is no text"),
        ({"todos": [None]}, "Todo 1 is no object"),
        ({"todos": [{"title": "A", "id": True}]}, "`id` is no text"),
        ({"todos": [{"title": "A", "agent": {"name": "research"}}]}, "`agent` is no text"),
        ({"todos": [{"title": "A", "depends_on": {"a": 1}}]}, "`depends_on` is no list"),
        ({"todos": [{"title": "A", "depends_on": [None, []]}]}, "`depends_on` is no text"),
        ({"todos": [{"title": "A" * 41}]}, "41 characters, at most 40"),
        ({"todos": [{"title": "A", "agent": "sales"}]}, "no agent “sales”. Name one of: research, writing"),
        ({"todos": [{"id": "a", "title": "A", "depends_on": ["a"]}]}, "“a”\\) depends on itself"),
        ({"todos": [{"id": "a", "title": "A", "depends_on": ["b"]}]}, "depends on “b”, and no todo has this id"),
        (
            {
                "todos": [
                    {"id": "a", "title": "A", "depends_on": ["c"]},
                    {"id": "b", "title": "B", "depends_on": ["a"]},
                    {"id": "c", "title": "C", "depends_on": ["b"]},
                    {"title": "D", "depends_on": ["c"]},
                ]
            },
            "wait for each other: “[abc]” → “[abc]” → “[abc]” → “[abc]”",
        ),
    ],
)
def test_what_is_wrong_is_said_in_words(said: Any, problem: str):
    with pytest.raises(BadPlan, match=problem):
        merged(proposed(said, limit=50), team=TEAM)


def test_problems_are_told_together_and_bounded():
    with pytest.raises(BadPlan) as raised:
        plan_of({"title": "A", "agent": "sales"}, {"title": "B" * 99, "depends_on": ["x" * 500]})
    assert len(raised.value.problems) == 3
    assert len(str(raised.value)) < 500
    with pytest.raises(BadPlan) as raised:
        proposed([{"title": 1}] * 50, limit=50)
    assert len(raised.value.problems) == MAX_PROBLEMS


def test_a_function_may_give_structs_and_plain_lists():
    todos = proposed([ProposedTodo(title="  A\n b "), {"title": "B", "depends_on": "todo_1"}], limit=9)
    assert todos == [ProposedTodo(title="A b"), ProposedTodo(title="B", depends_on=["todo_1"])]


# -- a plan made anew

RUNNING = before(("a", "Find", "completed"), ("b", "Compare", "in_progress", ["a"]), ("c", "Write", "pending", ["b"]))


def test_what_is_done_stays_and_what_remains_is_replaced():
    plan = plan_of({"id": "b", "title": "Compare"}, "Draw", "Send", before=RUNNING)
    assert short(plan) == [
        ("a", "Find", "completed", []),
        ("b", "Compare", "in_progress", ["a"]),
        ("todo_2", "Draw", "pending", ["b"]),
        ("todo_3", "Send", "pending", ["todo_2"]),
    ]


def test_running_work_that_is_not_proposed_again_is_skipped():
    plan = plan_of("Draw", before=RUNNING)
    assert short(plan) == [
        ("a", "Find", "completed", []),
        ("b", "Compare", "skipped", ["a"]),
        ("todo_1", "Draw", "pending", ["a"]),
    ]


def test_a_planner_that_repeats_the_whole_plan_changes_nothing():
    ids = [{"id": todo.id, "title": todo.title} for todo in RUNNING.todos]
    titles = [todo.title.upper() + "." for todo in RUNNING.todos]
    assert short(plan_of(*ids, before=RUNNING)) == short(RUNNING)
    assert [todo.id for todo in plan_of(*titles, before=RUNNING).todos] == ["a", "b", "c"]


def test_an_id_is_never_given_to_other_work():
    plan = plan_of(
        {"id": "a", "title": "Draw"},
        {"id": "b", "title": "Send", "depends_on": ["a"]},
        {"id": "x", "title": "Frame", "depends_on": ["b"]},
        before=RUNNING,
        used=("x", "todo_1"),
    )
    assert short(plan) == [
        ("a", "Find", "completed", []),
        ("b", "Compare", "skipped", ["a"]),
        ("todo_2", "Draw", "pending", []),
        ("todo_3", "Send", "pending", ["todo_2"]),
        ("todo_4", "Frame", "pending", ["todo_3"]),
    ]


def test_what_has_not_begun_may_be_worded_and_placed_anew():
    plan = plan_of(
        {"id": "b", "title": "Compare"}, {"id": "c", "title": "Write in French", "agent": "writing"}, before=RUNNING
    )
    assert plan.todo("c").title == "Write in French"
    assert plan.todo("c").agent == "writing"
    assert plan.todo("c").depends_on == ["b"]


def test_a_todo_that_another_depends_on_remains_although_it_was_not_repeated():
    plan = plan_of({"title": "Draw", "depends_on": ["c"]}, before=RUNNING)
    assert short(plan) == [*short(RUNNING), ("todo_1", "Draw", "pending", ["c"])]


def test_running_work_for_another_agent_is_other_work():
    plan = plan_of({"title": "Compare", "agent": "writing"}, before=RUNNING)
    assert [(todo.id, todo.status, todo.agent) for todo in plan.todos][1:] == [
        ("b", "skipped", "research"),
        ("todo_1", "pending", "writing"),
    ]


def test_failed_work_is_done_again_when_it_is_asked_for_without_its_id():
    failed = before(("a", "Find", "failed"), ("b", "Write", "pending"))
    assert short(plan_of("Find", "Write", before=failed))[1] == ("todo_1", "Find", "pending", [])
    assert [todo.id for todo in plan_of({"id": "a", "title": "Find"}, "Write", before=failed).todos] == ["a", "b"]


def test_the_rest_can_be_dropped_once_something_is_done():
    assert [todo.status for todo in plan_of({"id": "a", "title": "Find"}, before=RUNNING).todos] == [
        "completed",
        "skipped",
    ]
    with pytest.raises(BadPlan, match="nothing would be left"):
        plan_of({"id": "a", "title": "Find"}, before=before(("a", "Find", "failed"), ("b", "Write", "pending")))


def test_a_new_order_against_what_is_kept_is_no_cycle():
    chain = before(("a", "A", "completed"), ("b", "B", "pending", ["a"]), ("c", "C", "pending", ["b"]))
    assert short(plan_of("C", "B", before=chain))[1:] == [
        ("c", "C", "pending", ["a"]),
        ("b", "B", "pending", ["a", "c"]),
    ]


# -- whatever comes in

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["title", "id", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)
NAMES = st.sampled_from(["a", "b", "c", "todo_1", "todo_2", "not an id", "", "é"])
TODO = st.fixed_dictionaries(
    {"title": st.sampled_from(["A", "B", "C", "  b. ", "D" * 41, "\ud800"]) | ANYTHING},
    optional={
        "id": NAMES | ANYTHING,
        "agent": st.sampled_from(["research", "writing", "desk", "nobody"]) | ANYTHING,
        "depends_on": st.lists(NAMES, max_size=3) | ANYTHING,
    },
)
SOUND = st.fixed_dictionaries(
    {"title": st.sampled_from(["A", "B", "C", "D", "E"])},
    optional={"id": st.sampled_from(["a", "b", "c", "d", "x"]), "depends_on": st.lists(NAMES, max_size=2)},
)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """A plan on its way: what has begun rests only on what is over."""
    todos: list[Todo] = []
    for name, title in zip("abcd", "ABCD", strict=True):
        earlier = [todo.id for todo in todos]
        needs = draw(st.lists(st.sampled_from(earlier), unique=True)) if earlier else []
        free = all(todo.status in OVER for todo in todos if todo.id in needs)
        states = ["pending", "in_progress", "completed", "failed", "skipped"] if free else ["pending"]
        todos.append(
            Todo(id=name, title=title, agent="research", status=draw(st.sampled_from(states)), depends_on=needs)
        )
    return Plan(todos=tuple(todos))


def tried(said: Any, *, before: Plan = NOTHING, used: Collection[str] = ()) -> Plan | BadPlan:
    try:
        return merged(proposed(said, limit=9), team=TEAM, before=before, used=used)
    except BadPlan as bad:
        return bad


def check(plan: Plan) -> None:
    ids = [todo.id for todo in plan.todos]
    assert ids
    assert len(set(ids)) == len(ids)
    for todo in plan.todos:
        assert is_id(todo.id)
        assert todo.depends_on is not None
        assert set(todo.depends_on) <= set(ids) - {todo.id}
        msgspec.json.encode(todo)
    # It can be carried out to its end: there is no cycle, and nothing waits for what never comes.
    while not plan.over:
        ready = [todo.id for todo in (*plan.ready(), *plan.of_status("in_progress"))]
        assert ready
        plan = plan.marked_all(ready, "completed")


@given(
    said=ANYTHING | st.lists(TODO, max_size=9) | st.fixed_dictionaries({"todos": st.lists(TODO | ANYTHING, max_size=9)})
)
def test_whatever_is_said_is_a_plan_or_problems(said: Any):
    plan = tried(said)
    if isinstance(plan, BadPlan):
        assert plan.problems
        assert all(isinstance(each, str) and each and len(each) < 400 for each in plan.problems)
    else:
        check(plan)
        assert len(plan.todos) <= TEAM.max_todos
        assert all(todo.status == "pending" and todo.agent in ("research", "writing", "desk") for todo in plan.todos)
        assert all(len(todo.title) <= TEAM.max_title_chars for todo in plan.todos)


@given(old=plans(), said=st.lists(SOUND | TODO, min_size=1, max_size=6), used=st.sets(st.sampled_from(["x", "todo_1"])))
def test_a_plan_made_anew_keeps_what_is_done(old: Plan, said: list[Any], used: set[str]):
    new = tried(said, before=old, used=used)
    if isinstance(new, BadPlan):
        assert new.problems
        return
    check(new)
    known = {todo.id: todo for todo in old.todos}
    now = {todo.id: todo for todo in new.todos}
    for todo in old.todos:
        if todo.status in OVER:
            assert now[todo.id].status == todo.status
            assert now[todo.id].title == todo.title
        if todo.status == "in_progress":
            assert now[todo.id].status in ("in_progress", "skipped")
            assert now[todo.id].title == todo.title
    for todo in new.todos:
        if todo.id not in known:
            assert todo.status == "pending"
            assert todo.id not in used
        elif known[todo.id].status == "pending":
            assert todo.status == "pending"
    done = [todo.status in OVER for todo in new.todos]
    assert all(one or not other for one, other in pairwise(done)), "what is over comes first"


@given(said=st.lists(SOUND, min_size=1, max_size=5))
def test_the_same_proposal_again_changes_nothing(said: list[Any]):
    todos = [{**each, "title": f"{each['title']}{number}"} for number, each in enumerate(said)]
    first = tried(todos)
    if isinstance(first, BadPlan):
        return
    again = [{"id": todo.id, "title": todo.title, "depends_on": todo.depends_on} for todo in first.todos]
    assert merged(proposed(again, limit=9), team=TEAM, before=first, used=set()) == first
