"""A graph of one node that writes each delta to its custom stream."""

import asyncio
from typing import TypedDict

from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph

DELTAS = 200
PIECE = "some words "


class State(TypedDict):
    said: int


async def talk(state: State) -> State:
    del state
    write = get_stream_writer()
    for number in range(DELTAS):
        write({"seq": number + 1, "text": PIECE})
        await asyncio.sleep(0)
    write({"over": True})
    return {"said": DELTAS}


graph = StateGraph(State).add_node("talk", talk).add_edge(START, "talk").add_edge("talk", END).compile()
