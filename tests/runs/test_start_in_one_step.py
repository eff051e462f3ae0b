"""A start that nothing contradicts is one step of the store: all of it is written, or nothing."""

import asyncio
from typing import Any

import pytest

from midstream.log import LogUnavailable, RecordWrite, Store
from midstream.runs import Limits, Port, Principal, Registry
from midstream.runs.contract import StartRecord
from midstream.runs.keys import namespace
from midstream.runs.threads import Thread, Threads, ended
from midstream_protocol.commands import Command, ResumeFrom, RunCancel, RunStart
from midstream_protocol.frames import Receipt
from tests.runs.conftest import Open
from tests.runs.house import House, soon
from tests.runs.say import for_ever
from tests.runs.simple import ME, OneAgent, start

pytestmark = pytest.mark.asyncio

SPACE = namespace(ME.id)


class Counted:
    """Which calls reached the store."""

    def __init__(self, inner: Any, calls: list[str], name: str = "") -> None:
        self._inner = inner
        self._calls = calls
        self._name = name

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name in {"log", "records", "inbox", "leases"}:
            return Counted(found, self._calls, name)
        if not self._name:
            return found

        async def counted(*args: Any, **named: Any) -> Any:
            self._calls.append(f"{self._name}.{name}")
            return await found(*args, **named)

        return counted


async def done(port: Port) -> None:
    await port.end(None)


async def ask(server: House, command: Command, *, who: Principal = ME) -> Receipt:
    receipt = await soon(server.registry.start(who, command, client_id="north"))
    assert isinstance(receipt, Receipt)
    return receipt


async def counting(house: Open, body: Any, **options: Any) -> tuple[House, list[str]]:
    """A server whose calls of the store are counted from now on."""
    server = await house(body, **options)
    return server, count(server)


def count(server: House) -> list[str]:
    calls: list[str] = []
    registry = server.registry
    starter = registry._starter
    assert starter is not None
    counted: Any = Counted(server.held, calls)
    starter._store = counted
    starter._threads._records = counted.records
    starter._threads._log = counted.log
    return calls


async def passed_on(server: House) -> None:
    """The ends of all runs are written down in their threads."""
    living = server.registry._living
    while living.actors or living._background:  # noqa: ASYNC110 - nothing tells when
        await asyncio.sleep(0)


async def test_a_start_that_is_new_in_every_respect_is_one_call(house: Open, store: Store) -> None:
    server, calls = await counting(house, for_ever)
    receipt = await ask(server, start("one"))
    assert calls == ["log.create"]
    run_id, thread_id = receipt.run_id, receipt.thread_id
    thread = await server.registry._living.threads.get(SPACE, str(thread_id))
    assert thread == Thread(active=run_id)
    found, _ = await server.registry.list_runs(ME)
    assert [each.view.run_id for each in found] == [run_id]
    record = await store.records.get(f"thread.{SPACE}", str(thread_id))
    assert record is not None
    assert record.version == 1


async def test_the_next_start_of_a_known_thread_is_one_call_too(house: Open) -> None:
    server, calls = await counting(house, done)
    first = await ask(server, start("one"))
    await server.log(str(first.run_id))
    await soon(passed_on(server))
    calls.clear()
    second = await ask(server, start("two", thread_id=first.thread_id))
    assert [call for call in calls if call != "records.put"] == ["log.create"]
    assert second.as_ == "started"


async def test_a_thread_of_before_the_restart_is_read_once(house: Open) -> None:
    server = await house(done)
    first = await server.start("one", thread_id="t")
    await server.log(first)
    await server.shut()
    await server.open()
    calls = count(server)
    receipt = await ask(server, start("two", thread_id="t"))
    assert calls == ["records.get", "log.create"]
    assert (await server.log(str(receipt.run_id)))[-1].type == "run.completed"


async def test_an_id_of_the_clients_making_costs_one_look(house: Open, store: Store) -> None:
    server, calls = await counting(house, for_ever)
    receipt = await ask(server, start("one", run_id="mine", command_id="c1"))
    assert calls == ["log.read", "log.create"]
    assert receipt.run_id == "mine"
    # Written down with it, so that the command cannot start another.
    claim = await store.records.get(f"start.{SPACE}", "c1")
    assert claim is not None
    assert claim.data == f"{SPACE}.mine".encode()
    assert (await ask(server, start("one", run_id="other", command_id="c1"))).code == "conflict"
    assert (await ask(server, start("one", run_id="mine", command_id="c1"))) == receipt


async def test_a_second_command_that_finds_the_run_is_written_down_too(house: Open) -> None:
    server = await house(for_ever)
    await ask(server, start("one", run_id="mine", command_id="c1"))
    assert (await ask(server, start("one", run_id="mine", command_id="c2"))).status == "accepted"
    assert (await ask(server, start("one", run_id="other", command_id="c2"))).code == "conflict"


async def test_a_start_that_cannot_be_written_leaves_nothing_behind(house: Open, store: Store) -> None:
    server = await house(for_ever)
    server.held.broken = LogUnavailable("disk full")
    command = start("one", thread_id="t")
    assert (await ask(server, command)).code == "unavailable"
    assert await store.records.list(f"runs.{SPACE}") == ()
    assert await store.records.get(f"thread.{SPACE}", "t") is None
    server.held.broken = None
    assert (await ask(server, command)).status == "accepted"
    assert len(await store.records.list(f"runs.{SPACE}")) == 1


async def test_a_thread_that_another_server_changed_is_looked_at_again(house: Open, store: Store) -> None:
    server = await house(done)
    first = await server.start("one", thread_id="t")
    await server.log(first)
    await soon(passed_on(server))
    elsewhere = Threads(records=store.records, log=store.log)
    await elsewhere.update(SPACE, "t", lambda thread: ended(thread, "theirs"))
    await server.log(await server.start("two", thread_id="t"))
    await soon(passed_on(server))
    thread = await server.registry._living.threads.get(SPACE, "t")
    assert (len(thread.runs), thread.runs[:2], thread.active) == (3, (first, "theirs"), None)


async def test_a_busy_thread_that_is_remembered_wrongly_is_not_refused(house: Open, store: Store) -> None:
    """What this server remembers says busy, and another has freed it."""
    server = await house(for_ever)
    run = await server.start("one", thread_id="t")
    await Threads(records=store.records, log=store.log).update(SPACE, "t", lambda thread: ended(thread, run))
    assert (await ask(server, start("two", thread_id="t"))).as_ == "started"


async def test_starts_that_race_for_one_thread_are_written_once_each(house: Open, store: Store) -> None:
    server = await house(for_ever)
    receipts = await asyncio.gather(
        *(ask(server, start(f"{n}", thread_id="t", if_busy="queue", command_id=f"c{n}")) for n in range(8))
    )
    assert sorted(str(receipt.as_) for receipt in receipts) == ["queued"] * 7 + ["started"]
    assert len(await store.records.list(f"runs.{SPACE}")) == 8
    thread = await server.registry._living.threads.find(SPACE, "t")
    assert thread is not None
    assert {thread.active, *thread.queue} == {receipt.run_id for receipt in receipts}


async def test_the_first_events_need_not_be_read_back(house: Open) -> None:
    server = await house(for_ever)
    run = await server.start("one")
    server.held.broken_reads = LogUnavailable("nothing may be read")
    reader = await server.attach(run)
    await reader.pull()
    assert [event.type for event in reader.events[:2]] == ["run.started", "message.completed"]
    reader.close()


# -- what is written with a run


async def test_records_are_made_with_the_run(store: Store, clock: Any) -> None:
    told: list[tuple[str, StartRecord]] = []

    def on_create(run: str, record: StartRecord) -> list[RecordWrite]:
        told.append((run, record))
        return [RecordWrite(kind="webhook", id=run, data=record.agent.encode())]

    agents = OneAgent(for_ever)
    registry = Registry(store=store, agents=agents, limits=Limits(), clock=clock, on_create=on_create)
    await registry.open()
    receipt = await registry.start(ME, start("one"), client_id="north")
    run = f"{SPACE}.{receipt.run_id}"
    assert [(key, record.run_id) for key, record in told] == [(run, receipt.run_id)]
    found = await store.records.get("webhook", run)
    assert found is not None
    assert found.data == agents.default.encode()
    await registry.drain(0)
    await registry.aclose()


# -- how many


async def test_one_user_has_so_many_runs_at_once_and_others_theirs(house: Open) -> None:
    server = await house(for_ever, limits=Limits(max_runs_per_user=2))
    first = start("one")
    receipts = await asyncio.gather(ask(server, first), *(ask(server, start(f"{n}")) for n in range(4)))
    refused = [receipt for receipt in receipts if receipt.status == "rejected"]
    assert len(refused) == 3
    assert {(receipt.code, receipt.retryable) for receipt in refused} == {("quota_exceeded", True)}
    assert "you have 2 runs under way" in str(refused[0].text)
    assert "cancel one" in str(refused[0].text)
    # The same start again is no further run.
    assert await ask(server, first) == receipts[0]
    other = Principal(id="bob", name="Bob")
    assert (await ask(server, start("theirs"), who=other)).status == "accepted"
    running = [str(receipt.run_id) for receipt in receipts if receipt.status == "accepted"]
    await server.send(running[0], RunCancel())
    await server.log(running[0])
    await soon(server.registry._living.settled(f"{SPACE}.{running[0]}"))
    assert (await ask(server, start("another"))).status == "accepted"
    assert (await ask(server, start("one more"))).code == "quota_exceeded"


async def test_runs_that_are_being_made_count(house: Open) -> None:
    server = await house(for_ever, limits=Limits(max_live_runs=3))
    receipts = await asyncio.gather(*(ask(server, start(f"{n}")) for n in range(10)))
    assert sum(receipt.status == "accepted" for receipt in receipts) == 3


async def test_counts_go_with_their_runs(house: Open) -> None:
    server = await house(done, limits=Limits(max_runs_per_user=1))
    for n in range(5):
        run = await server.start(f"{n}")
        await server.log(run)
        await soon(passed_on(server))
    assert not server.registry._living.live_of


async def test_a_run_that_resumes_another_finds_its_thread(house: Open) -> None:
    server = await house(for_ever)
    first = await ask(server, start("one"))
    await server.send(str(first.run_id), RunCancel())
    await server.log(str(first.run_id))
    await soon(passed_on(server))
    ask_again = RunStart(resume=ResumeFrom(run_id=str(first.run_id)))
    second = await ask(server, Command(type="run.start", command_id="again", payload=ask_again))
    assert (second.status, second.thread_id) == ("accepted", first.thread_id)
    thread = await server.registry._living.threads.get(SPACE, str(first.thread_id))
    assert (thread.active, thread.runs) == (second.run_id, (first.run_id,))
