"""An app for the CLI's tests: a tool that asks, one that waits for a file, and an agent that may ask its user."""

import asyncio
from pathlib import Path

from midstream.agents.definition import Agent
from midstream.agents.tools.definition import tool
from midstream.app import Midstream


@tool(approval="always", label="Write {path}")
async def write_note(path: str, text: str) -> str:
    """Write a note."""
    await asyncio.to_thread(Path(path).write_text, text)
    return f"wrote {path}"


@tool(label="Wait for {path}", idempotent=True, timeout=60)
async def wait_for(path: str) -> str:
    """Wait until a file is there."""
    # The test is another process: a file is all that it can say.
    while not await asyncio.to_thread(Path(path).exists):  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    return f"{path} is there"


app = Midstream(agents=[Agent("desk", instructions="Help.", tools=[write_note, wait_for], can_ask=True)])
