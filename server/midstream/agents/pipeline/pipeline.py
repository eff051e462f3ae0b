"""The pipeline: a plan carried out, one stage a todo, independent ones side by side.

What every stage came to is in the journal before anything follows from it, so a pipeline that begins again repeats
only what is missing. Stages know nothing of each other: what one is told of another stands in its brief.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from midstream.agents.definition import Agent
from midstream.agents.journal import journal_record
from midstream.agents.pipeline.attempting import Attempting, Job
from midstream.agents.pipeline.attempts import Attempts, result_of
from midstream.agents.pipeline.board import Board
from midstream.agents.pipeline.contract import Piped, Works
from midstream.agents.pipeline.hooks import DEFAULT_FAILURE
from midstream.agents.pipeline.results import Results
from midstream.agents.pipeline.schedule import begins_now, with_follow_up
from midstream.agents.planning.contract import Orchestrates
from midstream.agents.planning.plan import OVER, Plan
from midstream.agents.records import OutcomeRecord, StageEndRecord
from midstream.agents.steps import begin_step, ended, steps_in
from midstream.log import JournalRecord
from midstream.runs.contract import RunFailure, Stopping
from midstream.runs.port import Port
from midstream.tasks import spawn, stop
from midstream_protocol.codec import json_safe
from midstream_protocol.events import Resume, RunStep, Todo

MAX_FOLLOW_UP_CHARS: Final = 80
"""Characters of a correction in the title of the step that follows it."""


def never() -> bool:
    return False


class Pipeline:
    """The work on one run's plan (`Pipes`). `orchestrator.plan` is there.

    `typed` makes the run's result of what the stages came to; `spent` says whether no turn is left for a correction.
    """

    def __init__(
        self,
        *,
        agent: Agent,
        port: Port,
        orchestrator: Orchestrates,
        board: Board,
        works: Works,
        journal: Sequence[JournalRecord],
        typed: Callable[[Any], Awaitable[Any]] | None = None,
        spent: Callable[[], bool] = never,
    ) -> None:
        self._agent = agent
        self._port = port
        self._orchestrator = orchestrator
        self._board = board
        self._typed = typed
        self._spent = spent
        self._attempts = Attempts(journal)
        self._outcome = self._attempts.outcome
        self._results = Results(
            agent.join, clock=port.clock, timeout_s=agent.planning.hook_timeout_s, name=self._name("join")
        )
        for todo, end, attempt in self._attempts.settled(self._plan.todos):
            self._results.keep(result_of(todo, end, attempt=attempt), end.notes)
        self._attempting = Attempting(
            agent=agent, port=port, board=board, works=works, results=self._results, plan=lambda: self._plan
        )
        self._tasks: dict[str, asyncio.Task[StageEndRecord | Exception]] = {}
        self._jobs: dict[str, Job] = {}
        self._revising: asyncio.Task[Exception | None] | None = None
        self._finished = self._attempts.finished(self._plan) if not board.unheard else None
        self._stopping: Stopping | None = None

    # -- as the executor knows it

    async def run(self) -> Piped:
        if self._outcome is not None and self._plan.over and not self._board.unheard:
            return self._piped(self._outcome.result)
        return self._piped(await self._carried_out())

    async def go_on(self) -> Piped:
        await self._take(ending=True)
        if self._board.unheard:
            # Also a run that stopped early goes on for it.
            self._finished = self._outcome = None
        return self._piped(self._outcome.result if self._outcome is not None else await self._carried_out())

    # -- the course of it

    async def _carried_out(self) -> Any:
        try:
            # A correction that cannot wait may change the plan at once; others do at the next safe point of a stage.
            with self._port.on_interrupt(self._board.news.set):
                self._take_up()
                await self._until_over()
        finally:
            await stop(*self._tasks.values(), self._revising)
        return await self._result()

    async def _until_over(self) -> None:
        while True:
            try:
                await self._begin_what_may()
            except Stopping as stopping:
                # What is under way may reach its own end.
                self._stopping = stopping
            if self._tasks or self._revising is not None:
                await self._settle(await self._next())
            elif self._stopping is not None:
                raise self._stopping
            elif self._finished is not None or not await self._more():
                return

    def _take_up(self) -> None:
        """Go on with what a program before this one had begun."""
        for todo in self._plan.of_status("in_progress"):
            attempt = self._attempts.latest.get(todo.id)
            if attempt is None:
                self._spawn(self._new_job(todo))
                continue
            self._spawn(
                Job(
                    stage_id=attempt.stage_id,
                    todo=todo,
                    attempt=attempt.record.attempt,
                    record=attempt.record,
                    end=attempt.end,
                )
            )

    async def _begin_what_may(self) -> None:
        if self._stopping is not None or self._finished is not None:
            return
        if self._revising is None:
            if self._board.replan_due:
                # Between stages is a safe point too, and a step of the old plan must not begin now.
                await self._take(ending=False)
            if self._board.owes:
                self._revising = spawn(self._anew(), name=self._name("plan"))
        if self._revising is not None:
            return
        todos = begins_now(self._plan, running=self._tasks, limit=self._agent.planning.parallel_stages)
        if todos:
            self._port.check()
            await self._orchestrator.mark(self._plan.marked_all([todo.id for todo in todos], "in_progress"))
            for todo in todos:
                self._spawn(self._new_job(self._plan.todo(todo.id)))

    async def _next(self) -> set[asyncio.Task[Any]]:
        """Wait until something is over, or a correction wants the plan made anew."""
        news = spawn(self._board.news.wait(), name=self._name("news"))
        waited = {*self._tasks.values(), news, *([self._revising] if self._revising is not None else [])}
        try:
            done, _ = await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await stop(news)
        self._board.news.clear()
        return done

    async def _settle(self, done: set[asyncio.Task[Any]]) -> None:
        try:
            if self._revising in done:
                await self._revised(self._revising)
            for todo_id, task in list(self._tasks.items()):
                # What follows from one may have stopped another.
                if task in done and todo_id in self._tasks:
                    del self._tasks[todo_id]
                    await self._follow(self._jobs.pop(todo_id), task.result())
        except Stopping as stopping:
            self._stopping = stopping

    async def _more(self) -> bool:
        """Everything is over. Whether there is more to do after all: a correction that nobody has heard."""
        if not self._plan.over:
            raise RuntimeError("a plan whose steps wait for each other")
        unheard = self._board.unheard
        if not unheard or self._spent():
            return False
        text = " ".join(unheard[-1].text.split())[:MAX_FOLLOW_UP_CHARS]
        agent = self._plan.todos[-1].agent if self._plan.todos else self._agent.name
        plan = with_follow_up(self._plan, title=f"Follow the correction: {text}", agent=agent)
        await self._orchestrator.mark(plan, reason="correction", correction_id=unheard[-1].correction_id)
        return True

    # -- one stage

    def _new_job(self, todo: Todo, *, attempt: int = 1, why: str | None = None) -> Job:
        return Job(stage_id=self._port.new_id("stage"), todo=todo, attempt=attempt, why=why)

    def _spawn(self, job: Job) -> None:
        self._board.enter(job.stage_id)
        self._jobs[job.todo.id] = job
        self._tasks[job.todo.id] = spawn(self._done(job), name=self._name(job.todo.id))

    async def _done(self, job: Job) -> StageEndRecord | Exception:
        try:
            return await self._attempting.done(job)
        except Exception as error:  # noqa: BLE001 - raised again by the pipeline, which decides about the siblings
            return error
        finally:
            self._board.leave(job.stage_id)

    # -- what follows

    async def _follow(self, job: Job, outcome: StageEndRecord | Exception) -> None:
        if isinstance(outcome, Stopping):
            self._stopping = outcome
            return
        if isinstance(outcome, RunFailure):
            cause = outcome.__cause__
            await self._fail(job, code=outcome.code, text=outcome.text, retryable=outcome.retryable, cause=cause)
        if isinstance(outcome, Exception):
            await self._stop_all()
            raise outcome
        if job.todo.id not in {todo.id for todo in self._plan.todos} or self._plan.todo(job.todo.id).status in OVER:
            # It ended while the plan was made without it.
            return
        result = result_of(job.todo, outcome, attempt=job.attempt)
        match outcome.verdict:
            case "retry":
                self._spawn(self._new_job(job.todo, attempt=job.attempt + 1, why=outcome.why))
            case "finish":
                await self._finish(job, outcome)
            case "abort":
                await self._fail(
                    job, code=outcome.code or "stage_failed", text=outcome.why or "", retryable=outcome.retryable
                )
            case _:
                self._results.keep(result, outcome.notes)
                await self._orchestrator.mark(self._plan.marked(job.todo.id, "completed" if result.ok else "failed"))

    async def _finish(self, job: Job, end: StageEndRecord) -> None:
        """Stop early: what has not come to its end is left out."""
        self._finished = end
        await self._stop_all()
        plan = self._plan.marked(job.todo.id, "completed" if end.ok else "failed")
        left = [todo.id for todo in plan.of_status("pending", "in_progress")]
        await self._orchestrator.mark(plan.marked_all(left, "skipped"), reason="finished")

    async def _fail(
        self, job: Job, *, code: str, text: str, retryable: bool, cause: BaseException | None = None
    ) -> None:
        await self._stop_all()
        await self._orchestrator.mark(self._plan.marked(job.todo.id, "failed"))
        index, of = self._plan.position(job.todo.id)
        failure = RunFailure(code, text or DEFAULT_FAILURE, retryable=retryable)
        step_id = job.record.step_id if job.record is not None else None
        raise self._failed(failure, f"from step {index} of {of}, “{job.todo.title}”", step_id=step_id) from cause

    def _failed(self, failure: RunFailure, where: str, *, step_id: str | None = None) -> RunFailure:
        """The same failure with how to go on."""
        text = f"Start a run with this `resume`: it goes on {where}."
        resume = Resume(text=text, run_id=self._port.start.run_id, step_id=step_id)
        return RunFailure(failure.code, failure.text, retryable=failure.retryable, resume=resume)

    async def _stop_all(self) -> None:
        jobs = list(self._jobs.values())
        await stop(*self._tasks.values(), self._revising)
        self._tasks, self._jobs, self._revising = {}, {}, None
        await self._close([job.step for job in jobs if job.step is not None])

    async def _close(self, steps: Sequence[RunStep]) -> None:
        """End the steps of stages that were stopped, and the turns in them."""
        there = self._port.open_steps
        ids = {step.step_id for step in steps}
        closing = [*steps_in(there, ids), *(step for step in there if step.step_id in ids)]
        closings = [ended(step, "failed") for step in closing]
        if closings:
            await self._port.record(*closings)

    # -- the plan made anew

    async def _take(self, *, ending: bool) -> None:
        """Take corrections at a safe point outside of all stages."""
        step = await begin_step(
            self._port, agent=self._agent.name, title="Reading what you said", kind="plan", status=""
        )
        await self._board.take(step_id=step.step_id, ending=ending)
        await self._port.record(ended(step, "completed"), step_id=step.step_id)

    async def _anew(self) -> Exception | None:
        try:
            await self._orchestrator.revise(self._board.take_owed(), outcomes=self._results.texts)
        except Exception as error:  # noqa: BLE001 - raised again by the pipeline
            return error
        return None

    async def _revised(self, revising: "asyncio.Task[Exception | None]") -> None:
        self._revising = None
        kept = {todo.id for todo in self._plan.todos if todo.status == "in_progress"}
        dropped = [todo_id for todo_id in self._tasks if todo_id not in kept]
        jobs = [self._jobs.pop(todo_id) for todo_id in dropped]
        await stop(*(self._tasks.pop(todo_id) for todo_id in dropped))
        await self._close([job.step for job in jobs if job.step is not None])
        if (error := revising.result()) is not None:
            raise error

    # -- the end

    async def _result(self) -> Any:
        self._outcome = OutcomeRecord(result=json_safe(await self._came_to()))
        await self._port.record(journal=[journal_record("outcome", "", self._outcome)])
        return self._outcome.result

    async def _came_to(self) -> Any:
        try:
            came = self._finished.result if self._finished is not None else await self._results.came_to(self._plan)
            return came if self._typed is None else await self._typed(came)
        except RunFailure as failure:
            raise self._failed(failure, "with what its steps came to") from failure.__cause__

    # -- parts

    @property
    def _plan(self) -> Plan:
        plan = self._orchestrator.plan
        assert plan is not None
        return plan

    def _piped(self, result: Any) -> Piped:
        return Piped(result=result, spent=self._spent())

    def _name(self, what: str) -> str:
        return f"run:{self._port.start.run_id}/{what}"
