"""What the tests of agents share: a scripted model whose requests are seen, and what every log must obey."""

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from midstream import Agent
from midstream.agents.conversation import AssistantMessage, Message, Result, Text, UserMessage, calls_of
from midstream.agents.providers.contract import ModelEvent, ModelRequest
from midstream.agents.providers.scripted import ScriptedProvider
from midstream.runs.contract import Limits
from midstream.testing import ManualClock, PlayedRun, Stage, staged
from midstream.testing.script import written
from midstream_protocol.order import verify


class Watched:
    """A scripted model that remembers what it was asked."""

    name = "scripted"
    default_model = "scripted"

    def __init__(self, script: Any, clock: ManualClock) -> None:
        self.requests: list[ModelRequest] = []
        self.open = 0
        self._inner = ScriptedProvider(written(script), clock=clock)

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        self.requests.append(request)
        check_conversation(request.messages)
        self.open += 1
        inner = self._inner.stream(request)
        try:
            async for event in inner:
                yield event
        finally:
            self.open -= 1
            await inner.aclose()

    async def aclose(self) -> None:
        await self._inner.aclose()

    def told(self, request: int = -1) -> list[str]:
        """What the model was last told: the user's texts and results of the last message of a request."""
        message = self.requests[request].messages[-1]
        assert isinstance(message, UserMessage)
        return [part.content if isinstance(part, Result) else part.text for part in message.parts]


def check_conversation(messages: Sequence[Message]) -> None:
    """The invariant that providers rely on."""
    assert messages
    assert isinstance(messages[0], UserMessage)
    for before, after in itertools.pairwise(messages):
        assert type(before) is not type(after) or isinstance(before, AssistantMessage)
    for index, message in enumerate(messages):
        owed = [call.id for call in calls_of(message)]
        if owed:
            following = messages[index + 1]
            assert isinstance(following, UserMessage)
            results = [part.call_id for part in following.parts if isinstance(part, Result)]
            assert sorted(results) == sorted(owed)
            kinds = [isinstance(part, Result) for part in following.parts]
            assert kinds == sorted(kinds, reverse=True), "results come first"


def check_log(run: PlayedRun, *, ended: bool = True) -> None:
    assert verify(run.events, ended=ended) == []


@asynccontextmanager
async def acting(
    agent: Any,
    script: Sequence[Any] | Mapping[str, Any],
    *,
    limits: Limits | None = None,
    resources: Sequence[Any] = (),
    input: Any = "Go.",  # noqa: A002 - the word of `run.start`
    **fields: Any,
) -> AsyncIterator[tuple[PlayedRun, Watched, Stage]]:
    """A run with a watched model. Its log is checked at the end, whatever the test looked at."""
    clock = ManualClock()
    model = Watched(script, clock)
    async with staged(agent, model, limits=limits, resources=resources, clock=clock) as stage:
        run = await stage.start(input, **fields)
        yield run, model, stage
        check_log(run, ended=False)


def agent(*tools: Any, **options: Any) -> Agent:
    return Agent("tester", instructions="Be brief.", tools=list(tools), **options)


def texts(messages: Sequence[Message]) -> list[tuple[str, str]]:
    """A conversation in short: who, and the joined text or results."""
    out = []
    for message in messages:
        who = "user" if isinstance(message, UserMessage) else "assistant"
        said = [
            part.text if isinstance(part, Text) else part.content if isinstance(part, Result) else "<call>"
            for part in message.parts
        ]
        out.append((who, " | ".join(said)))
    return out


async def eventually(condition: Callable[[], Any], *, within_s: float = 10.0) -> None:
    """Let the loop turn until it is so: for what a tool or a process does, which no event tells of."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to be"
        await asyncio.sleep(0)
