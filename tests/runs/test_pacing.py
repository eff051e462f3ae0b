"""Programs begin after the answers to the starts that came with theirs, and none is forgotten."""

import asyncio

import pytest

from midstream.runs import Port
from midstream.runs.pacing import Pace
from midstream.tasks import spawn
from midstream_protocol.commands import RunCancel
from tests.runs.conftest import Open
from tests.runs.house import soon, types
from tests.runs.simple import ME, start

pytestmark = pytest.mark.asyncio


async def test_all_of_many_starts_are_answered_before_the_first_works(house: Open) -> None:
    order: list[str] = []

    async def body(port: Port) -> None:
        order.append("work")
        await port.end(None)

    server = await house(body)

    async def ask(number: int) -> str:
        receipt = await server.registry.start(ME, start(f"{number}"), client_id="north")
        order.append("answer")
        return str(receipt.run_id)

    runs = await soon(asyncio.gather(*(ask(number) for number in range(40))))
    for run in runs:
        assert types(await server.log(run))[-1] == "run.completed"
    # But for the first few, which need not wait when nothing else is going on.
    assert order.index("work") >= 1
    assert order[:42].count("answer") == 40
    assert order[42:] == ["work"] * 38


async def test_the_turns_come_in_order_and_over_several_turns_of_the_loop() -> None:
    pace = Pace()
    began: list[int] = []

    async def work(number: int) -> None:
        await pace.turn()
        began.append(number)

    tasks = [spawn(work(number), name=f"{number}") for number in range(100)]
    sizes: list[int] = []
    while len(began) < 100:
        await asyncio.sleep(0)
        sizes.append(len(began))
    assert began == list(range(100))
    assert sizes[0] == 2
    steps = [after - before for before, after in zip([0, *sizes], sizes, strict=False)]
    assert max(steps) <= 12
    await asyncio.gather(*tasks)
    # And again, after it was at rest.
    await soon(pace.turn())


async def test_a_run_that_is_cancelled_before_its_turn_ends(house: Open) -> None:
    worked: list[str] = []

    async def body(port: Port) -> None:
        worked.append(port.start.run_id)
        await asyncio.Event().wait()

    server = await house(body)
    pace = server.registry._living._pace
    pace._turning, pace._free = True, 0  # nobody's turn comes
    run = await server.start("one")
    assert (await server.send(run, RunCancel())).status == "accepted"
    assert types(await server.log(run))[-1] == "run.cancelled"
    assert worked == []


async def test_who_left_the_queue_holds_up_nobody() -> None:
    pace = Pace()
    waiting = [spawn(pace.turn(), name=f"{number}") for number in range(20)]
    await asyncio.sleep(0)
    for task in waiting[:19]:
        task.cancel()
    await soon(asyncio.gather(*waiting, return_exceptions=True))
    assert [task.cancelled() for task in waiting] == [False] * 2 + [True] * 17 + [False]
