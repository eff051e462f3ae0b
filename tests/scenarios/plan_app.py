"""The application of the planned scenarios: a desk of three specialists. Its model is whatever ANTHROPIC_BASE_URL says,
and its tool writes what it does to a ledger, which the tests read.
"""

import asyncio
import os
from pathlib import Path
from typing import Any

from midstream import Agent, Midstream, ToolContext, tool
from midstream.agents.planning.contract import Planning

LEDGER = Path(os.environ["LEDGER"])


@tool(idempotent=True)
async def look(what: str, ctx: ToolContext) -> str:
    """Look something up, which may be done twice."""
    with LEDGER.open("a") as ledger:
        ledger.write(f"look {what} {ctx.idempotency_key}\n")
        ledger.flush()
        os.fsync(ledger.fileno())
    await asyncio.sleep(float(os.environ.get("LOOK_S", "0")))
    return f"found {what}"


def specialist(name: str) -> Agent:
    return Agent(name, instructions=f"You are {name.upper()}.", tools=[look], description=f"does {name}")


planning: dict[str, Any] = {
    "guardrail_mode": os.environ.get("GUARD", "gate"),
    "replan": os.environ.get("REPLAN", "asked"),
    "without_plan": os.environ.get("WITHOUT_PLAN", "one_stage"),
    "guardrail_error": os.environ.get("GUARD_ERROR", "closed"),
    "plan_timeout_s": float(os.environ.get("PLAN_S", "20")),
    "title_timeout_s": 20.0,
    "guardrail_timeout_s": 20.0,
}
app = Midstream(
    agents=[
        Agent(
            "desk",
            instructions="You are DESK.",
            planner=Agent("planner", instructions="You are PLANNER."),
            title=Agent("titler", instructions="You are TITLER."),
            guardrails=[Agent("guard", instructions="You are GUARD.")],
            specialists=[specialist("research"), specialist("analysis"), specialist("writing")],
            planning=Planning(**planning),
        )
    ]
)
