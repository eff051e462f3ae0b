"""After a crash the truth is told: the server dies after each event of a run, and another goes on."""

import asyncio
import contextlib
from contextlib import asynccontextmanager

import pytest

from midstream import Preview, ToolContext, tool
from midstream.agents.catalogue import Catalogue
from midstream.runs.contract import Limits
from midstream.tasks import spawn, stop
from midstream.testing import Refused, call, calls
from midstream_protocol.events import TERMINAL_TYPES
from tests.agents.kit import acting, agent, check_log, eventually, texts

SCRIPT = {
    "loop": True,
    "turns": [
        {"steps": [{"text": "Let me look."}, {"call": {"tool": "look"}}, {"call": {"tool": "pay", "args": {"n": 1}}}]},
        {"steps": [{"chunks": ["Now ", "I act."]}, {"call": {"tool": "act"}}]},
        {"steps": [{"text": "All done."}]},
    ],
}


class World:
    """What truly happened, in every life of the server: (tool, idempotency key, attempt)."""

    def __init__(self) -> None:
        self.began: list[tuple[str, str, int]] = []

    def tools(self):
        @tool(idempotent=True)
        async def look(ctx: ToolContext) -> str:
            self.began.append(("look", ctx.idempotency_key, ctx.attempt))
            await asyncio.sleep(0)
            return "seen"

        @tool
        async def pay(n: int, ctx: ToolContext) -> str:
            self.began.append(("pay", ctx.idempotency_key, ctx.attempt))
            await asyncio.sleep(0)
            return "paid"

        @tool(approval="always", on_unknown="ask")
        async def act(ctx: ToolContext) -> str:
            self.began.append(("act", ctx.idempotency_key, ctx.attempt))
            await asyncio.sleep(0)
            return "acted"

        return [look, pay, act]

    def times(self, name: str) -> int:
        return sum(1 for began in self.began if began[0] == name)


async def drive(run, crash_after: int) -> None:
    """Approve whatever is asked; crash when that many events have been seen."""
    crashed = False
    while not (run.events and run.events[-1].type in TERMINAL_TYPES):
        if not crashed and len(run.events) >= crash_after:
            crashed = True
            await run.crash()
        await approve_all(run)
        await run._more("the next event")


async def length() -> int:
    async with acting(agent(*World().tools()), SCRIPT) as (run, _, _stage):
        await drive(run, 10_000)
        return len(run.events)


@pytest.mark.asyncio
async def test_crashed_after_each_event():
    for after in range(1, await length()):
        world = World()
        async with acting(agent(*world.tools()), SCRIPT) as (run, _model, stage):
            await drive(run, after)
            check_log(run)
            assert await run.result() == "All done.", after
            # A tool that must not run twice ran twice only where a person said so.
            assert world.times("pay") <= 1, after
            asked = [p.reason for p in run.of_type("approval.required")]
            assert world.times("act") <= 1 + asked.count("unknown_outcome"), after
            assert world.times("look") <= 2, after
            for name in ("look", "pay", "act"):
                assert len({key for tool_name, key, _ in world.began if tool_name == name}) <= 1, after
            if world.times("pay") == 0:
                assert "pay" not in {p.tool for p in run.of_type("tool.started")}, after
            again = await stage.start("More.", thread_id=run.events[0].payload.thread_id)
            await drive(again, 10_000)


@asynccontextmanager
async def crashed_while_running(options, *, then):
    """A tool that is under way when the server dies."""
    began = []
    gate = asyncio.Event()

    @tool(**options)
    async def act(ctx: ToolContext) -> str:
        began.append((ctx.attempt, ctx.idempotency_key))
        if len(began) == 1:
            await gate.wait()
        return "acted"

    script = [call("act"), call("act"), "Done."] if then == "again" else [call("act"), "Done."]
    async with acting(agent(act), script) as (run, model, _):
        await run.until("tool.started")
        await eventually(lambda: began)
        await run.crash()
        yield run, model, began
        check_log(run)


@pytest.mark.asyncio
async def test_an_idempotent_tool_is_run_again_with_the_same_key():
    async with crashed_while_running({"idempotent": True}, then="") as (run, model, began):
        assert await run.result() == "Done."
        assert [attempt for attempt, _ in began] == [1, 2]
        assert began[0][1] == began[1][1]
        assert [p.attempt for p in run.of_type("tool.started")] == [1, 2]
        assert model.told() == ["acted"]


@pytest.mark.asyncio
async def test_of_another_the_model_is_told_and_a_person_asked_before_the_next():
    async with crashed_while_running({}, then="again") as (run, model, began):
        asked = (await run.until("approval.required")).payload
        assert asked.reason == "unknown_outcome"
        assert len(began) == 1
        assert [(p.code, p.outcome) for p in run.of_type("tool.failed")] == [("unknown_outcome", "unknown")]
        assert model.told()[0].startswith("unknown_outcome: The server was interrupted")
        await run.deny()
        assert await run.result() == "Done."
        assert len(began) == 1


@pytest.mark.parametrize(("decision", "runs"), [("approve", 2), ("deny", 1), ("expire", 1)])
@pytest.mark.asyncio
async def test_a_tool_that_asks(decision, runs):
    async with crashed_while_running({"on_unknown": "ask", "expires_s": 60}, then="") as (run, model, began):
        asked = (await run.until("approval.required")).payload
        assert asked.reason == "unknown_outcome"
        if decision == "approve":
            await run.approve()
        elif decision == "deny":
            await run.deny()
        else:
            await run.advance(61)
        assert await run.result() == "Done."
        assert len(began) == runs
        if runs == 1:
            assert model.told()[0].startswith("unknown_outcome: ")


@pytest.mark.asyncio
async def test_one_leave_to_run_again_is_for_one_attempt():
    began = []
    gate = asyncio.Event()

    @tool(on_unknown="ask", approval="always")
    async def act(ctx: ToolContext) -> str:
        began.append(ctx.attempt)
        if len(began) < 3:
            await gate.wait()
        return "acted"

    async with acting(agent(act), [call("act"), "Done."]) as (run, _, _stage):
        await run.until("approval.required")
        await run.approve()
        for lives in (1, 2):
            await run.until("tool.started")
            await eventually(lambda lives=lives: len(began) >= lives)
            await run.crash()
            await run.until("approval.required", lambda p: p.reason == "unknown_outcome")
            assert len(began) == lives
            await run.approve()
        assert await run.result() == "Done."
        assert began == [1, 2, 3]
        check_log(run)


@pytest.mark.asyncio
async def test_an_approval_survives_and_expires_while_the_server_is_down():
    @tool(approval="always", expires_s=5)
    async def act() -> str:
        return "acted"

    async with acting(agent(act), [call("act"), "Well."]) as (run, model, _):
        await run.until("approval.required")
        await run.crash(down_s=6)
        assert await run.result() == "Well."
        assert model.told() == ["approval_expired: Nobody approved this call in time."]
        check_log(run)


@pytest.mark.asyncio
async def test_what_was_shown_is_what_runs_also_after_a_crash():
    state = ["a"]
    ran = []

    @tool(approval="always", preview=lambda _: Preview(kind="text", data=state[0], guard=state[0]))
    async def act() -> str:
        ran.append(state[0])
        return "acted"

    async with acting(agent(act), [call("act"), "Done."]) as (run, _, _stage):
        await run.until("approval.required")
        await run.crash()
        state[0] = "b"
        await run.approve()
        again = (await run.until("approval.required")).payload
        assert again.reason == "changed"
        assert ran == []
        await run.approve()
        await run.result()
        assert ran == ["b"]
        check_log(run)


@pytest.mark.asyncio
async def test_a_tool_that_is_gone_is_told_as_gone():
    gate = asyncio.Event()

    @tool
    async def old() -> str:
        await gate.wait()
        return "x"

    async with acting(agent(old), [call("old"), "Well."]) as (run, model, stage):
        await run.until("tool.started")
        stage._catalogue = Catalogue([agent()], provider=model)
        await run.crash()
        assert await run.result() == "Well."
        assert "This tool is gone" in model.told()[0]
        assert [(p.code, p.outcome) for p in run.of_type("tool.failed")] == [("unknown_tool", "unknown")]
        check_log(run)


@pytest.mark.asyncio
async def test_an_answer_that_was_given_is_not_asked_for_again():
    async with acting(agent(), [[{"text": "The end."}]]) as (run, model, stage):
        # The answer is durable, the end is not yet.
        append = stage._mortal.log.append

        async def dying(key, **batch):
            if any(b'"run.completed"' in event for event in batch["batch"].events):
                stage._mortal.dead = True
            return await append(key, **batch)

        stage._mortal.log.append = dying
        await run.until("message.completed", lambda p: p.role == "assistant")
        await eventually(lambda: stage._mortal.dead)
        await run.crash()
        assert await run.result() == "The end."
        assert len(model.requests) == 1
        check_log(run)


@pytest.mark.asyncio
async def test_a_corrected_run_goes_on_with_the_correction():
    gate = asyncio.Event()

    @tool(idempotent=True)
    async def wait() -> str:
        if not gate.is_set():
            await gate.wait()
        return "ok"

    async with acting(agent(wait), [call("wait"), [{"text": "A "}, {"delay_s": 30}], "x"]) as (run, model, _):
        await run.until("tool.started")
        await run.correct("In French.")
        gate.set()
        await run.until("message.delta")
        await run.crash()
        await run.until("message.delta")
        await run.advance(30)
        await run.result()
        assert texts(model.requests[-1].messages) == [
            ("user", "Go."),
            ("assistant", "<call>"),
            ("user", "ok | In French."),
        ]
        check_log(run)


@pytest.mark.asyncio
async def test_results_that_were_there_are_kept():
    ran = []
    gate = asyncio.Event()

    @tool
    async def act(n: int) -> str:
        ran.append(n)
        if n == 2:
            await gate.wait()
        return f"did {n}"

    async with acting(agent(act), [calls(("act", {"n": 1}), ("act", {"n": 2})), "Done."]) as (run, model, _):
        await run.until("tool.completed")
        await run.crash()
        await run.result()
        assert ran == [1, 2]
        assert model.told()[0] == "did 1"
        assert model.told()[1].startswith("unknown_outcome")


@pytest.mark.parametrize("written", [False, True], ids=["lost", "written, and the reply lost"])
@pytest.mark.asyncio
async def test_crashed_at_each_write(written):
    writes = 1
    while True:
        world = World()
        async with acting(agent(*world.tools()), SCRIPT) as (run, _, stage):
            dies = dying_at(stage, writes, written=written)
            while not dies.is_set() and not (run.events and run.events[-1].type in TERMINAL_TYPES):
                await approve_all(run)
                more = asyncio.ensure_future(run._more("the next event"))
                dead = asyncio.ensure_future(dies.wait())
                await asyncio.wait({more, dead}, return_when=asyncio.FIRST_COMPLETED)
                await stop(more, dead)
            if not dies.is_set():
                break
            await run.crash()
            await drive(run, 10_000)
            check_log(run)
            assert await run.result() == "All done.", writes
            assert world.times("pay") <= 1, writes
            asked = [p.reason for p in run.of_type("approval.required")]
            assert world.times("act") <= 1 + asked.count("unknown_outcome"), writes
        writes += 1
    assert writes > 10


def dying_at(stage, nth, *, written):
    """The server dies in its nth write."""
    dies, count = asyncio.Event(), 0
    mortal = stage._mortal
    append = mortal.log.append

    async def dying(key, **batch):
        nonlocal count
        count += 1
        if count >= nth and not mortal.dead:
            if written:
                await append(key, **batch)
            mortal.dead = True
            dies.set()
        return await append(key, **batch)

    mortal.log.append = dying
    return dies


async def approve_all(run):
    for item in (await run.view()).pending:
        if item["kind"] == "approval":
            with contextlib.suppress(Refused):
                await run.approve(item["approval_id"])


@pytest.mark.asyncio
async def test_a_call_that_was_cancelled_is_not_run_again():
    began = []

    @tool(idempotent=True)
    async def act() -> str:
        began.append(1)
        await asyncio.Event().wait()
        return ""

    async with acting(agent(act), [call("act"), "On."]) as (run, model, stage):
        started = (await run.until("tool.started")).payload
        await eventually(lambda: began)
        # The cancel is durable, what became of the call is not.
        dies = dying_at(stage, 2, written=False)
        await run.cancel(tool_call_id=started.tool_call_id)
        await dies.wait()
        await run.crash()
        assert await run.result() == "On."
        assert len(began) == 1
        assert model.told()[0].startswith("cancelled: ")
        check_log(run)


@pytest.mark.asyncio
async def test_a_server_that_stops_lets_a_call_end_and_begins_nothing_new():
    began, gate = [], asyncio.Event()

    @tool
    async def act(n: int) -> str:
        began.append(n)
        await gate.wait()
        return "acted"

    async with acting(agent(act), [call("act", n=1), call("act", n=2), "Done."]) as (run, model, _):
        await run.until("tool.started")
        await eventually(lambda: began)
        restarting = spawn(run.restart(), name="restart")
        await asyncio.sleep(0)
        gate.set()
        await restarting
        assert await run.result() == "Done."
        assert began == [1, 2]
        assert [told for index in (1, 2) for told in model.told(index)] == ["acted", "acted"]
        check_log(run)


@pytest.mark.asyncio
async def test_a_call_that_outlives_the_grace_of_a_stop_is_of_unknown_outcome():
    began = []

    @tool
    async def act() -> str:
        began.append(1)
        await asyncio.Event().wait()
        return ""

    limits = Limits(drain_grace_s=0.01)
    async with acting(agent(act), [call("act"), "Well."], limits=limits) as (run, model, _):
        await run.until("tool.started")
        await eventually(lambda: began)
        await run.restart()
        assert await run.result() == "Well."
        assert model.told()[0].startswith("unknown_outcome: ")
        assert len(began) == 1
        check_log(run)


@pytest.mark.asyncio
async def test_a_message_that_outlives_the_grace_is_said_again():
    limits = Limits(drain_grace_s=0.01)
    script = [[{"text": "Once"}, {"delay_s": 30}, {"text": " upon"}]]
    async with acting(agent(), script, limits=limits) as (run, _, _stage):
        await run.until("message.delta")
        await run.restart()
        await run.until("message.delta")
        await run.advance(30)
        assert await run.result() == "Once upon"
        check_log(run)
