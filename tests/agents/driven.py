"""A run whose program is a function of its port, and a model that says what the test gave it: parts driven alone."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from midstream.agents.conversation import Text, UserMessage
from midstream.agents.definition import AgentLimits
from midstream.agents.limiter import Limiter
from midstream.agents.models import Models
from midstream.agents.providers.contract import (
    Finished,
    ModelEvent,
    ModelRequest,
    Opened,
    TextDelta,
    TokenUsage,
)
from midstream.agents.rules import AgentRules
from midstream.agents.speech import PLAIN_STYLE, SpeechStyle
from midstream.agents.steps import begin_step, ended
from midstream.agents.tools.toolbox import Toolbox
from midstream.agents.turn import Turn, Turned
from midstream.log import MemoryStore
from midstream.runs.contract import Limits, StartRecord
from midstream.runs.port import Port
from midstream.testing import ManualClock, PlayedRun, Stage
from midstream_protocol.order import verify

Act = Callable[[Port], Awaitable[Any]]
Saying = ModelEvent | Exception | asyncio.Event

SPENT = TokenUsage(input_tokens=7, output_tokens=3)


def said(*pieces: str, stop_reason: str = "end_turn", more: Sequence[ModelEvent] = ()) -> list[Saying]:
    """One whole answer."""
    parts = (Text(text="".join(pieces)),) if pieces else ()
    deltas = [TextDelta(text=piece) for piece in pieces]
    return [opened(), *deltas, *more, Finished(stop_reason=stop_reason, parts=parts, usage=SPENT)]


def opened() -> Opened:
    return Opened(model="test-model", usage=TokenUsage(input_tokens=7))


class Says:
    """A model. Each request takes the next answer, of its model's own list if there is one; an event waits."""

    name = "says"
    default_model = "first"

    def __init__(self, *answers: Sequence[Saying], **by_model: Sequence[Sequence[Saying]]) -> None:
        self.requests: list[ModelRequest] = []
        self.open = 0
        self._answers = {"": list(answers), **{name: list(each) for name, each in by_model.items()}}

    def window(self, model: str) -> int | None:
        return 1000 if model == "first" else None

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        self.requests.append(request)
        answers = self._answers.get(request.model, self._answers[""])
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        self.open += 1
        try:
            for each in answer:
                await asyncio.sleep(0)
                if isinstance(each, Exception):
                    raise each
                if isinstance(each, asyncio.Event):
                    await each.wait()
                else:
                    yield each
        finally:
            self.open -= 1

    async def aclose(self) -> None:
        """Nothing is open."""


@asynccontextmanager
async def driving(
    act: Act, *, clock: ManualClock | None = None, limits: Limits | None = None, **fields: Any
) -> AsyncIterator[PlayedRun]:
    """A run of `act`; what it returns is the result. Its log is checked at the end."""
    clock = clock or ManualClock()
    store = MemoryStore(clock=clock)
    stage = Stage(_Agents(act), store=store, clock=clock, limits=limits or Limits())  # type: ignore[arg-type]
    await stage.registry.open()
    try:
        run = await stage.start("Go.", **fields)
        yield run
        assert verify(run.events, ended=False) == []
    finally:
        await stage.registry.drain(0)
        await store.aclose()


class _Agents:
    default = "tester"

    def __init__(self, act: Act) -> None:
        self._act = act

    def names(self) -> list[str]:
        return ["tester"]

    def program(self, start: StartRecord) -> Any:
        return _Program(self._act)

    def rules(self, agent: str) -> AgentRules:
        return AgentRules(tools={}, steerable=True)


class _Program:
    def __init__(self, act: Act) -> None:
        self._act = act

    async def run(self, port: Port) -> None:
        await port.end(await self._act(port))


class Talk:
    """The turns of one agent, as its loop takes them: corrections enter with every request."""

    def __init__(
        self,
        model: Any,
        *names: str,
        limits: AgentLimits | None = None,
        limiter: Limiter | None = None,
        style: SpeechStyle = PLAIN_STYLE,
        shrink: Callable[[], bool] | None = None,
        turns: int = 1,
        stage: str = "",
    ) -> None:
        self.model = model
        self.names = names
        self.limits = limits or AgentLimits()
        self.limiter = limiter or Limiter()
        self.style = style
        self.shrink = shrink
        self.turns = turns
        self.stage = stage
        self.told: list[str] = []
        self.turned: list[Turned] = []
        self.port: Port | None = None

    async def __call__(self, port: Port) -> str:
        self.port = port
        models = Models(self.model, self.names, self.limiter, self.limits, 5.0)
        toolbox = Toolbox({}, port)
        turn = Turn(port=port, models=models, agent="tester", toolbox=toolbox, limits=self.limits, style=self.style)
        more = {} if self.shrink is None else {"shrink": self.shrink}
        while len(self.turned) < self.turns:
            step = await begin_step(port, agent="tester", title="Thinking")
            turned = await turn.take(self._make, step=step, stage=self.stage, heard=lambda: tuple(self.told), **more)
            await port.record(ended(turned.step, "completed"))
            self.turned.append(turned)
        message = self.turned[-1].message
        return "" if message is None else "".join(part.text for part in message.parts if isinstance(part, Text))

    async def _make(self, step: Any) -> ModelRequest:
        assert self.port is not None
        self.told += [each.text for each in await self.port.corrections(step_id=step.step_id)]
        texts = ("Go.", *self.told)
        return ModelRequest(
            model="", system="", messages=(UserMessage(parts=tuple(Text(text=each) for each in texts)),)
        )
