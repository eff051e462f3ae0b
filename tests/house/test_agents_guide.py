"""The guide for writers of agents: each of its programs is run."""

import inspect
from typing import Any

import pytest

from midstream import Agent, AgentLimits, Planning
from midstream.testing import answer, call, play, staged
from tests.house.checkout import code_blocks, read

GUIDE = read("docs/agents.md")


def programs() -> dict[str, Any]:
    """All its programs, one after the other, as a reader would type them."""
    names: dict[str, Any] = {"__name__": "guide"}
    for number, block in enumerate(code_blocks(GUIDE, "python")):
        exec(compile(block, f"docs/agents.md, program {number + 1}", "exec"), names)
    return names


NAMES = programs()

TODOS = [{"id": "facts", "title": "Find it", "agent": "research"}, {"title": "Write it", "agent": "writing"}]


def team(*research: Any, writing: Any = "Written.", **others: Any) -> dict[str, Any]:
    said = {"planner": [answer(todos=TODOS)], "research": list(research or ("Found.",)), "writing": [writing]}
    return {"agents": {**said, **others}}


@pytest.mark.asyncio
async def test_its_own_test():
    await NAMES["test_press"]()


@pytest.mark.asyncio
async def test_one_agent():
    async with play(NAMES["glossary"], [call("look_up", word="beat"), "One turn."]) as run:
        assert await run.result() == "One turn."
        assert run.of_type("tool.started")[0].label == "Look up beat"


@pytest.mark.asyncio
async def test_the_json_that_it_says_planners_titles_and_guardrails_answer():
    plan, verdict = code_blocks(GUIDE, "json")
    fenced = f"Here you are:\n```json\n{plan}```"
    async with play(NAMES["press"], team(planner=[fenced])) as run:
        todos = (await run.until("plan.created")).payload.todos
        assert [(todo.id, todo.agent, todo.depends_on) for todo in todos] == [
            ("facts", "research", []),
            ("text", "writing", ["facts"]),
        ]
        await run.result()
    script = {"agents": {"polite": [verdict], "guarded": ["Hello."]}}
    async with play(NAMES["guarded"], script) as run:
        assert (await run.until("guardrail.triggered")).payload.reason == "Please stay polite."
        assert (await run.ended()).payload.code == "guardrail"
    for title in ('{"title": "Opening hours"}', "Opening hours"):
        assert title in GUIDE
        async with play(NAMES["named"], {"agents": {"namer": [title], "named": ["Hello."]}}) as run:
            assert (await run.until("thread.titled")).payload.title == "Opening hours"
            assert await run.result() == "Hello."


@pytest.mark.asyncio
async def test_a_title_by_the_agents_own_model():
    script = {"agents": {"title": [answer(title="Named")], "plain": ["Hello."]}}
    async with play(Agent("plain", instructions="…", title=True), script) as run:
        assert (await run.until("thread.titled")).payload.title == "Named"


@pytest.mark.asyncio
async def test_its_guardrail_that_is_a_function():
    script = {"agents": {"polite": [answer(allow=True)], "guarded": ["Hello."]}}
    async with play(NAMES["guarded"], script, input="x" * 2_001) as run:
        assert (await run.ended()).payload.text == "Please ask in fewer words."
    async with play(NAMES["guarded"], script, input="x") as run:
        assert await run.result() == "Hello."


@pytest.mark.asyncio
async def test_its_planner_that_is_a_function():
    async with play(NAMES["quiet"], team("Found."), input="Why?") as run:
        assert [todo.title for todo in (await run.until("plan.created")).payload.todos] == [
            "Find the facts",
            "Answer: Why?",
        ]
        assert await run.result() == "Written."
        assert run.text == "Written."


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("research", "end"),
    [
        (["Found."], "Written."),
        (["  ", "Found."], "Written."),
        (["x" * 4_000, "Found."], "Written."),
        (["Nothing to report."], "Nothing to report."),
        ([[{"error": "model_denied"}]], "Written."),
    ],
)
async def test_its_hooks(research: list[Any], end: str):
    # A stage that is done again begins at its first turn: what it was told says that it is another attempt.
    again = [{"match": {"user_contains": "has to be done again"}, "steps": [{"text": each}]} for each in research[1:]]
    async with play(NAMES["checked"], team(research[0], *again)) as run:
        assert await run.result() == end


@pytest.mark.asyncio
async def test_its_hook_that_tries_a_failed_step_again():
    writing = [{"error": {"type": "model_denied", "times": 1}}, {"text": "Written."}]
    async with play(NAMES["checked"], team(writing=writing)) as run:
        assert await run.result() == "Written."
        assert [step.attempt for step in run.of_type("run.step") if step.title == "Answer: Go." and step.attempt] == [
            2,
            2,
        ]


@pytest.mark.asyncio
async def test_its_join():
    both = [{"title": "One", "agent": "research"}, {"title": "Two", "agent": "writing", "depends_on": []}]

    agent = Agent(
        "joined",
        instructions="…",
        planner=Agent("planner", instructions="…"),
        specialists=NAMES["press"].specialists,
        join=NAMES["side_by_side"],
    )
    async with play(agent, team("Found.", planner=[answer(todos=both)])) as run:
        assert await run.result() == "Found. | Written."
    assert NAMES["joined"].join is NAMES["side_by_side"]


@pytest.mark.asyncio
@pytest.mark.parametrize(("text", "replanned"), [("Instead, be brief.", True), ("Be brief.", False)])
async def test_its_rule_for_making_the_plan_anew(text: str, replanned: bool):
    slow = [{"delay_s": 1}, {"text": "Found."}]
    async with play(NAMES["steered"], team(slow, "Found.")) as run:
        await run.until("run.step", lambda step: step.kind == "turn")
        await run.correct(text)
        await run.advance(1)
        assert (await run.until("correction.applied")).payload.replanned is replanned
        await run.result()


@pytest.mark.asyncio
async def test_its_typed_result():
    opening = [{"day": "Monday", "from_hour": 9, "to_hour": 12}]
    async with play(NAMES["hours"], ['[{"day": "Monday"}]', f"```json\n{opening}\n```".replace("'", '"')]) as run:
        assert await run.result() == opening
        assert run.of_type("recovery.started")[0].kind == "validation"


@pytest.mark.asyncio
async def test_its_object():
    agent = Agent("photos", instructions="…", tools=[NAMES["find_photo"]])
    turns = [call("find_photo", subject="a tram"), [{"text": "There."}, {"cite": {"title": "The archive"}}]]
    async with play(agent, turns) as run:
        await run.result()
        photo, citation = run.of_type("object.created")
        assert (photo.kind, photo.data) == ("photo", {"subject": "a tram", "width": 640})
        assert (citation.kind, citation.data["title"]) == ("citation", "The archive")


@pytest.mark.asyncio
async def test_its_outflow():
    app = NAMES["app"]
    chunks = [{"chunks": ["Acme says ", "the launch code is ", "here."]}]
    async with staged(app, team(call("look_up", word="beat"), "Found.", writing=chunks)) as stage:
        run = await stage.start("Go.")
        await run.ended()
        assert "the launch code" not in run.text
        assert "Acme" not in run.text
        # The tester is no operator.
        assert [each.tool for each in run.of_type("tool.started")] == ["tool"]


@pytest.mark.asyncio
async def test_its_list_of_models_and_limits():
    agent = NAMES["bounded"]
    assert agent.models == ("the-large-one", "the-small-one")
    async with play(agent, [[{"error": {"type": "model_denied", "times": 1}}, {"text": "Hello."}]]) as run:
        assert await run.result() == "Hello."
        assert run.of_type("notice")[0].code == "model_fallback"


def test_every_name_of_a_field_exists():
    """What the page calls a setting of an agent is one."""
    known = {*inspect.signature(Agent).parameters, *AgentLimits.__struct_fields__, *Planning.__struct_fields__}
    spoken = {"plan_timeout_s", "max_todos", "without_plan", "guardrail_mode", "guardrail_error", "max_output_fixes"}
    spoken |= {"max_turns", "max_tool_calls", "max_continuations", "max_model_attempts", "max_stage_attempts"}
    spoken |= {"context_tokens", "parallel_stages", "replan", "stream", "join", "hooks", "title", "guardrails"}
    assert spoken <= known
    assert all(name in GUIDE for name in spoken)
