"""Whole runs, played the same way every time: on a scripted model and a clock that stands still."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from midstream import Agent, AgentLimits, Planning, tool
from midstream.testing import PlayedRun, answer, call, staged
from midstream_protocol.commands import RunCorrect
from midstream_protocol.events import TERMINAL_TYPES, Event

TICK_S: Final = 0.05
MOST_TICKS: Final = 2_000


@tool(idempotent=True, label="Look up {what}")
async def look_up(what: str) -> str:
    """Look something up."""
    return f"What is known of {what}."


@tool(idempotent=True, label="Add up")
async def add(numbers: list[float]) -> float:
    """Add numbers."""
    return sum(numbers)


SPECIALISTS: Final = (
    Agent("research", description="Looks things up.", instructions="Look things up.", tools=[look_up]),
    Agent("analysis", description="Calculates.", instructions="Calculate.", tools=[add]),
    Agent("writing", description="Writes.", instructions="Write."),
)
PLANNER: Final = Agent("planner", instructions="Plan.")
TITLE: Final = Agent("namer", instructions="Name.")
SCOPE: Final = Agent("scope", instructions="Allow what is polite.")


def desk(**changes: Any) -> Agent:
    fields: dict[str, Any] = {
        "instructions": "You are a desk.",
        "planner": PLANNER,
        "specialists": SPECIALISTS,
        "title": TITLE,
        "guardrails": [SCOPE],
        **changes,
    }
    return Agent("desk", **fields)


def says(text: str, *, after_s: float = 0.0, by: str | None = None) -> dict[str, Any]:
    """A turn that waits and then says it."""
    said: dict[str, Any] = {"text": text} if by is None else {"text": text, "by": by}
    return {"steps": [*([{"delay_s": after_s}] if after_s else []), said]}


def in_step(number: int, of: int, turn: dict[str, Any], *, at: int = 0) -> dict[str, Any]:
    """The turn, only in that step of the plan."""
    return {**turn, "match": {"user_contains": f"step {number} of {of}:", "turn": at}}


def todo(id: str, title: str, agent: str, *depends_on: str) -> dict[str, Any]:  # noqa: A002
    return {"id": id, "title": title, "agent": agent, "depends_on": list(depends_on)}


def script(todos: list[dict[str, Any]], /, **agents: Any) -> dict[str, Any]:
    """What the planner, the title and the guardrail say, and what `agents` say."""
    usual = {
        "planner": [answer(todos=todos)],
        "namer": [answer(title="A small matter")],
        "scope": [answer(allow=True)],
    }
    return {"agents": {**usual, **agents}}


TWO: Final = [todo("facts", "Find the facts", "research"), todo("text", "Write the text", "writing", "facts")]


class Story:
    """A run that goes on as time passes."""

    def __init__(self, run: PlayedRun) -> None:
        self.run = run

    async def until(self, type: str, where: Callable[[Any], bool] | None = None) -> Any:  # noqa: A002
        """Let time pass until there is such an event, and all is done that needs no more time."""
        for _ in range(MOST_TICKS):
            for event in await self.run.catch_up():
                if event.type == type and (where is None or where(event.payload)):
                    return event.payload
            await self.run.advance(TICK_S)
        raise AssertionError(f"{type} does not come: {[event.type for event in self.run.events]}")

    async def end(self) -> None:
        """Let time pass until the run is over."""
        await self.run.catch_up()
        for _ in range(MOST_TICKS):
            if self.run.events[-1].type in TERMINAL_TYPES:
                return
            await self.run.advance(TICK_S)
            await self.run.catch_up()
        raise AssertionError(f"the run does not end: {[event.type for event in self.run.events]}")


@asynccontextmanager
async def told(agent: Agent, said: dict[str, Any], *, asked: str = "Do it, please.") -> AsyncIterator[Story]:
    async with staged(agent, said) as stage:
        yield Story(await stage.start(asked))


# -- the stories


async def simple() -> list[Event]:
    """Two steps, one after the other."""
    facts = [call("look_up", what="trams"), says("Trams run on rails.")]
    async with told(desk(), script(TWO, research=facts, writing=[says("In short: rails.", by="word")])) as story:
        await story.end()
        return story.run.events


async def complex_() -> list[Event]:
    """Ten steps; up to three side by side, and one thing of all at the end."""
    todos = [
        todo("scope", "Say what is asked", "research"),
        *(todo(f"facts_{n}", f"Find the facts on part {n}", "research", "scope") for n in (1, 2, 3, 4)),
        todo("sum_1", "Add up parts 1 and 2", "analysis", "facts_1", "facts_2"),
        todo("sum_2", "Add up parts 3 and 4", "analysis", "facts_3", "facts_4"),
        todo("compare", "Compare the sums", "analysis", "sum_1", "sum_2"),
        todo("draft", "Write a draft", "writing", "compare"),
        todo("final", "Write the answer", "writing", "draft"),
    ]
    research = [
        in_step(1, 10, says("Four parts are asked for.")),
        # Each of those side by side takes another time, so that their order is one of time and not of chance.
        *(in_step(n + 1, 10, waits(0.2 * n, call("look_up", what=f"part {n}"))) for n in (1, 2, 3, 4)),
        *(in_step(n + 1, 10, says(f"Part {n} is {n * 10}.", after_s=0.1), at=1) for n in (1, 2, 3, 4)),
    ]
    analysis = [
        in_step(6, 10, call("add", numbers=[10, 20])),
        in_step(7, 10, waits(0.3, call("add", numbers=[30, 40]))),
        in_step(6, 10, says("30 in all."), at=1),
        in_step(7, 10, says("70 in all."), at=1),
        in_step(8, 10, says("70 is more than 30.")),
    ]
    writing = [
        in_step(9, 10, says("The second half is larger.")),
        in_step(10, 10, says("The second half is larger: 70, not 30.", by="word")),
    ]
    said = script(todos, research=research, analysis=analysis, writing=writing)
    async with told(desk(stream="final"), said, asked="Compare four parts, please.") as story:
        await story.end()
        return story.run.events


async def correction() -> list[Event]:
    """While the first of three steps is done, a correction changes what comes after it."""
    todos = [*TWO[:1], todo("sum", "Add the numbers up", "analysis", "facts"), todo("text", "Write", "writing", "sum")]
    revised = [todo("short", "Write one sentence", "writing", "facts")]
    said = script(
        todos,
        planner=[answer(todos=todos), answer(todos=revised)],
        research=[
            call("look_up", what="trams"),
            says("Trams run on rails.", after_s=1),
            says("On rails.", after_s=0.5),
        ],
        writing=[says("Trams run on rails.")],
    )
    async with told(desk(), said) as story:
        await story.until("tool.completed")
        await story.run.command(RunCorrect(text="One sentence is enough.", replan=True))
        await story.end()
        return story.run.events


async def guardrail_gate() -> list[Event]:
    """A guardrail says no, and nothing of the plan was shown."""
    async with told(desk(), script(TWO, scope=[refusal(after_s=0.2)]), asked="Do it, you fool.") as story:
        await story.end()
        return story.run.events


async def guardrail_race() -> list[Event]:
    """The work begins meanwhile: steps show, no tool runs and no text leaves."""
    agent = desk(planning=Planning(guardrail_mode="race"))
    facts = [{"steps": [{"text": "Let me look."}, {"call": {"tool": "look_up", "args": {"what": "fools"}}}]}]
    said = script(TWO, scope=[refusal(after_s=0.5)], research=facts)
    async with told(agent, said, asked="Do it, you fool.") as story:
        await story.end()
        return story.run.events


async def limit() -> list[Event]:
    """A stage may call one tool: it is told to continue, twice, and then must answer."""
    research = Agent(
        "research",
        description="Looks things up.",
        instructions="Look things up.",
        tools=[look_up],
        limits=AgentLimits(max_tool_calls=1, max_continuations=2),
    )
    agent = desk(specialists=[research, SPECIALISTS[2]])
    looks = [call("look_up", what=f"part {n}") for n in (1, 2, 3)]
    facts = [looks[0], looks[1], looks[1], looks[2], looks[2], says("I could look up three of four.")]
    async with told(agent, script(TWO, research=facts, writing=[says("Three of four.")])) as story:
        await story.end()
        return story.run.events


async def crash() -> list[Event]:
    """The server dies in the third of four steps, while the model speaks."""
    todos = [*TWO[:1], todo("sum", "Add up", "analysis", "facts"), todo("text", "Write", "writing", "sum")]
    todos = [*todos, todo("check", "Check the text", "research", "text")]
    said = script(
        todos,
        research=[in_step(1, 4, says("Ten and twenty.")), in_step(4, 4, says("All is right."))],
        analysis=[call("add", numbers=[10, 20]), says("30.")],
        writing=[{"steps": [{"text": "It is "}, {"delay_s": 1}, {"text": "30."}]}],
    )
    async with told(desk(), said) as story:
        await story.until("message.delta", lambda delta: delta.text == "It is ")
        await story.run.crash()
        await story.end()
        return story.run.events


async def resumed() -> list[Event]:
    """The second step fails; a new run of the thread goes on with it."""
    said = script(
        TWO,
        research=[says("Trams run on rails.")],
        writing=[{"steps": [{"error": {"type": "model_bad_request", "times": 1}}, {"text": "In short: rails."}]}],
    )
    async with staged(desk(), said) as stage:
        first = Story(await stage.start("Do it, please."))
        await first.end()
        failed = first.run.events[-1].payload
        second = Story(await stage.start(None, resume=failed.resume))
        await second.end()
        return [*first.run.events, *second.run.events]


def waits(seconds: float, turn: dict[str, Any]) -> dict[str, Any]:
    return {**turn, "steps": [{"delay_s": seconds}, *turn["steps"]]}


def refusal(*, after_s: float) -> dict[str, Any]:
    return waits(after_s, answer(allow=False, reason="Please stay polite."))


STORIES: Final[dict[str, Callable[[], Awaitable[list[Event]]]]] = {
    "simple": simple,
    "complex": complex_,
    "correction": correction,
    "guardrail_gate": guardrail_gate,
    "guardrail_race": guardrail_race,
    "limit": limit,
    "crash": crash,
    "resumed": resumed,
}
