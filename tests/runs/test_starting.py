"""A start happens once, and a thread is written by one run at a time."""

import asyncio
from typing import Any

import pytest

from midstream.log import LogUnavailable, Store
from midstream.runs import Limits, Port
from midstream.runs.keys import namespace
from midstream.runs.threads import Thread, decide_thread, ended, promoted
from midstream_protocol.commands import Command, RunCancel, RunCorrect, RunLimits, RunStart
from midstream_protocol.errors import Busy
from tests.runs.conftest import Open
from tests.runs.house import House, soon, types
from tests.runs.say import for_ever, speak, step
from tests.runs.simple import ME, start


async def ask(server: House, command: Command, client: str = "north") -> Any:
    return await soon(server.registry.start(ME, command, client_id=client))


async def done(port: Port) -> None:
    await port.end(port.start.input)


async def listed(server: House, **options: Any) -> list[str]:
    found: list[str] = []
    cursor = None
    while True:
        page, cursor = await server.registry.list_runs(ME, cursor=cursor, **options)
        found += [each.view.run_id for each in page]
        if cursor is None:
            return found


# -- once


@pytest.mark.asyncio
async def test_the_same_start_again_is_the_same_run(house: Open) -> None:
    server = await house(done)
    command = start("one")
    first = await ask(server, command)
    assert (first.status, first.at_seq, first.as_) == ("accepted", 1, "started")
    assert await ask(server, command) == first
    await server.log(first.run_id)
    assert await ask(server, command, client="south") == first
    await server.shut()
    await server.open()
    assert await ask(server, command) == first
    assert await listed(server) == [first.run_id]


@pytest.mark.asyncio
async def test_two_at_the_same_time_are_one(house: Open) -> None:
    server = await house(done)
    command = start("one")
    receipts = await asyncio.gather(*(ask(server, command) for _ in range(5)))
    assert receipts == [receipts[0]] * 5
    assert len(server.ports) == 1
    server.clock._now += 1
    assert await listed(server) == [receipts[0].run_id]


@pytest.mark.asyncio
async def test_a_start_that_was_cut_off_is_finished_when_it_is_sent_again(house: Open) -> None:
    server = await house(done)
    command = start("one")
    server.held.broken = LogUnavailable("disk full")
    refused = await ask(server, command)
    assert (refused.code, refused.retryable) == ("unavailable", True)
    server.held.broken = None
    await server.clock.advance(5)
    receipt = await ask(server, command)
    assert receipt.status == "accepted"
    await server.log(receipt.run_id)
    # Listed once, although it was begun twice.
    assert await listed(server) == [receipt.run_id]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("first", "second"),
    [
        (RunStart(input="one"), RunStart(input="two")),
        (RunStart(input="one"), RunStart(input="two", run_id="mine")),
        (RunStart(input="one", run_id="mine"), RunStart(input="one")),
        (RunStart(input="one", run_id="mine"), RunStart(input="one", run_id="other")),
    ],
)
async def test_another_start_under_the_same_command_id_is_a_conflict(
    house: Open, first: RunStart, second: RunStart
) -> None:
    server = await house(done)
    receipt = await ask(server, Command(type="run.start", command_id="c1", payload=first))
    assert receipt.status == "accepted"
    refused = await ask(server, Command(type="run.start", command_id="c1", payload=second))
    assert refused.code == "conflict"
    assert len(server.ports) == 1


@pytest.mark.asyncio
async def test_a_run_id_is_used_once(house: Open) -> None:
    server = await house(done)
    first = await ask(server, start("one", run_id="mine", command_id="c1"))
    again = await ask(server, start("one", run_id="mine", command_id="c2"))
    assert (again.status, again.run_id) == ("accepted", first.run_id)
    other = await ask(server, start("two", run_id="mine", command_id="c3"))
    assert other.code == "conflict"


@pytest.mark.asyncio
async def test_requests_that_cannot_be_met_are_refused(house: Open) -> None:
    server = await house(for_ever, limits=Limits(max_live_runs=1, max_input_bytes=8))
    assert (await ask(server, start("x", agent="nobody"))).code == "unknown_agent"
    assert (await ask(server, start("x" * 9))).code == "too_large"
    assert (await ask(server, start("x", limits=RunLimits(deadline_s=9)))).status == "accepted"
    full = await ask(server, start("y"))
    assert (full.code, full.retryable) == ("quota_exceeded", True)


# -- threads


@pytest.mark.asyncio
async def test_a_busy_thread_refuses_a_second_run(house: Open) -> None:
    server = await house(for_ever)
    run = await server.start(thread_id="t")
    command = start("two", thread_id="t")
    refused = await ask(server, command)
    assert (refused.code, refused.retryable) == ("busy", True)
    await server.send(run, RunCancel())
    await server.log(run)
    assert (await ask(server, command)).as_ == "started"


@pytest.mark.asyncio
async def test_queued_runs_follow_one_another(house: Open) -> None:
    async def body(port: Port) -> None:
        histories[str(port.start.input)] = [
            record.key for journal in await port.history() for record in journal if record.kind == "start"
        ]
        await go.wait()
        await port.end(port.start.input)

    histories: dict[str, list[str]] = {}
    go = asyncio.Event()
    server = await house(body)
    first = await server.start("1", thread_id="t")
    receipts = [await ask(server, start(str(n), thread_id="t", if_busy="queue")) for n in (2, 3)]
    assert [r.as_ for r in receipts] == ["queued", "queued"]
    second, third = (r.run_id for r in receipts)
    at = await server.attach(third)
    frame = at.attachment.frame("c")
    assert (frame.status, frame.queue_position) == ("queued", 2)
    go.set()
    events = await server.log(third)
    assert types(events) == ["run.started", "message.completed", "run.status", "run.status", "run.completed"]
    # Each continues the conversation of those before it.
    assert histories == {"1": [], "2": [first], "3": [first, second]}


@pytest.mark.asyncio
@pytest.mark.parametrize("way", ["crash", "shut"])
async def test_a_queue_goes_on_after_a_restart(house: Open, way: str) -> None:
    async def body(port: Port) -> None:
        if not first_life:
            await port.end(None)
            return
        await asyncio.Event().wait()

    first_life = True
    server = await house(body)
    await server.start("1", thread_id="t")
    queued = (await ask(server, start("2", thread_id="t", if_busy="queue"))).run_id
    await (server.crash() if way == "crash" else server.shut(grace_s=0))
    first_life = False
    await server.open()
    assert types(await server.log(queued))[-1] == "run.completed"


@pytest.mark.asyncio
async def test_a_queue_goes_on_when_the_server_died_between_an_end_and_the_next(house: Open, store: Store) -> None:
    async def body(port: Port) -> None:
        if port.start.input == "1":
            await go.wait()
        await port.end(None)

    go = asyncio.Event()
    server = await house(body)
    first = await server.start("1", thread_id="t")
    queued = (await ask(server, start("2", thread_id="t", if_busy="queue"))).run_id
    # The end is written, and nothing behind it.
    server.held.records = store.records
    server.registry._living.threads._records = _Broken()
    go.set()
    await server.log(first)
    await server.crash()
    await server.open()
    assert types(await server.log(queued))[-1] == "run.completed"


@pytest.mark.asyncio
async def test_a_queue_does_not_wait_for_a_run_that_was_never_made(house: Open, store: Store) -> None:
    """The server died between giving it the thread and making it."""
    server = await house(for_ever)
    first = await server.start("1", thread_id="t")
    queued = (await ask(server, start("2", thread_id="t", if_busy="queue"))).run_id
    await server.crash()
    await store.open()
    kind = f"thread.{namespace(ME.id)}"
    from midstream.runs.threads import Threads  # noqa: PLC0415

    await Threads(records=store.records, log=store.log).update(
        namespace(ME.id), "t", lambda thread: Thread(active="ghost", queue=thread.queue, runs=(first,))
    )
    assert await store.records.get(kind, "t") is not None
    await store.aclose()
    server.body = done
    await server.open()
    assert types(await server.log(queued))[-1] == "run.completed"


@pytest.mark.asyncio
async def test_a_run_that_is_being_made_keeps_its_thread(house: Open) -> None:
    """Its place is written, its log is not there yet: that is no reason to begin the next."""
    server = await house(for_ever)
    await server.start("1", thread_id="t")
    queued = (await ask(server, start("2", thread_id="t", if_busy="queue"))).run_id
    living, space = server.registry._living, namespace(ME.id)
    record = living.actors[f"{space}.{queued}"].start
    with living.threads.making.start(f"{space}.made_now"):
        await living.threads.update(space, "t", lambda thread: Thread(active="made_now", queue=thread.queue))
        await living._promote(record)
        assert await living.threads.get(space, "t") == Thread(active="made_now", queue=(queued,))
    await living._promote(record)
    assert (await living.threads.get(space, "t")).active == queued


@pytest.mark.asyncio
async def test_a_queued_run_can_be_cancelled(house: Open) -> None:
    server = await house(for_ever)
    await server.start("1", thread_id="t")
    queued = (await ask(server, start("2", thread_id="t", if_busy="queue"))).run_id
    third = (await ask(server, start("3", thread_id="t", if_busy="queue"))).run_id
    assert (await server.send(queued, RunCancel())).status == "accepted"
    assert types(await server.log(queued))[-1] == "run.cancelled"
    living = server.registry._living
    await soon(living.settled(f"{namespace(ME.id)}.{queued}"))
    while living._background:
        await soon(asyncio.wait(list(living._background)))
    frame = (await server.attach(third)).attachment.frame("c")
    assert frame.queue_position == 1
    assert len(server.ports) == 1


@pytest.mark.asyncio
async def test_parallel_runs_leave_the_thread_to_the_first(house: Open) -> None:
    server = await house(for_ever)
    await server.start("1", thread_id="t")
    parallel = await ask(server, start("2", thread_id="t", if_busy="parallel"))
    assert parallel.as_ == "started"
    assert (await ask(server, start("3", thread_id="t"))).code == "busy"


@pytest.mark.asyncio
async def test_two_starts_sent_one_after_the_other_do_not_both_take_a_thread(house: Open) -> None:
    """The second looks at the thread while the first is not made yet."""
    server = await house(for_ever)
    first, second = await asyncio.gather(
        *(ask(server, start(text, thread_id="t", if_busy="queue")) for text in ("1", "2"))
    )
    assert {first.as_, second.as_} == {"started", "queued"}


@pytest.mark.asyncio
async def test_a_start_may_correct_the_run_under_way(house: Open) -> None:
    async def body(port: Port) -> None:
        await port.record(step())
        await go.wait()
        taken = await port.corrections(step_id="s1", ending=True)
        await port.end([correction.text for correction in taken])

    go = asyncio.Event()
    server = await house(body)
    run = await server.start("1", thread_id="t")
    command = start("also this", thread_id="t", if_busy="correct")
    receipt = await ask(server, command)
    assert (receipt.status, receipt.run_id, receipt.as_) == ("accepted", run, "corrected")
    assert await ask(server, command) == receipt
    go.set()
    assert (await server.log(run))[-1].payload.result == ["also this"]
    # A client that sends everything again that it ever sent starts nothing.
    assert await ask(server, command) == receipt
    assert await listed(server) == [run]
    other = start("something else", thread_id="t", if_busy="correct", command_id=command.command_id)
    assert (await ask(server, other)).code == "conflict"


@pytest.mark.asyncio
async def test_a_correction_of_an_ended_run_may_start_another(house: Open) -> None:
    server = await house(done)
    run = await server.start("1")
    await server.log(run)
    refused = await server.send(run, RunCorrect(text="x"))
    assert refused.code == "run_ended"
    again = RunCorrect(text="and then?", if_ended="start")
    receipt = await server.send(run, again, command_id="k1")
    assert receipt.status == "accepted"
    assert receipt.run_id != run
    assert await server.send(run, again, command_id="k1") == receipt
    events = await server.log(receipt.run_id or "")
    assert events[1].payload.text == "and then?"
    assert events[0].payload.thread_id == (await server.log(run))[0].payload.thread_id


@pytest.mark.asyncio
async def test_history_is_the_thread_before_the_run(house: Open) -> None:
    async def body(port: Port) -> None:
        histories.append([r.key for journal in await port.history() for r in journal if r.kind == "start"])
        await speak(port)
        await port.end(None)

    histories: list[list[str]] = []
    server = await house(body)
    runs = []
    for n in range(3):
        run = await server.start(str(n), thread_id="t")
        await server.log(run)
        await server.registry._living.settled(f"{namespace(ME.id)}.{run}")
        runs.append(run)
    assert histories == [[], runs[:1], runs[:2]]


# -- lists


@pytest.mark.asyncio
async def test_lists_are_newest_first_and_paged(house: Open) -> None:
    server = await house(done)
    runs = []
    for n in range(7):
        await server.clock.advance(1)
        runs.append(await server.start(str(n), thread_id=f"t{n % 2}"))
        await server.log(runs[-1])
    assert await listed(server, limit=3) == runs[::-1]
    assert await listed(server, thread_id="t1") == [runs[n] for n in (5, 3, 1)]
    assert await listed(server, status="running") == []
    assert len(await listed(server, status="completed", limit=2)) == 7
    first, _ = await server.registry.list_runs(ME, limit=0)
    assert len(first) <= 1


class _Broken:
    def __getattr__(self, name: str) -> Any:
        async def fail(*_: Any, **__: Any) -> None:
            raise LogUnavailable("gone")

        return fail


# -- the pure part


def test_a_thread_is_a_queue() -> None:
    thread, place = decide_thread(Thread(), "a", if_busy="reject", active_ended=False)
    assert place.kind == "active"
    with pytest.raises(Busy):
        decide_thread(thread, "b", if_busy="reject", active_ended=False)
    thread, place = decide_thread(thread, "b", if_busy="queue", active_ended=False)
    assert (place.kind, place.previous) == ("queued", ("a",))
    thread, place = decide_thread(thread, "c", if_busy="queue", active_ended=False)
    assert place.previous == ("a", "b")
    # Asked again, the same place, with the same conversation before it.
    assert decide_thread(thread, "c", if_busy="queue", active_ended=False) == (thread, place)
    thread = ended(thread, "a")
    thread, first = promoted(thread)
    assert (first, thread.queue, thread.runs) == ("b", ("c",), ("a",))
    assert promoted(thread) == (thread, None)


@pytest.mark.asyncio
async def test_one_command_id_is_for_one_run(house: Open) -> None:
    server = await house(for_ever)
    first = (await ask(server, start(command_id="s1"))).run_id
    second = (await ask(server, start(command_id="s2"))).run_id
    there = Command(type="run.correct", command_id="k", run_id=first, payload=RunCorrect(text="left"))
    elsewhere = Command(type="run.correct", command_id="k", run_id=second, payload=RunCorrect(text="left"))
    receipt = await soon(server.registry.submit(ME, there, client_id=None))
    assert receipt.status == "accepted"
    assert (await soon(server.registry.submit(ME, elsewhere, client_id=None))).code == "conflict"
    assert await soon(server.registry.submit(ME, there, client_id=None)) == receipt


@pytest.mark.asyncio
async def test_a_run_that_is_being_made_is_not_woken(house: Open) -> None:
    """A command that comes between the write of a run and its actor waits for that actor, and makes no second one."""
    begun: list[bool] = []

    async def body(port: Port) -> None:
        begun.append(port.recovered)
        await for_ever(port)

    server = await house(body)
    making = server.registry._living.threads.making
    key = f"{namespace(ME.id)}.mine"
    with making.start(key):
        await ask(server, start(run_id="mine", command_id="s1"))
        actor = server.registry._living.actors.pop(key)
        command = Command(type="run.correct", command_id="k", run_id="mine", payload=RunCorrect(text="left"))
        waiting = asyncio.ensure_future(server.registry.submit(ME, command, client_id=None))
        for _ in range(50):
            await asyncio.sleep(0)
        assert not waiting.done()
        server.registry._living.actors[key] = actor
    assert (await soon(waiting)).status == "accepted"
    assert begun == [False]
