"""The built-in copilot over a folder."""

from midstream.agents.workspace.copilot import workspace_agent

__all__ = ["workspace_agent"]
