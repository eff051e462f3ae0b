"""An agent as an app declares it: a model's loop with instructions and tools."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from msgspec import Struct

from midstream.agents.declared import (
    BadDeclaration,
    check_choice,
    check_function,
    check_kind,
    check_number,
    listed,
    quoted,
)
from midstream.agents.output import Output
from midstream.agents.planning.contract import Planning
from midstream.agents.tools.definition import Tool
from midstream.agents.tools.signature import BadTool
from midstream.runs.contract import Principal
from midstream_protocol.ids import is_id

if TYPE_CHECKING:
    from midstream.agents.pipeline.contract import Hook, Join
    from midstream.agents.planning.contract import Guardrail, Planner, Titler

DEFAULT_MAX_TOKENS: Final = 4_096


class AgentLimits(Struct, kw_only=True, frozen=True):
    """Bounds of one run of an agent. A caller can lower the first two (`run.start` limits), never raise them.

    Raises ValueError.
    """

    max_turns: int = 50
    """Model calls. The last one is told to answer without tools."""
    max_tool_calls: int = 200
    """Calls after which the model is told to continue from where it left off, `max_continuations` times; then it
    must answer without tools. Of one stage; the caller's own limit is of the whole run."""
    max_continuations: int = 3
    max_model_attempts: int = 3
    """Tries of one model call, the first included, when the model's service fails; then the next model is asked."""
    max_stage_attempts: int = 3
    """Attempts at one stage of a plan, the first included, when a hook wants it retried."""
    max_outcome_chars: int = 20_000
    """Characters of one step's answer that the steps after it are given: some 5,000 tokens."""
    max_output_fixes: int = 2
    """How often the model is asked to mend an answer that does not fit `output`, before a simpler question."""
    context_tokens: int | None = None
    """The model's window; None: what its provider says, or the app's setting."""
    idle_timeout_s: float | None = None
    """Silence of the model after which a call of it has failed; None: the app's setting."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if name == "idle_timeout_s":
                if value is not None:
                    check_number("limits", name, value)
            elif name != "context_tokens" or value is not None:
                least = 0 if name in _MAY_BE_0 else 1
                check_number("limits", name, value, whole=True, least=least)


_MAY_BE_0: Final = ("max_tool_calls", "max_continuations", "max_output_fixes")
"""The bounds that may be 0."""


DEFAULT_LIMITS: Final = AgentLimits()
DEFAULT_PLANNING: Final = Planning()


class RunInfo(Struct, kw_only=True, frozen=True):
    """What instructions may depend on. `input` is the text of the run's input."""

    run_id: str
    thread_id: str
    agent: str
    principal: Principal
    input: str
    metadata: dict[str, Any]


Instructions = str | Callable[[RunInfo], str]
Stream = Literal["all", "final"]


@dataclass(frozen=True)
class Agent:
    """One agent: `Agent("support", instructions="…", tools=[refund])`.

    `instructions` may be a function of the run. `model` None is the app's model; of several, the next is asked when
    one cannot be had. `output`: the type of the run's result (a struct, dataclass, TypedDict, pydantic model, …), which
    the answer must fit. `steerable`: whether people may correct its course. `can_ask` gives it a tool to ask the user.
    `max_tokens` bounds one answer of the model.

    With a `planner` the work is planned first, and each step is done by one of the `specialists` (without any: by this
    agent itself). `guardrails` judge the request, `title` names a new thread (True: this agent's model does), `hooks`
    are asked after every step, `join` makes one of several answers; `planning` says how. `stream` `final`: only the
    last step's answer is streamed, the others show progress. Raises `BadTool`.
    """

    name: str
    _: KW_ONLY
    instructions: Instructions
    model: str | Sequence[str] | None = None
    tools: Sequence[Tool] = ()
    output: Any = None
    planner: "Agent | Planner | None" = None
    specialists: "Sequence[Agent]" = ()
    title: "Agent | Titler | bool" = False
    guardrails: "Sequence[Agent | Guardrail]" = ()
    hooks: "Sequence[Hook]" = ()
    join: "Join | None" = None
    planning: Planning = DEFAULT_PLANNING
    stream: Stream = "all"
    steerable: bool = True
    can_ask: bool = False
    limits: AgentLimits = DEFAULT_LIMITS
    max_tokens: int = DEFAULT_MAX_TOKENS
    description: str = ""

    def __post_init__(self) -> None:
        try:
            for name in ("tools", "specialists", "guardrails", "hooks"):
                object.__setattr__(self, name, listed(f"agent {self.name}", name, getattr(self, name)))
            if self.model is not None and not isinstance(self.model, str):
                object.__setattr__(self, "model", _listed_models(self))
            check_declared(self.name, self.tools)
            check_kinds(self)
        except BadDeclaration as error:
            raise BadTool(str(error)) from None
        check_team(self)
        if self.output is not None:
            Output(self.output)

    @property
    def models(self) -> tuple[str, ...]:
        """The models it names, the first wanted first; empty: the app's."""
        if self.model is None:
            return ()
        return (self.model,) if isinstance(self.model, str) else tuple(self.model)

    @property
    def plain(self) -> bool:
        """Whether its work is one stage without a plan."""
        return self.planner is None


def team_of(agent: Agent) -> list[Agent]:
    """All agents at work in a run of this one: itself, its specialists, and those that plan, title and judge."""
    parts = (agent.planner, agent.title, *agent.guardrails)
    return [agent, *agent.specialists, *(part for part in parts if isinstance(part, Agent))]


def check_team(agent: Agent) -> None:
    """Raises `BadTool` for specialists that cannot work together."""
    names = [agent.name, *(each.name for each in agent.specialists)]
    if len(set(names)) < len(names):
        raise BadTool(f"agent {agent.name}: two of its specialists have one name, or one has its own")
    if agent.specialists and agent.planner is None:
        raise BadTool(f"agent {agent.name}: specialists need a planner that gives them work")
    if agent.hooks and agent.planner is None:
        raise BadTool(f"agent {agent.name}: hooks are asked after the stages of a plan, so they need a planner")
    if agent.join is not None and agent.planner is None:
        raise BadTool(f"agent {agent.name}: a join makes one of what several stages came to, so it needs a planner")
    for each in agent.specialists:
        if not each.plain or each.guardrails or each.title:
            raise BadTool(f"agent {agent.name}: its specialist {each.name} cannot plan, title or judge itself")
    for part in (agent.planner, agent.title, *agent.guardrails):
        if isinstance(part, Agent) and (part.tools or part.can_ask or not part.plain or part.guardrails or part.title):
            raise BadTool(
                f"agent {agent.name}: {part.name} plans, titles or judges, so it has no tools and no team of its own"
            )
        if isinstance(part, Agent) and part.output is not None:
            raise BadTool(f"agent {agent.name}: {part.name} plans, titles or judges, so it cannot have an output")
    tools: dict[str, Tool] = {}
    for tool in (*agent.tools, *(tool for each in agent.specialists for tool in each.tools)):
        if tools.setdefault(tool.name, tool) is not tool:
            raise BadTool(f"agent {agent.name}: two tools of it and its specialists are called {tool.name}")


def check_kinds(agent: Agent) -> None:
    """Raises `BadDeclaration` for a part of an agent that is of a wrong kind."""
    where = f"agent {agent.name}"
    if not isinstance(agent.instructions, str):
        check_function(where, "instructions", agent.instructions, "run", plain=True, also="a text, or ")
    if agent.model is not None and not agent.models:
        raise BadDeclaration(f"{where}: its list of models is empty")
    for model in agent.models:
        if not isinstance(model, str) or not model:
            raise BadDeclaration(f"{where}: model is {quoted(agent.model)}; give a model's name, or a list of names")
    for each in agent.specialists:
        check_kind(where, "one of specialists", each, Agent, "an Agent")
    if agent.planner is not None:
        _check_part(where, "planner", agent.planner, "request, revision")
    if not isinstance(agent.title, bool):
        _check_part(where, "title", agent.title, "request", also="True, ")
    for guardrail in agent.guardrails:
        _check_part(where, "one of guardrails", guardrail, "request")
    for hook in agent.hooks:
        check_function(where, "one of hooks", hook, "result, plan")
    if agent.join is not None:
        check_function(where, "join", agent.join, "results, plan")
    check_kind(where, "planning", agent.planning, Planning, "Planning(…)")
    check_kind(where, "limits", agent.limits, AgentLimits, "AgentLimits(…)")
    check_choice(where, "stream", agent.stream, Stream)
    check_kind(where, "steerable", agent.steerable, bool, "True or False")
    check_kind(where, "can_ask", agent.can_ask, bool, "True or False")
    check_kind(where, "description", agent.description, str, "a text")
    check_number(where, "max_tokens", agent.max_tokens, whole=True)


def _listed_models(agent: Agent) -> tuple[Any, ...]:
    if not isinstance(agent.model, Iterable):
        raise BadDeclaration(
            f"agent {agent.name}: model is {quoted(agent.model)}; give a model's name, or a list of names"
        )
    return tuple(agent.model)


def _check_part(where: str, name: str, part: object, takes: str, *, also: str = "") -> None:
    """Who plans, titles or judges is an agent or a function."""
    if not isinstance(part, Agent):
        check_function(where, name, part, takes, also=f"{also}an Agent, or ")


def check_declared(name: str, tools: Sequence[Tool]) -> None:
    """Raises `BadTool` for a name or tools that cannot work."""
    if not is_id(name):
        raise BadTool(f"an agent cannot be called {name!r}: 1 to 64 letters, digits, `_` or `-`")
    seen: set[str] = set()
    for tool in tools:
        if not isinstance(tool, Tool):
            raise BadTool(f"agent {name}: {tool!r} is no tool; declare it with @tool or @client_tool")
        if tool.name in seen:
            raise BadTool(f"agent {name}: two of its tools are called {tool.name}")
        seen.add(tool.name)
