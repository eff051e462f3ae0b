from midstream import Agent, Midstream, tool


@tool(approval="always", label="Refund {amount} on order {order_id}")
async def refund(order_id: str, amount: float) -> str:
    """Refund an order."""
    return f"Refunded {amount:.2f} on order {order_id}."


app = Midstream([Agent("support", instructions="You help with orders. Refund when asked to.", tools=[refund])])
