"""A thread is named once, by the run that comes first."""

import asyncio

import pytest

from midstream.runs import Port, Principal
from midstream.runs.threads import Thread, titled
from midstream_protocol.errors import NotFound
from tests.runs.conftest import Open
from tests.runs.house import soon
from tests.runs.simple import ME

pytestmark = pytest.mark.asyncio


async def test_the_first_to_name_a_thread_names_it(house: Open) -> None:
    async def body(port: Port) -> None:
        await port.end([port.start.title, await port.claim_title(f"About {port.start.input}")])

    server = await house(body)
    results = []
    for text in ("one", "two"):
        run = await server.start(text, thread_id="t")
        results.append((await server.log(run))[-1].payload.result)
    # The second is told that there is a title, and cannot change it.
    assert results == [[None, True], ["About one", False]]
    thread = await server.registry.thread(ME, "t")
    assert thread.title is not None
    assert thread.title.text == "About one"


async def test_runs_at_the_same_time_name_it_once(house: Open) -> None:
    async def body(port: Port) -> None:
        await go.wait()
        await port.end(await port.claim_title(str(port.start.input)))

    go = asyncio.Event()
    server = await house(body)
    runs = [await server.start(str(n), thread_id="t", if_busy="parallel") for n in range(4)]
    go.set()
    won = [(await server.log(run))[-1].payload.result for run in runs]
    assert sorted(won) == [False, False, False, True]
    thread = await server.registry.thread(ME, "t")
    assert thread.title is not None
    assert thread.title.run_id == runs[won.index(True)]


async def test_a_title_stays_its_runs_over_a_crash(house: Open) -> None:
    async def body(port: Port) -> None:
        claimed.append(await port.claim_title(f"Life {len(claimed)}"))
        if len(claimed) == 1:
            claimed_once.set()
            await asyncio.Event().wait()
        await port.end(port.start.title)

    claimed: list[bool] = []
    claimed_once = asyncio.Event()
    server = await house(body)
    run = await server.start(thread_id="t")
    await soon(claimed_once.wait())
    await server.crash()
    await server.open()
    assert (await server.log(run))[-1].payload.result is None
    assert claimed == [True, True]
    # What it says last is what it shows.
    assert (await server.registry.thread(ME, "t")).title == titled(Thread(), run, "Life 1")[0].title


async def test_a_thread_is_known_to_whom_it_belongs(house: Open) -> None:
    async def body(port: Port) -> None:
        await go.wait()
        await port.end(None)

    go = asyncio.Event()
    server = await house(body)
    first = await server.start(thread_id="t")
    second = await server.start(thread_id="t", if_busy="queue")
    assert await server.registry.thread(ME, "t") == Thread(active=first, queue=(second,))
    for who, thread_id in ((ME, "u"), (Principal(id="other", name="x"), "t")):
        with pytest.raises(NotFound):
            await server.registry.thread(who, thread_id)
    go.set()
    await server.log(second)
    thread = await server.registry.thread(ME, "t")
    # Its end is in the log; whether the thread was told already makes no difference.
    assert (thread.active, thread.queue, thread.runs) == (None, (), (first, second))
