"""A model in the same process that does what the input of its run orders (`orders`). It costs next to nothing."""

import asyncio
from collections.abc import AsyncGenerator

from servers.orders import PIECE, Order, parsed, stamp, turns

from midstream import Run, agent, tool
from midstream.agents.conversation import Call, Text, UserMessage, new_call_id
from midstream.agents.providers.contract import (
    CallOpened,
    Finished,
    ModelEvent,
    ModelRequest,
    Opened,
    TextDelta,
    TokenUsage,
)

MESSAGE = 1000
"""Deltas of one message of an agent with a loop of its own."""


class OrderedModel:
    """A provider (`midstream.agents.providers.contract.Provider`)."""

    name = "ordered"
    default_model = "ordered"

    def window(self, model: str) -> int | None:
        del model
        return None

    async def aclose(self) -> None:
        """Nothing is open."""

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        order = _order(request)
        usage = TokenUsage(input_tokens=1, output_tokens=order.count)
        yield Opened(model=self.default_model, usage=usage)
        if order.verb == "think":
            await asyncio.Event().wait()
        if order.verb == "approve":
            call_id = new_call_id()
            call = Call(id=call_id, provider_id=call_id, tool=careful.name, args={})
            yield CallOpened(id=call_id, tool=careful.name)
            yield Finished(stop_reason="tool_use", parts=(call,), usage=usage)
            return
        said = []
        if order.stamped:
            async for _ in turns(order):
                text = stamp() + PIECE
                said.append(text)
                yield TextDelta(text=text)
        elif order.every_s:
            async for _ in turns(order):
                said.append(PIECE)
                yield TextDelta(text=PIECE)
        else:
            # Written out: one more generator would be a tenth of what is measured.
            for _ in range(order.count):
                await asyncio.sleep(0)
                said.append(PIECE)
                yield TextDelta(text=PIECE)
        yield Finished(stop_reason="end_turn", parts=(Text(text="".join(said)),), usage=usage)


def _order(request: ModelRequest) -> Order:
    asked = [each for each in request.messages if isinstance(each, UserMessage)]
    return parsed("".join(part.text for part in asked[-1].parts if isinstance(part, Text)))


@tool(approval="always")
async def careful() -> str:
    """Do something that a person must allow."""
    return "done"


@agent("own")
async def own(run: Run) -> str:
    order = parsed(run.input)
    if order.verb == "wait":
        await asyncio.Event().wait()
    for first in range(0, order.count, MESSAGE):
        await run.say(_pieces(min(MESSAGE, order.count - first)))
    return "done"


async def _pieces(count: int) -> AsyncGenerator[str, None]:
    for _ in range(count):
        await asyncio.sleep(0)
        yield PIECE
