"""A run and an orchestrator that are only as much as a pipeline sees of them: no log, no model."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from midstream.agents.planning.contract import Correction
from midstream.agents.planning.plan import Plan
from midstream.log import JournalRecord
from midstream.runs.contract import Principal, StartRecord, Stopping
from midstream.runs.state import CorrectionState
from midstream.testing import ManualClock
from midstream_protocol.events import Payload, RunStep

START = StartRecord(
    run_id="run_1",
    thread_id="t",
    agent="desk",
    principal=Principal(id="p", name="P"),
    input="x",
    secret="00",
    created_ms=0,
)


class FakePort:
    """`events` and `journal` are what was recorded. Corrections wait in `waiting`; `taken` says which were taken at
    which step, and whether for a new plan.
    """

    def __init__(self) -> None:
        self.start = START
        self.clock = ManualClock()
        self.events: list[Payload] = []
        self.journal: list[JournalRecord] = []
        self.waiting = False
        self.pending: list[CorrectionState] = []
        self.taken: list[tuple[str, str, bool]] = []
        self.slow = asyncio.Event()
        self.slow.set()
        self.stopping = False
        self._count = 0
        self._interrupts: list[Callable[[], None]] = []

    def add(self, key: str, *, mode: Any = "next_step", replan: bool = False) -> None:
        """A correction comes."""
        self.pending.append(
            CorrectionState(
                correction_id=key, text=f"{key}!", mode=mode, state="accepted", preempts=False, asked_replan=replan
            )
        )
        if mode == "now":
            for interrupt in self._interrupts:
                interrupt()

    def check(self) -> None:
        if self.stopping:
            raise Stopping

    def new_id(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}_{self._count}"

    async def record(
        self, *payloads: Payload, journal: Sequence[JournalRecord] = (), step_id: str | None = None
    ) -> int:
        del step_id
        await asyncio.sleep(0)
        self.events += payloads
        self.journal += journal
        return len(self.events)

    @property
    def open_steps(self) -> list[RunStep]:
        steps = {}
        for event in self.events:
            if isinstance(event, RunStep):
                steps[event.step_id] = event
        return [step for step in steps.values() if step.state == "started"]

    @contextlib.contextmanager
    def on_interrupt(self, callback: Callable[[], None]) -> Iterator[None]:
        self._interrupts.append(callback)
        yield
        self._interrupts.remove(callback)

    def due_corrections(self, *, ending: bool = False) -> list[CorrectionState]:
        return [each for each in self.pending if ending or each.mode != "when_idle"]

    async def corrections(self, *, step_id: str, ending: bool, only: Any, replan: Any) -> list[CorrectionState]:
        due = [each for each in self.due_corrections(ending=ending) if each.correction_id in only]
        await self.slow.wait()
        self.pending = [each for each in self.pending if each not in due]
        self.taken += [(each.correction_id, step_id, each.correction_id in replan) for each in due]
        return due


class FakeOrchestrator:
    """A plan that is kept. Corrections that ask for it make it anew with `revised` (None: it stays)."""

    def __init__(self, plan: Plan | None = None, *, revised: Callable[[Plan], Plan | None] | None = None) -> None:
        self.plan = plan
        self.marks: list[tuple[dict[str, str], str | None]] = []
        self.revisions: list[tuple[list[str], dict[str, str]]] = []
        self.thinking = asyncio.Event()
        self.thinking.set()
        self._revised = revised

    def replans(self, text: str, *, asked: bool) -> bool:
        del text
        return asked

    async def revise(self, corrections: list[Correction], *, outcomes: dict[str, str]) -> Plan | None:
        self.revisions.append(([each.correction_id for each in corrections], dict(outcomes)))
        await self.thinking.wait()
        assert self.plan is not None
        made = self._revised(self.plan) if self._revised is not None else None
        self.plan = made or self.plan
        return made

    async def mark(self, plan: Plan, *, reason: str | None = None, correction_id: str | None = None) -> None:
        del correction_id
        self.plan = plan
        self.marks.append(({todo.id: todo.status for todo in plan.todos}, reason))
        await asyncio.sleep(0)
