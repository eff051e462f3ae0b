"""A run that has ended can be erased, and then nothing of it is left anywhere."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest

from midstream.log import LogUnavailable, SqliteStore
from midstream.runs import Port, Principal
from midstream.runs.keys import namespace
from midstream.runs.subscription import SubscriptionLost
from midstream.runs.threads import Thread, Title, forgotten
from midstream.testing import ManualClock
from midstream_protocol.commands import RunCancel, RunCorrect
from midstream_protocol.errors import NotFound, RunActive, Unavailable
from midstream_protocol.frames import Receipt
from tests.runs.conftest import Open
from tests.runs.house import House, soon, types
from tests.runs.say import for_ever, speak
from tests.runs.simple import ME, start

CANARY = "canary-7f3a"


async def says(port: Port) -> None:
    if port.start.input == "wait":
        await for_ever(port)
    for n in range(20):
        await speak(port, f"{CANARY}-{n}" * 50, message_id=f"m{n}")
    await port.claim_title(f"About {CANARY}")
    await port.end(CANARY)


def found(folder: Path) -> int:
    """How often the canary stands in the store's files."""
    return sum(file.read_bytes().count(CANARY.encode()) for file in folder.iterdir())


async def over(server: House, text: str = CANARY, **fields: object) -> str:
    run = await server.start(text, **fields)
    await server.log(run)
    return run


async def listed(server: House) -> list[str]:
    found, _ = await server.registry.list_runs(ME)
    return [each.view.run_id for each in found]


@pytest.mark.asyncio
async def test_it_is_as_if_it_had_never_been(house: Open) -> None:
    server = await house(says)
    first = await over(server, thread_id="t", run_id="r1")
    second = await over(server, thread_id="t", run_id="r2")
    assert (await server.send(first, RunCancel())).code == "run_ended"
    await server.registry.delete(ME, first)
    for asking in (
        server.registry.view(ME, first),
        server.registry.attach(ME, first, wake=lambda: None),
        server.registry.delete(ME, first),
    ):
        with pytest.raises(NotFound):
            await asking
    assert (await server.send(first, RunCancel())).code == "not_found"
    assert await listed(server) == [second]
    thread = await server.registry.thread(ME, "t")
    assert (thread.runs, thread.head, thread.title) == ((second,), second, None)
    third = await over(server, thread_id="t")
    assert (await server.registry.thread(ME, "t")).runs == (second, third)
    # Its id is free again.
    assert await over(server, text="anew", run_id="r1") == "r1"


@pytest.mark.asyncio
async def test_a_thread_without_runs_is_gone(house: Open) -> None:
    server = await house(says)
    await server.registry.delete(ME, await over(server, thread_id="t"))
    with pytest.raises(NotFound):
        await server.registry.thread(ME, "t")
    assert await listed(server) == []


@pytest.mark.asyncio
async def test_a_run_that_has_not_ended_is_not_erased(house: Open) -> None:
    server = await house(says)
    run = await server.start("wait")
    with pytest.raises(RunActive):
        await soon(server.registry.delete(ME, run))
    with pytest.raises(NotFound):
        await server.registry.delete(Principal(id="other", name="other"), run)
    await server.send(run, RunCancel())
    await server.log(run)
    await server.registry.delete(ME, run)


@pytest.mark.asyncio
async def test_nothing_of_it_is_left_in_the_file(tmp_path: Path, clock: ManualClock) -> None:
    path = tmp_path / "log.db"
    server = await House(SqliteStore(path, clock=clock), says, clock=clock).open()
    kept = await over(server, text="another", run_id="kept", thread_id="kept-thread")
    run = await over(server, run_id=f"run-{CANARY}", thread_id=f"thread-{CANARY}")
    await server.send(run, RunCancel(), command_id=f"late-{CANARY}")
    await server.send(run, RunCorrect(text=CANARY), command_id=f"late2-{CANARY}")
    await server.store.records.put("webhook", f"{namespace(ME.id)}.{run}", CANARY.encode())
    assert found(tmp_path) > 100
    await server.registry.delete(ME, kept)
    await server.registry.delete(ME, run)
    await server.aclose()
    assert found(tmp_path) == 0


@pytest.mark.asyncio
async def test_the_file_shrinks(tmp_path: Path, clock: ManualClock) -> None:
    async def body(port: Port) -> None:
        for n in range(200):
            await speak(port, "x" * 20_000, message_id=f"m{n}")
        await port.end(None)

    path = tmp_path / "log.db"
    server = await House(SqliteStore(path, clock=clock), body, clock=clock).open()
    run = await over(server)
    await server.shut()
    full = path.stat().st_size
    await server.open()
    await server.registry.delete(ME, run)
    shrinking = server.registry._erasing._shrinking
    assert shrinking is not None
    while not shrinking.done():
        await server.clock.advance(1)
    await server.aclose()
    assert full > 4_000_000
    assert path.stat().st_size < full / 10


@pytest.mark.asyncio
async def test_who_reads_it_is_told_that_it_is_gone(house: Open) -> None:
    server = await house(says)
    run = await server.start()
    # Slow, so that all of it is in memory still.
    reader = await server.attach(run, since_seq=2)
    await server.log(run)
    told = asyncio.Event()
    waiting = (await server.registry.attach(ME, run, wake=told.set)).subscription
    await server.registry.delete(ME, run)
    assert told.is_set()
    for subscription in (reader.attachment.subscription, waiting):
        with pytest.raises(SubscriptionLost) as lost:
            await subscription.pull()
        assert lost.value.reset.reason == "gone"
        subscription.close()


@pytest.mark.asyncio
async def test_asked_twice_at_once_it_is_erased_once(house: Open) -> None:
    server = await house(says)
    run = await over(server)
    await asyncio.gather(*(server.registry.delete(ME, run) for _ in range(3)))
    assert await listed(server) == []


@pytest.mark.asyncio
async def test_it_is_erased_right_at_its_end(house: Open) -> None:
    """Its actor still passes the end on; nothing of that may come after the erasing."""
    server = await house(says)
    run = await server.start(thread_id="t")
    reader = await server.attach(run)
    await reader.until("run.completed")
    await soon(server.registry.delete(ME, run))
    for _ in range(50):
        await asyncio.sleep(0)
    with pytest.raises(NotFound):
        await server.registry.thread(ME, "t")


@pytest.mark.parametrize("cut", range(8))
@pytest.mark.asyncio
async def test_an_erasing_that_was_cut_off_is_finished_at_the_next_start(house: Open, cut: int) -> None:
    server = await house(says)
    run = await over(server, thread_id="t", run_id="r1")
    await server.send(run, RunCancel(), command_id="late")
    records = server.store.records
    calls = 0

    async def dies(kind: str, id: str, **named: object) -> bool:  # noqa: A002 - the contract's word
        nonlocal calls
        calls += 1
        if calls > cut:
            raise LogUnavailable("the disk is gone")
        return await type(records).delete(records, kind, id, **named)

    records.delete = dies  # type: ignore[method-assign]
    with contextlib.suppress(Unavailable):
        await server.registry.delete(ME, run)
    del records.delete
    await server.crash()
    await server.open()
    space = namespace(ME.id)
    kinds = ["erasing", "ended", "compacted", "webhook", f"late.{space}.r1", f"thread.{space}", f"runs.{space}"]
    left = {kind: [record.id for record in await records.list(kind)] for kind in (*kinds, f"start.{space}")}
    assert left == {kind: [] for kind in left}
    assert await server.store.log.load(f"{space}.r1") is None


@pytest.mark.asyncio
async def test_a_command_that_comes_while_it_is_erased_leaves_nothing(house: Open) -> None:
    server = await house(says)
    run = await over(server)
    commands = [server.send(run, RunCancel(), command_id=f"k{n}") for n in range(5)]
    deleting = asyncio.ensure_future(server.registry.delete(ME, run))
    receipts = await asyncio.gather(*commands)
    await deleting
    assert {receipt.code for receipt in receipts} <= {"run_ended", "not_found", "unavailable"}
    assert not await server.store.records.list(f"late.{namespace(ME.id)}.{run}")


@pytest.mark.asyncio
async def test_a_refusal_that_is_remembered_after_the_erasing_is_forgotten(house: Open) -> None:
    server = await house(says)
    run = await over(server)
    late = server.registry._late
    keep = late.keep

    async def slow(*named: Any) -> Receipt:
        await server.registry.delete(ME, run)
        return await keep(*named)

    late.keep = slow  # type: ignore[method-assign]
    assert (await server.send(run, RunCancel())).code == "not_found"
    assert not await server.store.records.list(f"late.{namespace(ME.id)}.{run}")


@pytest.mark.asyncio
async def test_a_start_that_is_sent_again_afterwards_is_a_new_one(house: Open) -> None:
    server = await house(says)
    first = await server.registry.start(ME, start(command_id="k"), client_id="n")
    await server.log(str(first.run_id))
    assert (await server.registry.start(ME, start(command_id="k"), client_id="n")) == first
    await server.registry.delete(ME, str(first.run_id))
    again = await server.registry.start(ME, start(command_id="k"), client_id="n")
    assert again == first
    assert types(await server.log(str(again.run_id)))[-1] == "run.completed"


def test_a_thread_without_one_of_its_runs() -> None:
    thread = Thread(active="d", queue=("e",), head="c", runs=("a", "b", "c"), title=Title(text="x", run_id="b"))
    assert forgotten(thread, "b") == Thread(active="d", queue=("e",), head="c", runs=("a", "c"))
    assert forgotten(thread, "c") == Thread(active="d", queue=("e",), head="b", runs=("a", "b"), title=thread.title)
    assert forgotten(thread, "d").active is None
    assert forgotten(Thread(head="a", runs=("a",)), "a") == Thread()
