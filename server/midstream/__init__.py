"""Midstream: a bidirectional WebSocket server for AI-agent runs."""

from midstream.agent.definition import Agent, AgentLimits, RunInfo
from midstream.agent.own import OwnAgent, Run, ToolCallError, agent
from midstream.agent.tools.context import ToolContext, ToolError
from midstream.agent.tools.definition import Preview, Tool, ask_when, client_tool, tool
from midstream.agent.tools.signature import BadTool, Resource
from midstream.agent.workspace import workspace_agent
from midstream.app import Midstream
from midstream.runs.contract import Principal, RunFailure, Stopping
from midstream.settings import BadSettings, Settings

__all__ = [
    "Agent",
    "AgentLimits",
    "BadSettings",
    "BadTool",
    "Midstream",
    "OwnAgent",
    "Preview",
    "Principal",
    "Resource",
    "Run",
    "RunFailure",
    "RunInfo",
    "Settings",
    "Stopping",
    "Tool",
    "ToolCallError",
    "ToolContext",
    "ToolError",
    "agent",
    "ask_when",
    "client_tool",
    "tool",
    "workspace_agent",
]
