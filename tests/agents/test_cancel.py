"""Stop means stop, and the end tells the truth: cancelled after each event of a run, in every way."""

import asyncio

import pytest

from midstream import ToolError, tool
from midstream.agents.providers.contract import Opened, TextDelta, TokenUsage
from midstream.agents.tools.settle import settled
from midstream.tasks import spawn
from midstream.testing import Refused, call, calls, play
from midstream_protocol.commands import ClientTool
from midstream_protocol.events import TERMINAL_TYPES
from tests.agents.kit import acting, agent, check_log

SCRIPT = {
    "loop": True,
    "turns": [
        {
            "steps": [
                {"text": "Let me look."},
                {"call": {"tool": "look", "args": {"n": 1}}},
                {"call": {"tool": "look", "args": {"n": 2}}},
            ]
        },
        {"steps": [{"chunks": ["Now ", "I act."]}, {"call": {"tool": "act"}}]},
        call("page"),
        {"steps": [{"text": "All done."}]},
    ],
}


class Effects:
    """What truly happened."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self.ended: list[str] = []

    def tools(self):
        @tool(idempotent=True)
        async def look(n: int) -> str:
            self.began.append("look")
            await asyncio.sleep(0)
            self.ended.append("look")
            return "seen"

        @tool(approval="always")
        async def act() -> str:
            self.began.append("act")
            await asyncio.sleep(0)
            self.ended.append("act")
            return "acted"

        return [look, act]


async def drive(run, stop_after: int, stop) -> None:
    """Answer whatever is asked, and call `stop` when that many events have been seen."""
    answered, stopped = set(), False
    while True:
        while len(run.events) < stop_after or stopped:
            if run.events and run.events[-1].type in TERMINAL_TYPES:
                return
            await run._more("the next event")
            for event in list(run.events):
                if event.type in ("approval.required", "tool.requested") and event.seq not in answered and not stopped:
                    answered.add(event.seq)
                    try:
                        if event.type == "approval.required":
                            await run.approve(event.payload.approval_id)
                        else:
                            await run.tool_result("page text", tool_call_id=event.payload.tool_call_id)
                    except Refused:
                        pass
        stopped = True
        await stop()


PAGE = ClientTool(name="page", description="The page.", input_schema={"type": "object"})


async def length_of_a_run() -> int:
    effects = Effects()
    async with acting(agent(*effects.tools()), SCRIPT, client_tools=[PAGE]) as (run, _, _stage):
        await drive(run, 10_000, None)
        assert (await run.result()) == "All done."
        check_log(run)
        assert sorted(effects.ended) == ["act", "look", "look"]
        return len(run.events)


@pytest.mark.parametrize("mode", ["now", "after_step"])
@pytest.mark.asyncio
async def test_cancelled_after_each_event(mode):
    for after in range(1, await length_of_a_run()):
        effects = Effects()
        async with acting(agent(*effects.tools()), SCRIPT, client_tools=[PAGE]) as (run, model, stage):

            async def stop(run=run):
                try:
                    await run.cancel(mode=mode)
                except Refused as refused:
                    assert refused.receipt.code == "run_ended"  # noqa: PT017 - the run may be over by then

            await drive(run, after, stop)
            last = run.events[-1]
            check_log(run)
            assert model.open == 0
            if last.type == "run.completed":
                continue
            assert last.type == "run.cancelled"
            told = {"look": [], "act": [], "page": []}
            for effect in last.payload.effects:
                told[effect.tool].append(effect.outcome)
            for name in ("look", "act"):
                assert told[name].count("completed") == effects.ended.count(name), (after, name)
                began = effects.began.count(name)
                assert began <= sum(outcome != "not_started" for outcome in told[name]), (after, name)
            # The conversation is whole again for the next run: `Watched` checks each request.
            again = await stage.start("And now?", thread_id=run.events[0].payload.thread_id, client_tools=[PAGE])
            await drive(again, 10_000, None)
            check_log(again)


@pytest.mark.asyncio
async def test_the_models_stream_is_closed_at_once():
    async with acting(agent(), [[{"text": "Once"}, {"delay_s": 1000}]]) as (run, model, _):
        await run.until("message.delta")
        assert model.open == 1
        await run.cancel()
        await run.until("run.cancelled")
        assert model.open == 0
        assert [(p.state, p.text) for p in run.of_type("message.completed")][-1] == ("interrupted", "Once")
        assert (await run.ended()).payload.usage.input_tokens > 0
        check_log(run)


@pytest.mark.asyncio
async def test_a_running_tool_is_cancelled_and_its_outcome_told():
    async def hang():
        await asyncio.Event().wait()

    @tool
    async def unsure() -> None:
        await hang()

    @tool(idempotent=True)
    async def harmless() -> None:
        await hang()

    @tool
    async def tidy() -> None:
        try:
            await hang()
        except asyncio.CancelledError:
            raise ToolError("Undone.") from None

    @tool
    async def done() -> str:
        try:
            await hang()
        except asyncio.CancelledError:
            return "had finished"
        return ""

    names = ["unsure", "harmless", "tidy", "done"]
    script = [calls(*((name, {}) for name in names))]
    async with acting(agent(unsure, harmless, tidy, done), script) as (run, _, _stage):
        for _ in names:
            await run.until("tool.started")
        await run.cancel(reason="wrong folder")
        ended = (await run.ended()).payload
        assert ended.reason == "wrong folder"
        assert {effect.tool: effect.outcome for effect in ended.effects} == {
            "unsure": "unknown",
            "harmless": "failed",
            "tidy": "failed",
            "done": "completed",
        }
        check_log(run)


@pytest.mark.asyncio
async def test_one_call_is_cancelled_and_the_run_goes_on():
    @tool
    async def hang(n: int) -> str:
        if n == 1:
            await asyncio.Event().wait()
        return "fine"

    async with acting(agent(hang), [calls(("hang", {"n": 1}), ("hang", {"n": 2})), "Done."]) as (run, model, _):
        started = (await run.until("tool.started", lambda p: p.args_preview == {"n": 1})).payload
        await run.cancel(tool_call_id=started.tool_call_id)
        assert await run.result() == "Done."
        assert model.told() == ["cancelled: The call was cancelled while it ran.", "fine"]
        check_log(run)


@pytest.mark.asyncio
async def test_a_call_that_waits_for_its_turn_can_be_cancelled():
    gate, ran = asyncio.Event(), []

    @tool
    async def wait(n: int) -> str:
        ran.append(n)
        await gate.wait()
        return "ok"

    async with acting(agent(wait), [calls(*(("wait", {"n": n}) for n in range(10))), "Done."]) as (run, _, _stage):
        for _ in range(8):
            await run.until("tool.started")
        last = run.of_type("tool.preparing")[9].tool_call_id
        await run.cancel(tool_call_id=last)
        gate.set()
        await run.result()
        assert sorted(ran) == list(range(9))
        assert [(p.code, p.outcome) for p in run.of_type("tool.failed")] == [("cancelled", "not_started")]


@pytest.mark.asyncio
async def test_after_step_lets_running_calls_end():
    gate = asyncio.Event()

    @tool
    async def wait() -> str:
        await gate.wait()
        return "ok"

    async with acting(agent(wait), [call("wait"), "Never said."]) as (run, model, _):
        await run.until("tool.started")
        await run.cancel(mode="after_step")
        gate.set()
        ended = (await run.ended()).payload
        assert [effect.outcome for effect in ended.effects] == ["completed"]
        assert len(model.requests) == 1
        check_log(run)


class Slow:
    """A model whose connection takes its time to close."""

    name = default_model = "slow"

    def __init__(self) -> None:
        self.closed = False

    async def stream(self, request):
        try:
            yield Opened(model="slow", usage=TokenUsage())
            yield TextDelta(text="Once")
            await asyncio.Event().wait()
        finally:
            for _ in range(50):
                await asyncio.sleep(0)
            self.closed = True

    async def aclose(self) -> None:
        """Nothing is open."""


@pytest.mark.asyncio
async def test_the_stream_is_closed_before_the_end_is_told():
    model = Slow()
    async with play(agent(), model) as run:
        await run.until("message.delta")
        await run.cancel()
        await run.until("run.cancelled")
        assert model.closed
        check_log(run)


@pytest.mark.asyncio
async def test_a_fact_that_is_being_written_is_written_although_its_writer_is_cancelled():
    gate, written = asyncio.Event(), []

    async def write():
        await gate.wait()
        written.append(1)

    writer = spawn(settled(write(), name="x"), name="writer")
    await asyncio.sleep(0)
    writer.cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    assert not writer.done()
    gate.set()
    await asyncio.wait({writer})
    assert writer.cancelled()
    assert written == [1]


@pytest.mark.asyncio
async def test_a_second_cancellation_does_not_wait():
    writer = spawn(settled(asyncio.Event().wait(), name="x"), name="writer")
    await asyncio.sleep(0)
    writer.cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    writer.cancel()
    await asyncio.wait({writer})
    assert writer.cancelled()
