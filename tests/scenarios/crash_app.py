"""The application of the crash scenarios. Its tools write what they do to a ledger, which the tests read.

Run as `midstream serve crash_app:app` in a folder of the test's, with LEDGER and SCRIPT in the environment.
"""

import asyncio
import os
from pathlib import Path

from midstream import Agent, Midstream, ToolContext, client_tool, tool
from midstream.agents.providers.scripted import ScriptedProvider

LEDGER = Path(os.environ["LEDGER"])


def note(line: str) -> None:
    with LEDGER.open("a") as ledger:
        ledger.write(line + "\n")
        ledger.flush()
        os.fsync(ledger.fileno())


async def _work(name: str, seconds: float, ctx: ToolContext) -> str:
    note(f"{name} begin {ctx.idempotency_key}")
    await asyncio.sleep(seconds)
    note(f"{name} end {ctx.idempotency_key}")
    return f"{name} done"


@tool(idempotent=True)
async def look(seconds: float, ctx: ToolContext) -> str:
    """Look something up, which may be done twice."""
    return await _work("look", seconds, ctx)


@tool()
async def pay(seconds: float, ctx: ToolContext) -> str:
    """Pay something, which must not be done twice."""
    return await _work("pay", seconds, ctx)


@tool(on_unknown="ask")
async def ship(seconds: float, ctx: ToolContext) -> str:
    """Ship something; a person decides what happens when nobody knows."""
    return await _work("ship", seconds, ctx)


@tool(approval="always", expires_s=float(os.environ.get("EXPIRES_S", "600")))
async def delete(what: str, ctx: ToolContext) -> str:
    """Delete something, which has to be approved."""
    note(f"delete {what} {ctx.idempotency_key}")
    return f"deleted {what}"


@client_tool(timeout=60)
async def open_file(path: str) -> str:
    """Open a file in the editor."""


TOOLS = [look, pay, ship, delete, open_file]
if os.environ.get("WITHOUT"):
    TOOLS = [each for each in TOOLS if each.name != os.environ["WITHOUT"]]
app = Midstream(
    agents=[Agent(os.environ.get("AGENT", "a"), instructions="Work.", tools=TOOLS)],
    provider=ScriptedProvider(Path(os.environ["SCRIPT"])),
)
