"""The loops of one run: what its stages share, and what each has of its own."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from midstream.agents.allowance import RunAllowance
from midstream.agents.asking import Asker, Asks
from midstream.agents.budget.budget import Budget
from midstream.agents.budget.contract import Entry
from midstream.agents.definition import Agent, RunInfo
from midstream.agents.limiter import Limiter
from midstream.agents.loop import Hears, Loop
from midstream.agents.mending import Mending
from midstream.agents.models import Models
from midstream.agents.outflow.outflow import Outlet, Passage
from midstream.agents.output import Output
from midstream.agents.providers.contract import Provider, ToolSpec
from midstream.agents.speech import SpeechStyle
from midstream.agents.tools.ask_user import ask_user
from midstream.agents.tools.definition import Tool
from midstream.agents.tools.read_result import read_result, reading, result_in
from midstream.agents.tools.runtime import Runtime
from midstream.agents.tools.toolbox import Toolbox
from midstream.agents.transcript import Transcript, input_text
from midstream.agents.turn import Turn
from midstream.log import JournalRecord
from midstream.runs.contract import RunFailure, StartRecord
from midstream.runs.port import Port

Hold = Callable[[], Awaitable[None]]

DEFAULT_CONTEXT_TOKENS: Final = 200_000
"""The window of a model of which nobody says how large it is."""


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What all runs of a process use."""

    provider: Provider
    limiter: Limiter
    model: str
    resources: Mapping[type, Any]
    idle_timeout_s: float
    context_tokens: int
    outlet: Outlet


def tools_of(agent: Agent) -> dict[str, Tool]:
    """The tools an agent declares, by name."""
    tools = {tool.name: tool for tool in agent.tools}
    return {**tools, ask_user.name: ask_user} if agent.can_ask else tools


def tools_of_all(agent: Agent) -> dict[str, Tool]:
    """The tools of an agent and its specialists."""
    tools = tools_of(agent)
    for each in agent.specialists:
        tools |= tools_of(each)
    return tools


def instructions_of(agent: Agent, start: StartRecord) -> str:
    """The agent's own system text for this run."""
    if isinstance(agent.instructions, str):
        return agent.instructions
    given: Any = agent.instructions(
        RunInfo(
            run_id=start.run_id,
            thread_id=start.thread_id,
            agent=agent.name,
            principal=start.principal,
            input=input_text(start.input),
            metadata=start.metadata or {},
        )
    )
    if not isinstance(given, str):
        raise TypeError(f"agent {agent.name}: its instructions return a value of type {type(given).__name__}, no text")
    return given


def asker(agent: Agent, port: Port, shared: Shared) -> Asks:
    """How this run asks a model for data."""
    return Asker(
        port=port,
        provider=shared.provider,
        limiter=shared.limiter,
        limits=agent.limits,
        model=agent.models[0] if agent.models else shared.model,
        idle_timeout_s=_idle_timeout_s(agent, shared),
    )


class Crew:
    """`agent` and its specialists at work on one run. `before` is what stands before every stage's own words.

    `hold` is awaited before anything of a message is shown and before a tool starts.
    """

    def __init__(
        self,
        agent: Agent,
        *,
        port: Port,
        shared: Shared,
        asks: Asks,
        way_out: Passage,
        hears: Hears,
        journal: Sequence[JournalRecord],
        before: Sequence[Entry],
        hold: Hold | None = None,
    ) -> None:
        self._agent = agent
        self._agents = {each.name: each for each in (agent, *agent.specialists)}
        self._port = port
        self._shared = shared
        self._asks = asks
        self._hears = hears
        self._journal = journal
        self._before = before
        self._hold = hold
        self._models: dict[str, Models] = {}
        self._tools = tools_of_all(agent)
        # One tool for all of them: what it gives has to fit the smallest window.
        slice_chars = min(self._budget(each).slice_chars for each in self._agents.values())
        everything = {read_result.name: reading(self._whole, slice_chars=slice_chars), **self._tools}
        self._toolbox = Toolbox(everything, port)
        self._runtime = Runtime(
            port=port, toolbox=self._toolbox, resources=shared.resources, secrets=way_out.secrets, hold=hold
        )
        self._text_filter = way_out.text_filter(lambda: {*self._tools, *port.client_tools})
        self.allowance: Final = RunAllowance(port.start.limits, journal)

    def loop(
        self,
        name: str = "",
        *,
        stage: str = "",
        parent: str | None = None,
        doing: str = "",
        brief: str | None = None,
        heard: Sequence[str] = (),
        last: bool = True,
    ) -> Loop:
        """The loop of a stage ("" and no `brief`: of a run without a plan), as far as the journal has it.

        `last`: its answer is the run's, so it has the form of the run's result, and is shown in any case. Raises
        `RunFailure` for a specialist that the app does not have any more.
        """
        agent = self._agents.get(name or self._agent.name)
        if agent is None:
            raise RunFailure("app_changed", f"The specialist {name} that this step needs is gone.")
        transcript = Transcript(stage=stage, before=self._before)
        transcript.read(self._journal)
        if brief is not None and not transcript.brief:
            transcript.briefed(brief, heard=heard)
        output = Output(agent.output) if agent.output is not None and (last or agent is not self._agent) else None
        system = instructions_of(agent, self._port.start)
        toolbox = Toolbox(tools_of(agent), self._port)
        return Loop(
            agent=agent,
            system="\n\n".join(part for part in (system, output.instructions if output else "") if part),
            port=self._port,
            transcript=transcript,
            tools=_Offered(own=toolbox, all=self._toolbox, reader=read_result.name not in self._tools),
            runtime=self._runtime,
            turn=Turn(
                port=self._port,
                models=self._models_of(agent),
                agent=agent.name,
                toolbox=self._toolbox,
                limits=agent.limits,
                style=SpeechStyle(
                    quiet=self._agent.stream == "final" and not last,
                    hold=self._hold,
                    text_filter=self._text_filter,
                ),
            ),
            hears=self._hears,
            fits=self._budget(agent),
            run_allowance=self.allowance,
            mending=None if output is None else self.mending(agent, output, stage=stage),
            stage=stage,
            parent=parent,
            doing=doing,
        )

    def mending(self, agent: Agent, output: Output, *, stage: str = "") -> Mending:
        system = instructions_of(agent, self._port.start)
        return Mending(port=self._port, agent=agent, system=system, output=output, asks=self._asks, stage=stage)

    def _models_of(self, agent: Agent) -> Models:
        # Kept, so that a model that cannot be had is not asked again by the next stage.
        if agent.name not in self._models:
            shared = self._shared
            names = agent.models or (shared.model,)
            idle_timeout_s = _idle_timeout_s(agent, shared)
            self._models[agent.name] = Models(shared.provider, names, shared.limiter, agent.limits, idle_timeout_s)
        return self._models[agent.name]

    def _budget(self, agent: Agent) -> Budget:
        window = agent.limits.context_tokens or self._models_of(agent).window or self._shared.context_tokens
        return Budget(window, agent.max_tokens)

    async def _whole(self, call_id: str) -> str | None:
        found = result_in(await self._port.written(), call_id)
        if found is not None:
            return found
        for journal in await self._port.history():
            if (found := result_in(journal, call_id)) is not None:
                return found
        return None


class _Offered:
    """What the model of one stage may call (`loop.Tools`)."""

    def __init__(self, *, own: Toolbox, all: Toolbox, reader: bool) -> None:  # noqa: A002 - the word for it
        self._own = own
        self._all = all
        self._reader = reader

    def specs(self, *, shortened: bool) -> tuple[ToolSpec, ...]:
        specs = tuple(self._own.specs())
        if not shortened or not self._reader:
            return specs
        reader = ToolSpec(
            name=read_result.name, description=read_result.description, input_schema=dict(read_result.input_schema)
        )
        return (*specs, reader)

    def has(self, name: str) -> bool:
        # What nobody has, the runtime says best.
        return self._own.find(name) is not None or name == read_result.name or self._all.find(name) is None


def _idle_timeout_s(agent: Agent, shared: Shared) -> float:
    own = agent.limits.idle_timeout_s
    return own if own is not None else shared.idle_timeout_s
