"""One run's executor with its real collaborators."""

import asyncio
from functools import partial
from typing import Any

from midstream.agents.crew import Crew, Shared, asker, instructions_of, tools_of_all
from midstream.agents.definition import Agent, team_of
from midstream.agents.executor import Executor
from midstream.agents.history import history, messages, request
from midstream.agents.outflow.outflow import Passage
from midstream.agents.output import Output
from midstream.agents.pipeline.board import Board
from midstream.agents.pipeline.contract import Pipes
from midstream.agents.pipeline.pipeline import Pipeline
from midstream.agents.pipeline.resuming import with_resumed
from midstream.agents.pipeline.single import Single
from midstream.agents.pipeline.stage import ModelStage
from midstream.agents.planning.contract import Orchestrates, Request
from midstream.agents.planning.orchestrator import Orchestrator
from midstream.agents.tools.shown import in_text
from midstream.agents.transcript import input_text
from midstream.log import JournalRecord
from midstream.runs.contract import RunFailure
from midstream.runs.port import Port


def executor_for(agent: Agent, shared: Shared) -> Executor:
    """The program of one run of this agent."""
    assembly = _Assembly(agent, shared)
    return Executor(orchestrator=assembly.orchestrator, pipeline=assembly.pipeline, outflow=assembly.way_out)


class _Assembly:
    """For one run: what is read for its planning is used for its stages, too."""

    def __init__(self, agent: Agent, shared: Shared) -> None:
        self._agent = agent
        self._shared = shared

    def way_out(self, port: Port) -> Passage:
        system = [instructions_of(each, port.start) for each in team_of(self._agent)]
        self._passage = self._shared.outlet.passage(port, agent=self._agent.name, system=system)
        return self._passage

    async def orchestrator(self, port: Port) -> Orchestrates:
        start = port.start
        self._journal = port.journal if self._agent.plain else await with_resumed(port)
        earlier = await port.history()
        tools = tools_of_all(self._agent)
        for journal in earlier:
            # What calls of those runs hid is hidden in this one, too.
            self._passage.secrets.meet_all(journal, lambda name: tools[name].redact if name in tools else ())
        before = history(self._earlier(earlier))
        self._before = [*before, *request(self._journal)]
        self._asks = asker(self._agent, port, self._shared)
        asked = Request(
            run_id=start.run_id,
            thread_id=start.thread_id,
            agent=self._agent.name,
            principal=start.principal,
            input=input_text(start.input),
            history=messages(before),
            metadata=start.metadata or {},
        )
        return Orchestrator(self._agent, port, self._asks, asked)

    async def pipeline(self, port: Port, orchestrator: Orchestrates) -> Pipes:
        agent = self._agent
        board = Board(port=port, orchestrator=orchestrator, journal=self._journal)
        races = bool(agent.guardrails) and agent.planning.guardrail_mode == "race"
        crew = Crew(
            agent,
            port=port,
            shared=self._shared,
            asks=self._asks,
            way_out=self._passage,
            hears=board,
            journal=self._journal,
            before=self._before,
            hold=partial(_allowed, orchestrator) if races else None,
        )
        if orchestrator.plan is None:
            return Single(crew.loop(), run_id=port.start.run_id, typed=agent.output is not None)
        return Pipeline(
            agent=agent,
            port=port,
            orchestrator=orchestrator,
            board=board,
            works=ModelStage(crew),
            journal=self._journal,
            typed=None if agent.output is None else self._typed(crew, Output(agent.output)),
            spent=lambda: crew.allowance.no_turns,
        )

    def _earlier(self, journals: list[list[JournalRecord]]) -> list[list[JournalRecord]]:
        """Without the run that is gone on with: what was asked and done there is taken over."""
        taken = [record.key for record in self._journal if record.kind == "resumed"]
        return [journal for journal in journals if not taken or journal[0].key not in taken]

    def _typed(self, crew: Crew, output: Output) -> Any:
        mending = crew.mending(self._agent, output)

        async def typed(came: Any) -> Any:
            return (await mending.shaped(in_text(came))).value

        return typed


async def _allowed(orchestrator: Orchestrates) -> None:
    """Returns when the request is allowed. One that is refused is ended by the executor, which stops who waits here."""
    try:
        await orchestrator.verdict()
    except RunFailure:
        await asyncio.Event().wait()
