"""An agent as an app declares it: a model's loop with instructions and tools."""

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Final

from msgspec import Struct

from midstream.agents.tools.definition import Tool
from midstream.agents.tools.signature import BadTool
from midstream.runs.contract import Principal
from midstream_protocol.ids import is_id

DEFAULT_MAX_TOKENS: Final = 4_096


class AgentLimits(Struct, kw_only=True, frozen=True):
    """Bounds of one run of an agent. A caller can lower the first two (`run.start` limits), never raise them."""

    max_turns: int = 50
    """Model calls. The last one is told to answer without tools."""
    max_tool_calls: int = 200
    max_model_attempts: int = 3
    """Tries of one model call, the first included, when the model's service fails."""
    idle_timeout_s: float | None = None
    """Silence of the model after which a call of it has failed; None: the app's setting."""


DEFAULT_LIMITS: Final = AgentLimits()


class RunInfo(Struct, kw_only=True, frozen=True):
    """What instructions may depend on. `input` is the text of the run's input."""

    run_id: str
    thread_id: str
    agent: str
    principal: Principal
    input: str
    metadata: dict[str, Any]


Instructions = str | Callable[[RunInfo], str]


@dataclass(frozen=True)
class Agent:
    """One agent: `Agent("support", instructions="…", tools=[refund])`.

    `instructions` may be a function of the run. `model` None is the app's model. `steerable`: whether people may
    correct its course. `can_ask` gives it a tool to ask the user. `max_tokens` bounds one answer of the model.
    Raises `BadTool`.
    """

    name: str
    _: KW_ONLY
    instructions: Instructions
    model: str | None = None
    tools: Sequence[Tool] = ()
    steerable: bool = True
    can_ask: bool = False
    limits: AgentLimits = DEFAULT_LIMITS
    max_tokens: int = DEFAULT_MAX_TOKENS
    description: str = ""

    def __post_init__(self) -> None:
        check_declared(self.name, self.tools)
        object.__setattr__(self, "tools", tuple(self.tools))


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
