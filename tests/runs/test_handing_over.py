"""Going down in order: turns reach a safe point, nobody waits for people, and what is new is left to the next."""

import asyncio
from typing import Any

import pytest

from midstream.log import LogUnavailable
from midstream.runs import Port, Stopping
from midstream.runs.keys import namespace
from midstream.runs.mailbox import Mailbox
from midstream_protocol.commands import (
    Command,
    InputRespond,
    RunCancel,
    RunCorrect,
)
from midstream_protocol.errors import ProtocolError
from tests.runs.conftest import Open
from tests.runs.house import soon, types
from tests.runs.say import (
    completed,
    delta,
    for_ever,
    message,
    question,
    started,
    step,
)
from tests.runs.simple import ME, start

pytestmark = pytest.mark.asyncio


async def test_drain_lets_a_turn_reach_its_safe_point(house: Open) -> None:
    async def body(port: Port) -> None:
        if port.recovered:
            await port.end("continued")
            return
        await port.emit(message())
        await go.wait()
        await port.emit(delta("hi"))
        await port.record(said_hi())
        with pytest.raises(Stopping):
            port.check()
        raise Stopping

    def said_hi() -> Any:
        from tests.runs.say import said  # noqa: PLC0415

        return said("hi")

    go = asyncio.Event()
    server = await house(body)
    run = await server.start()
    await (await server.attach(run)).until("message.started")
    draining = asyncio.ensure_future(server.shut())
    await asyncio.sleep(0)
    refused = await server.registry.start(ME, start("x"), client_id="n")
    assert (refused.code, refused.retryable) == ("draining", True)
    go.set()
    await soon(draining)
    await server.open()
    events = await server.log(run)
    assert types(events)[2:] == [
        "message.started",
        "message.delta",
        "message.completed",
        "run.status",
        "run.completed",
    ]
    assert (events[-2].payload.status, events[-2].payload.phase) == ("running", "working")


@pytest.mark.parametrize("asking", ["asked", "asks then"])
async def test_drain_does_not_wait_for_people(house: Open, asking: str) -> None:
    """Neither for those who were asked, nor for those who are asked while it goes down."""

    async def body(port: Port) -> None:
        if asking == "asks then" and not port.recovered:
            await port.record(step())
            await go.wait()
        answer = await port.ask(question(port))
        await port.end(answer.value)

    go = asyncio.Event()
    server = await house(body)
    run = await server.start()
    await (await server.attach(run)).until("run.status" if asking == "asked" else "run.step")
    shutting = asyncio.ensure_future(server.shut(grace_s=1000))
    await asyncio.sleep(0)
    go.set()
    await soon(shutting)
    await server.open()
    assert (await server.send(run, InputRespond(input_id="i1", answer="x"))).status == "accepted"
    assert (await server.log(run))[-1].payload.result == "x"


async def test_drain_kills_what_does_not_reach_a_safe_point(house: Open) -> None:
    async def body(port: Port) -> None:
        if port.recovered:
            call = port.call("t1")
            await port.end(call.state if call is not None else None)
        await port.record(started(port))
        try:
            await asyncio.Event().wait()
        finally:
            # What a killed program says is not written: nobody knows whether it is so.
            port.post(completed())

    server = await house(body)
    run = await server.start()
    await (await server.attach(run)).until("tool.started")
    await server.shut(grace_s=0)
    await server.open()
    events = await server.log(run)
    assert events[-1].payload.result == "running"
    assert "tool.completed" not in types(events)
    assert types(events).count("recovery.started") == 1


async def test_a_run_that_is_started_or_woken_while_the_server_goes_down_is_left_to_the_next(house: Open) -> None:
    async def body(port: Port) -> None:
        if ending:
            await port.end("next")
            return
        await (port.ask(question(port)) if port.start.input == "hello" else asyncio.Event().wait())

    ending = False
    server = await house(body)
    run = await server.start()
    await (await server.attach(run)).until("run.status")
    await server.crash()
    await server.open()
    before = asyncio.all_tasks()
    command = start("late")
    racing = [
        asyncio.ensure_future(server.registry.start(ME, command, client_id="n")),
        asyncio.ensure_future(server.send(run, RunCorrect(text="x"), command_id="k1")),
    ]
    await asyncio.sleep(0)
    await server.registry.drain(0)
    started_, sent = await asyncio.gather(*racing)
    assert server.registry.live_runs == 0
    await server.registry.aclose()
    server._next_life()
    await asyncio.sleep(0)
    assert not {t.get_name() for t in asyncio.all_tasks() - before if not t.done()} - {"Task"}
    ending = True
    await server.open()
    again = await server.registry.start(ME, command, client_id="n")
    assert again.status == "accepted"
    if started_.status == "accepted":
        assert again == started_
    assert types(await server.log(again.run_id or ""))[-1] == "run.completed"
    resent = await server.send(run, RunCorrect(text="x"), command_id="k1")
    assert resent.status == "accepted"
    assert sent.status == "rejected" or sent == resent


async def test_an_offer_to_a_run_that_is_being_handed_over_is_not_told_that_it_ended(
    house: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = asyncio.Event()

    async def body(port: Port) -> None:
        await port.record(step())
        while not ends.is_set():
            try:
                await ends.wait()
            except asyncio.CancelledError:
                continue

    server = await house(body)
    run = await server.start()
    await (await server.attach(run)).until("run.step")
    closed, close = asyncio.Event(), Mailbox.close

    def closing(mailbox: Mailbox, reason: Exception | None = None) -> None:
        close(mailbox, reason)
        closed.set()

    monkeypatch.setattr(Mailbox, "close", closing)
    draining = asyncio.ensure_future(server.registry.drain(0))
    await soon(closed.wait())
    with pytest.raises(ProtocolError) as refused:
        await server.registry.offer(ME, run, client_id="south", tools=[])
    assert refused.value.code == "draining"
    ends.set()
    await soon(draining)


async def test_a_drain_leaves_no_run_that_is_tried_again(house: Open) -> None:
    server = await house(for_ever)
    run = await server.start()
    server.held.broken = LogUnavailable("disk full")
    assert (await server.send(run, RunCorrect(text="x"))).code == "unavailable"
    await server.registry._living.settled(f"{namespace(ME.id)}.{run}")
    assert [t for t in asyncio.all_tasks() if t.get_name().endswith("/retry")]
    await soon(server.registry.drain(1000))
    assert not [t for t in asyncio.all_tasks() if t.get_name().startswith("run:")]


async def test_an_offer_to_a_server_that_goes_down_says_so(house: Open) -> None:
    server = await house(for_ever)
    run = await server.start()
    await server.registry.drain(0)
    with pytest.raises(ProtocolError) as refused:
        await server.registry.offer(ME, run, client_id="south", tools=[])
    assert refused.value.code == "draining"
    sent = Command(type="run.cancel", command_id="k1", run_id=run, payload=RunCancel())
    assert (await server.registry.submit(ME, sent, client_id=None)).code == "draining"
