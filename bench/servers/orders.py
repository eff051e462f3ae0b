"""What a run of the benchmark is asked to do, as the text of its input; the same for every server.

say 200                     200 deltas as fast as possible, one a turn of the loop
say 200 every 20            one each 20 ms by a clock that does not wait: a late one does not delay those after it
say 200 every 20 stamped    the same, each with the time it was said in its text
say 200 every 20 spread     the same, each run beginning at another moment of the 20 ms
think                       a model that says nothing
approve                     a tool call that waits for a person
talk 1000                   so many deltas in messages of 1000, by an agent with a loop of its own
wait                        an agent with a loop of its own that waits
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator

from msgspec import Struct

PIECE = "some words "
STAMP_DIGITS = 16


class Order(Struct, frozen=True):
    verb: str = "say"
    count: int = 1
    every_s: float = 0.0
    stamped: bool = False
    spread: bool = False


def parsed(text: str) -> Order:
    """Raises ValueError."""
    words = text.split()
    return Order(
        words[0],
        int(words[1]) if len(words) > 1 else 1,
        int(words[3]) / 1e3 if len(words) > 3 else 0.0,
        "stamped" in words,
        "spread" in words,
    )


def stamp() -> str:
    """Microseconds of the machine's one monotonic clock: the client reads the same."""
    return f"{time.monotonic_ns() // 1000:0{STAMP_DIGITS}d}"


async def turns(order: Order) -> AsyncIterator[int]:
    """The number of each delta, when it is due. Who sends lets others have their turn in between."""
    if not order.every_s:
        for number in range(order.count):
            await asyncio.sleep(0)
            yield number
        return
    loop = asyncio.get_running_loop()
    begun = loop.time() + (random.random() * order.every_s if order.spread else 0.0)
    for number in range(order.count):
        late = begun + number * order.every_s - loop.time()
        await asyncio.sleep(max(late, 0))
        yield number
