"""Everybody comes back at once, each with a cursor."""

import asyncio

import pytest

from midstream.tasks import spawn
from midstream.telemetry import exposed
from tests.gateway.conftest import House, Open
from tests.gateway.raw import RawPeer, raw_peer

pytestmark = pytest.mark.asyncio

CLIENTS = 300
SINCE = 10


def counted(line: str) -> float:
    found = [row.rpartition(" ")[2] for row in exposed().decode().splitlines() if row.startswith(line + " ")]
    return float(found[0]) if found else 0.0


async def returned(house: House, run_id: str, gate: asyncio.Event, others: list[RawPeer]) -> list[int]:
    async with raw_peer(house.server.url, receive_buffer=65_536) as peer:
        await peer.send("run.attach", {"since_seq": SINCE}, run_id=run_id)
        await peer.until("run.caught_up")
        others.append(peer)
        await gate.wait()
        await peer.until("run.completed")
        return peer.seqs


async def test_all_of_a_storm_are_caught_up_and_then_live(house: House) -> None:
    resumes = counted('midstream_resumes_total{transport="ws"}')
    caught_up: list[RawPeer] = []
    gate = asyncio.Event()
    async with house.peer() as owner:
        run_id = (await owner.ask("run.start", {"input": "say 40; gate a; say 5"}))["run_id"]
        await house.agents.gates["a"].reached.wait()
        clients = [spawn(returned(house, run_id, gate, caught_up), name="client") for _ in range(CLIENTS)]
        async with asyncio.timeout(60):
            while len(caught_up) < CLIENTS:
                await owner.ping()
        gate.set()
        house.agents.gates["a"].opened.set()
        head = len((await owner.until("run.completed")) and owner.events(run_id))
        for seqs in await asyncio.gather(*clients):
            assert seqs == list(range(SINCE + 1, head + 1))
    await house.empty()
    assert counted('midstream_resumes_total{transport="ws"}') == resumes + CLIENTS


async def test_closes_and_streams_left_are_counted(open_house: Open) -> None:
    house = await open_house()
    left, closed = (
        counted('midstream_abandoned_streams_total{transport="ws"}'),
        counted('midstream_closes_total{code="1000"}'),
    )
    async with house.peer() as peer:
        await peer.ask("run.start", {"input": "gate a"})
    await house.empty()
    assert counted('midstream_abandoned_streams_total{transport="ws"}') == left + 1
    assert counted('midstream_closes_total{code="1000"}') == closed + 1
    # Who is sent away abandons nothing.
    drained = counted('midstream_closes_total{code="4001"}')
    async with house.peer() as peer:
        await peer.ask("run.start", {"input": "gate a"})
        await house.gateway.close()
    assert counted('midstream_abandoned_streams_total{transport="ws"}') == left + 1
    assert counted('midstream_closes_total{code="4001"}') == drained + 1


async def test_what_is_live_is_timed_on_its_way_to_the_socket(house: House) -> None:
    seen = counted("midstream_delivery_seconds_count")
    async with house.peer() as peer:
        await peer.ask("run.start", {"input": "gate a; say 1"})
        await peer.until("run.caught_up")
        house.agents.gates["a"].opened.set()
        await peer.until("run.completed")
    assert counted("midstream_delivery_seconds_count") > seen
