"""Mistakes in what an app declares: each is a sentence that says what to give, where it is declared."""

import functools
from typing import Any

import pytest

from midstream import (
    Agent,
    AgentLimits,
    Allow,
    BadTool,
    Midstream,
    Outflow,
    Planning,
    Request,
    Retry,
    RunInfo,
    continue_failed,
    note,
    retry_failed,
    stop_when,
    tool,
    validated,
)
from midstream.agents.crew import instructions_of
from midstream.agents.declared import quoted
from midstream.agents.outflow.transform import kept
from midstream.agents.own import OwnAgent, Run, agent
from midstream.testing import answer, play
from midstream_protocol.events import MessageDelta
from tests.agents.planning.fakes import START


@tool
async def look_up(word: str) -> str:
    """Look a word up."""
    return word


async def judge(request: Request) -> Allow:
    return Allow()


async def no_arguments() -> Allow:
    return Allow()


async def of_two(one: Any, two: Any) -> None:
    return None


async def of_one(one: Any) -> Any:
    return one


PLANNER = Agent("planner", instructions="Plan.")
WRITER = Agent("writer", instructions="Write.")


def declared(**fields: Any) -> Agent:
    return Agent("desk", **({"instructions": "Work."} | fields))


def planned(**fields: Any) -> Agent:
    return declared(planner=PLANNER, **fields)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"instructions": None}, "instructions is None; give a text, or a plain function of (run)"),
        ({"instructions": of_one}, "of_one is async; give a text, or a plain function"),
        ({"model": 3}, "model is 3; give a model's name, or a list of names"),
        ({"model": ""}, "model is ''; give a model's name"),
        ({"model": ["large", None]}, "model is ('large', None); give a model's name"),
        ({"tools": look_up}, "tools is of type Tool; give a list, such as tools=[…]"),
        ({"tools": None}, "tools is None; give a list"),
        ({"planner": "planner"}, "planner is 'planner'; give an Agent, or a function of (request, revision)"),
        ({"planner": of_one}, "planner of_one cannot be called with (request, revision)"),
        ({"guardrails": judge}, "guardrails is judge; give a list, such as guardrails=[…]"),
        ({"guardrails": ["polite"]}, "one of guardrails is 'polite'; give an Agent, or a function of (request)"),
        ({"guardrails": [no_arguments]}, "no_arguments cannot be called with (request)"),
        ({"guardrails": [Allow()]}, "one of guardrails is of type Allow; give an Agent"),
        ({"guardrails": [Agent("judge", instructions="", output=int)]}, "so it cannot have an output"),
        ({"guardrails": [Agent("judge", instructions="", title=True)]}, "no tools and no team of its own"),
        ({"title": "A name"}, "title is 'A name'; give True, an Agent, or a function of (request)"),
        ({"join": of_two}, "so it needs a planner"),
        ({"stream": "last"}, "stream is 'last'; give 'all' or 'final'"),
        ({"planning": {"max_todos": 3}}, "planning is {'max_todos': 3}; give Planning(…)"),
        ({"limits": {"max_turns": 3}}, "limits is {'max_turns': 3}; give AgentLimits(…)"),
        ({"max_tokens": 0}, "max_tokens is 0; give a whole number above 0"),
        ({"max_tokens": True}, "max_tokens is True; give a whole number"),
        ({"steerable": "no"}, "steerable is 'no'; give True or False"),
        ({"description": 3}, "description is 3; give a text"),
        ({"output": set[complex]}, "output=set[complex]: no type that JSON can be; give a dataclass"),
    ],
)
def test_a_part_that_cannot_be(fields: dict[str, Any], says: str):
    with pytest.raises(BadTool) as raised:
        declared(**fields)
    assert says in str(raised.value)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"specialists": WRITER}, "specialists is of type Agent; give a list, such as specialists=[…]"),
        ({"specialists": ["writer"]}, "one of specialists is 'writer'; give an Agent"),
        ({"hooks": of_two}, "hooks is of_two; give a list"),
        ({"hooks": [of_one]}, "one of hooks of_one cannot be called with (result, plan)"),
        ({"hooks": [Retry]}, "one of hooks Retry cannot be called with (result, plan)"),
        ({"hooks": [retry_failed]}, "retry_failed cannot be called with (result, plan)"),
        ({"join": "side by side"}, "join is 'side by side'; give a function of (results, plan)"),
    ],
)
def test_a_part_of_a_team_that_cannot_be(fields: dict[str, Any], says: str):
    with pytest.raises(BadTool) as raised:
        planned(**fields)
    assert str(raised.value).startswith("agent desk: ")
    assert says in str(raised.value)


def test_what_can_be():
    class Checks:
        async def __call__(self, result: Any, plan: Any) -> None:
            return None

        async def guard(self, request: Request) -> Allow:
            return Allow()

    made = planned(
        specialists=(WRITER,),
        guardrails=[judge, lambda request: Allow(), functools.partial(of_two, 1), Checks().guard],
        hooks=[Checks(), of_two, lambda *given: None],
        join=lambda results, plan="": None,
        instructions=lambda run: "Work.",
        model=(name for name in ("large", "small")),
        title=of_one,
        limits=AgentLimits(max_tool_calls=0, max_continuations=0, max_output_fixes=0, idle_timeout_s=0.1),
        planning=Planning(plan_timeout_s=1, replan=lambda text, plan: False),
    )
    assert made.models == ("large", "small")
    assert Outflow(secrets=["a"], transform=[lambda payload: payload]).secrets == ("a",)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: AgentLimits(max_turns=0), "limits: max_turns is 0; give a whole number from 1 on"),
        (lambda: AgentLimits(max_tool_calls=-1), "limits: max_tool_calls is -1; give a whole number from 0 on"),
        (lambda: AgentLimits(max_turns="3"), "limits: max_turns is '3'"),
        (lambda: AgentLimits(context_tokens=0), "limits: context_tokens is 0; give a whole number from 1 on"),
        (lambda: AgentLimits(idle_timeout_s=0), "limits: idle_timeout_s is 0; give a number above 0"),
        (lambda: Planning(plan_timeout_s="30"), "planning: plan_timeout_s is '30'; give a number above 0"),
        (lambda: Planning(plan_timeout_s=float("nan")), "planning: plan_timeout_s is nan"),
        (lambda: Planning(parallel_stages=1.5), "planning: parallel_stages is 1.5; give a whole number above 0"),
        (lambda: Planning(guardrail_mode="racing"), "planning: guardrail_mode is 'racing'; give 'gate' or 'race'"),
        (lambda: Planning(without_plan="none"), "planning: without_plan is 'none'; give 'one_stage' or 'fail'"),
        (lambda: Planning(guardrail_error="ajar"), "planning: guardrail_error is 'ajar'; give 'closed' or 'open'"),
        (lambda: Planning(replan="maybe"), "planning: replan is 'maybe'; give 'asked' or 'always' or 'never'"),
        (lambda: Planning(replan=of_two), "planning: replan of_two is async; give a plain function of (text, plan)"),
        (lambda: Outflow(transform=len), "outflow: transform is len; give a list, such as transform=[…]"),
        (lambda: Outflow(transform=(of_one,)), "transform of_one is async; give a plain function of (payload)"),
        (lambda: Outflow(process=(of_one,)), "process of_one cannot be called with (payload, audience)"),
        (lambda: Outflow(hidden_tools={"a"}), "hidden_tools is {'a'}; give a plain function of (audience)"),
        (lambda: Outflow(enrich_timeout_s=0), "outflow: enrich_timeout_s is 0; give a number above 0"),
        (lambda: validated("x"), "validated: check is 'x'; give a plain function of (result)"),
        (lambda: validated(of_one), "validated: check of_one is async; give a plain function of (result)"),
        (lambda: stop_when(len), "stop_when: condition len cannot be called with (result, plan)"),
        (lambda: note(None), "note: fn is None; give a plain function of (result)"),
        (lambda: retry_failed("research"), "retry_failed: times is 'research'; give a whole number from 0 on"),
        (lambda: continue_failed(["research"]), "continue_failed: one of agents is ['research']; give names"),
        (lambda: Outflow(guess="yes"), "outflow: guess is 'yes'; give True or False"),
    ],
)
def test_settings_that_cannot_be(make: Any, says: str):
    with pytest.raises(ValueError) as raised:
        make()
    assert says in str(raised.value)


@pytest.mark.parametrize("secrets", ["the launch code", (None, "the launch code"), ("the launch code", b"x")])
def test_what_was_to_be_a_secret_is_not_quoted(secrets: Any):
    with pytest.raises(ValueError, match="outflow: secrets") as raised:
        Outflow(secrets=secrets)
    assert "launch" not in str(raised.value)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Midstream(WRITER), "an app takes a list of its agents"),
        (lambda: Midstream("writer"), "an app takes a list of its agents"),
        (lambda: Midstream(["writer"]), "a value of type str is no agent"),
        (lambda: Midstream([judge]), "judge is no agent; declare it with Agent"),
        (lambda: Midstream([WRITER], outflow=lambda payload: payload), "outflow is of type function; give Outflow"),
    ],
)
def test_what_is_no_app(make: Any, says: str):
    with pytest.raises(BadTool) as raised:
        make()
    assert says in str(raised.value)


def test_agents_of_both_kinds_are_served():
    @agent("own")
    async def own(run: Run) -> str:
        return ""

    assert isinstance(own, OwnAgent)
    assert [each.name for each in Midstream(each for each in (WRITER, own)).agents] == ["writer", "own"]


def test_a_value_is_quoted_short_and_without_its_place_in_memory():
    assert quoted("x" * 200).endswith("…")
    assert "0x" not in quoted(object()) + quoted(lambda: 1) + quoted(functools.partial(print))


def test_instructions_that_are_no_text_are_named():
    wrong = Agent("desk", instructions=lambda run: 5)  # type: ignore[arg-type, return-value]
    with pytest.raises(TypeError, match="agent desk: its instructions return a value of type int, no text"):
        instructions_of(wrong, START)


@pytest.mark.asyncio
async def test_the_instructions_of_a_part_are_made_of_the_same_information_everywhere():
    asked: list[RunInfo] = []

    def instructions(run: RunInfo) -> str:
        asked.append(run)
        return "Judge."

    guarded = declared(guardrails=[Agent("judge", instructions=instructions)])
    async with play(guarded, {"agents": {"judge": [answer(allow=True)], "desk": ["Hello."]}}) as run:
        assert await run.result() == "Hello."
    assert len(asked) > 1
    assert [info.agent for info in asked] == ["judge"] * len(asked)


def test_what_a_function_of_the_outflow_returns_wrongly_is_said():
    with pytest.raises(
        TypeError, match=r"of a message\.delta a function returns a MessageDelta or None, and not a str"
    ):
        kept(MessageDelta(message_id="msg_1", text="a"), "a")  # type: ignore[arg-type]
