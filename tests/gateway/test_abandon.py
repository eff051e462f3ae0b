"""Runs whose client leaves, over a real WebSocket: `on_abandon` and `on_lag` as a client asks for them."""

import asyncio
from typing import Any

import pytest

from midstream.gateway.auth import LOCAL
from midstream.runs import Limits
from tests.gateway.conftest import House, Open

pytestmark = pytest.mark.asyncio


async def ended(house: House, run_id: str) -> str:
    async with asyncio.timeout(10):
        while (view := await house.registry.view(LOCAL, run_id)).status in ("running", "waiting"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return view.status


async def test_a_run_is_cancelled_when_its_last_client_is_gone_for_so_long(house: House) -> None:
    async with house.peer() as peer:
        ask = {"input": "say 1; gate never", "on_abandon": {"cancel_after_s": 0.2}}
        run_id = (await peer.ask("run.start", ask))["run_id"]
        await peer.until("message.delta")
        # Longer than it may be alone: somebody is there.
        await asyncio.sleep(0.3)
        assert (await house.registry.view(LOCAL, run_id)).status == "running"
    assert await ended(house, run_id) == "cancelled"
    async with house.peer() as peer:
        await peer.send("run.attach", {}, run_id=run_id)
        end = await peer.until("run.cancelled")
    assert (end["payload"]["by"], end["payload"]["reason"]) == ("system", "abandoned")
    assert not house.agents.gates["never"].opened.is_set()


@pytest.mark.parametrize("wish", [{}, {"on_abandon": "continue"}])
async def test_a_run_goes_on_without_its_client(house: House, wish: Any) -> None:
    async with house.peer() as peer:
        run_id = (await peer.ask("run.start", {"input": "gate go; turn; say 2", **wish}))["run_id"]
        await house.agents.gates["go"].reached.wait()
    await house.empty()
    house.agents.gates["go"].opened.set()
    assert await ended(house, run_id) == "completed"


async def test_a_run_pauses_before_its_next_turn_until_a_client_is_back(house: House) -> None:
    async with house.peer() as peer:
        ask = {"input": "turn; say 1; gate half; turn; say 1", "on_abandon": "pause"}
        run_id = (await peer.ask("run.start", ask))["run_id"]
        await house.agents.gates["half"].reached.wait()
    await house.empty()
    house.agents.gates["half"].opened.set()
    async with asyncio.timeout(10):
        while (view := await house.registry.view(LOCAL, run_id)).phase != "paused":  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert view.status == "running"
    async with house.peer() as peer:
        await peer.send("run.attach", {"since_seq": view.cursor.seq}, run_id=run_id)
        status = await peer.until("run.status")
        await peer.until("run.completed")
    assert (status["payload"]["status"], status["payload"]["phase"]) == ("running", "working")


async def test_a_run_waits_for_a_client_that_takes_nothing(open_house: Open) -> None:
    """It is attached, and its socket is full."""
    house = await open_house(
        limits=Limits(coalesce_ms=0, lag_events=50), write_buffer_bytes=65_536, send_timeout_s=60.0
    )
    async with house.peer(max_queue=1) as peer:
        ask = {"input": "say 3000 4000; turn; say 1", "on_lag": "pause"}
        run_id = (await peer.ask("run.start", ask))["run_id"]
        async with asyncio.timeout(20):
            while (await house.registry.view(LOCAL, run_id)).phase != "paused":  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await peer.until("run.status", phase="paused")
        await peer.until("run.completed")
    deltas = [frame for frame in peer.frames if frame["type"] == "message.delta"]
    assert len(deltas) == 3001
