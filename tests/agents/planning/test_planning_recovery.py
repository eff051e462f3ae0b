"""A server that dies while planning: the next one asks for what is missing, and for nothing else."""

from collections import Counter
from typing import Any

import pytest

from midstream import Agent
from midstream.agents.journal import journal_record
from midstream.agents.planning.plan import Plan
from midstream.agents.planning.progress import reopened, unrevised
from midstream.agents.records import GuardRecord, PlanRecord, TitleRecord
from midstream.log import JournalRecord
from midstream.runs.contract import CorrectionRecord, RunFailure
from midstream.tasks import spawn, stop
from midstream_protocol.events import Todo
from tests.agents.planning.fakes import (
    ALLOW,
    PLAN,
    TITLE,
    TRIP,
    FakeAsks,
    FakePort,
    desk,
    orchestrated,
    prose,
)

MODES = pytest.mark.parametrize("mode", ["gate", "race"])


async def planned(port: FakePort, asks: FakeAsks, agent: Agent) -> str:
    """Plan until it is done or the process dies; says which."""
    orchestrator = orchestrated(agent, port, asks)

    async def whole() -> None:
        await orchestrator.prepare()
        await orchestrator.finish()

    working = spawn(whole(), name="test", expected=(RunFailure,))
    dying = spawn(port.dead.wait(), name="test:dead")
    while not (working.done() or dying.done()):
        await port.clock.advance(0)
    await stop(dying)
    if working.done():
        error = working.exception()
        return error.code if isinstance(error, RunFailure) else "done"
    await stop(working)
    await orchestrator.aclose()
    return "died"


async def with_a_death(lives: int, agent: Agent, **said: Any) -> tuple[list[FakePort], list[FakeAsks], str]:
    """One death after so many writes, and the program after it."""
    first = FakePort(lives=lives)
    asks = [FakeAsks(**said), FakeAsks(**said)]
    ending = await planned(first, asks[0], agent)
    if ending != "died":
        return [first], asks[:1], ending
    second = FakePort(journal=first.written)
    second.titled = False
    return [first, second], asks, await planned(second, asks[1], agent)


@MODES
@pytest.mark.parametrize("lives", range(10))
@pytest.mark.asyncio
async def test_a_death_after_any_write_repeats_only_what_is_missing(mode: str, lives: int):
    agent = desk(guardrail_mode=mode, guardrails=[Agent("scope", instructions=""), Agent("other", instructions="")])
    ports, asks, ending = await with_a_death(lives, agent, planner=PLAN, titler=TITLE, scope=ALLOW, other=ALLOW)
    assert ending == "done"
    shown = Counter(kind for port in ports for kind in port.types)
    assert shown["plan.created"] == shown["thread.titled"] == 1
    kept = {(record.kind, record.key if record.kind == "guardrail" else "") for record in ports[0].written}
    if len(ports) == 1:
        assert lives >= 7
        return
    names = asks[1].names()
    assert ("planner" in names) == (("plan", "") not in kept)
    assert ("titler" in names) == (("title", "") not in kept)
    assert ("scope" in names) == (("guardrail", "scope") not in kept)
    assert ("other" in names) == (("guardrail", "other") not in kept)
    assert len(names) == len(set(names))


@MODES
@pytest.mark.parametrize("lives", range(8))
@pytest.mark.asyncio
async def test_a_refusal_is_told_once_however_often_the_server_dies(mode: str, lives: int):
    ports, asks, ending = await with_a_death(lives, desk(guardrail_mode=mode), planner=PLAN, titler=TITLE, scope=TRIP)
    assert ending == "guardrail"
    assert sum(len(port.of_type("guardrail.triggered")) for port in ports) == 1
    if mode == "gate":
        assert not any(port.of_type("plan.created") for port in ports)
    if len(ports) == 2 and any(record.kind == "guardrail" for record in ports[0].written):
        assert asks[1].names() == []
        assert ports[1].types == []


@pytest.mark.asyncio
async def test_a_refusal_in_the_journal_ends_the_run_with_its_reason():
    journal = [journal_record("guardrail", "scope", GuardRecord(allow=False, reason="Not this."))]
    port, asks = FakePort(journal=journal), FakeAsks()
    with pytest.raises(RunFailure) as raised:
        await orchestrated(desk(), port, asks).prepare()
    assert (raised.value.code, raised.value.text) == ("guardrail", "Not this.")
    assert port.batches == []


@pytest.mark.asyncio
async def test_a_guardrail_that_failed_and_was_let_pass_is_not_asked_again():
    journal = [journal_record("guardrail", "scope", GuardRecord(allow=True, error=True))]
    asks = FakeAsks(planner=PLAN, titler=TITLE)
    await orchestrated(desk(), FakePort(journal=journal), asks).prepare()
    assert "scope" not in asks.names()


@pytest.mark.asyncio
async def test_a_title_that_was_made_is_claimed_after_a_restart():
    journal = [journal_record("title", "", TitleRecord(title="Kept"))]
    port, asks = FakePort(journal=journal), FakeAsks(planner=PLAN, scope=ALLOW)
    assert await planned(port, asks, desk()) == "done"
    assert port.claims == ["Kept"]
    settled = [*journal, journal_record("title", "", TitleRecord(title="Kept", ours=False))]
    port = FakePort(journal=settled)
    assert await planned(port, asks, desk()) == "done"
    assert port.claims == []


@pytest.mark.asyncio
async def test_a_plan_that_is_there_is_the_plan():
    plan = PlanRecord(todos=(todo("a", "completed"), todo("b", "in_progress")), asked=3)
    port = FakePort(journal=[journal_record("plan", "1", plan)])
    asks = FakeAsks(planner=[prose("?"), PLAN], titler=TITLE, scope=ALLOW)
    orchestrator = orchestrated(desk(), port, asks)
    assert orchestrator.plan == Plan(todos=plan.todos)
    await orchestrator.prepare()
    assert port.of_type("run.step") == port.of_type("plan.created") == []
    # A script that answers by number goes on with the next.
    await orchestrator.revise([], outcomes={})
    assert [question.turn for question in asks.asked if question.agent == "planner"] == [3, 4]
    await orchestrator.aclose()


# -- going on from a run that failed


def todo(todo_id: str, status: Any, *, agent: str = "research") -> Todo:
    return Todo(id=todo_id, title=todo_id.upper(), agent=agent, status=status, depends_on=[])


def plan_record(*todos: Todo, corrections: tuple[str, ...] = ()) -> JournalRecord:
    return journal_record("plan", "1", PlanRecord(todos=todos, corrections=corrections))


@MODES
@pytest.mark.parametrize("lives", range(9))
@pytest.mark.asyncio
async def test_a_resumed_run_has_the_plan_of_the_one_before(mode: str, lives: int):
    before = [plan_record(todo("a", "completed"), todo("b", "failed"), todo("c", "pending"), todo("d", "skipped"))]
    agent = desk(guardrail_mode=mode)
    first = FakePort(resume="run_0", resumed=before, lives=lives)
    asks = FakeAsks(titler=TITLE, scope=ALLOW)
    ports = [first]
    if await planned(first, asks, agent) == "died":
        ports.append(FakePort(resume="run_0", resumed=before, journal=first.written))
        assert await planned(ports[1], asks, agent) == "done"
    [created] = [event for port in ports for event in port.of_type("plan.created")]
    assert created.reason == "resume"
    assert [each.status for each in created.todos] == ["completed", "pending", "pending", "pending"]


@pytest.mark.asyncio
async def test_a_resumed_run_whose_plan_cannot_be_used_is_planned():
    for before in (None, [], [plan_record(todo("a", "failed", agent="gone"))]):
        port = FakePort(resume="run_0", resumed=before)
        asks = FakeAsks(planner=PLAN, titler=TITLE, scope=ALLOW)
        assert await planned(port, asks, desk()) == "done"
        assert [each.id for each in port.of_type("plan.created")[0].todos] == ["find", "write"]


def test_what_a_correction_dropped_is_not_taken_up_again():
    journal = [
        plan_record(todo("a", "completed"), todo("b", "in_progress"), todo("c", "pending")),
        plan_record(todo("a", "completed"), todo("b", "skipped"), todo("d", "pending"), corrections=("c_1",)),
        plan_record(todo("a", "completed"), todo("b", "skipped"), todo("d", "skipped")),
    ]
    plan = reopened(journal, agents={"research"})
    assert plan is not None
    assert [(each.id, each.status) for each in plan.todos] == [("a", "completed"), ("b", "skipped"), ("d", "pending")]
    assert reopened([], agents={"research"}) is None


# -- corrections between their taking and the new plan


def test_a_correction_is_owed_a_plan_until_one_names_it():
    def taken(name: str, *, replanned: bool) -> JournalRecord:
        return journal_record("correction", name, CorrectionRecord(text=name, message_id="m", replanned=replanned))

    journal = [
        plan_record(todo("a", "pending")),
        taken("c_1", replanned=True),
        taken("c_2", replanned=False),
        taken("c_3", replanned=True),
        plan_record(todo("a", "pending"), corrections=("c_1",)),
        plan_record(todo("a", "completed")),
    ]
    assert [(each.correction_id, each.text, each.replanned) for each in unrevised(journal)] == [("c_3", "c_3", True)]
