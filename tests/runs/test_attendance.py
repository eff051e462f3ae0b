"""What a run does when nobody follows it, or nobody keeps up: `on_abandon`, `on_lag`."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from midstream.log import MemoryStore
from midstream.runs import Limits, Port, Stopping
from midstream.testing import ManualClock
from midstream_protocol.commands import CancelAfter, RunCancel
from midstream_protocol.events import Event, Notice
from tests.runs.house import House, Reader, types
from tests.runs.say import for_ever, question, step

pytestmark = pytest.mark.asyncio


class Turns:
    """A program that takes turns: it asks for clearance before each and says that it began. `go` lets it ask."""

    def __init__(self, turns: int = 3) -> None:
        self.turns = turns
        self.go: asyncio.Queue[None] = asyncio.Queue()
        self.stopped: list[type[BaseException]] = []
        self.port: Port | None = None

    async def __call__(self, port: Port) -> None:
        self.port = port
        try:
            for n in range(self.turns):
                await self.go.get()
                await port.clearance()
                await port.record(Notice(level="info", code="turn", text=str(n)))
        except BaseException as error:
            self.stopped.append(type(error))
            raise
        await port.end(None)


class Desk:
    """A server on a clock that stands still."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.turns = Turns()
        self.house: House

    async def open(self, body: Any = None, **limits: Any) -> House:
        self.house = House(MemoryStore(clock=self.clock), body or self.turns, clock=self.clock, limits=Limits(**limits))
        return await self.house.open()

    async def turn(self) -> None:
        self.turns.go.put_nowait(None)
        await self.clock.advance(0)

    async def begun(self, run: str) -> int:
        return sum(event.type == "notice" for event in await self.events(run))

    async def events(self, run: str) -> list[Event]:
        """As the log has them: without attaching."""
        from midstream.runs.keys import store_key  # noqa: PLC0415
        from midstream_protocol.codec import decode_event  # noqa: PLC0415

        page: Any = await self.house.store.log.read(store_key("local", run), after=0, max_events=10_000)
        return [decode_event(data) for data in page.events]

    async def phases(self, run: str) -> list[str]:
        return [event.payload.phase for event in await self.events(run) if event.type == "run.status"]


@pytest_asyncio.fixture
async def desk(clock: ManualClock) -> AsyncIterator[Desk]:
    desk = Desk(clock)
    yield desk
    await desk.house.aclose()


# -- on_abandon: cancel_after_s


async def test_a_run_that_nobody_ever_attached_to_is_cancelled(desk: Desk) -> None:
    server = await desk.open(for_ever)
    run = await server.start(on_abandon=CancelAfter(cancel_after_s=30))
    await desk.clock.advance(29)
    assert types(await desk.events(run))[-1] == "message.completed"
    await desk.clock.advance(2)
    events = await desk.events(run)
    assert types(events)[-2:] == ["run.cancelling", "run.cancelled"]
    end = events[-1].payload
    assert (end.by, end.mode, end.reason) == ("system", "now", "abandoned")


async def test_a_run_that_ends_leaves_no_timer_and_nobody_who_watches(desk: Desk) -> None:
    server = await desk.open()
    await desk.clock.advance(0)
    timers = len(desk.clock._callbacks)
    run = await server.start(on_abandon=CancelAfter(cancel_after_s=30), on_lag="pause")
    feed = next(iter(server.registry._living.actors.values())).feed
    assert feed._watcher is not None
    for _ in range(3):
        await desk.turn()
    assert types(await desk.events(run))[-1] == "run.completed"
    assert len(desk.clock._callbacks) == timers
    assert feed._watcher is None


async def test_the_time_begins_anew_when_the_last_one_leaves(desk: Desk) -> None:
    server = await desk.open(for_ever)
    run = await server.start(on_abandon=CancelAfter(cancel_after_s=30))
    one, other = await server.attach(run), await server.attach(run)
    await desk.clock.advance(100)
    one.close()
    await desk.clock.advance(100)
    assert types(await desk.events(run))[-1] == "message.completed"
    other.close()
    await desk.clock.advance(20)
    again = await server.attach(run)
    await desk.clock.advance(20)
    again.close()
    await desk.clock.advance(29)
    assert types(await desk.events(run))[-1] == "message.completed"
    await desk.clock.advance(2)
    assert types(await desk.events(run))[-1] == "run.cancelled"


@pytest.mark.parametrize("how", ["crash", "shut"])
async def test_the_time_begins_anew_after_a_restart(desk: Desk, how: str) -> None:
    server = await desk.open(for_ever)
    run = await server.start(on_abandon=CancelAfter(cancel_after_s=30))
    await desk.clock.advance(20)
    await getattr(server, how)()
    await desk.clock.advance(60)
    await server.open()
    await desk.clock.advance(29)
    assert not (await desk.events(run))[-1].type.startswith("run.cancel")
    await desk.clock.advance(2)
    end = (await desk.events(run))[-1]
    assert (end.type, end.payload.reason) == ("run.cancelled", "abandoned")


async def test_a_run_that_waits_for_people_is_cancelled_too(desk: Desk) -> None:
    async def body(port: Port) -> None:
        await port.ask(question(port, seconds=3600))

    server = await desk.open(body, park_after_s=10)
    run = await server.start(on_abandon=CancelAfter(cancel_after_s=60))
    await desk.clock.advance(30)
    await desk.clock.advance(31)
    events = await desk.events(run)
    assert types(events)[-3:] == ["run.cancelling", "input.resolved", "run.cancelled"]


async def test_a_queued_run_is_cancelled_too(desk: Desk) -> None:
    server = await desk.open(for_ever)
    await server.start(thread_id="t1")
    run = await server.start(thread_id="t1", if_busy="queue", on_abandon=CancelAfter(cancel_after_s=5))
    await desk.clock.advance(6)
    assert types(await desk.events(run))[-1] == "run.cancelled"


async def test_who_asked_for_the_end_after_the_step_stays_who_asked(desk: Desk) -> None:
    server = await desk.open(for_ever)
    run = await server.start(on_abandon=CancelAfter(cancel_after_s=5))
    await server.send(run, RunCancel(mode="after_step", reason="enough"))
    await desk.clock.advance(6)
    end = (await desk.events(run))[-1]
    assert (end.type, end.payload.by, end.payload.reason) == ("run.cancelled", "local", "enough")


@pytest.mark.parametrize("asked", [None, "continue"])
async def test_without_a_wish_a_run_goes_on(desk: Desk, asked: Any) -> None:
    server = await desk.open()
    run = await server.start(on_abandon=asked, on_lag=asked)
    for n in range(3):
        await desk.turn()
        await desk.clock.advance(1000)
        assert await desk.begun(run) == n + 1
    assert await desk.phases(run) == []


# -- on_abandon: pause


async def test_a_run_pauses_before_its_next_turn_until_somebody_is_there(desk: Desk) -> None:
    server = await desk.open()
    run = await server.start(on_abandon="pause")
    reader = await server.attach(run)
    await desk.turn()
    assert await desk.begun(run) == 1
    reader.close()
    await desk.turn()
    await desk.clock.advance(100)
    assert await desk.begun(run) == 1
    assert await desk.phases(run) == ["paused"], "told once"
    reader = await server.attach(run)
    await desk.clock.advance(0)
    assert await desk.begun(run) == 2
    assert await desk.phases(run) == ["paused", "working"]
    statuses = [event.payload.status for event in await desk.events(run) if event.type == "run.status"]
    assert statuses == ["running", "running"]


async def test_a_short_absence_is_not_told(desk: Desk) -> None:
    """Who starts a run attaches a moment later."""
    server = await desk.open()
    run = await server.start(on_abandon="pause")
    await desk.turn()
    await desk.clock.advance(0.1)
    assert await desk.begun(run) == 0
    await server.attach(run)
    await desk.clock.advance(1)
    assert await desk.begun(run) == 1
    assert await desk.phases(run) == []


async def test_who_gives_up_waiting_is_not_told_of(desk: Desk) -> None:
    async def body(port: Port) -> None:
        waiting = asyncio.ensure_future(port.clearance())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.Event().wait()

    server = await desk.open(body)
    run = await server.start(on_abandon="pause")
    await desk.clock.advance(5)
    assert await desk.phases(run) == []


async def test_several_stages_pause_together_and_say_it_once(desk: Desk) -> None:
    async def stage(port: Port) -> None:
        await port.clearance()
        await port.record(Notice(level="info", code="turn", text=""))

    async def body(port: Port) -> None:
        await asyncio.gather(*(stage(port) for _ in range(3)))
        await port.end(None)

    server = await desk.open(body)
    run = await server.start(on_abandon="pause")
    await desk.clock.advance(5)
    assert await desk.phases(run) == ["paused"]
    await server.attach(run)
    await desk.clock.advance(0)
    assert await desk.begun(run) == 3
    assert await desk.phases(run) == ["paused", "working"]


async def test_while_people_are_asked_the_run_stays_waiting(desk: Desk) -> None:
    async def body(port: Port) -> None:
        await port.record(step())
        asked = asyncio.ensure_future(port.ask(question(port, seconds=3600), step_id="s1"))
        await port.clearance()
        await port.record(Notice(level="info", code="turn", text=""))
        await asked

    server = await desk.open(body)
    run = await server.start(on_abandon="pause")
    await desk.clock.advance(5)
    assert [e.payload.status for e in await desk.events(run) if e.type == "run.status"] == ["waiting"]
    await server.attach(run)
    await desk.clock.advance(0)
    assert await desk.begun(run) == 1


@pytest.mark.parametrize("mode", ["now", "after_step"])
async def test_a_cancel_ends_the_pause(desk: Desk, mode: Any) -> None:
    server = await desk.open()
    run = await server.start(on_abandon="pause")
    await desk.turn()
    await desk.clock.advance(5)
    await server.send(run, RunCancel(mode=mode))
    await desk.clock.advance(0)
    assert types(await desk.events(run))[-1] == "run.cancelled"
    assert desk.turns.stopped == [asyncio.CancelledError if mode == "now" else Stopping]


async def test_a_drain_ends_the_pause_and_it_goes_on_in_the_next_life(desk: Desk) -> None:
    server = await desk.open()
    run = await server.start(on_abandon="pause")
    await desk.turn()
    await desk.clock.advance(5)
    await server.shut()
    assert desk.turns.stopped == [Stopping]
    await server.open()
    await desk.turn()
    await desk.clock.advance(5)
    assert await desk.begun(run) == 0
    assert (await desk.phases(run))[-1] == "paused"
    await server.attach(run)
    await desk.clock.advance(0)
    assert await desk.begun(run) == 1
    assert (await desk.phases(run))[-1] == "working"


async def test_who_comes_while_the_server_was_away_finds_the_run_at_work(desk: Desk) -> None:
    """The last that was told was that it pauses."""
    server = await desk.open()
    run = await server.start(on_abandon="pause")
    await desk.turn()
    await desk.clock.advance(5)
    await server.shut()
    await server.open()
    await server.attach(run)
    await desk.turn()
    assert await desk.begun(run) == 1
    assert (await desk.phases(run))[-1] == "working"


# -- on_lag


async def behind(desk: Desk, **limits: Any) -> tuple[str, Reader]:
    """A run whose only reader has taken nothing of 50 events."""

    async def body(port: Port) -> None:
        for n in range(50):
            await port.record(Notice(level="info", code="fill", text=str(n)))
        await desk.turns(port)

    server = await desk.open(body, **limits)
    run = await server.start(on_lag="pause")
    reader = await server.attach(run)
    while len(await desk.events(run)) < 52:
        await desk.clock.advance(0)
    return run, reader


def turns(events: list[Event]) -> int:
    return sum(event.type == "notice" and event.payload.code == "turn" for event in events)


@pytest.mark.parametrize("tail_events", [1024, 4])
async def test_a_run_pauses_until_a_reader_keeps_up(desk: Desk, tail_events: int) -> None:
    """Also when what it reads comes from the log."""
    run, reader = await behind(desk, lag_events=10, tail_events=tail_events)
    await desk.turn()
    await desk.clock.advance(5)
    assert turns(await desk.events(run)) == 0
    assert await desk.phases(run) == ["paused"]
    subscription = reader.attachment.subscription
    while subscription.cursor < 40:
        await subscription.pull(max_events=5)
    await desk.clock.advance(0)
    assert turns(await desk.events(run)) == 0, "not yet"
    await reader.pull()
    await desk.clock.advance(0)
    assert turns(await desk.events(run)) == 1
    assert await desk.phases(run) == ["paused", "working"]


async def test_one_who_keeps_up_is_enough(desk: Desk) -> None:
    run, _ = await behind(desk, lag_events=10)
    await desk.turn()
    await desk.clock.advance(5)
    assert turns(await desk.events(run)) == 0
    await desk.house.attach(run, since_seq=52)
    await desk.clock.advance(0)
    assert turns(await desk.events(run)) == 1


async def test_lag_pauses_nobody_who_is_alone(desk: Desk) -> None:
    run, reader = await behind(desk, lag_events=10)
    await desk.turn()
    await desk.clock.advance(5)
    reader.close()
    await desk.clock.advance(0)
    assert turns(await desk.events(run)) == 1
