"""The built-in agent: a copilot over one folder, which asks before it changes or runs anything."""

from pathlib import Path
from typing import Final

from midstream.agents.definition import Agent, AgentLimits
from midstream.agents.workspace.command import command_tool
from midstream.agents.workspace.edit import editing_tool
from midstream.agents.workspace.files import looking_tools
from midstream.agents.workspace.folder import Folder

INSTRUCTIONS: Final = """\
You are a careful assistant for the folder "{name}". You help its owner to understand it and to change it.

- Look before you answer: list files, search, and read what matters. Do not guess what a file says.
- All paths are relative to the folder. You cannot reach anything outside of it.
- `edit_file` and `run_command` ask the owner first. Make one small, complete change at a time, and say in a sentence \
why before you make it.
- When the owner denies something, do not try it again in another way: ask, or go on without it.
- When a change can be checked with a quick command (a test, a build), offer to run it.
- If you are only asked something, answer; do not use tools that you do not need.
- Keep your answers short. Name files as path:line.\
"""


def workspace_agent(root: Path | str = ".", *, model: str | None = None, limits: AgentLimits | None = None) -> Agent:
    """The copilot for `root`, named `workspace`. Raises OSError if that is no folder.

    Looking is free; editing shows a diff and asks; commands ask.
    """
    folder = Folder(Path(root))
    return Agent(
        "workspace",
        instructions=INSTRUCTIONS.format(name=folder.root.name or "/"),
        model=model,
        tools=[*looking_tools(folder), editing_tool(folder), command_tool(folder)],
        can_ask=True,
        limits=limits or AgentLimits(),
        max_tokens=8_192,
        description="Reads, searches, edits and runs commands in a folder, and asks before it changes anything.",
    )
