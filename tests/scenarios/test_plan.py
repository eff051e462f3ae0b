"""Planned runs on a real server process, with an independent model and a client that knows only the protocol."""

import asyncio
from typing import Any

import pytest

from tests.scenarios.desk import DeskWorld, Model, data, desk, role_of, said, todos
from tests.scenarios.world import Stranger, same_history, whole
from tests.testkit.model_server import STALL, Received, Reply, error_reply, text_message

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(120)]

THREE = todos("research", "analysis", "writing")
FAN = todos("research", "research", "research", "writing", depends=[[], [], [], [0, 1, 2]])


def of(events: list[dict[str, Any]], type_: str) -> list[dict[str, Any]]:
    return [event["payload"] for event in events if event["type"] == type_]


def plan_at_end(events: list[dict[str, Any]]) -> list[str]:
    plans = [e["payload"]["todos"] for e in events if e["type"] in ("plan.created", "plan.updated")]
    return [todo["status"] for todo in plans[-1]]


def steps(events: list[dict[str, Any]], kind: str = "stage") -> list[tuple[str, str]]:
    return [(p["title"], p["state"]) for p in of(events, "run.step") if p["kind"] == kind]


async def begin(client: Stranger, command_id: str = "s1", **fields: Any) -> str:
    receipt = await client.command("run.start", command_id, input="Compare the three lines.", **fields)
    assert receipt["status"] == "accepted", receipt
    return str(receipt["run_id"])


async def test_a_plan_is_made_and_carried_out(tmp_path):
    async with desk(tmp_path, THREE) as (it, model), it.client() as client:
        await begin(client)
        end = await client.to_end()
        assert (end["type"], end["payload"]["result"]) == ("run.completed", "writing done."), end
        [plan] = of(client.events, "plan.created")
        assert [(t["agent"], t["status"]) for t in plan["todos"]] == [
            (agent, "pending") for agent in ("research", "analysis", "writing")
        ]
        assert [t["depends_on"] for t in plan["todos"]] == [[], ["t1"], ["t2"]]
        assert of(client.events, "thread.titled") == [{"title": "A fine title"}]
        assert plan_at_end(client.events) == ["completed"] * 3
        assert [state for _, state in steps(client.events)] == ["started", "completed"] * 3
        assert sorted(model.asked[:3]) == ["GUARD", "PLANNER", "TITLER"]
        # A later stage is told what came before it.
        assert "research done." in said_by(it, "ANALYSIS")


def said_by(it: DeskWorld, role: str) -> str:
    return next(said(each) for each in it.model.requests if role_of(each) == role)


async def test_independent_steps_run_at_the_same_time(tmp_path):
    async with desk(tmp_path, FAN, LOOK_S="0.3") as (it, _), it.client() as client:
        await begin(client)
        end = await client.to_end()
        assert end["type"] == "run.completed"
        order = steps(client.events)
        assert [state for _, state in order[:3]] == ["started"] * 3
        last = said_by(it, "WRITING")
        assert last.count("research done.") == 3
        # Each turn belongs to one stage.
        stages = {p["step_id"]: p["title"] for p in of(client.events, "run.step") if p["kind"] == "stage"}
        turns = {p["step_id"]: p["parent_step_id"] for p in of(client.events, "run.step") if p["kind"] == "turn"}
        assert set(turns.values()) <= set(stages)
        assert all(e["step_id"] in turns for e in client.events if e["type"] in ("message.delta", "tool.started"))


@pytest.mark.parametrize("mode", ["gate", "race"])
async def test_a_guardrail_that_trips(tmp_path, mode):
    async with desk(tmp_path, THREE, GUARD=mode) as (it, model), it.client() as client:
        model.verdict = {"allow": False, "reason": "Not about trams."}
        released = asyncio.Event()
        model.hook = lambda r: Reply([released, *data(model.verdict).steps]) if role_of(r) == "GUARD" else None
        await begin(client)
        await asyncio.sleep(0.7)
        released.set()
        end = await client.to_end()
        assert (end["type"], end["payload"]["code"]) == ("run.failed", "guardrail")
        assert "Not about trams." in end["payload"]["text"]
        [tripped] = of(client.events, "guardrail.triggered")
        assert tripped["reason"] == "Not about trams."
        assert not of(client.events, "message.delta")
        assert it.did() == []
        if mode == "gate":
            assert not of(client.events, "plan.created")
            assert not {"RESEARCH", "ANALYSIS", "WRITING"} & set(model.asked)
        else:
            assert of(client.events, "plan.created")


WRONG = {
    "empty": data({"todos": []}),
    "unknown agent": data({"todos": [{"title": "x", "agent": "nobody"}]}),
    "cycle": data(todos("research", "writing", depends=[[1], [0]])),
    "type": data({"todos": "all of it"}),
    "too many": data(todos(*["research"] * 500)),
    "prose": Reply(text_message("I think we should just do it.")),
    "cut": Reply(text_message('{"todos": [{"title": "cut o')),
    "refused": error_reply(400, "invalid_request_error"),
}
LATE = {"stalls": Reply([STALL]), "never": Reply(silent=True)}


@pytest.mark.parametrize(("answers", "plan_s"), [(WRONG, "20"), (LATE, "1")], ids=["wrong", "late"])
async def test_a_planner_that_is_wrong_or_late(tmp_path, answers, plan_s):
    async with desk(tmp_path, THREE, PLAN_S=plan_s) as (it, model):
        for number, (what, answer) in enumerate(answers.items()):
            model.asked.clear()
            model.hook = lambda r, answer=answer: answer if role_of(r) == "PLANNER" else None
            async with it.client() as client:
                await begin(client, f"s{number}")
                end = await client.to_end()
            assert (end["type"], end["payload"].get("result")) == ("run.completed", "desk done."), (what, end)
            [plan] = of(client.events, "plan.created")
            assert len(plan["todos"]) == 1, what
            assert model.asked.count("PLANNER") == (1 if what in ("stalls", "never", "refused") else 2), what


async def test_a_planner_that_mends_its_plan(tmp_path):
    async with desk(tmp_path, THREE) as (it, model), it.client() as client:
        first = iter([data({"todos": [{"title": "x", "agent": "nobody"}]})])
        model.hook = lambda r: next(first, None) if role_of(r) == "PLANNER" else None
        await begin(client)
        assert (await client.to_end())["type"] == "run.completed"
        assert len(of(client.events, "plan.created")[0]["todos"]) == 3
        mended = [each for each in it.model.requests if role_of(each) == "PLANNER"][1]
        assert "nobody" in said(mended)


MOMENTS = {
    "planning and before each stage": [
        ("asked", role, 1) for role in ("PLANNER", "GUARD", "RESEARCH", "ANALYSIS", "WRITING")
    ],
    "between stages": [("event", "plan.updated", nth) for nth in range(1, 6)],
    "within a stage": [
        *(("event", "tool.completed", nth) for nth in (1, 2, 3)),
        ("event", "message.delta", 2),
        ("event", "plan.created", 1),
    ],
}


@pytest.mark.parametrize("where", MOMENTS)
async def test_killed_anywhere_the_plan_goes_on(tmp_path, where):
    """One server after the other over the same file: each is killed in the middle of a run that the next one ends."""
    async with desk(tmp_path, THREE) as (it, model):
        for number, moment in enumerate(MOMENTS[where]):
            await killed_at(it, model, moment, command_id=f"s{number}")


async def killed_at(it: DeskWorld, model: Model, moment: tuple[str, str, int], *, command_id: str) -> None:
    what, name, nth = moment
    model.asked.clear()
    did_before = len(it.did())
    async with it.client() as client:
        run = await begin(client, command_id)
        if what == "asked":
            async with asyncio.timeout(20):
                while model.asked.count(name) < nth:
                    await asyncio.sleep(0.005)
        else:
            for _ in range(nth):
                await client.until(name)
        await it.kill()
    made = of(client.events, "plan.created")
    await it.up()
    after = await whole(it, run)
    same_history(client.raw, after.raw)
    end = after.events[-1]
    assert (end["type"], end["payload"].get("result")) == ("run.completed", "writing done."), (moment, end)
    assert len(of(after.events, "plan.created")) == 1, moment
    if made:
        assert model.asked.count("PLANNER") == 1, moment
        assert model.asked.count("GUARD") == 1, moment
    assert plan_at_end(after.events) == ["completed"] * 3, moment
    # No stage is completed twice, and none is left open.
    done = [title for title, state in steps(after.events) if state == "completed"]
    assert sorted(done) == sorted(set(done)), moment
    assert len(done) == 3, moment
    # The tool of each stage ran for one call only (the same key), however often it was begun.
    keys: dict[str, set[str]] = {}
    for line in it.did()[did_before:]:
        _, looked, key = line.split()
        keys.setdefault(looked, set()).add(key)
    assert set(keys) == {"research0", "analysis0", "writing0"}, moment
    assert all(len(each) == 1 for each in keys.values()), (moment, keys)


async def test_a_correction_reaches_three_parallel_stages_and_the_last(tmp_path):
    async with desk(tmp_path, FAN, LOOK_S="0.5") as (it, _), it.client() as client:
        run = await begin(client)
        for _ in range(3):
            await client.until("tool.started")
        receipt = await client.command("run.correct", "k1", run, text="ONLY-TRAMS please")
        assert receipt["status"] == "accepted"
        end = await client.to_end()
        assert end["type"] == "run.completed"
        assert [p["text"] for p in of(client.events, "correction.applied")] == ["ONLY-TRAMS please"]
        finals = [each for each in it.model.requests if "tool_result" in said(each)]
        assert sum("ONLY-TRAMS" in said(each) for each in finals if role_of(each) == "RESEARCH") == 3
        assert all("ONLY-TRAMS" in said(each) for each in it.model.requests if role_of(each) == "WRITING")


async def test_a_correction_that_replans(tmp_path):
    async with desk(tmp_path, THREE, LOOK_S="0.5") as (it, model), it.client() as client:
        run = await begin(client)
        await client.until("tool.started")
        model.plan = {"todos": [{"id": "n1", "title": "Write it short", "agent": "writing"}]}
        await client.command("run.correct", "k1", run, text="Skip the analysis", replan=True)
        end = await client.to_end()
        assert end["type"] == "run.completed", end
        [applied] = of(client.events, "correction.applied")
        assert applied["replanned"] is True
        revised = [p for p in of(client.events, "plan.updated") if p.get("correction_id") == "k1"]
        assert revised
        assert "Write it short" in [todo["title"] for todo in revised[0]["todos"]]
        assert "ANALYSIS" not in model.asked
        assert it.did()


async def test_a_failed_stage_keeps_what_is_done_and_is_resumed(tmp_path):
    async with desk(tmp_path, THREE) as (it, model), it.client() as client:
        refusing = True

        def hook(received: Received) -> Reply | None:
            if refusing and role_of(received) == "ANALYSIS":
                return error_reply(400, "invalid_request_error")
            return None

        model.hook = hook
        run = await begin(client)
        end = await client.to_end()
        assert end["type"] == "run.failed", end
        failed = end["payload"]
        assert "Step 1 by research" in failed["completed"]
        assert failed["resume"]["run_id"] == run
        assert plan_at_end(client.events) == ["completed", "failed", "skipped"]
        refusing = False
        before = model.asked.count("RESEARCH")
        async with it.client("two") as later:
            receipt = await later.command("run.start", "s2", resume=failed["resume"])
            assert receipt["status"] == "accepted", receipt
            assert receipt["run_id"] != run
            assert receipt["thread_id"] == of(client.events, "run.started")[0]["thread_id"]
            again = await later.to_end()
        assert (again["type"], again["payload"]["result"]) == ("run.completed", "writing done."), again
        assert model.asked.count("RESEARCH") == before
        assert "research done." in [said(e) for e in it.model.requests if role_of(e) == "ANALYSIS"][-1]
