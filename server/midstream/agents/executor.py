"""The executor: plan and judge, build the pipeline, run it, end the run. It delegates all of it."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

import msgspec

from midstream.agents.pipeline.contract import Piped, Pipes
from midstream.agents.planning.contract import Orchestrates
from midstream.runs.contract import CorrectionsPending, Filter, RunFailure, Stopping
from midstream.runs.port import Port
from midstream.tasks import spawn, stop

MakeOrchestrator = Callable[[Port], Awaitable[Orchestrates]]
MakePipeline = Callable[[Port, Orchestrates], Awaitable[Pipes]]


class WayOut(Filter, Protocol):
    """What everything that leaves the run passes. `outflow.outflow.Passage` is the real one."""

    async def leaving(self, value: Any) -> Any:
        """The run's result, or why it failed, as it may leave."""
        ...


MakeWayOut = Callable[[Port], WayOut]


class Executor:
    """One agent's work on one run (`runs.contract.Program`), made of what is handed in.

    `outflow` makes what everything drafted passes. `pipeline` is asked once planning is done.
    """

    def __init__(
        self, *, orchestrator: MakeOrchestrator, pipeline: MakePipeline, outflow: MakeWayOut | None = None
    ) -> None:
        self._orchestrator = orchestrator
        self._pipeline = pipeline
        self._outflow = outflow

    async def run(self, port: Port) -> None:
        way_out = self._outflow(port) if self._outflow is not None else None
        if way_out is not None:
            port.through(way_out)
        try:
            await self._run(port, way_out)
        except RunFailure as failure:
            if way_out is None:
                raise
            raise await passed(failure, way_out) from failure.__cause__

    async def _run(self, port: Port, way_out: WayOut | None) -> None:
        # Before planning, too: its calls run against the clock once they have begun.
        await port.clearance()
        orchestrator = await self._orchestrator(port)
        try:
            await orchestrator.prepare()
            pipeline = await self._pipeline(port, orchestrator)
            piped = await _unless_refused(orchestrator, pipeline.run(), port)
            while True:
                await orchestrator.finish()
                result = piped.result if way_out is None else await way_out.leaving(piped.result)
                try:
                    await port.end(result, return_corrections=piped.spent)
                except CorrectionsPending:
                    # One came after the last look, and can still be used.
                    piped = await _unless_refused(orchestrator, pipeline.go_on(), port)
                else:
                    return
        finally:
            await orchestrator.aclose()


async def passed(failure: RunFailure, way_out: WayOut) -> RunFailure:
    """The same failure in words that may leave."""
    resume = failure.resume
    if resume is not None:
        # It names the step to go on from, in a planner's words.
        resume = msgspec.structs.replace(resume, text=await way_out.leaving(resume.text))
    return RunFailure(failure.code, await way_out.leaving(failure.text), retryable=failure.retryable, resume=resume)


async def _unless_refused(orchestrator: Orchestrates, work: Coroutine[Any, Any, Piped], port: Port) -> Piped:
    """What the work comes to; a guardrail that refuses meanwhile stops it. Raises what either raises."""
    name = f"run:{port.start.run_id}"
    working = spawn(work, name=f"{name}/work", expected=(Exception,))
    verdict = spawn(orchestrator.verdict(), name=f"{name}/allowed", expected=(RunFailure, Stopping))
    try:
        await asyncio.wait({working, verdict}, return_when=asyncio.FIRST_COMPLETED)
        if verdict.done() and (refused := verdict.exception()) is not None:
            raise refused
        # Allowed, or at its end before the verdict, which `finish` waits for.
        return await working
    finally:
        await stop(working, verdict)
