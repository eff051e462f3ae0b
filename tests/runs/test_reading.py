"""Reading a run: from any seq, at any moment, the same bytes, and nobody pays for anybody else."""

import asyncio
import gc
from typing import Any

import pytest

from midstream.clock import SystemClock
from midstream.log import Header, Page
from midstream.runs import Limits, Port, Principal
from midstream.runs.keys import namespace
from midstream.runs.replay import own_event
from midstream_protocol.commands import InputRespond, RunCancel, RunCorrect
from midstream_protocol.errors import NotFound
from midstream_protocol.view import fold_all, view_from_builtins
from tests.runs.conftest import Open
from tests.runs.house import House, Reader, soon, types
from tests.runs.say import approval, call_record, completed, delta, for_ever, message, question, said, speak, started
from tests.runs.simple import ME

pytestmark = pytest.mark.asyncio


async def talk(port: Port) -> None:
    """A run with a bit of everything, that waits once for a person."""
    await speak(port, "one", "m1")
    await port.ask(approval(port), journal=[call_record()])
    await port.record(started(port))
    await port.record(completed())
    await port.emit(message("m2"))
    for n in range(5):
        await port.record(delta(f"{n} ", "m2"))
    await port.record(said("0 1 2 3 4 ", "m2"))
    await port.end("ok")


async def approve(server: House, run: str) -> None:
    from midstream_protocol.commands import ApprovalRespond  # noqa: PLC0415

    assert (await server.send(run, ApprovalRespond(approval_id="a1", decision="approve"))).status == "accepted"


# -- the same bytes


async def test_every_seq_of_a_live_and_a_finished_run_gives_the_same_bytes(house: Open) -> None:
    server = await house(talk, limits=Limits(tail_events=3))
    run = await server.start()
    first = await server.attach(run)
    await first.until("approval.required")
    live = [await server.attach(run, since_seq=seq) for seq in range(6)]
    await approve(server, run)
    events = await first.all()
    for seq, reader in enumerate(live):
        await reader.all()
        assert reader.lines == first.lines[seq:]
    for seq in range(len(events) + 1):
        late = await server.attach(run, since_seq=seq)
        await late.all()
        assert late.lines == first.lines[seq:]
        assert late.attachment.reset is None
    await server.shut()
    await server.open()
    again = await server.attach(run)
    await again.all()
    assert again.lines == first.lines


async def test_attach_between_the_write_and_its_publication(house: Open) -> None:
    """The log has the event already; nobody sees it before its actor has said so, and nobody misses it."""

    async def body(port: Port) -> None:
        await go.wait()
        await port.end("ok")

    go = asyncio.Event()
    server = await house(body)
    run = await server.start()
    before = await server.attach(run)
    await before.pull()
    store = server.held
    append = store.log.append
    written, visible = asyncio.Event(), asyncio.Event()

    async def held_reply(*args: Any, **named: Any) -> Any:
        head = await append(*args, **named)
        written.set()
        await visible.wait()
        return head

    store.log.append = held_reply  # type: ignore[method-assign]
    go.set()
    await soon(written.wait())
    between = await server.attach(run)
    assert between.attachment.frame("c").head_seq == 2
    assert (await server.registry.view(ME, run)).status == "running"
    await between.pull()
    assert types(between.events) == ["run.started", "message.completed"]
    ahead = await server.attach(run, since_seq=3)
    assert ahead.attachment.reset is not None
    assert ahead.attachment.reset.reason == "ahead"
    visible.set()
    for reader in (before, between):
        assert types(await reader.all()) == ["run.started", "message.completed", "run.completed"]
    # What was cut off as ahead goes on behind its snapshot.
    assert types(await ahead.all()) == ["run.completed"]


async def test_attach_at_the_end(house: Open) -> None:
    async def body(port: Port) -> None:
        await port.end("ok")

    server = await house(body)
    run = await server.start()
    events = await server.log(run)
    at_the_end = await server.attach(run, since_seq=len(events))
    assert at_the_end.attachment.subscription.ended
    assert await at_the_end.all() == []
    assert at_the_end.attachment.frame("c").can == []


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"since_seq": 99}, "ahead"),
        ({"epoch": "another"}, "epoch"),
        ({"since_seq": 99, "epoch": "another"}, "epoch"),
        ({"replay": "snapshot"}, "requested"),
    ],
)
async def test_a_replay_that_cannot_begin_there_is_replaced_by_a_snapshot(
    house: Open, options: Any, reason: str
) -> None:
    server = await house(talk)
    run = await server.start()
    first = await server.attach(run)
    await first.until("run.status")
    reader = await server.attach(run, **options)
    reset = reader.attachment.reset
    assert reset is not None
    assert reset.reason == reason
    assert reset.snapshot_seq == len(first.events)
    await approve(server, run)
    await first.all()
    assert reset.snapshot is not None
    folded = fold_all(await reader.all(), view_from_builtins(reset.snapshot))
    assert folded == fold_all(first.events, epoch=reset.epoch)
    assert reader.lines == first.lines[reset.snapshot_seq or 0 :]


async def test_the_epoch_is_kept_over_a_restart(house: Open) -> None:
    server = await house(talk)
    run = await server.start()
    reader = await server.attach(run)
    await reader.until("run.status")
    epoch = reader.attachment.frame("c").epoch
    await server.crash()
    await server.open()
    again = await server.attach(run, since_seq=2, epoch=epoch)
    assert again.attachment.reset is None
    await again.pull()
    assert again.lines == reader.lines[2:]


async def test_a_subscription_goes_on_when_its_run_is_taken_up_again(house: Open) -> None:
    """A run without an actor has readers; a command wakes it, and they see what follows."""

    async def body(port: Port) -> None:
        await port.end((await port.ask(question(port))).value)

    server = await house(body)
    run = await server.start()
    await (await server.attach(run)).until("run.status")
    await server.crash()
    await server.open()
    reader = await server.attach(run)
    await reader.pull()
    assert server.registry.live_runs == 0
    await server.send(run, InputRespond(input_id="i1", answer="x"))
    assert (await reader.all())[-1].payload.result == "x"


async def test_other_peoples_runs_are_not_there(house: Open) -> None:
    server = await house(for_ever)
    run = await server.start()
    other = Principal(id="other", name="Other")
    with pytest.raises(NotFound):
        await server.registry.attach(other, run, wake=lambda: None)
    with pytest.raises(NotFound):
        await server.registry.view(other, run)
    assert (await server.send(run, RunCancel(), who=other)).code == "not_found"
    assert await server.registry.list_runs(other) == ([], None)


# -- feeds that come and go


async def test_a_feed_let_go_during_an_attach_is_not_the_one_that_is_read(house: Open) -> None:
    """Nobody listens to it before the view is made, so it may be dropped meanwhile; a run woken then has another."""

    async def body(port: Port) -> None:
        await port.end((await port.ask(question(port))).value)

    server = await house(body)
    run = await server.start()
    await (await server.attach(run)).until("run.status")
    await server.crash()
    await server.open()
    living = server.registry._living
    view_now = server.registry._view_now
    calls = 0

    async def interrupted(feed: Any) -> Any:
        nonlocal calls
        view = await view_now(feed)
        calls += 1
        if calls == 1:
            living._drop_feed(feed.run)
        return view

    server.registry._view_now = interrupted  # type: ignore[method-assign]
    reader = await server.attach(run)
    await server.send(run, InputRespond(input_id="i1", answer="x"))
    assert (await reader.all())[-1].payload.result == "x"


async def test_a_header_from_before_the_end_makes_no_feed(house: Open) -> None:
    """The run was woken, ended, and its feed was let go, while the header was being read."""

    async def body(port: Port) -> None:
        await port.end((await port.ask(question(port))).value)

    server = await house(body)
    run = await server.start()
    await (await server.attach(run)).until("run.status")
    await server.crash()
    await server.open()
    key = f"{namespace(ME.id)}.{run}"
    living = server.registry._living
    header = living.header
    read: list[Header] = []

    async def slow(asked: str) -> Header:
        found = await header(asked)
        read.append(found)
        if len(read) == 1:
            await server.send(run, InputRespond(input_id="i1", answer="x"))
            feed = living._feeds[key]
            await living.settled(asked)
            if living._background:
                await soon(asyncio.wait(list(living._background)))
            assert not living.holds(feed)
        return found

    living.header = slow  # type: ignore[method-assign, assignment]
    reader = await server.attach(run)
    assert types(await reader.all())[-1] == "run.completed"
    assert read[-1].status == "completed"
    assert key in living._feeds


async def test_a_failing_attach_leaves_nobody_listening(house: Open) -> None:
    from midstream.log import LogUnavailable  # noqa: PLC0415

    server = await house(for_ever)
    await server.start("1", thread_id="t")
    queued = await server.start("2", thread_id="t", if_busy="queue")
    await (await server.attach(queued)).pull()
    feed = server.registry._living._feeds[f"{namespace(ME.id)}.{queued}"]
    before = feed.readers
    threads = server.registry._living.threads
    known = threads.get

    async def fails(*_: Any) -> Any:
        raise LogUnavailable("gone")

    threads.get = fails  # type: ignore[method-assign, assignment]
    from midstream_protocol.errors import Unavailable  # noqa: PLC0415

    with pytest.raises(Unavailable):
        await server.attach(queued)
    threads.get = known  # type: ignore[method-assign]
    assert feed.readers == before


async def test_feeds_and_tails_are_bounded(house: Open) -> None:
    async def body(port: Port) -> None:
        await port.emit(message())
        for n in range(40):
            await port.record(delta(f"{n} "))
        await port.record(said("".join(f"{n} " for n in range(40))))
        await port.end("ok")

    server = await house(body, limits=Limits(tail_events=8, tail_bytes=1000))
    run = await server.start()
    reader = await server.attach(run)
    feed = server.registry._living._feeds[f"{namespace(ME.id)}.{run}"]
    await reader.until("message.started")
    assert len(feed._tail) <= 8
    await reader.all()
    assert feed._bytes <= 1000
    reader.close()
    # Nobody reads it any more, and it is over: the log has it all.
    assert len(feed._tail) == 0
    server.body = _end
    for n in range(150):
        await server.log(await server.start(str(n)))
    living = server.registry._living
    assert len(living._feeds) <= 2 * len(living.actors) + 65


async def _end(port: Port) -> None:
    await port.end(None)


# -- many


async def test_a_reader_that_never_reads_costs_nobody_anything(house: Open) -> None:
    async def body(port: Port) -> None:
        await port.emit(message())
        for n in range(3000):
            await port.emit(delta(f"{n} "))
        await port.record(said("".join(f"{n} " for n in range(3000))))
        await port.end("ok")

    server = await house(body, limits=Limits(tail_events=16, beat_inputs=4))
    run = await server.start()
    readers = [await server.attach(run) for _ in range(50)]
    never = await server.attach(run)
    everything = await asyncio.gather(*(reader.all() for reader in readers))
    assert all(reader.lines == readers[0].lines for reader in readers)
    assert types(everything[0])[-1] == "run.completed"
    # It comes at last, reads the log instead of the tail, and misses nothing.
    assert never.lines == []
    await never.all()
    assert never.lines == readers[0].lines


async def test_pages_are_bounded(house: Open) -> None:
    server = await house(talk)
    run = await server.start()
    first = await server.attach(run)
    await first.until("approval.required")
    await approve(server, run)
    await first.all()
    for source in ("tail", "log"):
        reader = await server.attach(run)
        if source == "log":
            server.registry._living._feeds[f"{namespace(ME.id)}.{run}"].forget_tail()
        subscription = reader.attachment.subscription
        lines: list[bytes] = []
        while batch := await subscription.pull(max_events=3, max_bytes=500):
            assert len(batch) == 1 or sum(map(len, batch)) <= 500
            assert len(batch) <= 3
            lines += batch
        assert lines == first.lines


# A manual clock keeps the timers that were cancelled, and with them their actors. It is the store's clock too: leases
# given at one time and looked at in another are over before they began.
@pytest.mark.parametrize("clock", [SystemClock()], ids=["system"])
async def test_two_hundred_runs_at_once_leave_nothing_behind(house: Open) -> None:
    async def body(port: Port) -> None:
        await speak(port, "hello")
        await port.record(started(port))
        await port.record(completed())
        await port.end("ok")

    server = await house(body)
    await asyncio.sleep(0)
    before = {task for task in asyncio.all_tasks() if not task.done()}

    async def one(n: int) -> Reader:
        reader = await server.attach(await server.start(str(n)))
        await reader.all()
        reader.close()
        return reader

    readers = await asyncio.gather(*(one(n) for n in range(200)))
    assert [reader.events[-1].payload for reader in readers if types(reader.events)[-1] != "run.completed"] == []
    living = server.registry._living
    while living._background or living.actors:
        await soon(asyncio.wait([*living._background, *(a.task for a in living.actors.values() if a.task)]))
        await asyncio.sleep(0)
    assert {task for task in asyncio.all_tasks() if not task.done()} - before == set()
    assert living._waking == {}
    assert living._retries == {}
    assert living._timers == {}
    gc.collect()
    assert sum(1 for item in gc.get_objects() if type(item).__name__ == "Actor") <= 1


async def test_the_tasks_of_a_run_are_few_and_named(house: Open) -> None:
    server = await house(for_ever)
    before = asyncio.all_tasks()
    for n in range(20):
        run = await server.start(str(n))
        await server.send(run, RunCorrect(text="x"))
    after = [task.get_name() for task in asyncio.all_tasks() - before]
    assert len(after) == 2 * 20
    assert all(name.startswith("run:") and name.endswith(("/actor", "/program")) for name in after)


async def test_the_view_is_the_fold_of_the_log_at_any_time(house: Open) -> None:
    server = await house(talk)
    run = await server.start()
    reader = await server.attach(run)
    await reader.until("approval.required")
    await reader.until("run.status")
    epoch = reader.attachment.frame("c").epoch
    assert await server.registry.view(ME, run) == fold_all(reader.events, epoch=epoch)
    await server.registry.view(ME, run)
    await approve(server, run)
    events = await reader.all()
    assert await server.registry.view(ME, run) == fold_all(events, epoch=epoch)
    # Many other views later it is made anew from the log.
    server.registry._views.forget(f"{namespace(ME.id)}.{run}")
    assert await server.registry.view(ME, run) == fold_all(events, epoch=epoch)


async def test_what_is_read_is_what_is_stored(house: Open) -> None:
    server = await house(talk)
    run = await server.start()
    reader = await server.attach(run)
    await reader.until("approval.required")
    await approve(server, run)
    await reader.all()
    page = await server.store.log.read(f"{namespace(ME.id)}.{run}", after=0, max_events=1000)
    assert isinstance(page, Page)
    assert list(page.events) == reader.lines
    assert [own_event(line).seq for line in reader.lines] == list(range(1, len(reader.lines) + 1))
