"""Asking a model for data: what counts as its answer, and that people see nothing of it but that it must be repeated."""

import asyncio
from typing import Any

import pytest

from midstream.agents.asking import Asker, NoAnswer, Question, as_arguments, listed, newest_half
from midstream.agents.conversation import AssistantMessage, Call, Result, Text, UserMessage
from midstream.agents.definition import AgentLimits
from midstream.agents.limiter import Limiter
from midstream.agents.providers.contract import (
    BadModelRequest,
    ContextTooLong,
    Finished,
    ModelOverloaded,
    TextDelta,
)
from midstream.agents.recovery import BACKOFF_S
from midstream.agents.tools.validate import check_value
from midstream.tasks import spawn, stop
from tests.agents.driven import SPENT, Says, driving, opened, said
from tests.agents.kit import eventually

pytestmark = pytest.mark.asyncio

SCHEMA = {
    "type": "object",
    "properties": {"title": {"type": "string", "minLength": 1}},
    "required": ["title"],
    "additionalProperties": False,
}


def a_question(**changes: Any) -> Question:
    fields = {
        "agent": "title",
        "system": "Name it.",
        "messages": (UserMessage(parts=(Text(text="Compare prices."),)),),
        "name": "give_title",
        "description": "Give it.",
        "schema": SCHEMA,
    }
    return Question(**{**fields, **changes})


def asker(port: Any, model: Any, **changes: Any) -> Asker:
    fields = {
        "port": port,
        "provider": model,
        "limiter": Limiter(),
        "limits": AgentLimits(),
        "model": "first",
        "idle_timeout_s": 5.0,
    }
    return Asker(**{**fields, **changes})


def called(
    tool: str = "give_title", args: Any = None, *, raw: str | None = None, stop_reason: str = "tool_use"
) -> list:
    call = Call(id="call_1", provider_id="p1", tool=tool, args=args, raw=raw)
    return [opened(), Finished(stop_reason=stop_reason, parts=(call,), usage=SPENT)]


async def answer_of(model: Says, question: Question | None = None) -> Any:
    async def act(port: Any) -> Any:
        try:
            return await asker(port, model).ask(question or a_question())
        except NoAnswer as none:
            return none.text

    async with driving(act) as run:
        return await run.result()


@pytest.mark.parametrize(
    "answer",
    [
        called(args={"title": "Prices"}),
        called("another_name", {"title": "Prices"}),
        called(raw='{"title": "Prices"} and more'),
        said('{"title": "Prices"}'),
        said('```json\n{"title": ', '"Prices"}\n```'),
        said('Of course! {"title": "Prices"} fits well, {"title": "Other"} too.'),
        said('{"title": "Prices"}', stop_reason="max_tokens"),
    ],
    ids=["call", "other call", "raw call", "text", "fenced", "prose", "complete though cut off"],
)
async def test_what_counts_as_an_answer(answer: list):
    assert await answer_of(Says(answer)) == {"title": "Prices"}


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (said("Prices"), "no JSON object"),
        (said(), "no JSON object"),
        (said("[1]"), "does not fit"),
        (called(args={"title": ""}), "/title"),
        (called(args={"name": "x"}), "/title: is required"),
        (called(args={"title": 7}), "/title"),
        (called(raw='{"title": "Pri', stop_reason="max_tokens"), "cut off"),
        (said('{"title": "Pri', stop_reason="max_tokens"), "cut off"),
    ],
    ids=["prose", "nothing", "no object", "empty", "another field", "another type", "cut call", "cut text"],
)
async def test_what_does_not_is_told_in_words_for_the_model(answer: list, told: str):
    assert told in await answer_of(Says(answer))


async def test_the_request_names_who_asks_and_what_must_be_called():
    model = Says(called(args={"title": "x"}))
    await answer_of(model, a_question(turn=1, max_tokens=99, models=("small",)))
    (request,) = model.requests
    assert (request.agent, request.turn, request.must_call) == ("title", 1, "give_title")
    assert (request.model, request.max_tokens, request.idle_timeout_s) == ("small", 99, 5.0)
    assert [(tool.name, tool.input_schema) for tool in request.tools] == [("give_title", SCHEMA)]


NAMED = {"$ref": "#/$defs/T", "$defs": {"T": SCHEMA}}
NUMBERS = {"type": "array", "items": {"$ref": "#/$defs/N"}, "$defs": {"N": {"type": "integer"}}}


async def test_the_arguments_of_a_tool_are_an_object_whatever_is_asked_for():
    assert as_arguments(SCHEMA) == (SCHEMA, False)
    assert as_arguments(NAMED) == ({**SCHEMA, "$defs": {"T": SCHEMA}}, False)
    wrapped, is_wrapped = as_arguments(NUMBERS)
    assert is_wrapped
    assert wrapped["type"] == "object"
    assert check_value(wrapped, {"value": [1]}) == []
    assert check_value(wrapped, {"value": ["1"]}) != []


@pytest.mark.parametrize("answer", [called(args={"value": [1, 2]}), said("[1, 2]"), said('{"value": [1, 2]}')])
async def test_an_answer_that_is_no_object_may_be_wrapped_or_not(answer: list):
    assert await answer_of(Says(answer), a_question(schema=NUMBERS)) == [1, 2]


async def test_of_several_calls_the_one_that_was_asked_for_counts():
    calls = [
        Call(id=f"call_{tool}", provider_id=tool, tool=tool, args={"title": tool}) for tool in ("another", "give_title")
    ]
    answer = [opened(), Finished(stop_reason="tool_use", parts=tuple(calls), usage=SPENT)]
    assert await answer_of(Says(answer)) == {"title": "give_title"}


async def test_an_object_of_its_own_is_never_unwrapped():
    schema = {"type": "object", "required": ["value"]}
    assert await answer_of(Says(called(args={"value": 1})), a_question(schema=schema)) == {"value": 1}


async def test_nothing_is_shown_but_that_it_must_be_asked_again_and_what_it_cost():
    model = Says([opened(), TextDelta(text="secret"), ModelOverloaded("busy")], called(args={"title": "x"}))

    async def act(port: Any) -> Any:
        return await asker(port, model).ask(a_question())

    async with driving(act) as run:
        again = (await run.until("recovery.started")).payload
        assert (again.kind, again.attempt, again.max_attempts) == ("overloaded", 2, 3)
        await run.advance(BACKOFF_S)
        await run.result()
        types = [event.type for event in run.events]
        assert not {"message.started", "message.delta", "tool.preparing", "run.step"} & set(types)
        after = run.of_type("run.status")[-1]
        assert (after.status, after.phase) == ("running", "planning")
        usage = run.events[-1].payload.usage
        assert (usage.input_tokens, usage.output_tokens) == (2 * 7, SPENT.output_tokens)


async def test_a_model_that_cannot_be_had_is_left_for_the_rest_of_the_run():
    model = Says(first=[[BadModelRequest("no such model")]], second=[called(args={"title": "x"})])

    async def act(port: Any) -> Any:
        asks = asker(port, model)
        for _ in range(2):
            await asks.ask(a_question(models=("first", "second")))
        return "done"

    async with driving(act) as run:
        await run.result()
        assert [request.model for request in model.requests] == ["first", "second", "second"]
        assert [p.code for p in run.of_type("notice")] == ["model_fallback"]


async def test_when_no_model_can_be_had_the_run_fails_as_it_would():
    async def act(port: Any) -> Any:
        return await asker(port, Says([BadModelRequest("no such model")])).ask(a_question())

    async with driving(act) as run:
        assert (await run.ended()).payload.code == "model_bad_request"


def user(text: str) -> UserMessage:
    return UserMessage(parts=(Text(text=text),))


async def test_a_history_that_is_too_long_is_asked_with_less_of_it():
    model = Says([ContextTooLong("long")], [ContextTooLong("long")], called(args={"title": "x"}))
    history = tuple(each for n in range(8) for each in (user(f"q{n}"), AssistantMessage(parts=(Text(text=f"a{n}"),))))
    assert await answer_of(model, a_question(messages=(*history, user("now")))) == {"title": "x"}
    assert [len(request.messages) for request in model.requests] == [17, 7, 3]
    for request in model.requests:
        assert isinstance(request.messages[0], UserMessage)
        assert request.messages[-1] == user("now")


async def test_what_cannot_be_asked_with_less_is_not_asked_again():
    model = Says([ContextTooLong("long")])

    async def act(port: Any) -> Any:
        return await asker(port, model).ask(a_question())

    async with driving(act) as run:
        assert (await run.ended()).payload.code == "context_too_long"
        assert len(model.requests) == 1


async def test_a_half_of_a_conversation_begins_with_a_users_word_and_holds_no_answer_without_its_call():
    call = Call(id="c", provider_id="p", tool="look", args={})
    result = Result(call_id="c", provider_id="p", content="sky")
    messages = (user("a"), AssistantMessage(parts=(call,)), UserMessage(parts=(result, Text(text="b"))), user("c"))
    assert newest_half(messages) == (UserMessage(parts=(Text(text="b"), Text(text="c"))),)
    assert newest_half((user("a"),)) == (user("a"),)
    assert newest_half(()) == ()


async def test_leaving_a_question_leaves_the_model():
    model = Says([opened(), asyncio.Event()])

    async def act(port: Any) -> Any:
        asking = spawn(asker(port, model).ask(a_question()), name="ask")
        await eventually(lambda: model.open)
        for _ in range(10):
            await asyncio.sleep(0)
        await stop(asking)
        return model.open

    async with driving(act) as run:
        assert await run.result() == 0
        assert run.events[-1].payload.usage.input_tokens == 7


TODOS = {
    "type": "object",
    "properties": {"todos": {"type": "array", "items": {"type": "object"}}, "why": {"type": "string"}},
    "required": ["todos"],
}


async def test_a_bare_list_is_meant_for_the_object_that_holds_only_one():
    assert listed(TODOS, [{"title": "x"}]) == {"todos": [{"title": "x"}]}
    assert listed(TODOS, {"todos": []}) == {"todos": []}
    assert listed({**TODOS, "required": ["todos", "why"]}, [1]) == [1]
    assert listed({"type": "array"}, [1]) == [1]
    assert listed({**TODOS, "required": ["why"]}, [1]) == [1]
