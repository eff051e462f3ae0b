"""A desk that plans: it refunds (and asks), then reads on for as long as it is let."""

import asyncio

from midstream import Agent, Midstream, ToolContext, tool


@tool(approval="always", label="Refund {amount} on order {order_id}")
async def refund(order_id: str, amount: float) -> str:
    """Refund an order."""
    return f"Refunded {amount:.2f} on order {order_id}."


@tool(label="Read page {page}", idempotent=True)
async def read(page: int, ctx: ToolContext) -> str:
    """Read a page, slowly."""
    await ctx.progress(f"page {page}", fraction=0.5)
    await asyncio.sleep(0.1)
    return f"Page {page} has been read."


@tool(label="Wait for the post", timeout=300)
async def wait(ctx: ToolContext) -> str:
    """Wait until it is stopped."""
    await ctx.progress("waiting")
    await asyncio.sleep(200)
    return "Nothing came."


app = Midstream(
    [
        Agent(
            "press",
            instructions="You answer letters.",
            planner=Agent("planner", instructions="Two steps."),
            specialists=[
                Agent("money", description="Refunds.", instructions="Refund.", tools=[refund, read, wait]),
                Agent("letters", description="Writes.", instructions="Write.", tools=[read, wait]),
            ],
        )
    ]
)
