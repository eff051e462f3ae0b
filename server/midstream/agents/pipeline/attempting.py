"""One attempt at a todo, from its brief to the hooks' verdict. Each part of it is in the journal before the next."""

from collections.abc import Callable

import msgspec
from msgspec import Struct

from midstream.agents.definition import Agent
from midstream.agents.in_time import in_time
from midstream.agents.journal import journal_record
from midstream.agents.pipeline.attempts import ended_as, result_of, with_verdict
from midstream.agents.pipeline.board import Board
from midstream.agents.pipeline.brief import brief, status_text
from midstream.agents.pipeline.contract import Assignment, Works
from midstream.agents.pipeline.hooks import decided, run_hooks
from midstream.agents.pipeline.results import Results
from midstream.agents.pipeline.schedule import is_last
from midstream.agents.planning.plan import Plan
from midstream.agents.records import StageEndRecord, StageRecord
from midstream.agents.steps import begin, ended, steps_in
from midstream.runs.contract import RunFailure
from midstream.runs.port import Port
from midstream.telemetry import observe_stage
from midstream_protocol.codec import json_safe
from midstream_protocol.events import RunStep, Todo


class Job(Struct, kw_only=True):
    """An attempt that is under way. `record` is there once it was told what to do, `end` when the work is done (with a
    verdict: when the hooks have been asked), `step` once it began here.
    """

    stage_id: str
    todo: Todo
    attempt: int = 1
    why: str | None = None
    record: StageRecord | None = None
    end: StageEndRecord | None = None
    step: RunStep | None = None


class Attempting:
    """Carries out the attempts of one run. `plan` says how the plan stands."""

    def __init__(
        self, *, agent: Agent, port: Port, board: Board, works: Works, results: Results, plan: Callable[[], Plan]
    ) -> None:
        self._agent = agent
        self._port = port
        self._board = board
        self._works = works
        self._results = results
        self._plan = plan

    async def done(self, job: Job) -> StageEndRecord:
        """Do what is left of it. Raises `RunFailure` for what ends the run, `Stopping`."""
        # How long one took that began before a restart is not known here.
        begun = self._port.clock.monotonic() if job.record is None else None
        try:
            if job.end is None:
                job.end = await self._worked(job)
            if not job.end.verdict:
                job.end = await self._judged(job, job.end)
        except RunFailure:
            self._observe(begun, ok=False)
            raise
        self._observe(begun, ok=job.end.ok)
        return job.end

    def _observe(self, begun: float | None, *, ok: bool) -> None:
        if begun is not None:
            observe_stage(self._port.clock.monotonic() - begun, ok=ok)

    async def _worked(self, job: Job) -> StageEndRecord:
        assignment = await self._assigned(job)
        end = ended_as(await self._works(assignment))
        closing = ended(assignment.step, "completed" if end.ok else "failed")
        record = journal_record("stage_end", job.stage_id, end)
        # A turn that failed is still open.
        inside = [ended(step, "failed") for step in steps_in(self._port.open_steps, {closing.step_id})]
        await self._port.record(*inside, closing, journal=[record], step_id=closing.step_id)
        return end

    async def _assigned(self, job: Job) -> Assignment:
        """Begin the stage's step, with the brief in the journal, or go on with the brief that is there."""
        port, plan = self._port, self._plan()
        index, of = plan.position(job.todo.id)
        step = job.step = RunStep(
            step_id=port.new_id("step"),
            state="started",
            kind="stage",
            title=job.todo.title,
            agent=job.todo.agent,
            todo_id=job.todo.id,
            index=index,
            of=of,
            attempt=job.attempt if job.attempt > 1 else None,
        )
        journal = []
        if job.record is None:
            job.record = await self._briefed(job, step)
            journal = [journal_record("stage", job.stage_id, job.record)]
        doing = status_text(plan, job.todo)
        await begin(port, step, status=doing, journal=journal)
        self._board.told(job.record.heard)
        return Assignment(
            stage_id=job.stage_id,
            todo=job.todo,
            attempt=job.attempt,
            step=step,
            brief=job.record.brief,
            heard=job.record.heard,
            last=is_last(plan, job.todo.id),
            doing=doing,
        )

    async def _briefed(self, job: Job, step: RunStep) -> StageRecord:
        joined = await self._results.joined_for(job.todo, self._plan())
        corrections = self._board.corrections
        text = brief(
            self._plan(),
            job.todo,
            results=self._results.needed_by(job.todo),
            joined=joined,
            notes=self._results.notes,
            corrections=[each.text for each in corrections],
            why=job.why,
            max_chars=self._agent.limits.max_outcome_chars,
        )
        return StageRecord(
            todo_id=job.todo.id,
            agent=job.todo.agent,
            attempt=job.attempt,
            step_id=step.step_id,
            brief=text,
            heard=tuple(each.correction_id for each in corrections),
        )

    async def _judged(self, job: Job, end: StageEndRecord) -> StageEndRecord:
        result = result_of(job.todo, end, attempt=job.attempt)
        seconds = self._agent.planning.hook_timeout_s
        said = await in_time(
            lambda: run_hooks(self._agent.hooks, result, self._plan()),
            clock=self._port.clock,
            seconds=seconds,
            name=f"run:{self._port.start.run_id}/hooks:{job.todo.id}",
            late=RunFailure("hook_failed", f"The checks after this step took more than {seconds:g} s."),
        )
        verdict = decided(result, said, max_attempts=self._agent.limits.max_stage_attempts)
        judged = with_verdict(end, verdict, said.notes)
        judged = msgspec.structs.replace(judged, result=json_safe(judged.result))
        await self._port.record(journal=[journal_record("stage_end", job.stage_id, judged)])
        return judged
