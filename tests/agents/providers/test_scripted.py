"""The scripted model: its form, its choice of turns, its time."""

import asyncio
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream.agents.conversation import AssistantMessage, Call, Message, Reasoning, Result, Text, UserMessage
from midstream.agents.providers import script as script_module
from midstream.agents.providers.contract import (
    BadModelRequest,
    Cited,
    Finished,
    ModelError,
    ModelEvent,
    ModelOverloaded,
    ModelRateLimited,
    ModelRequest,
    ModelStalled,
    Opened,
    TextDelta,
    TokenUsage,
)
from midstream.agents.providers.script import Step, load_script, turn_of
from midstream.agents.providers.scripted import ScriptedProvider
from midstream.tasks import spawn


class Hourglass:
    """A clock that stands still until it is turned."""

    def __init__(self) -> None:
        self.slept: list[float] = []
        self._go = asyncio.Semaphore(0)
        self.asleep = asyncio.Event()

    def now_ms(self) -> int:
        return 0

    def monotonic(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.asleep.set()
        await self._go.acquire()

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Callable[[], None]:
        raise NotImplementedError

    def turn(self, times: int = 1) -> None:
        for _ in range(times):
            self._go.release()


def said(*texts: str) -> list[Message]:
    """User and assistant in turn, the user first."""
    return [
        UserMessage(parts=(Text(text=text),)) if number % 2 == 0 else AssistantMessage(parts=(Text(text=text),))
        for number, text in enumerate(texts)
    ]


def a_request(*messages: Message, **changes: Any) -> ModelRequest:
    return ModelRequest(**{"model": "scripted", "system": "", "messages": messages or tuple(said("Hi")), **changes})


async def answer(provider: ScriptedProvider, request: ModelRequest) -> list[ModelEvent]:
    return [event async for event in provider.stream(request)]


def says(*texts: str) -> list[dict[str, Any]]:
    return [{"steps": [{"text": text}]} for text in texts]


@pytest.mark.asyncio
async def test_every_step() -> None:
    steps = [
        {"reasoning": "Hm."},
        {"text": "One two", "by": "word"},
        {"delay_s": 0},
        {"call": {"tool": "look", "args": {"at": "sky"}}},
        {"raw_call": {"tool": "look", "json": "[1]"}},
        {"raw_call": {"tool": "look", "json": '{"at": "sea"}'}},
        {"usage": {"input_tokens": 3, "output_tokens": 4, "cached_input_tokens": 1}},
        {"stop_reason": "max_tokens"},
    ]
    provider = ScriptedProvider({"turns": [{"steps": steps}]}, new_call_id=iter(["a", "b", "c"]).__next__)
    events = await answer(provider, a_request())
    assert events[0] == Opened(model="scripted", usage=TokenUsage(input_tokens=13))
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["One ", "two"]
    assert events[-1] == Finished(
        stop_reason="max_tokens",
        parts=(
            Reasoning(raw={"type": "thinking", "thinking": "Hm."}),
            Text(text="One two"),
            Call(id="a", provider_id="a", tool="look", args={"at": "sky"}),
            Call(id="b", provider_id="b", tool="look", args=None, raw="[1]"),
            Call(id="c", provider_id="c", tool="look", args={"at": "sea"}),
        ),
        usage=TokenUsage(input_tokens=3, output_tokens=4, cached_input_tokens=1),
    )


@pytest.mark.asyncio
async def test_a_source_is_cited_where_it_stands() -> None:
    steps = [{"text": "So it is."}, {"cite": {"title": "Report"}}]
    events = await answer(ScriptedProvider({"turns": [{"steps": steps}]}), a_request())
    assert events[1:3] == [TextDelta(text="So it is."), Cited(data={"title": "Report"})]
    assert isinstance(events[-1], Finished)
    assert events[-1].parts == (Text(text="So it is."),)


@pytest.mark.asyncio
async def test_the_same_script_says_the_same_again() -> None:
    spec = {"turns": [{"steps": [{"text": "Hello"}, {"call": {"tool": "look"}}]}]}
    first, second = [await answer(ScriptedProvider(spec, new_call_id=lambda: "c"), a_request()) for _ in range(2)]
    assert first == second


# Which turn.


def texts_of(spec: dict[str, Any], messages: list[Message]) -> str | None:
    found = turn_of(load_script(spec), messages)
    return None if found is None else "".join("".join(step.pieces()) for step in found[1].steps)


def test_turns_are_counted_by_the_conversation_alone() -> None:
    spec = {"turns": says("one", "two")}
    assert texts_of(spec, said("Hi")) == "one"
    assert texts_of(spec, said("Hi", "one", "and?")) == "two"
    assert texts_of(spec, said("Hi", "one", "and?", "two", "and?")) is None
    assert texts_of({**spec, "loop": True}, said("Hi", "one", "and?", "two", "and?")) == "one"


def test_a_matched_turn_answers_and_takes_no_turn() -> None:
    spec = {"turns": [*says("one", "two"), {"match": {"last_user_contains": "Weather"}, "steps": [{"text": "sunny"}]}]}
    assert texts_of(spec, said("Hi")) == "one"
    assert texts_of(spec, said("the WEATHER?")) == "sunny"
    assert texts_of(spec, said("the weather?", "sunny", "and?")) == "one"
    assert texts_of(spec, said("the weather?", "sunny", "and?", "one", "weather")) == "sunny"
    assert texts_of(spec, said("the weather?", "sunny", "and?", "one", "weather", "sunny", "ok")) == "two"


def test_a_match_is_not_played_again_for_the_results_of_its_own_calls() -> None:
    look = {"match": {"last_user_contains": "look"}, "steps": [{"call": {"tool": "look"}}]}
    messages: list[Message] = [
        *said("look"),
        AssistantMessage(parts=(Call(id="1", provider_id="1", tool="look", args={}),)),
        UserMessage(parts=(Result(call_id="1", provider_id="1", content="look here"),)),
    ]
    assert texts_of({"turns": [look, *says("done")]}, messages) == "done"


@pytest.mark.asyncio
async def test_a_script_that_is_over_says_so() -> None:
    provider = ScriptedProvider({"turns": says("one")})
    with pytest.raises(BadModelRequest, match="loop: true"):
        await answer(provider, a_request(*said("Hi", "one", "and?")))


# Turns of an agent's own.


def own_texts(agents: dict[str, Any], agent: str, turn: int, *messages: Message) -> str | None:
    found = turn_of(load_script({"agents": agents}), messages or said("Hi"), agent=agent, turn=turn)
    return None if found is None else "".join("".join(step.pieces()) for step in found[1].steps)


def test_an_agents_own_turns_are_counted_by_the_request_alone() -> None:
    agents = {"a": {"turns": says("one", "two")}, "b": {"turns": says("uno"), "loop": True}}
    assert own_texts(agents, "a", 1) == "two"
    assert own_texts(agents, "a", 0, *said("Hi", "history", "more", "history", "now")) == "one"
    assert own_texts(agents, "a", 2) is None
    assert own_texts(agents, "b", 7) == "uno"


def test_an_agent_without_turns_of_its_own_plays_the_others() -> None:
    spec = {"turns": says("one", "two"), "agents": {"a": {"turns": says("own")}}}
    script = load_script(spec)
    assert turn_of(script, said("Hi", "one", "and?"), agent="b", turn=0) == (1, script.turns[1])  # type: ignore[index]
    assert turn_of(script, said("Hi"), agent="a", turn=0) == (0, script.agents["a"].turns[0])


def test_a_match_in_an_agents_own_turns_is_played_instead() -> None:
    matched = [
        {"match": {"last_user_contains": "stop"}, "steps": [{"text": "stopped"}]},
        {"match": {"user_contains": "Step 2 of 3", "turn": 1}, "steps": [{"text": "second of second"}]},
        {"match": {"user_contains": "step 2 of 3"}, "steps": [{"text": "second"}]},
    ]
    agents = {"a": {"turns": [*says("one", "two"), *matched]}}
    brief = said("You are on step 2 of 3.")
    assert own_texts(agents, "a", 0, *brief) == "second"
    assert own_texts(agents, "a", 1, *brief, *said("result")) == "second of second"
    assert own_texts(agents, "a", 1, *said("You are on step 1 of 3.")) == "two"
    assert own_texts(agents, "a", 1, *said("Hi", "stop", "go on")) == "two"
    assert own_texts(agents, "a", 1, *said("Hi", "one", "Please STOP")) == "stopped"


def test_a_match_may_ask_what_must_be_called() -> None:
    named = {"match": {"must_call": "give_title"}, "steps": [{"text": "A title"}]}
    script = load_script({"turns": [*says("one", "two"), named]})
    assert turn_of(script, said("Hi"), must_call="give_title") == (2, script.turns[2])  # type: ignore[index]
    # What was asked on the side is no part of the conversation, so it takes no turn.
    assert turn_of(script, said("Hi", "one", "and?")) == (1, script.turns[1])  # type: ignore[index]


@pytest.mark.asyncio
async def test_an_answer_is_a_call_of_what_must_be_called() -> None:
    spec = {"agents": {"planner": {"turns": [{"steps": [{"answer": {"todos": [{"title": "Look"}]}}]}]}}}
    provider = ScriptedProvider(spec, new_call_id=lambda: "c")
    ended = (await answer(provider, a_request(agent="planner", must_call="plan")))[-1]
    assert isinstance(ended, Finished)
    assert ended.parts == (Call(id="c", provider_id="c", tool="plan", args={"todos": [{"title": "Look"}]}),)
    assert ended.stop_reason == "tool_use"


@pytest.mark.asyncio
async def test_an_answer_is_text_where_nothing_must_be_called() -> None:
    provider = ScriptedProvider({"turns": [{"steps": [{"text": "Here: "}, {"answer": {"n": [1]}}]}]})
    events = await answer(provider, a_request(agent="any"))
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["Here: ", '{"n":[1]}']
    assert isinstance(events[-1], Finished)
    assert events[-1].parts == (Text(text="Here: "), Text(text='{"n":[1]}'))


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"agents": {"a": {"turns": says("one")}}}, "turn 3 for the agent 'a'.*loop: true"),
        ({"agents": {"b": {"turns": says("one")}}}, "no turns for the agent 'a': add them under `agents`"),
    ],
)
async def test_what_an_agent_lacks_is_said(spec: dict[str, Any], why: str) -> None:
    with pytest.raises(BadModelRequest, match=why):
        await answer(ScriptedProvider(spec), a_request(agent="a", turn=3))


@pytest.mark.asyncio
async def test_an_error_with_times_is_counted_for_each_agent() -> None:
    turns = [{"steps": [{"error": {"type": "overloaded", "times": 1}}, {"text": "Hello"}]}]
    provider = ScriptedProvider({"agents": {"a": {"turns": turns}, "b": {"turns": turns}}})
    for agent in ("a", "b"):
        with pytest.raises(ModelOverloaded):
            await answer(provider, a_request(agent=agent))
        # What a repeated try says more (a correction came) does not make it another turn.
        assert TextDelta(text="Hello") in await answer(provider, a_request(*said("Hi", "", "also"), agent=agent))


# Errors and time.


@pytest.mark.asyncio
async def test_an_error_with_times_fails_that_often_in_each_conversation() -> None:
    error = {"type": "rate_limited", "times": 2, "retry_after_s": 3}
    provider = ScriptedProvider({"turns": [{"steps": [{"error": error}, {"text": "Hello"}]}]})
    for run in ("run_1", "run_2"):
        for _ in range(2):
            with pytest.raises(ModelRateLimited) as caught:
                await answer(provider, a_request(conversation_id=run))
            assert caught.value.retry_after_s == 3
        assert TextDelta(text="Hello") in await answer(provider, a_request(conversation_id=run))


@pytest.mark.asyncio
@pytest.mark.parametrize("error", ModelError.__subclasses__(), ids=lambda error: error.code)
async def test_every_error_can_be_played(error: type[ModelError]) -> None:
    provider = ScriptedProvider({"turns": [{"steps": [{"text": "Hel"}, {"error": error.code}]}]})
    for _ in range(3):
        with pytest.raises(ModelError) as caught:
            await answer(provider, a_request())
        assert type(caught.value) is error


@pytest.mark.asyncio
async def test_delays_are_the_clocks() -> None:
    clock = Hourglass()
    spec = {"turns": [{"steps": [{"chunks": ["a", "b"], "delay_s": 0.5}, {"delay_s": 2}, {"text": "c"}]}]}
    provider = ScriptedProvider(spec, clock=clock)
    seen: list[str] = []

    async def listen() -> None:
        seen.extend([event.text async for event in provider.stream(a_request()) if isinstance(event, TextDelta)])

    task = spawn(listen(), name="test/listen")
    clock.turn(3)
    await task
    assert seen == ["a", "b", "c"]
    assert clock.slept == [0.5, 0.5, 2.0]


@pytest.mark.asyncio
@pytest.mark.parametrize("step", [{"stall": True}, {"delay_s": 90}, {"text": "a", "delay_s": 60}])
async def test_silence_is_measured_by_the_clock(step: dict[str, Any]) -> None:
    clock = Hourglass()
    clock.turn()
    provider = ScriptedProvider({"turns": [{"steps": [step]}]}, clock=clock)
    with pytest.raises(ModelStalled):
        await answer(provider, a_request(idle_timeout_s=60.0))
    assert clock.slept == [60.0]


@given(st.text(max_size=40), st.sampled_from(["word", "char", None]))
def test_the_pieces_of_a_text_join_to_it(text: str, by: Any) -> None:
    assert "".join(Step(text=text, by=by).pieces()) == text


# The file.


@pytest.mark.parametrize(
    ("spec", "where"),
    [
        ({}, "turns"),
        ({"turns": []}, r"\$\.turns"),
        ({"agents": {"a": {"turns": []}}}, r"\$\.agents"),
        ({"agents": {"a": {}}}, "turns"),
        ({"turns": [{"match": {"turn": 1}, "steps": []}]}, r"last_user_contains.*match"),
        ({"turns": [{"match": {"turn": 1, "user_contains": "a"}, "steps": []}]}, "an agent's own turns"),
        ({"turns": [{"steps": [{"answer": {"n": 2**53}}]}]}, "answer"),
        ({"turns": [{"steps": [{"txt": "a"}]}]}, r"`txt`.*\$\.turns\[0\]\.steps\[0\]"),
        ({"turns": [{"steps": [{}]}]}, r"needs one of.*steps\[0\]"),
        ({"turns": [{"steps": [{"text": "a"}, {"text": "a", "stall": True}]}]}, r"text and stall.*steps\[1\]"),
        ({"turns": [{"steps": [{"by": "word", "delay_s": 1}]}]}, "by"),
        ({"turns": [{"steps": [{"stall": True, "delay_s": 1}]}]}, "delay_s"),
        ({"turns": [{"steps": [{"error": "tired"}]}]}, r"tired.*steps\[0\]\.error"),
        ({"turns": [{"steps": [{"error": {"type": "overloaded", "times": 0}}]}]}, "times"),
        ({"turns": [{"steps": [{"delay_s": -1}]}]}, "delay_s"),
        ({"turns": [{"steps": [{"call": {"tool": "a", "args": {"n": float("nan")}}}]}]}, "args"),
        ({"turns": [{"steps": [{"call": {"tool": "a", "args": {"n": 2**53}}}]}]}, "args"),
        ({"turns": [{"steps": [{"text": "\ud800"}]}]}, "surrogates"),
    ],
)
def test_a_wrong_script_is_refused_with_the_place(spec: Any, where: str) -> None:
    with pytest.raises(ValueError, match=where):
        load_script(spec)


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("a.yaml", "turns: [", "no YAML"),
        ("a.json", "{", "no JSON"),
        ("a.json", '{"turns": [{"steps": [{"text": "\\ud800"}]}]}', "no JSON"),
        ("a.yaml", "turns: [{steps: [{call: {tool: a, args: {day: 2020-01-01}}}]}]", "quote"),
        ("a.yaml", "just text", "Expected `object`"),
        ("a.yaml", "", "Expected `object`"),
    ],
)
def test_a_wrong_file_is_refused_with_its_path(tmp_path: Path, name: str, text: str, why: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=why) as caught:
        load_script(path)
    assert str(path) in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        load_script(tmp_path / "none.yaml")


def test_a_file_may_be_json(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"turns": says("Hello")}))
    assert load_script(path) == load_script({"turns": says("Hello")})


def test_the_demo_we_ship_is_a_script(tmp_path: Path) -> None:
    demo = load_script(Path(script_module.__file__).with_name("demo.yaml"))
    calls = [step.call for turn in demo.turns for step in turn.steps if step.call is not None]
    assert [call.tool for call in calls] == ["list_files", "edit_file", "run_command"]
    assert demo.loop
    # It leaves nothing behind: making the file anew must work the next time too.
    made = tmp_path / calls[1].args["path"]
    made.write_text(calls[1].args["new"])
    quick = calls[2].args["command"].replace("sleep 1", ":")
    subprocess.run(["/bin/sh", "-c", quick], cwd=tmp_path, check=True, capture_output=True)
    assert not made.exists()
