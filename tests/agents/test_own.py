"""Agents that bring their own loop."""

import asyncio
import random

import pytest

from midstream import BadTool, Run, ToolCallError, ToolContext, agent, tool
from midstream.testing import Refused
from tests.agents.kit import acting, check_log


@tool(approval="always")
async def pay(amount: int) -> str:
    """Pay."""
    return f"paid {amount}"


@pytest.mark.asyncio
async def test_all_it_can_do():
    @agent("own", tools=[pay], description="Mine.")
    async def own(run: Run) -> dict:
        await run.say(f"You said {run.input}.")

        async def pieces():
            for word in ("one ", "two"):
                yield word

        await run.say(pieces())
        await run.status("Counting")
        await run.progress("Counting", fraction=0.5)
        choice = await run.ask("Which?", choices=["x", "y"])
        number = await run.once("number", lambda: 7)
        paid = await run.call(pay, amount=number)
        return {"choice": choice, "paid": paid, "who": run.principal.name, "meta": run.metadata}

    async with acting(own, [], input="hello", metadata={"k": 1}) as (run, _, _stage):
        await run.until("input.required")
        await run.answer("y")
        await run.until("approval.required")
        await run.approve(edit={"amount": 3})
        assert await run.result() == {"choice": "y", "paid": "paid 3", "who": "Tester", "meta": {"k": 1}}
        said = [p.text for p in run.of_type("message.completed") if p.role == "assistant"]
        assert said == ["You said hello.", "one two"]
        assert [p.text for p in run.of_type("run.status") if "Counting" in p.text] == ["Counting", "Counting (50%)"]
        check_log(run)


@pytest.mark.asyncio
async def test_it_begins_again_after_a_crash_and_repeats_nothing():
    numbers, ran = [], []

    @tool
    async def act(n: int, ctx: ToolContext) -> int:
        ran.append(ctx.idempotency_key)
        return n

    @agent("own", tools=[act, pay])
    async def own(run: Run) -> list:
        number = await run.once("number", lambda: numbers.append(1) or random.random())
        await run.say("Working.")
        first = await run.call("act", n=1)
        answer = await run.ask("Well?")
        await run.say("Nearly.")
        paid = await run.call(pay, amount=1)
        return [number, first, answer, paid]

    async with acting(own, []) as (run, _, _stage):
        await run.until("input.required")
        await run.crash()
        await run.answer("yes")
        await run.until("approval.required")
        await run.crash()
        await run.approve()
        result = await run.result()
        assert result[1:] == [1, "yes", "paid 1"]
        assert len(numbers) == len(ran) == 1
        said = [p.text for p in run.of_type("message.completed") if p.role == "assistant"]
        assert said == ["Working.", "Nearly."]
        assert len(run.of_type("input.required")) == len(run.of_type("approval.required")) == 1
        check_log(run)


@pytest.mark.asyncio
async def test_an_object_is_shown_once_also_across_a_crash():
    gate = asyncio.Event()

    @agent("own")
    async def own(run: Run) -> list:
        first = await run.object("table", {"rows": [1, 2], "api_key": "sk-canary"})
        await run.say("Look.")
        await gate.wait()
        return [first, await run.object("chart", [3], object_id="mine")]

    async with acting(own, []) as (run, _, _stage):
        await run.until("message.completed", lambda p: p.role == "assistant")
        await run.crash()
        gate.set()
        assert await run.result() == ["obj_1", "mine"]
        shown = [(p.object_id, p.kind, p.data) for p in run.of_type("object.created")]
        assert [each[:2] for each in shown] == [("obj_1", "table"), ("mine", "chart")]
        assert shown[0][2]["rows"] == [1, 2]
        assert "canary" not in str(shown)
        check_log(run)


@pytest.mark.asyncio
async def test_what_cannot_be_an_object_is_its_mistake():
    @agent("own")
    async def own(run: Run) -> list:
        wrong = []
        for kind, data, object_id in (("", 1, None), ("x", "y" * 200_000, None), ("x", 1, "a b")):
            try:
                await run.object(kind, data, object_id=object_id)
            except BadTool as error:
                wrong.append(str(error).split()[0])
        return wrong

    async with acting(own, []) as (run, _, _stage):
        assert await run.result() == ["run.object:"] * 3
        assert run.of_type("object.created") == []


@pytest.mark.asyncio
async def test_a_call_that_fails_raises():
    @agent("own", tools=[pay])
    async def own(run: Run) -> str:
        try:
            await run.call(pay, amount="much")
        except ToolCallError as error:
            first = error.code
        try:
            await run.call(pay, amount=1)
        except ToolCallError as error:
            return f"{first} {error.code}: {error.text}"
        return "paid"

    async with acting(own, []) as (run, _, _stage):
        await run.until("approval.required")
        await run.deny("No.")
        assert await run.result() == "invalid_args denied: The user denied this call. They said: No."
        check_log(run)


@pytest.mark.asyncio
async def test_a_tool_it_does_not_have_is_its_mistake():
    @agent("own")
    async def own(run: Run) -> None:
        await run.call("gone")

    async with acting(own, []) as (run, _, _stage):
        assert (await run.ended()).payload.code == "internal"


@pytest.mark.asyncio
async def test_another_order_after_a_crash_fails_the_run():
    lives = []

    @tool
    async def a() -> str:
        return "a"

    @agent("own", tools=[a, pay])
    async def own(run: Run) -> None:
        lives.append(1)
        if len(lives) == 1:
            await run.call(a)
            await run.ask("?")
        await run.call(pay, amount=1)

    async with acting(own, []) as (run, _, _stage):
        await run.until("input.required")
        await run.crash()
        await run.answer("x")
        assert (await run.ended()).payload.code == "not_deterministic"
        check_log(run)


@pytest.mark.asyncio
async def test_corrections_are_given_once_also_across_a_crash():
    @agent("own", steerable=True)
    async def own(run: Run) -> list:
        await run.ask("1?")
        first = await run.corrections()
        await run.ask("2?")
        return [first, await run.corrections()]

    async with acting(own, []) as (run, _, _stage):
        await run.until("input.required")
        await run.correct("a")
        await run.answer("x")
        await run.until("input.required")
        await run.correct("b")
        await run.crash()
        await run.answer("x")
        assert await run.result() == [["a"], ["b"]]
        check_log(run)


@pytest.mark.asyncio
async def test_what_it_does_not_look_at_is_given_back():
    gate = asyncio.Event()

    @agent("own", steerable=True)
    async def own(run: Run) -> None:
        await run.say("x")
        await gate.wait()

    async with acting(own, []) as (run, _, _stage):
        await run.until("message.completed", lambda p: p.role == "assistant")
        await run.correct("unheard")
        gate.set()
        await run.result()
        assert [p.text for p in run.of_type("correction.returned")] == ["unheard"]
        check_log(run)


@pytest.mark.asyncio
async def test_one_that_does_not_look_refuses_them():
    @agent("own")
    async def own(run: Run) -> None:
        await run.ask("?")

    async with acting(own, []) as (run, _, _stage):
        await run.until("input.required")
        with pytest.raises(Refused):
            await run.correct("x")


@pytest.mark.asyncio
async def test_a_message_that_is_cut_off_keeps_its_words():
    @agent("own")
    async def own(run: Run) -> None:
        async def pieces():
            yield "Once"
            await asyncio.Event().wait()

        await run.say(pieces())

    async with acting(own, []) as (run, _, _stage):
        await run.until("message.delta")
        await run.cancel()
        await run.ended()
        assert [(p.state, p.text) for p in run.of_type("message.completed")][-1] == ("interrupted", "Once")
        check_log(run)


@pytest.mark.asyncio
async def test_nobody_answers():
    @agent("own")
    async def own(run: Run) -> str:
        try:
            await run.ask("?", timeout=5)
        except TimeoutError:
            return "nobody"
        return "somebody"

    async with acting(own, []) as (run, _, _stage):
        await run.until("input.required")
        await run.advance(6)
        assert await run.result() == "nobody"


class Shop:
    pass


@pytest.mark.asyncio
async def test_a_question_that_a_cancel_withdraws_is_not_silence():
    heard = []

    @agent("own")
    async def own(run: Run) -> str:
        try:
            await run.ask("Well?")
        except TimeoutError:
            heard.append("silence")
        return "on my own then"

    async with acting(own, []) as (run, _, _stage):
        await run.until("input.required")
        await run.cancel(mode="after_step")
        await run.until("run.cancelled")
        assert heard == []
        check_log(run)


@pytest.mark.asyncio
async def test_it_gets_resources_by_type():
    @agent("own")
    async def own(run: Run, shop: Shop) -> bool:
        return isinstance(shop, Shop)

    async with acting(own, [], resources=[Shop]) as (run, _, _stage):
        assert await run.result() is True


def test_what_cannot_be_a_loop_is_said_at_once():
    with pytest.raises(BadTool, match="async"):

        @agent("own")
        def own(run: Run) -> None: ...

    with pytest.raises(BadTool, match="one `run: Run`"):

        @agent("own")
        async def other(run) -> None: ...

    with pytest.raises(BadTool, match="cannot be called"):
        agent("no good")
