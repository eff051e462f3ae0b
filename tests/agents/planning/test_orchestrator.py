"""Planning, titling and judging at the same time, each part failing in its own way."""

import asyncio
from typing import Any

import pytest
import structlog

from midstream import Agent
from midstream.agents.asking import Question
from midstream.agents.conversation import AssistantMessage, Text, UserMessage
from midstream.agents.planning.contract import Allow, Planning, ProposedTodo, Request, Revision, Stop
from midstream.runs.contract import RunFailure, Stopping
from midstream.tasks import spawn, stop
from tests.agents.planning.fakes import (
    ALLOW,
    PLAN,
    TITLE,
    TRIP,
    After,
    FakeAsks,
    FakePort,
    desk,
    never,
    orchestrated,
    prose,
    turns,
)

GATE, RACE = "gate", "race"
MODES = pytest.mark.parametrize("mode", [GATE, RACE])


def nothing_left() -> bool:
    """Whether no task of planning is there any more."""
    return not [task for task in asyncio.all_tasks() if task.get_name().startswith("run:")]


def last_user(question: Question) -> str:
    message = question.messages[-1]
    assert isinstance(message, UserMessage)
    return "\n".join(part.text for part in message.parts if isinstance(part, Text))


# -- all goes well


@MODES
@pytest.mark.asyncio
async def test_all_three_are_asked_at_once_and_each_shows_when_it_is_there(mode: str):
    port = FakePort()
    plan, title, guard = After(PLAN), After(TITLE), After(ALLOW)
    asks = FakeAsks(planner=plan, titler=title, scope=guard)
    orchestrator = orchestrated(desk(guardrail_mode=mode), port, asks)
    preparing = spawn(orchestrator.prepare(), name="test")
    await turns()
    assert asks.open == {"planner", "titler", "scope"}
    assert port.types == ["run.step", "run.status"]
    assert port.events[0].kind == "plan"
    assert (port.events[1].phase, port.events[1].text) == ("planning", "Planning")

    plan.let.set()
    title.let.set()
    await turns()
    shown = port.of_type("plan.created") + port.of_type("thread.titled")
    assert [each.TYPE for each in shown] == ([] if mode == GATE else ["plan.created", "thread.titled"])
    assert preparing.done() == (mode == RACE)
    # A crash now would ask for neither again.
    assert {record.kind for record in port.written} == {"plan", "title"}

    guard.let.set()
    await preparing
    await orchestrator.finish()
    await orchestrator.verdict()
    assert sorted(port.types[2:]) == ["plan.created", "run.step", "thread.titled"]
    [created] = port.of_type("plan.created")
    assert [(todo.id, todo.agent, todo.status, todo.depends_on) for todo in created.todos] == [
        ("find", "research", "pending", []),
        ("write", "writing", "pending", ["find"]),
    ]
    assert orchestrator.plan is not None
    assert list(orchestrator.plan.todos) == created.todos
    assert port.claims == ["Prices of three shops"]
    assert [step.state for step in port.of_type("run.step")] == ["started", "completed"]
    assert nothing_left()


@pytest.mark.asyncio
async def test_the_work_does_not_wait_for_the_title_and_the_end_does():
    port, title = FakePort(), After(TITLE)
    orchestrator = orchestrated(desk(), port, FakeAsks(planner=PLAN, titler=title, scope=ALLOW))
    await orchestrator.prepare()
    finishing = spawn(orchestrator.finish(), name="test")
    await turns()
    assert not finishing.done()
    title.let.set()
    await finishing
    assert [each.title for each in port.of_type("thread.titled")] == ["Prices of three shops"]


@pytest.mark.asyncio
async def test_what_the_models_are_told():
    port = FakePort()
    history = (
        UserMessage(parts=(Text(text="Hello"),)),
        AssistantMessage(parts=(Text(text="Hi"),)),
    )
    asks = FakeAsks(planner=PLAN, titler=TITLE, scope=ALLOW)
    orchestrator = orchestrated(desk(), port, asks, history=history)
    await orchestrator.prepare()
    await orchestrator.finish()
    planner, scope, titler = (next(q for q in asks.asked if q.agent == name) for name in ("planner", "scope", "titler"))
    assert planner.system.startswith("Plan well.")
    assert "- research: finds facts" in planner.system
    assert "At most 20 todos" in planner.system
    assert planner.models == ("big", "small")
    assert planner.step_id == port.events[0].step_id
    assert [type(message).__name__ for message in planner.messages] == [
        "UserMessage",
        "AssistantMessage",
        "UserMessage",
    ]
    assert last_user(planner) == last_user(scope) == last_user(titler) == "Compare the prices of three shops."
    assert scope.system.startswith("Only prices.")
    assert len(titler.messages) == 1
    assert [q.turn for q in (planner, scope, titler)] == [0, 0, 0]


@pytest.mark.asyncio
async def test_functions_do_as_well_as_agents():
    asked: list[Any] = []

    async def planner(request: Request, revision: Revision | None) -> list[ProposedTodo]:
        asked.append((request.input, revision))
        return [ProposedTodo(title="Find", agent="research"), ProposedTodo(title="Write", agent="writing")]

    async def title(request: Request) -> str:
        return f"  About {request.thread_id}\n"

    async def polite(_request: Request) -> Allow:
        return Allow()

    def plain(_request: Request) -> Allow:
        return Allow()

    port = FakePort()
    agent = desk(planner=planner, title=title, guardrails=[polite, plain, polite, lambda _request: Allow()])
    orchestrator = orchestrated(agent, port, FakeAsks())
    await orchestrator.prepare()
    await orchestrator.finish()
    assert asked == [("Compare the prices of three shops.", None)]
    assert [todo.title for todo in orchestrator.plan.todos] == ["Find", "Write"]
    assert port.claims == ["About thread_1"]
    assert sorted(r.key for r in port.written if r.kind == "guardrail") == ["guardrail", "plain", "polite", "polite_2"]


@pytest.mark.asyncio
async def test_an_agent_that_does_none_of_it_is_ready_at_once():
    port = FakePort()
    orchestrator = orchestrated(desk(planner=None, specialists=[], guardrails=[], title=False), port, FakeAsks())
    await orchestrator.prepare()
    await orchestrator.verdict()
    await orchestrator.finish()
    await orchestrator.aclose()
    assert port.batches == []
    assert orchestrator.plan is None
    assert not orchestrator.replans("Now!", asked=True)
    assert await orchestrator.revise([], outcomes={}) is None


@pytest.mark.asyncio
async def test_guardrails_work_without_a_plan():
    port, guard = FakePort(), After(TRIP)
    orchestrator = orchestrated(desk(planner=None, specialists=[], title=False), port, FakeAsks(scope=guard))
    preparing = spawn(orchestrator.prepare(), name="test", expected=(RunFailure,))
    await turns()
    assert [each.text for each in port.of_type("run.status")] == ["Checking the request"]
    guard.let.set()
    with pytest.raises(RunFailure):
        await preparing
    assert port.types == ["run.status", "guardrail.triggered"]


# -- the guardrails


@MODES
@pytest.mark.asyncio
async def test_a_trip_stops_all_that_is_under_way_and_shows_why(mode: str):
    port = FakePort()
    asks = FakeAsks(planner=never, titler=never, scope=TRIP, other=never)
    agent = desk(guardrail_mode=mode, guardrails=[Agent("scope", instructions=""), Agent("other", instructions="")])
    orchestrator = orchestrated(agent, port, asks)
    with pytest.raises(RunFailure) as raised:
        await orchestrator.prepare()
    assert (raised.value.code, raised.value.text) == ("guardrail", "This is not about prices.")
    assert not raised.value.retryable
    assert asks.open == set()
    assert nothing_left()
    [triggered] = port.of_type("guardrail.triggered")
    assert (triggered.name, triggered.reason) == ("scope", "This is not about prices.")
    # The verdict and its event are one write.
    assert [[r.kind for r in journal] for payloads, journal in port.batches if triggered in payloads] == [["guardrail"]]
    assert port.of_type("plan.created") == []
    with pytest.raises(RunFailure):
        await orchestrator.verdict()


@pytest.mark.asyncio
async def test_behind_a_gate_a_plan_that_was_ready_is_never_shown():
    port, guard = FakePort(), After(TRIP)
    orchestrator = orchestrated(desk(), port, FakeAsks(planner=PLAN, titler=TITLE, scope=guard))
    preparing = spawn(orchestrator.prepare(), name="test", expected=(RunFailure,))
    await turns()
    guard.let.set()
    with pytest.raises(RunFailure):
        await preparing
    assert port.types == ["run.step", "run.status", "guardrail.triggered"]
    assert port.claims == []
    assert orchestrator.plan is None
    assert nothing_left()


@pytest.mark.asyncio
async def test_in_a_race_whoever_waits_for_the_verdict_hears_of_the_trip():
    port, guard = FakePort(), After(TRIP)
    orchestrator = orchestrated(desk(guardrail_mode=RACE), port, FakeAsks(planner=PLAN, titler=TITLE, scope=guard))
    await orchestrator.prepare()
    waiting = [spawn(orchestrator.verdict(), name=f"test:{n}", expected=(RunFailure,)) for n in range(3)]
    await turns()
    await stop(waiting.pop())
    assert not any(task.done() for task in waiting)
    guard.let.set()
    await turns()
    for task in waiting:
        assert isinstance(task.exception(), RunFailure)
    with pytest.raises(RunFailure):
        await orchestrator.finish()
    await orchestrator.aclose()
    assert nothing_left()


class SlowTrip(FakePort):
    """Writes a trip when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.let = asyncio.Event()

    async def record(self, *events: Any, **given: Any) -> None:
        if any(event.TYPE == "guardrail.triggered" for event in events):
            await self.let.wait()
        await super().record(*events, **given)


@pytest.mark.asyncio
async def test_in_a_race_nothing_is_shown_while_a_trip_is_written():
    port, plan, title = SlowTrip(), After(PLAN), After(TITLE)
    asks = FakeAsks(planner=plan, titler=title, scope=TRIP)
    orchestrator = orchestrated(desk(guardrail_mode=RACE), port, asks)
    preparing = spawn(orchestrator.prepare(), name="test", expected=(RunFailure,))
    await turns()
    plan.let.set()
    title.let.set()
    await turns()
    port.let.set()
    with pytest.raises(RunFailure):
        await preparing
    assert port.types == ["run.step", "run.status", "guardrail.triggered"]
    assert port.claims == []
    assert nothing_left()


@pytest.mark.asyncio
async def test_who_wrote_a_guardrail_or_a_planner_is_told_what_was_wrong_with_its_answer():
    with structlog.testing.capture_logs() as logs:
        with pytest.raises(RunFailure):
            await orchestrated(
                desk(guardrails=[nonsense], planner=twice_wrong), FakePort(), FakeAsks(titler=TITLE)
            ).prepare()
        await orchestrated(desk(guardrails=(), planner=twice_wrong), FakePort(), FakeAsks(titler=TITLE)).prepare()
        await orchestrated(desk(guardrails=()), FakePort(), FakeAsks(planner=prose("Hm."), titler=TITLE)).prepare()
    guardrail = next(log for log in logs if log["event"] == "a part of planning failed")
    assert str(guardrail["exc_info"]) == "a guardrail returns Allow() or Stop(reason), and not a value of type str"
    plan = next(log for log in logs if log["event"] == "a plan cannot be used")
    assert plan["wrong"] == ["There is no list of todos. Give an object with the list `todos`."]
    assert [log["agent"] for log in logs if log["event"] == "an answer cannot be used"] == ["planner"]


async def twice_wrong(request: Request, revision: Revision | None) -> Any:
    return 42


@pytest.mark.asyncio
async def test_in_a_race_leaving_stops_the_guardrails_and_lets_go_of_who_waits():
    port = FakePort()
    asks = FakeAsks(planner=PLAN, titler=never, scope=never)
    orchestrator = orchestrated(desk(guardrail_mode=RACE), port, asks)
    await orchestrator.prepare()
    waiting = spawn(orchestrator.verdict(), name="test", expected=(Stopping,))
    await turns()
    await orchestrator.aclose()
    await orchestrator.aclose()
    assert asks.open == set()
    with pytest.raises(Stopping):
        await waiting
    assert nothing_left()


async def raising(*_: Any) -> Any:
    raise ValueError("the password is hunter2")


async def stubborn(*_: Any) -> Any:
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            continue


async def cancelling(*_: Any) -> Any:
    raise asyncio.CancelledError


async def nonsense(*_: Any) -> Any:
    return "certainly"


@MODES
@pytest.mark.parametrize("policy", ["closed", "open"])
@pytest.mark.parametrize("guard", [raising, cancelling, nonsense, never, "late", "prose", "wrong", "no model"])
@pytest.mark.asyncio
async def test_a_guardrail_that_gives_no_verdict_is_up_to_its_policy(mode: str, policy: str, guard: Any):
    said: dict[Any, Any] = {
        "late": never,
        "prose": prose("It is fine."),
        "wrong": {"allow": "yes"},
        "no model": RunFailure("overloaded", "secret of the provider", retryable=True),
    }
    agent = desk(
        guardrail_mode=mode,
        guardrail_error=policy,
        guardrail_timeout_s=5,
        guardrails=[Agent("scope", instructions="") if isinstance(guard, str) else guard],
    )
    port = FakePort()
    asks = FakeAsks(planner=PLAN, titler=TITLE, scope=said.get(guard))
    orchestrator = orchestrated(agent, port, asks)

    async def whole() -> None:
        await orchestrator.prepare()
        await orchestrator.finish()

    working = spawn(whole(), name="test", expected=(RunFailure,))
    await turns(200)
    await port.clock.advance(5)
    await turns(200)
    if policy == "closed":
        with pytest.raises(RunFailure) as raised:
            await working
        assert raised.value.code == "guardrail_failed"
        assert raised.value.retryable
        assert "hunter2" not in raised.value.text
        assert "secret" not in raised.value.text
        assert port.of_type("guardrail.triggered") == []
    else:
        await working
        assert [notice.code for notice in port.of_type("notice")] == ["guardrail_failed"]
        assert "hunter2" not in str(port.events)
        assert len(port.of_type("plan.created")) == 1
    await orchestrator.aclose()
    assert nothing_left()


@pytest.mark.asyncio
async def test_a_guardrail_that_does_not_stop_when_it_is_told_to_holds_nobody_up():
    port = FakePort()
    orchestrator = orchestrated(
        desk(guardrails=[stubborn], guardrail_timeout_s=5), port, FakeAsks(planner=PLAN, titler=TITLE)
    )
    preparing = spawn(orchestrator.prepare(), name="test", expected=(RunFailure,))
    await port.clock.advance(5)
    assert not preparing.done()
    await port.clock.advance(3)
    with pytest.raises(RunFailure, match="took longer than 5 s"):
        await preparing
    lingering = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    assert len(lingering) == 1
    # It swallows every cancellation, so its own end is the test's to make.
    lingering[0].get_coro().close()  # type: ignore[union-attr]


@pytest.mark.asyncio
async def test_an_answer_of_a_guardrail_that_cannot_be_read_is_given_back_once():
    port = FakePort()
    asks = FakeAsks(planner=PLAN, titler=TITLE, scope=[prose("Yes, fine"), ALLOW])
    await orchestrated(desk(), port, asks).prepare()
    again = [question for question in asks.asked if question.agent == "scope"][1]
    assert again.turn == 1
    assert again.messages[1].parts == (Text(text="Yes, fine"),)
    assert "Fix your output" in last_user(again)


@pytest.mark.asyncio
async def test_a_reason_is_bounded_and_always_there():
    async def long(_request: Request) -> Stop:
        return Stop("no " * 1000 + "\ud800")

    async def wordless(_request: Request) -> Stop:
        return Stop("")

    for guard, length in ((long, 500), (wordless, len("This request was not allowed."))):
        port = FakePort()
        with pytest.raises(RunFailure) as raised:
            await orchestrated(desk(guardrails=[guard]), port, FakeAsks(planner=never, titler=never)).prepare()
        assert len(raised.value.text) == length
        assert port.of_type("guardrail.triggered")[0].reason == raised.value.text
        raised.value.text.encode()


# -- the plan


WRONG_PLANS: dict[str, Any] = {
    "empty": {"todos": []},
    "nothing": {},
    "types": {"todos": [{"title": 7}]},
    "a list": [1, 2, 3],
    "unknown agent": {"todos": [{"title": "A", "agent": "nobody"}]},
    "cycle": {
        "todos": [{"id": "a", "title": "A", "depends_on": ["b"]}, {"id": "b", "title": "B", "depends_on": ["a"]}]
    },
    "too many": {"todos": [{"title": f"Step {n}"} for n in range(1_000)]},
    "prose": prose("First I would look around, then write."),
    "cut off": prose('{"todos": [{"title": "A'),
}


@pytest.mark.parametrize("wrong", WRONG_PLANS.values(), ids=WRONG_PLANS)
@pytest.mark.asyncio
async def test_a_plan_that_cannot_be_used_is_given_back_once_and_then_mended(wrong: Any):
    port = FakePort()
    asks = FakeAsks(planner=[wrong, PLAN], titler=TITLE, scope=ALLOW)
    await orchestrated(desk(), port, asks).prepare()
    first, again = (question for question in asks.asked if question.agent == "planner")
    assert (first.turn, again.turn) == (0, 1)
    assert again.messages[: len(first.messages)] == first.messages
    assert isinstance(again.messages[-2], AssistantMessage)
    assert "Fix your output" in last_user(again)
    assert port.of_type("plan.created")[0].todos[0].title == "Find the prices"
    assert port.of_type("plan.created")[0].reason is None


@pytest.mark.parametrize("wrong", WRONG_PLANS.values(), ids=WRONG_PLANS)
@pytest.mark.asyncio
async def test_after_that_policy_decides(wrong: Any):
    port = FakePort()
    asks = FakeAsks(planner=wrong, titler=TITLE, scope=ALLOW)
    orchestrator = orchestrated(desk(), port, asks)
    await orchestrator.prepare()
    assert asks.names().count("planner") == 2
    [created] = port.of_type("plan.created")
    assert created.reason == "no_plan"
    assert [(todo.title, todo.agent) for todo in created.todos] == [("Compare the prices of three shops.", "desk")]

    port = FakePort()
    with pytest.raises(RunFailure) as raised:
        await orchestrated(
            desk(without_plan="fail"), port, FakeAsks(planner=wrong, titler=never, scope=ALLOW)
        ).prepare()
    assert (raised.value.code, raised.value.retryable) == ("no_plan", True)
    assert port.of_type("plan.created") == []
    assert nothing_left()


@MODES
@pytest.mark.parametrize("planner", ["never", "no model", raising, nonsense, stubborn, never])
@pytest.mark.asyncio
async def test_a_planner_that_fails_is_up_to_its_policy(mode: str, planner: Any):
    said: dict[Any, Any] = {"never": never, "no model": RunFailure("rate_limited", "Too many.", retryable=True)}
    options: dict[str, Any] = {} if isinstance(planner, str) else {"planner": planner}
    port = FakePort()
    asks = FakeAsks(planner=said.get(planner), titler=TITLE, scope=ALLOW)
    orchestrator = orchestrated(desk(guardrail_mode=mode, plan_timeout_s=10, **options), port, asks)
    preparing = spawn(orchestrator.prepare(), name="test")
    await turns()
    await port.clock.advance(14)
    await preparing
    assert [todo.agent for todo in orchestrator.plan.todos] == ["desk"]
    assert "hunter2" not in str(port.events)
    await orchestrator.finish()
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.get_coro().close()  # type: ignore[union-attr]


@pytest.mark.asyncio
async def test_one_step_goes_to_the_only_specialist():
    port = FakePort()
    agent = desk(specialists=[Agent("solo", instructions="")])
    orchestrator = orchestrated(agent, port, FakeAsks(planner={}, titler=TITLE, scope=ALLOW))
    await orchestrator.prepare()
    assert [todo.agent for todo in orchestrator.plan.todos] == ["solo"]


@pytest.mark.asyncio
async def test_a_planner_function_is_told_once_what_was_wrong():
    told: list[tuple[str, ...]] = []

    async def planner(request: Request, _revision: Revision | None) -> Any:
        told.append(request.problems)
        return [ProposedTodo(title="A")] if request.problems else []

    orchestrator = orchestrated(desk(planner=planner), FakePort(), FakeAsks(titler=TITLE, scope=ALLOW))
    await orchestrator.prepare()
    assert told == [(), ("There are no todos. Give at least one.",)]
    assert [todo.title for todo in orchestrator.plan.todos] == ["A"]


# -- the title


@pytest.mark.parametrize(
    ("said", "title"),
    [
        (TITLE, "Prices of three shops"),
        (prose('"Prices,  compared."\nI hope you like it.'), "Prices, compared"),
        ({"title": "word " * 40}, "word word word word word word word word word word word…"),
        ({"title": "  "}, None),
        ({"title": 3}, None),
        (prose(""), None),
        (RunFailure("overloaded", "no"), None),
        (never, None),
    ],
)
@pytest.mark.asyncio
async def test_there_is_always_a_title(said: Any, title: str | None):
    port = FakePort()
    agent = desk(planner=None, specialists=[], guardrails=[], title=True, title_timeout_s=3)
    orchestrator = orchestrated(agent, port, FakeAsks(title=said))
    await orchestrator.prepare()
    finishing = spawn(orchestrator.finish(), name="test")
    await turns()
    await port.clock.advance(3)
    await finishing
    expected = title or "Compare the prices of three shops."
    assert [each.title for each in port.of_type("thread.titled")] == port.claims == [expected]
    assert len(expected) <= 60


@pytest.mark.asyncio
async def test_a_thread_is_titled_once():
    asks = FakeAsks(planner=PLAN, titler=TITLE, scope=ALLOW)
    port = FakePort(title="Prices")
    orchestrator = orchestrated(desk(), port, asks)
    await orchestrator.prepare()
    await orchestrator.finish()
    assert "titler" not in asks.names()

    port = FakePort(titled=True)
    orchestrator = orchestrated(desk(), port, asks)
    await orchestrator.prepare()
    await orchestrator.finish()
    assert port.claims == ["Prices of three shops"]
    assert port.of_type("thread.titled") == []


@pytest.mark.asyncio
async def test_a_title_function_that_fails_tells_nobody_why():
    port = FakePort()
    orchestrator = orchestrated(desk(title=raising), port, FakeAsks(planner=PLAN, scope=ALLOW))
    await orchestrator.prepare()
    await orchestrator.finish()
    assert port.claims == ["Compare the prices of three shops."]
    assert "hunter2" not in str(port.events)


# -- leaving


@MODES
@pytest.mark.asyncio
async def test_a_cancel_while_planning_stops_everything(mode: str):
    port = FakePort()
    asks = FakeAsks(planner=never, titler=never, scope=never)
    preparing = spawn(orchestrated(desk(guardrail_mode=mode), port, asks).prepare(), name="test")
    await turns()
    assert len(asks.open) == 3
    await stop(preparing)
    assert asks.open == set()
    assert preparing.cancelled()
    assert nothing_left()


@pytest.mark.asyncio
async def test_parts_that_take_their_time_to_stop_take_it_together():
    port = FakePort()
    orchestrator = orchestrated(desk(planner=stubborn, title=stubborn, guardrails=[stubborn]), port, FakeAsks())
    preparing = spawn(orchestrator.prepare(), name="test")
    await turns()
    preparing.cancel()
    await port.clock.advance(3)
    assert preparing.cancelled()
    assert nothing_left() is False
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.get_coro().close()  # type: ignore[union-attr]


@MODES
@pytest.mark.asyncio
async def test_a_run_that_is_to_stop_after_this_step_shows_no_plan(mode: str):
    port, plan = FakePort(), After(PLAN)
    orchestrator = orchestrated(desk(guardrail_mode=mode), port, FakeAsks(planner=plan, titler=TITLE, scope=ALLOW))
    preparing = spawn(orchestrator.prepare(), name="test", expected=(Stopping,))
    await turns()
    port.stopping = True
    plan.let.set()
    with pytest.raises(Stopping):
        await preparing
    assert port.of_type("plan.created") == []
    assert nothing_left()
    with pytest.raises(Stopping):
        await orchestrated(desk(), port, FakeAsks()).prepare()


@pytest.mark.parametrize("name", ["plan_timeout_s", "guardrail_timeout_s", "title_timeout_s", "max_todos"])
def test_settings_that_cannot_be_are_refused(name: str):
    with pytest.raises(ValueError, match=f"{name} is 0; give a (whole )?number above 0"):
        Planning(**{name: 0})
