"""From every seq, on every transport, full and merged: the same bytes, and the same view."""

import asyncio
from typing import Any

import pytest

from midstream_protocol.codec import decode_event, json_to_msgpack
from midstream_protocol.view import fold_all
from tests.gateway.conftest import House

pytestmark = pytest.mark.asyncio

SCRIPT = "say 6; title; say 4; gate a; say 5"
NDJSON = {"accept": "application/x-ndjson"}


async def over_socket(house: House, run_id: str, *, since: int, replay: str, msgpack: bool = False) -> list[bytes]:
    async with house.peer(msgpack=msgpack) as peer:
        await peer.send("run.attach", {"since_seq": since, "replay": replay}, run_id=run_id)
        house.agents.gates["a"].opened.set()
        await peer.until("run.completed")
        return peer.events(run_id)


async def head(house: House, run_id: str) -> int:
    return int((await house.server.http.get(f"/v1/runs/{run_id}")).json()["cursor"]["seq"])


async def over_http(house: House, run_id: str, *, since: int, replay: str, lines: bool) -> list[bytes]:
    answer = await house.server.http.get(
        f"/v1/runs/{run_id}/events", params={"since_seq": since, "replay": replay}, headers=NDJSON if lines else {}
    )
    if lines:
        return answer.content.splitlines()
    return [line.removeprefix(b"data: ") for line in answer.content.splitlines() if line.startswith(b"data: ")]


async def test_an_ended_run(house: House) -> None:
    house.agents.gates["a"].opened.set()
    run_id = (await house.server.http.post("/v1/runs", json={"input": SCRIPT, "wait_s": 10})).json()["run_id"]
    log = await over_http(house, run_id, since=0, replay="full", lines=True)
    events = [decode_event(data) for data in log]
    whole = fold_all(events)
    for since in range(len(log)):
        for replay in ("full", "merged"):
            told = [
                await over_http(house, run_id, since=since, replay=replay, lines=True),
                await over_http(house, run_id, since=since, replay=replay, lines=False),
                await over_socket(house, run_id, since=since, replay=replay),
            ]
            assert told[1] == told[0]
            assert told[2] == told[0]
            packed = await over_socket(house, run_id, since=since, replay=replay, msgpack=True)
            assert packed == [json_to_msgpack(data) for data in told[0]]
            if replay == "full":
                assert told[0] == log[since:]
            assert fold_all(map(decode_event, told[0]), fold_all(events[:since])) == whole
    merged = await over_http(house, run_id, since=0, replay="merged", lines=True)
    assert len(merged) < len(log)


async def test_a_run_that_goes_on_meanwhile(house: House) -> None:
    run_id = (await house.server.http.post("/v1/runs", json={"input": SCRIPT})).json()["run_id"]
    await house.agents.gates["a"].reached.wait()
    so_far = await head(house, run_id)
    ways: list[Any] = []
    for since in range(so_far + 1):
        for replay in ("full", "merged"):
            ways += [
                (
                    since,
                    replay,
                    asyncio.ensure_future(over_http(house, run_id, since=since, replay=replay, lines=lines)),
                )
                for lines in (True, False)
            ]
    async with asyncio.timeout(10):
        while house.gateway.connected < len(ways):  # noqa: ASYNC110 - they come in on the server's own tasks
            await asyncio.sleep(0.002)
    live = await over_socket(house, run_id, since=0, replay="full")
    log = await over_http(house, run_id, since=0, replay="full", lines=True)
    assert live == log
    events = [decode_event(data) for data in log]
    whole = fold_all(events)
    for since, replay, way in ways:
        told = await way
        if replay == "full":
            assert told == log[since:]
        # What is live is never merged.
        assert told[-(len(log) - so_far) :] == log[so_far:]
        assert fold_all(map(decode_event, told), fold_all(events[:since])) == whole
