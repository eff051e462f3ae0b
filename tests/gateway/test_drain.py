"""A server that goes: clients are told, commands still taken, and sockets closed with when to come back."""

import json

import pytest
from websockets.exceptions import ConnectionClosed

from midstream.log import MemoryStore
from midstream.tasks import spawn
from tests.gateway.conftest import House, Open, both_ways_out

pytestmark = pytest.mark.asyncio

way_out = both_ways_out()


async def test_draining_is_announced_and_closes_with_4001(house: House) -> None:
    async with house.peer() as peer, house.peer() as idle:
        run_id = (await peer.ask("run.start", {"input": "say 3; gate a; say 3"}))["run_id"]
        await house.agents.gates["a"].reached.wait()
        house.gateway.announce_drain()
        told = (await peer.until("connection.draining"))["payload"]["reconnect_in_s"]
        assert 0 < told < 10
        # Commands are taken until the close.
        await peer.ask("run.correct", {"text": "shorter"}, run_id=run_id)
        async with house.peer() as late:
            assert (await late.receive())["type"] == "connection.draining"
        ready = await house.server.http.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["reasons"] == ["draining"]
        closing = spawn(house.gateway.close(), name="close")
        for each in (peer, idle):
            with pytest.raises(ConnectionClosed) as closed:
                await each.until("never")
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 4001
            assert json.loads(closed.value.rcvd.reason)["reconnect_in_s"] > 0
        await closing
    assert json.loads(closed.value.rcvd.reason)["reconnect_in_s"] != told


async def test_new_runs_are_refused_for_now_while_draining(house: House) -> None:
    async with house.peer() as peer:
        await house.registry.drain(0)
        receipt = await peer.ask("run.start", {"input": "say 1"})
        assert (receipt["status"], receipt["code"], receipt["retryable"]) == ("rejected", "draining", True)
    answer = await house.server.http.post("/v1/runs", json={"input": "say 1"})
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "draining"
    assert answer.headers["retry-after"]


async def test_an_event_stream_ends_with_the_drain(house: House) -> None:
    async with house.peer() as peer:
        run_id = (await peer.ask("run.start", {"input": "say 3; gate a"}))["run_id"]
        await house.agents.gates["a"].reached.wait()
        async with house.server.http.stream("GET", f"/v1/runs/{run_id}/events") as stream:
            chunks = stream.aiter_bytes()
            first = await anext(chunks)
            assert first.startswith(b"retry: ")
            await house.drain()
            rest = b"".join([chunk async for chunk in chunks])
    # Ended cleanly and without the terminal event: there is more, from the cursor on.
    assert b"run.completed" not in first + rest


async def test_a_run_goes_on_after_the_next_start_with_the_same_bytes(open_house: Open) -> None:
    store = MemoryStore()
    first = await open_house(store=store)
    async with first.peer() as peer:
        run_id = (await peer.ask("run.start", {"input": "ask"}))["run_id"]
        await peer.by_now("input.required")
        await first.drain()
        with pytest.raises(ConnectionClosed):
            await peer.until("never")
        before = peer.events(run_id)
    second = await open_house(store=store)
    async with second.peer() as again:
        await again.send("run.attach", {}, run_id=run_id)
        await again.until("run.caught_up")
        assert again.events(run_id)[: len(before)] == before
        receipt = await again.ask("input.respond", {"input_id": "input_1", "answer": "yes"}, run_id=run_id)
        assert receipt["status"] == "accepted"
        await again.by_now("run.completed")
