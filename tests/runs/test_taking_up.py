"""Taking runs up: when their log cannot be read, when several want the same one, and when a lease ends."""

import asyncio
from typing import Any, NamedTuple

import pytest
from structlog.testing import capture_logs

from midstream.log import LogUnavailable
from midstream.runs import Limits, Port
from midstream.runs.keys import namespace
from midstream_protocol.commands import (
    RunCorrect,
)
from midstream_protocol.order import verify
from tests.runs.conftest import Open
from tests.runs.house import House, soon, types
from tests.runs.say import (
    for_ever,
    question,
)
from tests.runs.simple import ME

pytestmark = pytest.mark.asyncio


class Still(NamedTuple):
    """A server with one run, whose clock went on without it for longer than a lease lasts."""

    server: House
    run: str
    lives: list[bool]
    go: asyncio.Event

    async def goes_on(self) -> None:
        """The run ends as if nothing had been."""
        self.go.set()
        assert types(await self.server.log(self.run)) == ["run.started", "message.completed", "run.completed"]
        assert self.lives == [False]


async def stood_still(house: Open) -> Still:
    async def body(port: Port) -> None:
        lives.append(port.recovered)
        await go.wait()
        await port.end("ok")

    lives: list[bool] = []
    go = asyncio.Event()
    server = await house(body, limits=Limits(lease_ms=10_000))
    run = await server.start()
    server.clock._now += 60
    return Still(server, run, lives, go)


async def test_a_run_whose_log_cannot_be_read_at_the_start_is_taken_up_later(house: Open) -> None:
    async def body(port: Port) -> None:
        if port.recovered:
            await port.end("back")
            return
        await asyncio.Event().wait()

    server = await house(body)
    run = await server.start()
    await server.crash()
    server.held.broken_reads = LogUnavailable("disk gone")
    await server.open()
    assert server.registry.live_runs == 0
    server.held.broken_reads = None
    reader = await server.attach(run)
    reading = asyncio.ensure_future(reader.all())
    for _ in range(50):
        if not reading.done():
            await server.clock.advance(1)
            await asyncio.sleep(0)
    assert (await soon(reading))[-1].payload.result == "back"


async def test_a_wake_that_fails_is_the_waiters_to_tell_and_no_defect(house: Open) -> None:
    """Who asked is refused and may come again; the server's own log has no trace of a crash."""
    server = await house(for_ever)
    run = await server.start()
    await server.crash()
    server.held.broken_reads = LogUnavailable("disk gone")
    with capture_logs() as logged:
        await server.open()
        receipt = await server.send(run, RunCorrect(text="x"))
    assert (receipt.code, receipt.retryable) == ("unavailable", True)
    assert logged
    assert "task failed" not in [line["event"] for line in logged]


async def test_one_run_that_cannot_be_taken_up_does_not_stop_the_others(house: Open) -> None:
    async def body(port: Port) -> None:
        if port.recovered:
            await port.end("back")
            return
        await asyncio.Event().wait()

    server = await house(body)
    bad = await server.start("bad")
    good = await server.start("good")
    await server.crash()
    program = server.agents.program

    def fails(start_record: Any) -> Any:
        if start_record.run_id == bad:
            raise ZeroDivisionError
        return program(start_record)

    server.agents.program = fails  # type: ignore[method-assign, assignment]
    await server.open()
    assert (await server.log(good))[-1].payload.result == "back"
    assert await server.registry.view(ME, bad)


async def test_a_waking_run_has_one_actor(house: Open) -> None:
    """A command finds it while the sweeper is reading it."""

    async def body(port: Port) -> None:
        await port.end((await port.ask(question(port, seconds=5))).decision)

    server = await house(body)
    run = await server.start()
    await (await server.attach(run)).until("run.status")
    await server.crash()
    await server.open()
    load = server.held.log.load
    reading, go = asyncio.Event(), asyncio.Event()

    async def slow(key: str) -> Any:
        reading.set()
        await go.wait()
        return await load(key)

    server.held.log.load = slow  # type: ignore[method-assign, assignment]
    server.clock._now += 6
    sweeping = asyncio.ensure_future(server.registry._living._claim_due())
    await soon(reading.wait())
    sending = [asyncio.ensure_future(server.send(run, RunCorrect(text=str(n)))) for n in range(5)]
    for _ in range(50):
        await asyncio.sleep(0)
    go.set()
    await sweeping
    assert {(await receipt).code for receipt in sending} <= {None, "run_ended"}
    events = await server.log(run)
    assert len(server.ports) == 2
    header = (await server.store.log.read(f"{namespace(ME.id)}.{run}", after=0)).header
    assert header is not None
    # Made, voided by the restart, and claimed once.
    assert header.fence == 3
    assert verify(events) == []


async def test_a_server_that_stood_still_for_longer_than_its_leases_keeps_its_runs(house: Open) -> None:
    """Stopped, or a machine that slept: nobody else had the runs, so their programs go on as if nothing had been."""
    still = await stood_still(house)
    actors = still.server.registry._living.actors
    [actor] = actors.values()
    while actor.lease.expires_at < still.server.clock.now_ms():
        assert list(actors.values()) == [actor]
        await still.server.clock.advance(0.1)
    # A look for due runs comes after each renewal.
    await still.server.clock.advance(5)
    await still.goes_on()


async def test_a_lease_that_ended_unseen_is_given_to_who_has_the_run(house: Open) -> None:
    still = await stood_still(house)
    living = still.server.registry._living
    [actor] = living.actors.values()
    fence = actor.lease.fence
    # It ends between the renewal and the look for due runs.
    await soon(living._claim_due())
    assert list(living.actors.values()) == [actor]
    assert actor.lease.fence > fence
    await still.goes_on()


async def test_a_run_whose_lease_was_lost_is_let_go_of_at_once(house: Open) -> None:
    """Its program acts no more: whoever has the run now may be doing the same."""

    async def body(port: Port) -> None:
        lives.append(port.recovered)
        try:
            await for_ever(port) if len(lives) == 1 else await port.end("ok")
        finally:
            stopped.set()

    lives: list[bool] = []
    stopped = asyncio.Event()
    server = await house(body, limits=Limits(lease_ms=10_000))
    run = await server.start()
    renew = server.held.leases.renew

    async def lost(*_: Any, **__: Any) -> None:
        return None

    server.held.leases.renew = lost  # type: ignore[method-assign]
    while not stopped.is_set():
        await server.clock.advance(1)
    server.held.leases.renew = renew  # type: ignore[method-assign]
    # Nobody else had it after all: it is taken up again.
    reading = asyncio.ensure_future(server.log(run))
    while not reading.done():
        # The clock runs ahead of the store: it may be taken up more than once.
        await server.clock.advance(1)
        await asyncio.sleep(0.001)
    assert types(await reading)[-1] == "run.completed"
    assert lives[:2] == [False, True]
