"""A connection that is too old is told, given a moment, and closed; its client goes on where it was."""

import json

import pytest
from websockets.exceptions import ConnectionClosed

from midstream.gateway.gateway import AGE_SPREAD, RETIRE_GRACE_S
from midstream.testing import ManualClock
from tests.gateway.conftest import Open, both_ways_out

pytestmark = pytest.mark.asyncio

way_out = both_ways_out()


async def test_an_old_connection_is_told_and_closed_and_its_client_goes_on(
    open_house: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("midstream.gateway.gateway.AGE_SPREAD", 0.0)
    clock = ManualClock()
    house = await open_house(clock=clock, max_connection_age_s=100.0)
    async with house.peer() as peer:
        run_id = (await peer.ask("run.start", {"input": "say 3; gate a; say 3"}))["run_id"]
        await house.agents.gates["a"].reached.wait()
        await clock.advance(99.9)
        await peer.ping()
        assert "connection.draining" not in peer.types()
        await clock.advance(0.2)
        told = await peer.by_now("connection.draining")
        # What its client has begun is answered.
        assert (await peer.ask("run.start", {"input": "say 1"}))["status"] == "accepted"
        await clock.advance(RETIRE_GRACE_S)
        with pytest.raises(ConnectionClosed) as closed:
            await peer.until("never")
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4001
    assert json.loads(closed.value.rcvd.reason) == told["payload"]
    seen = [json.loads(event)["seq"] for event in peer.events(run_id)]
    async with house.peer() as again:
        await again.send("run.attach", {"since_seq": seen[-1]}, run_id=run_id)
        house.agents.gates["a"].opened.set()
        await again.by_now("run.completed")
        rest = [json.loads(event)["seq"] for event in again.events(run_id)]
        assert seen + rest == list(range(1, len(seen + rest) + 1))


async def test_they_do_not_all_go_at_once(open_house: Open) -> None:
    clock = ManualClock()
    house = await open_house(clock=clock, max_connection_age_s=100.0)
    peers = [house.peer() for _ in range(20)]
    for each in peers:
        await each.__aenter__()
    await clock.advance(100 * (1 + AGE_SPREAD / 2))
    gone_early = 20 - house.gateway.connected
    told = sum(stay.cancel is not None for stay in house.gateway._clients.values())
    assert gone_early + told == 20
    await clock.advance(100 * AGE_SPREAD)
    await house.empty()
    # Half of them within half of the spread, give or take what chance may do once in a million times.
    assert 0 < gone_early < 20
    for each in peers:
        await each.__aexit__(None, None, None)


async def test_an_event_stream_ends_too_and_may_come_back(open_house: Open) -> None:
    clock = ManualClock()
    house = await open_house(clock=clock, max_connection_age_s=100.0)
    async with house.peer() as peer:
        run_id = (await peer.ask("run.start", {"input": "say 3; gate a"}))["run_id"]
        await house.agents.gates["a"].reached.wait()
    async with house.server.http.stream("GET", f"/v1/runs/{run_id}/events") as stream:
        chunks = stream.aiter_bytes()
        first = await anext(chunks)
        await clock.advance(100 * (1 + AGE_SPREAD) + RETIRE_GRACE_S + 0.1)
        rest = b"".join([chunk async for chunk in chunks])
    assert b"run.completed" not in first + rest
    assert house.gateway.connected == 0


async def test_who_leaves_before_leaves_no_timer(open_house: Open) -> None:
    clock = ManualClock()
    house = await open_house(clock=clock, max_connection_age_s=10_000.0)
    async with house.peer() as peer:
        await peer.ping()
    await house.empty()
    await clock.advance(700.0)
    assert not clock._callbacks
