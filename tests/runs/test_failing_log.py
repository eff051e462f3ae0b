"""A log that cannot be written, or that another writes: the run goes on later, or elsewhere."""

import asyncio

import pytest

from midstream.log import Batch, Fenced, LogUnavailable, MemoryStore
from midstream.runs import Port, Stopping
from midstream.runs.keys import namespace
from midstream_protocol.commands import (
    RunCorrect,
)
from midstream_protocol.events import (
    Notice,
)
from tests.runs.conftest import Open
from tests.runs.house import soon, types
from tests.runs.say import (
    speak,
    step,
)

pytestmark = pytest.mark.asyncio


async def test_a_run_goes_on_when_its_log_is_back(house: Open) -> None:
    seen: list[BaseException] = []

    async def body(port: Port) -> None:
        if port.recovered:
            await port.end("recovered")
            return
        await port.record(Notice(level="info", code="x", text=""))
        await go.wait()
        try:
            await port.record(step())
        except BaseException as error:
            seen.append(error)
            raise

    go = asyncio.Event()
    server = await house(body)
    run = await server.start()
    reader = await server.attach(run)
    await reader.until("notice")
    server.held.broken = LogUnavailable("disk full")
    go.set()
    await server.registry._living.settled(f"{namespace('local')}.{run}")
    receipt = await server.send(run, RunCorrect(text="x"), command_id="k1")
    assert (receipt.code, receipt.retryable) == ("unavailable", True)
    for _ in range(10):
        await server.clock.advance(1)
    server.held.broken = None
    reading = asyncio.ensure_future(reader.all())
    while not reading.done():
        await server.clock.advance(1)
    events = reading.result()
    assert events[-1].payload.result == "recovered"
    assert [e.payload.attempt for e in events if e.type == "recovery.started"] == [1]
    # Stopped, or killed first; never told of a log.
    assert [type(error) for error in seen] in ([Stopping], [asyncio.CancelledError])
    assert await server.log(run) == events


async def test_a_fenced_actor_says_no_more(house: Open) -> None:
    """Another writer owns the run: nothing of ours is written, and we do not fight for it."""

    async def body(port: Port) -> None:
        ports.append(port)
        await go.wait()
        await speak(port)

    ports: list[Port] = []
    go = asyncio.Event()
    server = await house(body)
    run = await server.start()
    await (await server.attach(run)).pull()
    store = server.store
    assert isinstance(server.store, MemoryStore) or store is not None
    key = f"{namespace('local')}.{run}"
    lease = next(iter(server.registry._living.actors.values())).lease
    await store.leases.release(lease)
    other = await store.leases.claim(key, owner="other", now_ms=server.clock.now_ms(), lease_ms=10**9)
    assert other is not None
    go.set()
    receipt = await server.send(run, RunCorrect(text="x"))
    assert receipt.code == "unavailable"
    living = server.registry._living
    # The store answers from its own thread, so how far this has come no number of turns of the loop can say.
    for actor in list(living.actors.values()):
        await soon(asyncio.wait([actor.task]))
    await server.clock.advance(30)
    if living._retries:
        await soon(asyncio.wait(list(living._retries.values())))
        await asyncio.sleep(0)
    assert living._retries == {}
    assert server.registry.live_runs == 0
    assert types(await server.log(run, ended=False)) == ["run.started", "message.completed"]
    with pytest.raises(Fenced):
        await store.log.append(key, fence=lease.fence, prev_seq=2, batch=Batch(batch_id="x", status="running"))
