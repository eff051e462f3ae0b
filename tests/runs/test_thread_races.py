"""Starts that race in one thread: one has it at a time, every receipt is true, and nothing that was taken is lost."""

import asyncio
from random import Random
from typing import Any

import pytest

from midstream.log import Reset, Store
from midstream.runs import CorrectionsPending, Port
from midstream.runs.threads import Threads
from midstream_protocol.commands import Command, RunCancel, RunStart
from midstream_protocol.frames import Receipt
from tests.runs.conftest import Open
from tests.runs.house import House, soon
from tests.runs.say import step
from tests.runs.simple import ME, start

POLICIES = ("reject", "queue", "correct", "parallel")

pytestmark = pytest.mark.asyncio


class Floor:
    """The program of these tests: it waits for `go`, takes what corrects it, and ends with what it heard."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.working: set[str] = set()
        self.begun: set[str] = set()
        self.most = 0

    async def __call__(self, port: Port) -> None:
        alone = not str(port.start.input).startswith("parallel")
        self.begun.add(port.start.run_id)
        if alone:
            self.working.add(port.start.run_id)
            self.most = max(self.most, len(self.working))
        try:
            await self.work(port)
        finally:
            self.working.discard(port.start.run_id)

    async def work(self, port: Port) -> None:
        heard: list[str] = []
        await self.go.wait()
        while True:
            step_id = port.new_id("step")
            await port.record(step(step_id=step_id))
            heard += [correction.text for correction in await port.corrections(step_id=step_id, ending=True)]
            await port.record(step("completed", step_id))
            self.working.discard(port.start.run_id)
            try:
                await port.end(heard)
            except CorrectionsPending:
                continue
            return


async def send(server: House, command: Command, *, turns: int = 0) -> Receipt:
    for _ in range(turns):
        await asyncio.sleep(0)
    receipt = await soon(server.registry.start(ME, command, client_id="north"))
    assert isinstance(receipt, Receipt)
    return receipt


async def settled(server: House, runs: set[str]) -> Any:
    """The thread once all of these have ended, and its record says so."""
    for run_id in runs:
        await server.log(run_id)
    while True:
        thread = await server.registry.thread(ME, "t")
        if thread.active is None and not thread.queue and runs <= set(thread.runs):
            return thread
        await asyncio.sleep(0)


def raced(seed: int) -> list[tuple[Command, int]]:
    random = Random(seed)
    policies = random.choices(POLICIES, k=random.randint(2, 5))
    return [
        (start(f"{policy} {n}", thread_id="t", if_busy=policy, command_id=f"c{n}"), random.randint(0, 30))
        for n, policy in enumerate(policies)
    ]


def policy_of(command: Command) -> str:
    assert isinstance(command.payload, RunStart)
    return str(command.payload.if_busy)


async def check(server: House, floor: Floor, told: list[tuple[Command, Receipt]]) -> None:
    """What the receipts say is what happened."""
    ways = {"reject": {"started"}, "queue": {"started", "queued"}, "correct": {"started", "corrected"}}
    runs: set[str] = set()
    for command, receipt in told:
        policy = policy_of(command)
        if receipt.status == "rejected":
            assert (policy, receipt.code) == ("reject", "busy")
            continue
        assert receipt.as_ in ways.get(policy, {"started"})
        assert receipt.thread_id == "t"
        assert receipt.run_id is not None
        if receipt.as_ != "corrected":
            runs.add(receipt.run_id)
    thread = await soon(settled(server, runs))
    assert sorted(thread.runs) == sorted(runs), "one run for each start that was taken as one"
    assert floor.begun == runs
    heard = {run_id: (await server.log(run_id))[-1].payload.result for run_id in runs}
    for command, receipt in told:
        if receipt.as_ == "corrected":
            assert receipt.run_id is not None
            assert isinstance(command.payload, RunStart)
            heard[receipt.run_id].remove(command.payload.input)
    assert not any(heard.values()), "every correction was used once"
    assert floor.most <= 1, "one at a time, but for those that asked to be parallel"


@pytest.mark.parametrize("seed", range(15))
async def test_while_nobody_ends_one_start_has_the_thread(house: Open, seed: int) -> None:
    floor = Floor()
    server = await house(floor)
    story = raced(seed)
    receipts = await asyncio.gather(*(send(server, command, turns=turns) for command, turns in story))
    told = list(zip([command for command, _ in story], receipts, strict=True))
    firsts = [c for c, r in told if r.as_ == "started" and policy_of(c) != "parallel"]
    parallel = [c for c, _ in told if policy_of(c) == "parallel"]
    assert len(firsts) == 1 or (not firsts and parallel)
    floor.go.set()
    await check(server, floor, told)


@pytest.mark.parametrize("seed", range(15))
async def test_starts_race_with_ends(house: Open, seed: int) -> None:
    floor = Floor()
    floor.go.set()
    server = await house(floor)
    story = raced(seed)
    receipts = await asyncio.gather(*(send(server, command, turns=turns) for command, turns in story))
    told = list(zip([command for command, _ in story], receipts, strict=True))
    await check(server, floor, told)
    # A client that sends everything again gets what it got, and nothing happens twice.
    again = [await send(server, command) for command, receipt in told if receipt.status == "accepted"]
    assert again == [receipt for _, receipt in told if receipt.status == "accepted"]
    await check(server, floor, told)


@pytest.mark.parametrize("seed", range(10))
async def test_starts_that_a_death_cut_off_are_sent_again(house: Open, seed: int) -> None:
    floor = Floor()
    server = await house(floor)
    story = raced(seed)
    cut_off = [asyncio.ensure_future(send(server, command, turns=turns)) for command, turns in story]
    for _ in range(10 + seed * 5):
        await asyncio.sleep(0)
    await server.crash()
    before = [task.result() if task.done() and not task.cancelled() else None for task in cut_off]
    floor.working.clear()
    await server.open()
    receipts = await asyncio.gather(*(send(server, command) for command, _ in story))
    for was, now in zip(before, receipts, strict=True):
        assert was is None or was.status == "rejected" or was == now
    floor.go.set()
    await check(server, floor, list(zip([command for command, _ in story], receipts, strict=True)))


# -- a correction that comes too late


async def test_a_correction_that_loses_against_the_end_is_a_start(house: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    floor = Floor()
    server = await house(floor)
    run = await server.start("first", thread_id="t")
    deciding = server.registry._correct_instead

    async def late(*args: Any, **named: Any) -> Receipt:
        floor.go.set()
        await server.log(run)
        return await deciding(*args, **named)

    monkeypatch.setattr(server.registry, "_correct_instead", late)
    command = start("also this", thread_id="t", if_busy="correct", command_id="k")
    receipt = await send(server, command)
    assert (receipt.status, receipt.as_) == ("accepted", "started")
    assert receipt.run_id != run
    monkeypatch.undo()
    assert await send(server, command) == receipt
    await server.log(str(receipt.run_id))
    assert await send(server, command) == receipt
    assert sorted((await soon(settled(server, {run, str(receipt.run_id)}))).runs) == sorted([run, receipt.run_id])


async def test_a_correction_that_loses_goes_to_the_run_that_has_the_thread_now(
    house: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    floor = Floor()
    server = await house(floor)
    first = await server.start("first", thread_id="t")
    deciding = server.registry._correct_instead
    second: list[str] = []

    async def late(*args: Any, **named: Any) -> Receipt:
        if not second:
            floor.go.set()
            await server.log(first)
            floor.go.clear()
            second.append(await server.start("second", thread_id="t"))
        return await deciding(*args, **named)

    monkeypatch.setattr(server.registry, "_correct_instead", late)
    command = start("also this", thread_id="t", if_busy="correct", command_id="k")
    receipt = await send(server, command)
    assert (receipt.as_, receipt.run_id) == ("corrected", second[0])
    assert await send(server, command) == receipt
    floor.go.set()
    assert (await server.log(second[0]))[-1].payload.result == ["also this"]


async def test_a_run_that_is_being_cancelled_keeps_its_thread_busy(house: Open) -> None:
    async def body(port: Port) -> None:
        if port.start.input != "first":
            await port.end(None)
            return
        try:
            await asyncio.Event().wait()
        finally:
            await gone.wait()

    gone = asyncio.Event()
    server = await house(body)
    run = await server.start("first", thread_id="t")
    assert (await server.send(run, RunCancel())).status == "accepted"
    command = start("also this", thread_id="t", if_busy="correct", command_id="k")
    refused = await send(server, command)
    assert (refused.code, refused.retryable) == ("busy", True)
    gone.set()
    await server.log(run)
    receipt = await send(server, command)
    assert receipt.as_ == "started"
    assert await send(server, command) == receipt
    await server.log(str(receipt.run_id))


async def test_a_start_queued_behind_a_run_that_just_ended_begins(house: Open) -> None:
    """The end is written, and the thread's record does not say so yet."""
    floor = Floor()
    server = await house(floor)
    first = await server.start("first", thread_id="t")
    living = server.registry._living
    update = living.threads.update
    hold = asyncio.Event()

    async def held(space: str, thread_id: str, change: Any) -> Any:
        if not hold.is_set() and asyncio.current_task().get_name().endswith("/end"):  # type: ignore[union-attr]
            await hold.wait()
        return await update(space, thread_id, change)

    living.threads.update = held  # type: ignore[method-assign]
    floor.go.set()
    await server.log(first)
    queued = await send(server, start("second", thread_id="t", if_busy="queue"))
    assert queued.as_ == "started"
    hold.set()
    thread = await soon(settled(server, {first, str(queued.run_id)}))
    assert thread.runs == (first, queued.run_id)


async def test_a_run_that_is_made_while_somebody_looks_keeps_its_thread(store: Store) -> None:
    """The look began before the run was there, and its answer comes when nobody makes it any more."""
    answered, asked = asyncio.Event(), asyncio.Event()

    class Late:
        async def read(self, run: str, *, after: int, max_events: int) -> Reset:
            del run, after, max_events
            asked.set()
            await answered.wait()
            return Reset(reason="gone", header=None)

    threads = Threads(records=store.records, log=Late())  # type: ignore[arg-type]
    with threads.making.start("ns.run"):
        looking = asyncio.ensure_future(threads.over("ns.run"))
        await soon(asked.wait())
    answered.set()
    assert await soon(looking) is False
    # One that nobody ever makes is over.
    assert await threads.over("ns.ghost") is True
