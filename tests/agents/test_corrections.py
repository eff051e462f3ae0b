"""A correction is used, or given back; never lost."""

import asyncio

import pytest

from midstream import AgentLimits, tool
from midstream.agents.providers.contract import Finished, Opened, TextDelta, TokenUsage
from midstream.testing import Refused, call, play
from tests.agents.kit import acting, agent, check_log, texts


@pytest.mark.asyncio
async def test_next_step_enters_after_the_answers():
    gate = asyncio.Event()

    @tool
    async def wait() -> str:
        await gate.wait()
        return "waited"

    async with acting(agent(wait), [call("wait"), "In French."]) as (run, model, _):
        await run.until("tool.started")
        receipt = await run.correct("Answer in French.")
        gate.set()
        await run.result()
        assert model.told() == ["waited", "Answer in French."]
        [applied] = run.of_type("correction.applied")
        assert applied.correction_id == receipt.command_id
        assert not applied.preempted
        [said] = [p for p in run.of_type("message.completed") if p.correction_id]
        assert (said.role, said.text) == ("user", "Answer in French.")
        check_log(run)


@pytest.mark.asyncio
async def test_a_correction_that_comes_at_the_end_is_used():
    script = [[{"text": "A "}, {"delay_s": 1}, {"text": "B"}], "C."]
    async with acting(agent(), script) as (run, model, _):
        await run.until("message.delta")
        await run.correct("More.")
        await run.advance(1)
        assert await run.result() == "C."
        assert texts(model.requests[1].messages) == [("user", "Go."), ("assistant", "A  | B"), ("user", "More.")]
        check_log(run)


@pytest.mark.asyncio
async def test_when_idle_waits_until_the_model_has_no_more_to_do():
    @tool
    async def step() -> str:
        return "x"

    script = [[{"text": "A "}, {"delay_s": 1}, {"call": {"tool": "step"}}], "B.", "C."]
    async with acting(agent(step), script) as (run, model, _):
        await run.until("message.delta")
        await run.correct("Then this.", mode="when_idle")
        await run.advance(1)
        assert await run.result() == "C."
        assert [said for _, said in texts(model.requests[2].messages)] == [
            "Go.",
            "A  | <call>",
            "x",
            "B.",
            "Then this.",
        ]
        check_log(run)


@pytest.mark.asyncio
async def test_now_interrupts_the_model_and_keeps_its_words():
    script = [[{"text": "Once upon"}, {"delay_s": 100}, {"text": " a time"}], "Short."]
    async with acting(agent(), script) as (run, model, _):
        await run.until("message.delta")
        assert model.open == 1
        await run.correct("Shorter!", mode="now")
        assert await run.result() == "Short."
        [said] = [p for p in run.of_type("message.completed") if p.state == "interrupted"]
        assert said.text == "Once upon"
        assert run.of_type("correction.applied")[0].preempted
        assert texts(model.requests[1].messages) == [("user", "Go."), ("assistant", "Once upon"), ("user", "Shorter!")]
        assert model.open == 0
        check_log(run)


@pytest.mark.asyncio
async def test_now_before_a_word_was_said_takes_the_message_back():
    async with acting(agent(), [[{"delay_s": 50}, {"text": "Slow"}], "Quick."]) as (run, model, _):
        await run.until("message.started")
        await run.correct("Quick!", mode="now")
        # The first turn of the script was never said, so it is its turn again.
        await run.until("message.superseded")
        await run.advance(50)
        assert await run.result() == "Slow"
        assert texts(model.requests[1].messages) == [("user", "Go. | Quick!")]
        check_log(run)


@pytest.mark.asyncio
async def test_now_drops_a_call_that_was_half_written():
    ran = []

    @tool
    async def act() -> str:
        ran.append(1)
        return "x"

    script = [[{"text": "I will"}, {"call": {"tool": "act"}}, {"delay_s": 100}], "Fine."]
    async with acting(agent(act), script) as (run, _, _stage):
        await run.until("tool.preparing")
        await run.correct("No!", mode="now")
        assert await run.result() == "Fine."
        assert ran == []
        assert [(p.code, p.outcome) for p in run.of_type("tool.failed")] == [("interrupted", "not_started")]
        check_log(run)


@pytest.mark.asyncio
async def test_now_while_only_tools_run_waits_for_them():
    gate = asyncio.Event()

    @tool
    async def wait() -> str:
        await gate.wait()
        return "waited"

    async with acting(agent(wait), [call("wait"), "Done."]) as (run, model, _):
        await run.until("tool.started")
        await run.correct("Hurry.", mode="now")
        gate.set()
        await run.result()
        assert model.told() == ["waited", "Hurry."]


@pytest.mark.asyncio
async def test_held_while_an_approval_is_open():
    @tool(approval="always")
    async def act() -> str:
        return "acted"

    async with acting(agent(act), [call("act"), "Done."]) as (run, model, _):
        await run.until("approval.required")
        await run.correct("Also this.")
        await run.until("correction.held")
        await run.approve()
        await run.result()
        assert model.told() == ["acted", "Also this."]
        check_log(run)


@pytest.mark.asyncio
async def test_an_interruption_whose_correction_was_withdrawn_goes_on():
    script = [[{"text": "Once"}, {"delay_s": 100}, {"text": " upon"}], "More."]
    async with acting(agent(), script) as (run, model, _stage):
        await run.until("message.delta")
        receipt, revoked = await asyncio.gather(run.correct("x", mode="now"), _revoked(run))
        assert await run.result() == "More."
        assert receipt.command_id
        if revoked:
            assert texts(model.requests[1].messages)[-1] == ("user", "Go on.")
        check_log(run)


async def _revoked(run):
    while not run.of_type("correction.accepted"):
        await run.until("correction.accepted")
    try:
        await run.revoke(run.of_type("correction.accepted")[0].correction_id)
    except Refused:
        return False
    return True


@pytest.mark.asyncio
async def test_an_exhausted_budget_gives_it_back():
    script = [[{"text": "A "}, {"delay_s": 1}, {"text": "B"}]]
    async with acting(agent(limits=AgentLimits(max_turns=1)), script) as (run, _, _stage):
        await run.until("message.delta")
        await run.correct("More.")
        await run.advance(1)
        assert await run.result() == "A B"
        assert [p.text for p in run.of_type("correction.returned")] == ["More."]
        check_log(run)


@pytest.mark.asyncio
async def test_an_agent_that_cannot_be_steered_refuses():
    async with acting(agent(steerable=False), [[{"text": "A "}, {"delay_s": 1}]]) as (run, _, _stage):
        await run.until("message.delta")
        with pytest.raises(Refused) as refused:
            await run.correct("x")
        assert refused.value.receipt.code == "not_steerable"


class Closing:
    """A model whose connection takes its time to close."""

    name = default_model = "closing"

    def __init__(self) -> None:
        self.closing, self.go_on, self.closed, self.calls = asyncio.Event(), asyncio.Event(), False, 0

    async def stream(self, request):
        self.calls += 1
        yield Opened(model="closing", usage=TokenUsage())
        if self.calls > 1:
            yield Finished(stop_reason="end_turn", parts=(), usage=TokenUsage())
            return
        try:
            yield TextDelta(text="Once")
            await asyncio.Event().wait()
        finally:
            self.closing.set()
            await self.go_on.wait()
            self.closed = True

    async def aclose(self) -> None:
        """Nothing is open."""


@pytest.mark.asyncio
async def test_a_second_interruption_does_not_interrupt_the_closing_of_the_stream():
    model = Closing()
    async with play(agent(), model) as run:
        await run.until("message.delta")
        await run.correct("Shorter!", mode="now")
        await model.closing.wait()
        await run.correct("In French!", mode="now")
        await run.until("correction.accepted")
        model.go_on.set()
        await run.result()
        assert model.closed
        assert len(run.of_type("correction.applied")) == 2
        check_log(run)
