"""What leaves a connection when: in which pieces, from where, and what becomes of a client that takes nothing."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from midstream.gateway.connection import Connection, Slot
from midstream.gateway.flusher import Flusher
from midstream.gateway.options import GatewayOptions
from midstream.gateway.outlets import BATCH_BYTES, DirectOutlet
from midstream.gateway.wire import JsonWire
from midstream.log import LogUnavailable
from midstream.log.contract import Page
from midstream.runs import Attachment, Subscription
from midstream.runs.attachment import Standing
from midstream.runs.tail import Feed
from midstream.testing import ManualClock
from midstream_protocol.frames import Receipt

pytestmark = pytest.mark.asyncio


class Wires:
    """A `Direct` that notes what it is told. `room` and `held` are what the test says."""

    def __init__(self) -> None:
        self.room = True
        self.held = 0
        self.writes: list[list[bytes]] = []
        self.shut_with: tuple[int, str] | None = None
        self.bounds: list[int] = []
        self.tell: Callable[[], None] = lambda: None

    def ready(self) -> bool:
        return self.room

    def watch(self, room: Callable[[], None]) -> None:
        self.tell = room

    def bound(self, write_buffer_bytes: int) -> None:
        self.bounds.append(write_buffer_bytes)

    def unsent(self) -> int:
        return self.held

    def write(self, frames: Sequence[bytes], *, text: bool) -> None:
        assert text
        assert self.shut_with is None
        self.writes.append(list(frames))

    def shut(self, code: int, reason: str) -> None:
        assert self.shut_with is None
        self.shut_with = (code, reason)

    @property
    def seqs(self) -> list[int]:
        return [int(frame[1:]) for frames in self.writes for frame in frames if frame.startswith(b"#")]


HEADER: Any = None
"""Of no interest to who reads events."""


class PagedLog:
    """Reads what a run had before its feed's tail; `reads` are the cursors asked for."""

    def __init__(self) -> None:
        self.events: list[bytes] = []
        self.reads: list[int] = []
        self.gate: asyncio.Event | None = None
        self.error: Exception | None = None

    async def read(self, run: str, *, after: int, max_events: int, max_bytes: int, **_: Any) -> Page:
        del run, max_bytes
        self.reads.append(after)
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        return Page(first=after + 1, events=tuple(self.events[after : after + max_events]), header=HEADER)


class Desk:
    """One connection over `Wires`."""

    def __init__(self, *, tail: int = 10_000, **options: Any) -> None:
        self.clock = ManualClock()
        self.wires = Wires()
        self.log = PagedLog()
        self.options = GatewayOptions(**options)
        self.outlet = DirectOutlet(self.wires, flusher=Flusher(), options=self.options, clock=self.clock, name="c")
        self.connection = self.outlet.connection = Connection(
            wire=JsonWire(), limits=self.options.connection_limits, max_errors=4, notify=self.outlet.notify
        )
        self.tail = tail
        self.feeds: dict[str, Feed] = {}

    def feed(self, run_id: str) -> Feed:
        if run_id not in self.feeds:
            self.feeds[run_id] = Feed(
                run=run_id, run_id=run_id, epoch="e", head=0, ended=False, events=self.tail, size=1 << 30
            )
        return self.feeds[run_id]

    def publish(self, count: int, *, run_id: str = "r", size: int = 0) -> None:
        feed = self.feed(run_id)
        events = [f"#{feed.head + n}".ljust(size).encode() for n in range(1, count + 1)]
        self.log.events += events
        feed.publish(events, ended=False)

    def attach(self, run_id: str = "r") -> None:
        feed = self.feed(run_id)
        ticket = self.connection.receive(
            f'{{"v":1,"type":"run.attach","command_id":"a{run_id}","run_id":"{run_id}","payload":{{}}}}'
        )
        assert ticket is not None
        slot = Slot(run_id)
        subscription = Subscription(
            feed=feed,
            log=self.log,
            cursor=0,
            wake=lambda: self.connection.wake(slot),  # type: ignore[arg-type]
        )
        attachment = Attachment(
            standing=Standing(thread_id="t", agent="a", status="running", pending=[]), head_seq=feed.head, epoch="e",
            first_seq=1, now_ms=0, steerable=True, queue_position=None, reset=None, subscription=subscription,
        )  # fmt: skip
        self.connection.open(ticket, Receipt(command_id="a", run_id=run_id, status="accepted"), slot, attachment)

    async def settled(self) -> None:
        for _ in range(400):
            await asyncio.sleep(0)


async def test_one_write_has_all_that_came_in_a_turn_in_order() -> None:
    desk = Desk()
    desk.attach()
    await desk.settled()
    desk.wires.writes.clear()
    for _ in range(5):
        desk.publish(1)
    await desk.settled()
    assert desk.wires.seqs == [1, 2, 3, 4, 5]
    assert len(desk.wires.writes) == 1


async def test_a_write_is_bounded_in_bytes_and_frames_and_the_rest_follows() -> None:
    desk = Desk(frames_per_write=50)
    desk.attach()
    desk.attach("big")
    await desk.settled()
    desk.wires.writes.clear()
    desk.publish(120)
    await desk.settled()
    assert [len(frames) for frames in desk.wires.writes] == [50, 50, 20]
    assert desk.wires.seqs == list(range(1, 121))
    desk.wires.writes.clear()
    desk.publish(30, run_id="big", size=10_000)
    await desk.settled()
    assert desk.wires.seqs == list(range(1, 31))
    assert all(sum(map(len, frames)) <= BATCH_BYTES + 10_000 for frames in desk.wires.writes)


async def test_one_run_behind_in_the_log_does_not_hold_up_the_other() -> None:
    desk = Desk(tail=4)
    desk.log.gate = asyncio.Event()
    desk.publish(100)
    desk.attach()
    desk.attach("live")
    await desk.settled()
    assert desk.log.reads == [0]
    desk.wires.writes.clear()
    desk.log.events, kept = [], desk.log.events
    desk.publish(1, run_id="live")
    await desk.settled()
    assert desk.wires.seqs == [1]
    desk.log.events = kept
    desk.wires.writes.clear()
    # What is published meanwhile is neither lost nor doubled, nor is the page asked for again.
    for _ in range(3):
        desk.publish(1)
        await desk.settled()
    assert desk.log.reads == [0]
    assert desk.outlet._behind == []
    desk.log.gate.set()
    await desk.settled()
    assert desk.wires.seqs == list(range(1, 104))


async def test_a_page_is_read_only_when_there_is_room_for_it() -> None:
    desk = Desk(tail=4, frames_per_write=10)
    desk.publish(100)
    desk.attach()
    await desk.settled()
    whole = desk.wires.seqs
    assert whole == list(range(1, 101))
    desk = Desk(tail=4, frames_per_write=10)
    desk.publish(100)
    desk.attach()
    write = desk.wires.write

    def full(frames: Sequence[bytes], *, text: bool) -> None:
        write(frames, text=text)
        desk.wires.room = len(desk.wires.seqs) < 20

    desk.wires.write = full  # type: ignore[method-assign]
    await desk.settled()
    assert desk.wires.seqs == list(range(1, 21))
    assert len(desk.log.reads) == 2
    desk.wires.write = write  # type: ignore[method-assign]
    desk.wires.room = True
    desk.wires.tell()
    await desk.settled()
    assert desk.wires.seqs == list(range(1, 101))


async def test_of_many_runs_that_are_behind_only_those_are_read_that_there_is_room_for() -> None:
    desk = Desk(tail=4)
    desk.log.gate = asyncio.Event()
    for run_id in "abc":
        desk.log.events = []
        desk.publish(100, run_id=run_id)
        desk.attach(run_id)
    await desk.settled()
    assert desk.log.reads == [0]
    desk.wires.room = False
    desk.log.gate.set()
    await desk.settled()
    assert desk.log.reads == [0]
    desk.wires.room = True
    desk.wires.tell()
    await desk.settled()
    assert desk.wires.seqs == [*range(1, 101)] * 3


async def test_a_log_that_cannot_be_read_ends_the_connection_with_4004() -> None:
    desk = Desk(tail=4)
    desk.log.error = LogUnavailable("the disk is gone")
    desk.publish(100)
    desk.attach()
    await desk.settled()
    assert desk.wires.shut_with is not None
    assert desk.wires.shut_with[0] == 4004
    # And says no more: `write` and `shut` would object.
    desk.publish(1)
    desk.outlet.beat()
    await desk.settled()


async def test_a_client_that_takes_nothing_is_closed_after_the_send_timeout() -> None:
    desk = Desk(send_timeout_s=20.0)
    desk.attach()
    await desk.settled()
    desk.wires.room, desk.wires.held = False, 5000
    desk.publish(1)
    await desk.settled()
    await desk.clock.advance(19.9)
    assert desk.wires.shut_with is None
    await desk.clock.advance(5.1)
    assert desk.wires.shut_with is not None
    assert desk.wires.shut_with[0] == 4008


async def test_a_client_that_takes_a_byte_now_and_then_is_kept() -> None:
    desk = Desk(send_timeout_s=20.0)
    desk.attach()
    await desk.settled()
    desk.wires.room, desk.wires.held = False, 5000
    desk.publish(1)
    await desk.settled()
    for _ in range(20):
        await desk.clock.advance(15.0)
        desk.wires.held -= 1
    assert desk.wires.shut_with is None
    desk.wires.room = True
    desk.wires.tell()
    await desk.settled()
    assert desk.wires.seqs == [1]
    # Nothing waits any more, so nothing is slow.
    await desk.clock.advance(100.0)
    assert desk.wires.shut_with is None


async def test_a_close_is_said_after_what_waits_and_to_one_that_is_slow_after_the_timeout() -> None:
    desk = Desk()
    desk.connection.receive('{"v":1,"type":"ping","payload":{"t":1}}')
    desk.connection.close(4001, "going")
    await desk.settled()
    assert [frame for frames in desk.wires.writes for frame in frames] == [b'{"v":1,"type":"pong","payload":{"t":1}}']
    assert desk.wires.shut_with == (4001, "going")
    slow = Desk(send_timeout_s=4.0)
    slow.wires.room, slow.wires.held = False, 100
    slow.connection.close(4001, "going")
    await slow.settled()
    assert slow.wires.shut_with is None
    await slow.clock.advance(5.0)
    assert slow.wires.shut_with == (4001, "going")


async def test_the_options_bound_the_buffer() -> None:
    assert Desk(write_buffer_bytes=12_345).wires.bounds == [12_345]


async def test_a_defect_while_reading_closes_with_4004_and_gives_everything_back() -> None:
    desk = Desk()

    async def read() -> None:
        raise ZeroDivisionError

    await desk.outlet.along(read)
    assert desk.wires.shut_with is not None
    assert desk.wires.shut_with[0] == 4004
