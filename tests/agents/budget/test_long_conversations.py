"""Two hundred turns under a small window, against a model that refuses what is too long and checks what it is sent."""

import json
from contextlib import asynccontextmanager
from typing import Any

import pytest

from midstream import Agent, tool
from midstream.agents.budget.budget import Budget
from midstream.agents.definition import AgentLimits
from midstream.agents.providers.anthropic import AnthropicProvider
from midstream.testing import staged
from midstream_protocol.order import verify
from tests.agents.budget.conversations import check_valid, size, turn, user
from tests.testkit.model_server import (
    Received,
    Reply,
    error_reply,
    message,
    message_end,
    message_start,
    model_server,
    text_block,
    tool_block,
)

WINDOW = 4_000
SIZES = [10, 3_000, 200, 12_000, 0, 900, 60_000, 40]
"""Characters of the results, in turn."""

REQUEST = "Read all the pages and tell me what they say."
NEEDLE = "The colour is ultramarine."


def page(number: int) -> str:
    words = f"page {number} says: " + "lorem ipsum dolor sit amet " * (SIZES[number % len(SIZES)] // 27)
    return words if number % 3 else f"{words} 数据 {words}"


def test_two_hundred_turns_against_a_tokenizer_of_its_own():
    """Every request is valid and fits the window as the model counts, which is not as we do."""
    for ratio in (0.7, 1.0, 1.12):
        budget, entries, asked = Budget(WINDOW, 1_000), [user("request", REQUEST)], []
        for number in range(200):
            out = budget.fit(entries, fixed_tokens=300)
            check_valid(out.messages)
            counted = round((300 + size(out.messages)) * ratio)
            assert counted <= WINDOW - 1_000
            budget.reported(counted)
            asked.append(out)
            contents = [page(number)] if number % 5 else [page(number), page(number + 1), "ok"]
            entries += turn(str(number), *contents)
            if number % 40 == 20:
                entries.append(user("correction", f"correction {number}"))
        heard = json.dumps([str(message) for message in asked[-1].messages])
        assert all(f"correction {number}" in heard for number in range(20, 200, 40))
        assert REQUEST in heard
        # It is trimmed now and then, not before every call.
        assert 10 <= sum(out.trimmed for out in asked) <= 150


class Model:
    """A model that counts characters, refuses what is too long or no valid conversation, and calls a tool `turns` times."""

    def __init__(self, *, window: int, turns: int) -> None:
        self.window = window
        self.turns = turns
        self.refused = 0
        self.bodies: list[dict[str, Any]] = []

    def __call__(self, received: Received) -> Reply:
        body = received.body
        check_body(body)
        tokens = counted(body)
        if tokens + body["max_tokens"] > self.window:
            self.refused += 1
            text = f"prompt is too long: {tokens} tokens > {self.window - body['max_tokens']} maximum"
            return error_reply(400, "invalid_request_error", text)
        self.bodies.append(body)
        number = len(self.bodies) - 1
        start = message_start(input_tokens=tokens)
        if number >= self.turns or "tools" not in body:
            return Reply([start, *text_block(0, "All read."), *message_end()])
        args = json.dumps({"number": number})
        return Reply([start, *tool_block(0, f"toolu_{number}", "read_page", args), *message_end("tool_use")])


def counted(body: dict[str, Any]) -> int:
    """Four characters a token, more for what is no Latin script: a rough tokenizer, and not ours."""
    text = json.dumps({key: body.get(key) for key in ("system", "tools", "messages")}, ensure_ascii=False)
    return (len(text) + 3 * sum(ord(one) > 0x2000 for one in text)) // 4


def check_body(body: dict[str, Any]) -> None:
    """What the Messages API requires of a conversation."""
    messages = body["messages"]
    assert messages[0]["role"] == "user"
    assert [each["role"] for each in messages] == ["user", "assistant"] * (len(messages) // 2) + ["user"] * (
        len(messages) % 2
    )
    owed: list[str] = []
    for each in messages:
        assert each["content"]
        answered = [block["tool_use_id"] for block in each["content"] if block["type"] == "tool_result"]
        kinds = [block["type"] == "tool_result" for block in each["content"]]
        assert kinds == sorted(kinds, reverse=True)
        assert answered == owed
        owed = [block["id"] for block in each["content"] if block["type"] == "tool_use"]
    assert owed == []
    assert len({tool["name"] for tool in body.get("tools", ())}) == len(body.get("tools", ()))


@tool
def read_page(number: int) -> str:
    """Read one page."""
    return page(number)


@asynccontextmanager
async def reading_desk(model: Any, *, context_tokens: int, tools: Any = (read_page,), max_tokens: int = 1_000):
    limits = AgentLimits(max_turns=300, max_tool_calls=300, context_tokens=context_tokens)
    agent = Agent("reader", model="m", instructions="You read.", tools=tools, limits=limits, max_tokens=max_tokens)
    async with model_server(model) as server:
        provider = AnthropicProvider(api_key=None, base_url=server.base_url)
        try:
            async with staged(agent, provider) as stage:
                yield stage
        finally:
            await provider.aclose()


@pytest.mark.asyncio
async def test_a_run_of_two_hundred_turns_under_a_small_window():
    model = Model(window=WINDOW, turns=200)
    async with reading_desk(model, context_tokens=WINDOW) as stage:
        run = await stage.start(REQUEST)
        assert await run.result() == "All read."
        assert verify(run.events, ended=True) == []
        assert (len(model.bodies), model.refused) == (201, 0)
        assert all(REQUEST in json.dumps(body["messages"][0]) for body in model.bodies)
        trimmed = run.of_type("context.trimmed")
        assert 10 <= len(trimmed) <= 150
        assert all(one.after_tokens < one.before_tokens and one.dropped + one.truncated > 0 for one in trimmed)
        assert run.of_type("recovery.started") == []


@pytest.mark.asyncio
async def test_a_window_that_is_smaller_than_was_said_is_found_out():
    model = Model(window=WINDOW, turns=60)
    async with reading_desk(model, context_tokens=3 * WINDOW) as stage:
        run = await stage.start(REQUEST)
        assert await run.result() == "All read."
        assert 1 <= model.refused <= 3
        assert {one.kind for one in run.of_type("recovery.started")} == {"context"}


@pytest.mark.asyncio
async def test_a_thread_of_many_runs_keeps_its_newest():
    model = Model(window=WINDOW, turns=0)
    async with reading_desk(model, context_tokens=WINDOW) as stage:
        for number in range(40):
            run = await stage.start(f"question {number} " + "word " * 100, thread_id="t")
            await run.result()
    asked = json.dumps(model.bodies[-1]["messages"])
    assert "question 39 " in asked
    assert "question 38 " in asked
    assert "question 0 " not in asked
    assert "Earlier messages were left out" in asked


@pytest.mark.asyncio
async def test_a_model_reads_on_in_a_result_that_was_shortened():
    """What the model is not shown of a result any more, it finds with `read_result`, and people do not see it there."""
    content = "a " * 12_500 + NEEDLE + "b " * 12_500

    @tool(redact=["page"])
    def read_book() -> dict[str, str]:
        """Read it."""
        return {"page": content}

    def model(received: Received) -> Reply:
        body = received.body
        check_body(body)
        said = body["messages"][-1]["content"][0]
        tools = [each["name"] for each in body["tools"]]
        if "is_error" in said or said["type"] == "text":
            assert tools == ["read_book"]
            return Reply(message(tool_block(0, "toolu_1", "read_book", "{}"), stop_reason="tool_use"))
        if "left out here" in (shown := said["content"]):
            assert tools == ["read_book", "read_result"]
            assert NEEDLE not in shown
            call_id = shown.partition('read_result(call_id="')[2].partition('"')[0]
            args = json.dumps({"call_id": call_id, "offset": 24_900})
            return Reply(message(tool_block(0, "toolu_2", "read_result", args), stop_reason="tool_use"))
        assert NEEDLE in shown
        assert len(shown) < 2_000, "a part of it that fits a small window"
        return Reply(message(text_block(0, "Found.")))

    async with reading_desk(model, context_tokens=6_000, tools=(read_book,)) as stage:
        run = await stage.start("Which colour?")
        assert await run.result() == "Found."
        events = json.dumps([str(event.payload) for event in run.events])
        assert "read_result" in events
        assert NEEDLE not in events
