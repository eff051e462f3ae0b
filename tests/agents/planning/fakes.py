"""A run and a model that are only as much as planning sees of them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from midstream import Agent
from midstream.agents.asking import NoAnswer, Question
from midstream.agents.conversation import AssistantMessage, Text
from midstream.agents.planning.contract import Planning, Request
from midstream.agents.planning.orchestrator import Orchestrator
from midstream.log import JournalRecord
from midstream.runs import Principal, StartRecord
from midstream.runs.contract import Stopping
from midstream.testing import ManualClock
from midstream_protocol.events import Payload
from midstream_protocol.ids import new_id

START = StartRecord(
    run_id="run_1",
    thread_id="thread_1",
    agent="desk",
    principal=Principal(id="local", name="local"),
    input="Compare the prices of three shops.",
    secret="00" * 32,
    created_ms=0,
)


class FakePort:
    """What a run has written: `events` and `journal`. After `lives` writes nothing is written any more and nobody is
    told, as when a process dies (`dead`).
    """

    def __init__(
        self,
        *,
        journal: Sequence[JournalRecord] = (),
        clock: ManualClock | None = None,
        lives: int | None = None,
        resumed: Sequence[JournalRecord] | None = None,
        titled: bool = False,
        **start: Any,
    ) -> None:
        self.start = msgspec.structs.replace(START, **start)
        self.journal = tuple(journal)
        self.recovered = bool(journal)
        self.clock = clock or ManualClock()
        self.waiting = False
        self.stopping = False
        self.titled = titled
        self.claims: list[str] = []
        self.batches: list[tuple[list[Payload], list[JournalRecord]]] = []
        self.dead = asyncio.Event()
        self._lives = lives
        self._resumed = resumed

    async def record(
        self, *payloads: Payload, journal: Sequence[JournalRecord] = (), step_id: str | None = None
    ) -> int:
        await asyncio.sleep(0)
        self.check()
        await self._live()
        self.batches.append((list(payloads), list(journal)))
        return len(self.batches)

    async def emit(self, payload: Payload, *, step_id: str | None = None) -> None:
        await self.record(payload)

    def check(self) -> None:
        if self.stopping:
            raise Stopping

    def new_id(self, prefix: str) -> str:
        return new_id(prefix)

    async def claim_title(self, text: str) -> bool:
        await self._live()
        self.claims.append(text)
        return not self.titled

    async def resumed(self) -> list[JournalRecord] | None:
        return None if self._resumed is None else list(self._resumed)

    async def _live(self) -> None:
        if self._lives is not None:
            if self._lives == 0:
                self.dead.set()
                await asyncio.Event().wait()
            self._lives -= 1

    @property
    def events(self) -> list[Payload]:
        return [payload for payloads, _ in self.batches for payload in payloads]

    @property
    def written(self) -> list[JournalRecord]:
        return [record for _, journal in self.batches for record in journal]

    def of_type(self, kind: str) -> list[Any]:
        return [payload for payload in self.events if kind == payload.TYPE]

    @property
    def types(self) -> list[str]:
        return [payload.TYPE for payload in self.events]


Answer = Any | Exception | Callable[[Question], Awaitable[Any]]


class FakeAsks:
    """Answers by the agent's name: a value, an exception, a function, or a list of them, one for each time it is asked."""

    def __init__(self, **answers: Answer) -> None:
        self.answers = answers
        self.asked: list[Question] = []
        self.open: set[str] = set()

    async def ask(self, question: Question) -> Any:
        self.asked.append(question)
        answer = self.answers[question.agent]
        if isinstance(answer, list):
            times = sum(1 for each in self.asked if each.agent == question.agent)
            answer = answer[min(times, len(answer)) - 1]
        self.open.add(question.agent)
        try:
            if callable(answer):
                answer = await answer(question)
            else:
                await asyncio.sleep(0)
        finally:
            self.open.discard(question.agent)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def names(self) -> list[str]:
        return [question.agent for question in self.asked]


def prose(text: str) -> NoAnswer:
    """What is no JSON."""
    return NoAnswer("That is no JSON object.", AssistantMessage(parts=(Text(text=text),)))


async def never(*_: Any) -> Any:
    await asyncio.Event().wait()


class After:
    """Answers when it is let."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self.let = asyncio.Event()

    async def __call__(self, _question: Any) -> Any:
        await self.let.wait()
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


PLAN = {
    "todos": [
        {"id": "find", "title": "Find the prices", "agent": "research"},
        {"id": "write", "title": "Write it up", "agent": "writing", "depends_on": ["find"]},
    ]
}
ALLOW = {"allow": True}
TRIP = {"allow": False, "reason": "This is not about prices."}
TITLE = {"title": "Prices of three shops"}

PLANNER = Agent("planner", instructions="Plan well.", model=["big", "small"])
GUARD = Agent("scope", instructions="Only prices.")
TITLER = Agent("titler", instructions="Short.")


def desk(**options: Any) -> Agent:
    """A planning agent with two specialists, a guardrail and a title."""
    planning = {name: options.pop(name) for name in Planning.__struct_fields__ if name in options}
    given: dict[str, Any] = {
        "planner": PLANNER,
        "specialists": [
            Agent("research", instructions="Find.", description="finds facts"),
            Agent("writing", instructions="Write.", description="writes"),
        ],
        "guardrails": [GUARD],
        "title": TITLER,
        **options,
    }
    return Agent("desk", instructions="Help.", planning=Planning(**planning), **given)


def orchestrated(agent: Agent, port: FakePort, asks: FakeAsks, **request: Any) -> Orchestrator:
    fields: dict[str, Any] = {
        "run_id": port.start.run_id,
        "thread_id": port.start.thread_id,
        "agent": agent.name,
        "principal": port.start.principal,
        "input": str(port.start.input),
        "history": (),
        "metadata": {},
        **request,
    }
    return Orchestrator(agent, port, asks, Request(**fields))  # type: ignore[arg-type]


async def turns(count: int = 50) -> None:
    """Let everything that can go on go on."""
    for _ in range(count):
        await asyncio.sleep(0)
