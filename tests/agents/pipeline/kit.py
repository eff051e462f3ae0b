"""What the tests of planned runs share: a model that answers by who asks, and a run that is watched and steered."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from midstream import Agent
from midstream.agents.conversation import Call, Text, UserMessage
from midstream.agents.planning.contract import Planning, ProposedTodo, Request, Revision
from midstream.agents.providers.contract import (
    CallOpened,
    Finished,
    ModelRequest,
    Opened,
    TextDelta,
    TokenUsage,
)
from midstream.runs.contract import Limits
from midstream.testing import PlayedRun, Refused, Stage, staged
from midstream_protocol.events import TERMINAL_TYPES
from tests.agents.kit import check_conversation, check_log


class Model:
    """Answers with what `answer` makes of a request: a text, a list of (tool, args), or an exception that is raised.

    `requests` are all that it was asked. An agent in `hold` is answered once its event is set.
    """

    name = default_model = "fake"

    def __init__(self, answer: Callable[[ModelRequest], Any]) -> None:
        self.answer = answer
        self.requests: list[ModelRequest] = []
        self.hold: dict[str, asyncio.Event] = {}
        self.asked: dict[str, asyncio.Event] = {}
        self._calls = 0

    def window(self, _model: str) -> int | None:
        return None

    async def stream(self, request: ModelRequest) -> AsyncIterator[Any]:
        check_conversation(request.messages)
        self.requests.append(request)
        self.asked.setdefault(request.agent, asyncio.Event()).set()
        answer = self.answer(request)
        if isinstance(answer, Exception):
            raise answer
        yield Opened(model="fake", usage=TokenUsage(input_tokens=1))
        if request.agent in self.hold:
            await self.hold[request.agent].wait()
        parts: tuple[Any, ...]
        if isinstance(answer, str):
            for piece in answer.split(" "):
                yield TextDelta(text=piece + " ")
            parts, reason = (Text(text=" ".join([*answer.split(" "), ""])),), "end_turn"
        else:
            calls = []
            for tool, args in answer:
                self._calls += 1
                calls.append(Call(id=f"call_{self._calls}", provider_id=f"p{self._calls}", tool=tool, args=args))
                yield CallOpened(id=calls[-1].id, tool=tool)
            parts, reason = tuple(calls), "tool_use"
        yield Finished(stop_reason=reason, parts=parts, usage=TokenUsage(input_tokens=10, output_tokens=5))

    async def aclose(self) -> None:
        """Nothing is open."""

    def of(self, agent: str) -> list[ModelRequest]:
        return [request for request in self.requests if request.agent == agent]

    async def was_asked(self, agent: str) -> None:
        await asyncio.wait_for(self.asked.setdefault(agent, asyncio.Event()).wait(), 10)


def said_to(request: ModelRequest) -> str:
    """All that the user's side said in a request."""
    texts = [
        part.text
        for message in request.messages
        if isinstance(message, UserMessage)
        for part in message.parts
        if isinstance(part, Text)
    ]
    return "\n".join(texts)


def echo(request: ModelRequest) -> str:
    return f"{request.agent} did it."


def todos(*agents: str, **depends_on: Sequence[str]) -> list[ProposedTodo]:
    """A plan of one todo an agent, whose id is the agent's name."""
    return [
        ProposedTodo(
            id=agent,
            title=f"Do {agent}",
            agent=agent,
            depends_on=list(depends_on[agent]) if agent in depends_on else None,
        )
        for agent in agents
    ]


def desk(
    plan: Sequence[ProposedTodo],
    *,
    revised: Callable[[Revision], list[ProposedTodo]] | None = None,
    tools: dict[str, list[Any]] | None = None,
    agents: dict[str, dict[str, Any]] | None = None,
    **options: Any,
) -> Agent:
    """An agent whose planner is a function: first this plan, then what `revised` makes of it."""

    async def planner(_request: Request, revision: Revision | None) -> list[ProposedTodo]:
        if revision is None:
            return list(plan)
        assert revised is not None
        return revised(revision)

    names = dict.fromkeys(each.agent for each in plan if each.agent and each.agent != "desk")
    for name in agents or {}:
        names.setdefault(name)
    team = [
        Agent(name, instructions=f"You do {name}.", tools=(tools or {}).get(name, ()), **(agents or {}).get(name, {}))
        for name in names
    ]
    options.setdefault("planning", Planning())
    return Agent("desk", instructions="You run a desk.", planner=planner, specialists=team, **options)


@asynccontextmanager
async def working(
    agent: Agent,
    model: Model | Callable[[ModelRequest], Any] = echo,
    *,
    input: str = "Go.",  # noqa: A002 - the word of `run.start`
    limits: Limits | None = None,
    **fields: Any,
) -> AsyncIterator[tuple[PlayedRun, Model, Stage]]:
    """A run whose log is checked when the block is left."""
    if not isinstance(model, Model):
        model = Model(model)
    async with staged(agent, model, limits=limits) as stage:
        run = await stage.start(input, **fields)
        yield run, model, stage
        check_log(run, ended=False)


def over(run: PlayedRun) -> bool:
    return bool(run.events) and run.events[-1].type in TERMINAL_TYPES


async def follow(run: PlayedRun, *, at: int, act: Callable[[], Any]) -> bool:
    """Watch to the end, and act once `at` events were seen. Whether that was before the end."""
    acted = False
    while not over(run):
        await run._more("the next event")
        if not acted and len(run.events) >= at and not over(run):
            acted = True
            with suppress(Refused):
                await act()
    return acted


def statuses(run: PlayedRun) -> dict[str, str]:
    """Todo id → how it stands in the newest plan."""
    plans = [e.payload for e in run.events if e.type in ("plan.created", "plan.updated")]
    return {todo.id: todo.status for todo in plans[-1].todos}


def stages(run: PlayedRun) -> list[tuple[str, str, int | None]]:
    """(todo, state, attempt) of the steps of stages, in order."""
    steps = [e.payload for e in run.events if e.type == "run.step" and e.payload.kind == "stage"]
    return [(step.todo_id, step.state, step.attempt) for step in steps]
