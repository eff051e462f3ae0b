"""The orchestrator: planner, title and guardrails at the same time, each in its time and with its policy; then the plan
as it goes.

What a part comes to is journalled the moment it is there, so a program that begins again asks only for what is
missing.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from midstream.agents.asking import Asks
from midstream.agents.conversation import UserMessage
from midstream.agents.definition import Agent
from midstream.agents.journal import journal_record
from midstream.agents.planning.contract import Correction, ProposedTodo, Request, Revision
from midstream.agents.planning.judging import Judging
from midstream.agents.planning.merging import NOTHING, merged
from midstream.agents.planning.naming import Naming
from midstream.agents.planning.plan import Plan, sequence
from midstream.agents.planning.planner import PlannerPart
from midstream.agents.planning.progress import Progress, reopened
from midstream.agents.planning.proposal import BadPlan
from midstream.agents.planning.rounds import PartFailed, within
from midstream.agents.planning.title import first_words
from midstream.agents.records import PlanRecord
from midstream.agents.steps import begin_step, ended
from midstream.agents.transcript import input_parts
from midstream.log import JournalRecord
from midstream.logs import Logger
from midstream.runs.contract import RunFailure, Stopping
from midstream.runs.port import Port
from midstream.tasks import spawn, stop
from midstream_protocol.events import Notice, PlanCreated, PlanUpdated, RunStatusChanged, RunStep

_log = Logger("midstream.agents")

NO_PLAN: Final = "no_plan"
"""Why a plan is one step: the planner came to nothing."""
RESUME: Final = "resume"
"""Why a plan was there: it is that of the run that this one goes on with."""
CORRECTION: Final = "correction"
"""Why a plan was made anew."""

_ONE_STEP: Final = "Do what was asked"


class Orchestrator:
    """Planning of one run (`planning.contract.Orchestrates`)."""

    def __init__(self, agent: Agent, port: Port, asks: Asks, request: Request) -> None:
        self._agent = agent
        self._port = port
        self._request = request
        asked_for = UserMessage(parts=input_parts(port.start.input))
        done = Progress(port.journal)
        self._kept = done.plan
        self._plan = Plan(todos=done.plan.todos) if done.plan is not None and done.plan.shown else None
        self._used = done.used
        self._plans = done.plans
        self._planner = None
        if agent.planner is not None:
            asked = done.plan.asked if done.plan is not None else 0
            self._planner = PlannerPart(agent, asks=asks, request=request, asked_for=asked_for, asked=asked)
        self._judging = Judging(agent, port=port, asks=asks, request=request, asked_for=asked_for, known=done.guards)
        self._naming = Naming(agent, port=port, asks=asks, request=request, judging=self._judging, known=done.title)
        self._planning: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()
        """Plans are written in the order in which they became current."""

    # -- before the work

    @property
    def plan(self) -> Plan | None:
        return self._plan

    async def prepare(self) -> None:
        self._port.check()
        try:
            if self._judging.over:
                # What a program before this one was told still counts.
                await self._judging.verdict()
            if self._planner is not None and self._plan is None:
                name = f"run:{self._request.run_id}/plan"
                self._planning = spawn(self._make_plan(self._planner), name=name, expected=(RunFailure, Stopping))
            self._judging.begin()
            self._naming.begin()
            if self._planning is None and self._judging.holds:
                await self._say_checking()
            await self._ready(self._planning)
        except BaseException:
            await self.aclose()
            raise

    async def verdict(self) -> None:
        await self._judging.verdict()

    async def finish(self) -> None:
        await self._judging.verdict()
        await self._naming.done()

    async def aclose(self) -> None:
        # Together: each may take its grace to stop.
        await stop(self._planning, self._judging.task, self._naming.task)
        self._judging.leave_off()

    async def _ready(self, planning: asyncio.Task[None] | None) -> None:
        """Wait until the work may begin. A refusal counts before anything else."""
        verdict = spawn(
            self._judging.verdict(), name=f"run:{self._request.run_id}/verdict", expected=(RunFailure, Stopping)
        )
        try:
            while True:
                if self._judging.over:
                    await self._judging.verdict()
                planned = planning is None or planning.done()
                if planning is not None and planned:
                    planning.result()
                if planned and not self._judging.holds:
                    return
                waiting = [task for task in (verdict, planning) if task is not None and not task.done()]
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await stop(verdict)

    async def _say_checking(self) -> None:
        if not self._port.waiting:
            status = RunStatusChanged(status="running", phase="planning", text="Checking the request")
            await self._port.emit(status)

    # -- the first plan

    async def _make_plan(self, planner: PlannerPart) -> None:
        step = await begin_step(self._port, agent=self._agent.name, title="Planning", kind="plan")
        kept = self._kept if self._kept is not None else await self._resumed()
        reason = kept.reason if kept is not None else None
        if kept is not None:
            plan = Plan(todos=kept.todos)
        else:
            plan, reason = await self._asked(planner, step)
        if self._judging.holds and self._kept is None:
            await self._port.record(journal=[self._record(plan, shown=False, reason=reason)])
        await self._judging.leave()
        created = PlanCreated(todos=plan.shown(), reason=reason)
        await self._port.record(
            created, ended(step, "completed"), journal=[self._record(plan, reason=reason)], step_id=step.step_id
        )
        self._plan = plan

    async def _asked(self, planner: PlannerPart, step: RunStep) -> tuple[Plan, str | None]:
        """The plan, and why it is no planner's. Raises `RunFailure` `no_plan`."""
        try:
            return self._merged(planner, await self._propose(planner, step)), None
        except PartFailed as failed:
            if self._agent.planning.without_plan == "fail":
                text = f"No plan could be made: the planner {failed.text}."
                raise RunFailure("no_plan", text, retryable=True) from failed
            _log.warning("a run is done without a plan", run=self._request.run_id, why=failed.text)
            title = first_words(
                self._request.input, max_chars=self._agent.planning.max_title_chars, otherwise=_ONE_STEP
            )
            return sequence([(title, planner.team.usual)]), NO_PLAN

    async def _resumed(self) -> PlanRecord | None:
        """The plan of the run that this one goes on with."""
        if self._port.start.resume is None or self._planner is None:
            return None
        team = self._planner.team
        plan = reopened(await self._port.resumed() or (), agents={*team.names, team.usual})
        return None if plan is None else PlanRecord(todos=plan.todos, reason=RESUME)

    # -- the plan as it goes

    def replans(self, text: str, *, asked: bool) -> bool:
        policy = self._agent.planning.replan
        if self._plan is None or policy == "never":
            return False
        if asked or policy == "always":
            return True
        if policy == "asked":
            return False
        try:
            return bool(policy(text, self._plan))
        except Exception:  # noqa: BLE001 - the app's function: its failure leaves the plan as it is
            _log.exception("`replan` of an agent failed", agent=self._agent.name, run=self._request.run_id)
            return False

    async def revise(self, corrections: list[Correction], *, outcomes: dict[str, str]) -> Plan | None:
        planner, before = self._planner, self._plan
        if planner is None or before is None:
            return None
        ids = tuple(each.correction_id for each in corrections)
        revision = Revision(corrections=tuple(each.text for each in corrections), plan=before, outcomes=outcomes)
        step = await begin_step(self._port, agent=self._agent.name, title="Revising the plan", kind="plan", status="")
        try:
            proposal = await self._propose(planner, step, revision)
            # On the plan as it is by now: stages may have ended while the planner thought.
            plan = self._merged(planner, proposal)
        except (PartFailed, BadPlan) as failed:
            why = failed.text if isinstance(failed, PartFailed) else "gave no plan that can be used"
            await self._not_revised(step, why, ids)
            return None
        self._plan = plan
        updated = PlanUpdated(todos=plan.shown(), reason=CORRECTION, correction_id=ids[-1] if ids else None)
        async with self._writing:
            await self._port.record(
                updated, ended(step, "completed"), journal=[self._record(plan, corrections=ids)], step_id=step.step_id
            )
        return plan

    async def mark(self, plan: Plan, *, reason: str | None = None, correction_id: str | None = None) -> None:
        self._plan = plan
        async with self._writing:
            updated = PlanUpdated(todos=plan.shown(), reason=reason, correction_id=correction_id)
            await self._port.record(updated, journal=[self._record(plan)])

    async def _not_revised(self, step: RunStep, why: str, ids: Sequence[str]) -> None:
        """It stays as it was, and the corrections are settled: a restart does not ask for them again."""
        text = f"The plan could not be made anew: the planner {why}. It stays as it was."
        notice = Notice(level="warning", code="replan_failed", text=text)
        async with self._writing:
            assert self._plan is not None
            kept = self._record(self._plan, corrections=ids)
            await self._port.record(notice, ended(step, "failed"), journal=[kept], step_id=step.step_id)

    async def _propose(
        self, planner: PlannerPart, step: RunStep, revision: Revision | None = None
    ) -> list[ProposedTodo]:
        """Raises `PartFailed`, `Stopping`."""
        return await within(
            self._port.clock,
            self._agent.planning.plan_timeout_s,
            lambda: planner.propose(
                lambda proposal: self._merged(planner, proposal), revision=revision, step_id=step.step_id
            ),
            name=f"run:{self._request.run_id}/planner",
        )

    def _merged(self, planner: PlannerPart, proposal: Sequence[ProposedTodo]) -> Plan:
        return merged(proposal, team=planner.team, before=self._plan or NOTHING, used=self._used)

    def _record(
        self, plan: Plan, *, corrections: Sequence[str] = (), shown: bool = True, reason: str | None = None
    ) -> JournalRecord:
        self._plans += 1
        self._used |= {todo.id for todo in plan.todos}
        asked = self._planner.asked if self._planner is not None else 0
        record = PlanRecord(todos=plan.todos, corrections=tuple(corrections), shown=shown, reason=reason, asked=asked)
        return journal_record("plan", str(self._plans), record)
