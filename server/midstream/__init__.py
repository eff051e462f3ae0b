"""Midstream: a bidirectional WebSocket server for AI-agent runs.

The names are loaded when they are first used, so that the terminal client does not pay for the server.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from midstream.agents.definition import Agent, AgentLimits, RunInfo
    from midstream.agents.outflow.contract import Audience, Outflow, ToolInfo
    from midstream.agents.own import OwnAgent, Run, ToolCallError, agent
    from midstream.agents.pipeline.contract import Abort, Finish, Go, Retry, StageResult
    from midstream.agents.pipeline.hooks import continue_failed, note, retry_failed, stop_when, validated
    from midstream.agents.planning.contract import Allow, Planning, ProposedTodo, Request, Revision, Stop
    from midstream.agents.planning.plan import Plan
    from midstream.agents.tools.context import ToolContext, ToolError
    from midstream.agents.tools.definition import Preview, Tool, ask_when, client_tool, tool
    from midstream.agents.tools.signature import BadTool, Resource
    from midstream.agents.workspace import workspace_agent
    from midstream.app import Midstream
    from midstream.runs.contract import Principal, RunFailure, Stopping
    from midstream.settings import BadSettings, Settings

__all__ = [
    "Abort",
    "Agent",
    "AgentLimits",
    "Allow",
    "Audience",
    "BadSettings",
    "BadTool",
    "Finish",
    "Go",
    "Midstream",
    "Outflow",
    "OwnAgent",
    "Plan",
    "Planning",
    "Preview",
    "Principal",
    "ProposedTodo",
    "Request",
    "Resource",
    "Retry",
    "Revision",
    "Run",
    "RunFailure",
    "RunInfo",
    "Settings",
    "StageResult",
    "Stop",
    "Stopping",
    "Tool",
    "ToolCallError",
    "ToolContext",
    "ToolError",
    "ToolInfo",
    "agent",
    "ask_when",
    "client_tool",
    "continue_failed",
    "note",
    "retry_failed",
    "stop_when",
    "tool",
    "validated",
    "workspace_agent",
]

_HOMES: Final = {
    "midstream.agents.definition": ("Agent", "AgentLimits", "RunInfo"),
    "midstream.agents.outflow.contract": ("Audience", "Outflow", "ToolInfo"),
    "midstream.agents.own": ("OwnAgent", "Run", "ToolCallError", "agent"),
    "midstream.agents.pipeline.contract": ("Abort", "Finish", "Go", "Retry", "StageResult"),
    "midstream.agents.pipeline.hooks": ("continue_failed", "note", "retry_failed", "stop_when", "validated"),
    "midstream.agents.planning.contract": ("Allow", "Planning", "ProposedTodo", "Request", "Revision", "Stop"),
    "midstream.agents.planning.plan": ("Plan",),
    "midstream.agents.tools.context": ("ToolContext", "ToolError"),
    "midstream.agents.tools.definition": ("Preview", "Tool", "ask_when", "client_tool", "tool"),
    "midstream.agents.tools.signature": ("BadTool", "Resource"),
    "midstream.agents.workspace": ("workspace_agent",),
    "midstream.app": ("Midstream",),
    "midstream.runs.contract": ("Principal", "RunFailure", "Stopping"),
    "midstream.settings": ("BadSettings", "Settings"),
}
_HOME_OF: Final = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
