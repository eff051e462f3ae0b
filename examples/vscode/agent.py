"""An agent that works in the editor of whoever started it: what it reads and changes is there, not on this server."""

from typing import Final

from midstream import Agent, Midstream, client_tool

ELSEWHERE: Final = "the editor runs this; the body is never called"


@client_tool(label="List the files")
async def list_files() -> list[str]:
    """The paths of the files of the workspace, at most 500."""
    raise NotImplementedError(ELSEWHERE)


@client_tool(label="Read {path}")
async def read_file(path: str) -> str:
    """A file of the workspace as the editor has it now, saved or not.

    Args:
        path: relative to the workspace, as list_files gives it
    """
    raise NotImplementedError(ELSEWHERE)


@client_tool(approval="always", label="Edit {path}", timeout=60, editable=False)
async def apply_edit(path: str, old: str, new: str) -> dict[str, bool]:
    """Replace one piece of text in a file of the workspace, or make a new file. The user sees the difference first.

    Args:
        path: relative to the workspace
        old: the text to replace, word for word, with enough around it that it occurs once; empty to make a new file
        new: what to put in its place
    """
    raise NotImplementedError(ELSEWHERE)


app = Midstream(
    [
        Agent(
            "editor",
            description="Reads and edits the files that are open in an editor.",
            instructions="You help with the files of an editor's workspace. Read before you answer. Make one small, "
            "complete edit at a time, and say in a sentence why before you make it. What is denied is not tried in "
            "another way.",
            tools=[list_files, read_file, apply_edit],
            can_ask=True,
        )
    ]
)
