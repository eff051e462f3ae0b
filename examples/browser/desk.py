"""An agent of a shop, for a page that is served from somewhere else: it looks an order up and may pay it back."""

from midstream import Agent, Midstream, tool

ORDERS = {"17": 9.90, "18": 240.00}


@tool(label="Look up order {order_id}", idempotent=True)
async def find_order(order_id: str) -> str:
    """What an order came to."""
    amount = ORDERS.get(order_id)
    return f"There is no order {order_id}." if amount is None else f"Order {order_id} came to {amount:.2f}."


@tool(label="Refund {amount} on order {order_id}", approval="always", risk="medium", editable=True)
async def refund(order_id: str, amount: float) -> str:
    """Pay a part or all of an order back."""
    return f"Refunded {amount:.2f} on order {order_id}."


app = Midstream(
    [Agent("support", instructions="You help with orders. Look them up, and refund.", tools=[find_order, refund])]
)
