import asyncio

import pytest

from midstream.gateway.lanes import Lanes
from midstream.tasks import stop

pytestmark = pytest.mark.asyncio


async def test_one_key_in_order_other_keys_side_by_side() -> None:
    tasks: set[asyncio.Task[None]] = set()
    lanes = Lanes(tasks)
    order: list[str] = []
    held, b1_done = asyncio.Event(), asyncio.Event()

    async def first() -> None:
        await held.wait()
        order.append("a1")

    def quick(name: str):
        async def work() -> None:
            order.append(name)
            if name == "b1":
                b1_done.set()

        return work

    lanes.run(["a"], first, name="a1")
    lanes.run(["a"], quick("a2"), name="a2")
    lanes.run(["b"], quick("b1"), name="b1")
    lanes.run(["a", "b"], quick("ab"), name="ab")
    lanes.run(["b"], quick("b2"), name="b2")
    await b1_done.wait()
    # b2 stands behind ab, and ab behind a.
    assert order == ["b1"]
    held.set()
    await asyncio.wait(set(tasks))
    assert order == ["b1", "a1", "a2", "ab", "b2"]
    await asyncio.sleep(0)
    assert not tasks
    assert not lanes._last


async def test_work_that_fails_or_is_stopped_lets_the_next_run() -> None:
    tasks: set[asyncio.Task[None]] = set()
    lanes = Lanes(tasks)
    done = asyncio.Event()

    async def never() -> None:
        await asyncio.Event().wait()

    async def last() -> None:
        done.set()

    lanes.run(["a"], never, name="never")
    (stuck,) = tasks
    lanes.run(["a"], last, name="last")
    await asyncio.sleep(0)
    await stop(stuck)
    await done.wait()
