"""Peers that misbehave below the protocol: dead, silent, slow to the byte, gone with a reset."""

import asyncio
from typing import Any

import pytest

from midstream.gateway.outlets import BATCH_BYTES
from midstream.gateway.uvicorn_ws import WRITE_BUFFER_BYTES
from tests.gateway.conftest import House, Open
from tests.gateway.raw import raw_peer

pytestmark = pytest.mark.asyncio


def connections(house: House) -> list[Any]:
    return list(house.server.server.server_state.connections)


async def none_left(house: House) -> None:
    await house.empty()
    async with asyncio.timeout(5):
        await asyncio.gather(*house.server.server.server_state.tasks)
    assert connections(house) == []


async def test_a_peer_that_answers_no_ping_is_found_though_nothing_is_sent(open_house: Open) -> None:
    house = await open_house(ping_interval_s=0.1, ping_timeout_s=0.1)
    # It reads nothing and answers nothing: a cable that was cut.
    async with raw_peer(house.server.url):
        assert house.gateway.connected == 1
        await none_left(house)


async def test_a_dead_peer_with_a_full_buffer_is_dropped_and_not_waited_for(open_house: Open) -> None:
    house = await open_house(ping_interval_s=0.2, ping_timeout_s=0.2, send_timeout_s=600.0)
    async with house.peer() as owner, raw_peer(house.server.url) as raw:
        run_id = (await owner.ask("run.start", {"input": "gate go; say 2000 4000"}))["run_id"]
        await raw.send("run.attach", {}, run_id=run_id)
        await raw.until("run.caught_up")
        house.agents.gates["go"].opened.set()
        await owner.until("run.completed")
        async with asyncio.timeout(5):
            while house.gateway.connected > 1 or len(connections(house)) > 1:
                await owner.ping()


async def test_pings_do_not_kill_a_reader_that_is_slow(house: House) -> None:
    async with raw_peer(house.server.url):
        (protocol,) = connections(house)
        left = [1000, 900, 900]
        protocol.unsent = lambda: left[0]
        protocol.send_keepalive_ping()
        protocol.pong_timer.cancel()
        # Its pong waits behind what it is taking.
        left.pop(0)
        protocol.keepalive_timeout()
        assert not protocol.transport.is_closing()
        protocol.pong_timer.cancel()
        left.pop(0)
        protocol.keepalive_timeout()
        assert protocol.transport.is_closing()
        await none_left(house)


async def test_a_reset_in_the_middle_of_a_stream_costs_nobody_anything(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    async with house.peer() as owner:
        run_id = (await owner.ask("run.start", {"input": "gate go; say 400 2000"}))["run_id"]
        for _ in range(5):
            async with raw_peer(house.server.url) as raw:
                await raw.send("run.attach", {}, run_id=run_id)
                await raw.until("run.caught_up")
                raw.reset()
        async with raw_peer(house.server.url) as raw:
            await raw.send("run.attach", {}, run_id=run_id)
            house.agents.gates["go"].opened.set()
            await raw.until("message.delta", size=100)
            raw.reset()
        await owner.by_now("run.completed")
        async with asyncio.timeout(5):
            while house.gateway.connected > 1:
                await owner.ping()
    assert caplog.records == []


async def test_a_byte_at_a_time_brings_everything_and_holds_nobody_up(open_house: Open) -> None:
    house = await open_house(send_timeout_s=5.0)
    async with house.peer() as owner, raw_peer(house.server.url) as raw:
        run_id = (await owner.ask("run.start", {"input": "gate go; say 30"}))["run_id"]
        await raw.send("run.attach", {}, run_id=run_id)
        house.agents.gates["go"].opened.set()
        await owner.until("run.completed")
        await raw.until("run.completed", size=1)
        assert raw.seqs == list(range(1, len(raw.seqs) + 1))


async def test_many_that_read_nothing_cost_a_bounded_amount_and_the_others_nothing(open_house: Open) -> None:
    count = 40
    house = await open_house(send_timeout_s=600.0)
    async with house.peer() as owner:
        run_id = (await owner.ask("run.start", {"input": "gate go; say 3000 1000"}))["run_id"]
        peers = [raw_peer(house.server.url) for _ in range(count)]
        for each in peers:
            raw = await each.__aenter__()
            await raw.send("run.attach", {}, run_id=run_id)
            await raw.until("run.caught_up")
        house.agents.gates["go"].opened.set()
        await owner.until("run.completed")
        held = [protocol.transport.get_write_buffer_size() for protocol in connections(house)]
        assert max(held) <= WRITE_BUFFER_BYTES + BATCH_BYTES + 8192
        # No task works for any of them.
        working = [task.get_name() for task in asyncio.all_tasks() if task.get_name().endswith("/log")]
        assert working == []
        for each in peers:
            await each.__aexit__(None, None, None)


async def test_a_peer_that_says_good_bye_and_does_not_read_is_dropped(
    open_house: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("midstream.gateway.uvicorn_ws.CLOSE_TIMEOUT_S", 0.1)
    house = await open_house(send_timeout_s=600.0)
    async with house.peer() as owner, raw_peer(house.server.url) as raw:
        run_id = (await owner.ask("run.start", {"input": "gate go; say 2000 4000"}))["run_id"]
        await raw.send("run.attach", {}, run_id=run_id)
        await raw.until("run.caught_up")
        house.agents.gates["go"].opened.set()
        await owner.until("run.completed")
        await raw.close()
        async with asyncio.timeout(5):
            while len(connections(house)) > 1:
                await owner.ping()
