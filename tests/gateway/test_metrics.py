"""What operators count, over HTTP, after real traffic on every transport."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import ConnectionClosed

from midstream.telemetry import count_guardrail_trip, count_model_call, count_recovery, watch
from tests.gateway.conftest import House, Open
from tests.gateway.test_events import NDJSON
from tests.gateway.test_slow import small_socket

pytestmark = pytest.mark.asyncio

Samples = dict[str, float]


async def samples(house: House) -> Samples:
    """Every sample, as `name{label="word"}`."""
    answer = await house.server.http.get("/metrics")
    assert answer.status_code == 200
    found = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{word}"' for name, word in sorted(sample.labels.items()))
            found[sample.name + (f"{{{labels}}}" if labels else "")] = sample.value
    return found


class Growth:
    """How much each counter has grown since it was made."""

    def __init__(self, house: House, before: Samples) -> None:
        self._house = house
        self._before = before

    async def __call__(self) -> Samples:
        now = await samples(self._house)
        return {
            name.removeprefix("midstream_"): value - self._before.get(name, 0.0)
            for name, value in now.items()
            if value != self._before.get(name, 0.0)
        }

    async def until(self, enough: Callable[[Samples], Any]) -> Samples:
        async with asyncio.timeout(10):
            # Each look is a request, in which the server goes on.
            while not enough(grown := await self()):
                pass
        return grown


@asynccontextmanager
async def watched(house: House) -> AsyncIterator[Growth]:
    """With the gauges, as the app has them."""
    end = watch(house.gateway.census)
    try:
        yield Growth(house, await samples(house))
    finally:
        end()


async def test_what_is_counted_is_shown_in_the_text_format(house: House) -> None:
    grown = Growth(house, await samples(house))
    count_recovery("overloaded")
    count_model_call("answered")
    count_guardrail_trip()
    answer = await house.server.http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert answer.headers["cache-control"] == "no-store"
    found = await grown()
    assert found['recoveries_total{kind="overloaded"}'] == 1
    assert found['model_calls_total{outcome="answered"}'] == 1
    assert found["guardrail_trips_total"] == 1


async def test_it_needs_the_token_where_there_is_one(open_house: Open) -> None:
    house = await open_house(token="plain")
    assert (await house.server.http.get("/metrics")).status_code == 401
    known = {"authorization": "Bearer plain"}
    assert (await house.server.http.get("/metrics", headers=known)).status_code == 200


async def test_a_run_from_its_start_to_its_end(house: House) -> None:
    async with watched(house) as grown, house.peer() as peer:
        run_id = (await peer.ask("run.start", {"input": "say 50"}))["run_id"]
        await peer.until("run.completed")
        log = peer.events(run_id)
        found = await grown()
        assert found["events_total"] == len(log)
        assert found["event_bytes_total"] == sum(map(len, log))
        assert found["first_event_seconds_count"] == 1
        assert 0 < found["append_seconds_count"] <= len(log)
        assert 0 < found["append_seconds_sum"] < 10
        assert 0 < found["delivery_seconds_count"] <= len(log)
        assert found["delivery_seconds_sum"] < 10
        assert found["deltas_said_total"] == 50
        written = sum(json.loads(event)["type"] == "message.delta" for event in log)
        assert found["deltas_written_total"] == written
        assert found['attaches_total{transport="ws"}'] == 1
        assert found['runs_ended_total{status="completed"}'] == 1
        for of_others in ("resumes_total", "resets_total", "abandoned_streams_total"):
            assert not [name for name in found if name.startswith(of_others)]


async def test_runs_that_fail_or_are_cancelled(house: House) -> None:
    async with watched(house) as grown, house.peer() as peer:
        await peer.ask("run.start", {"input": "fail"})
        await peer.until("run.failed")
        run_id = (await peer.ask("run.start", {"input": "gate a"}))["run_id"]
        await peer.ask("run.cancel", {}, run_id=run_id)
        await peer.until("run.cancelled")
        found = await grown()
        assert found['runs_ended_total{status="failed"}'] == 1
        assert found['runs_ended_total{status="cancelled"}'] == 1


@pytest.mark.parametrize("transport", ["ws", "sse", "ndjson"])
async def test_attaches_resumes_resets_and_those_who_leave(house: House, transport: str) -> None:
    headers = NDJSON if transport == "ndjson" else {}
    async with watched(house) as grown, house.peer() as owner:
        run_id = (await owner.ask("run.start", {"input": "say 5; gate a; say 5"}))["run_id"]
        await house.agents.gates["a"].reached.wait()
        before = await grown()

        async def attached(since_seq: int, **params: Any) -> None:
            """Attach, read something, and leave without a word."""
            if transport == "ws":
                async with house.peer() as peer:
                    await peer.send("run.attach", {"since_seq": since_seq, **params}, run_id=run_id)
                    await peer.until("run.caught_up")
                    peer.socket.transport.abort()
            else:
                asked = {"since_seq": since_seq, **params}
                url = f"/v1/runs/{run_id}/events"
                async with house.server.http.stream("GET", url, headers=headers, params=asked) as stream:
                    await anext(stream.aiter_bytes())

        def more(name: str, found: Samples, label: str = f'transport="{transport}"') -> float:
            name = f"{name}_total{{{label}}}"
            return found.get(name, 0) - before.get(name, 0)

        await attached(0)
        found = await grown.until(lambda found: more("abandoned_streams", found) == 1)
        assert (more("attaches", found), more("resumes", found)) == (1, 0)
        await attached(3)
        found = await grown.until(lambda found: more("abandoned_streams", found) == 2)
        assert (more("attaches", found), more("resumes", found)) == (2, 1)
        await attached(0, replay="snapshot")
        await attached(1000)
        found = await grown.until(lambda found: more("abandoned_streams", found) == 4)
        assert more("resets", found, 'reason="requested"') == 1
        assert more("resets", found, 'reason="ahead"') == 1
        # Neither went on from where it said it was.
        assert more("resumes", found) == 1
        # Who follows to the end has not left early; what comes meanwhile is delivered.
        delivered = found.get("delivery_seconds_count", 0)
        if transport == "ws":
            house.agents.gates["a"].opened.set()
            await owner.until("run.completed")
        else:
            url = f"/v1/runs/{run_id}/events"
            async with house.server.http.stream("GET", url, headers=headers, params={"since_seq": 1}) as stream:
                await owner.socket.close()
                house.agents.gates["a"].opened.set()
                assert b"run.completed" in b"".join([chunk async for chunk in stream.aiter_bytes()])
        found = await grown()
        assert found["delivery_seconds_count"] > delivered
        if transport == "ws":
            assert more("abandoned_streams", found) == 4


async def test_a_run_that_is_over_cannot_be_left_early(house: House) -> None:
    async with watched(house) as grown, house.peer() as peer:
        await peer.ask("run.start", {"input": "say 1"})
        await peer.until("run.completed")
        await peer.socket.close()
        found = await grown.until(lambda found: 'closes_total{code="1000"}' in found)
        assert not [name for name in found if name.startswith("abandoned")]


async def test_closes_by_code(open_house: Open) -> None:
    house = await open_house(token="plain", max_errors=2)
    known = {"Authorization": "Bearer plain"}
    house.server.http.headers.update(known)
    async with watched(house) as grown:
        async with house.peer(additional_headers=known) as peer:
            await peer.socket.close(1001)
        async with house.peer(ready=False) as peer:
            with pytest.raises(ConnectionClosed):
                await peer.receive()
        async with house.peer(additional_headers=known) as peer:
            for _ in range(2):
                await peer.socket.send("{}")
            with pytest.raises(ConnectionClosed):
                await peer.until("pong")
        async with house.peer(additional_headers=known) as peer:
            peer.socket.transport.abort()
        async with house.peer(additional_headers=known) as peer:
            await peer.socket.close(3999)
        wanted = {f'closes_total{{code="{code}"}}': 1.0 for code in ("1001", "4500", "4509", "1006", "other")}
        found = await grown.until(lambda found: sum(found.get(name, 0) for name in wanted) >= len(wanted))
        assert {name: value for name, value in found.items() if name.startswith("closes")} == wanted
        async with house.peer(additional_headers=known) as peer:
            house.gateway.announce_drain()
            await peer.until("connection.draining")
            await house.gateway.close()
            found = await grown.until(lambda found: found.get('closes_total{code="4001"}') == 1)


async def test_what_there_is_now(house: House) -> None:
    async with watched(house) as grown, house.peer() as peer:
        run_id = (await peer.ask("run.start", {"input": "gate a; say 100 30000; say 100 30000; gate b"}))["run_id"]
        await peer.ask("run.start", {"input": "ask"})
        await peer.until("input.required")
        asked = {"since_seq": 0}
        url = f"/v1/runs/{run_id}/events"
        async with house.server.http.stream("GET", url, headers=NDJSON, params=asked) as stream:
            body = stream.aiter_bytes()
            await anext(body)
            async with house.server.http.stream("GET", "/v1/feed"):
                found = await samples(house)
                assert found['midstream_runs{status="running"}'] == 1
                assert found['midstream_runs{status="waiting"}'] == 1
                assert found['midstream_runs{status="queued"}'] == 0
                for transport, count in (("ws", 1), ("ndjson", 1), ("sse", 0), ("feed", 1), ("wait", 0)):
                    assert (transport, found[f'midstream_connections{{transport="{transport}"}}']) == (transport, count)
                assert found["midstream_readers"] == 3
                assert found["midstream_reader_lag_events_max"] == 0
        async with house.server.websocket(sock=small_socket(house), ping_interval=None) as slow:
            await slow.recv()
            await slow.send(
                json.dumps({"v": 1, "type": "run.attach", "command_id": "c", "run_id": run_id, "payload": {}})
            )
            while json.loads(await slow.recv())["type"] != "run.caught_up":
                pass
            slow.transport.pause_reading()
            house.agents.gates["a"].opened.set()
            await house.agents.gates["b"].reached.wait()
            for _ in range(2):
                await peer.until("message.completed")
            found = await samples(house)
            assert found["midstream_reader_lag_events_max"] > 0
            assert found["midstream_reader_lag_events"] == found["midstream_reader_lag_events_max"]
            # What is in its connection's own buffers was taken already.
            assert 10_000 < found["midstream_reader_lag_bytes_max"] < 12_500_000
            slow.transport.abort()
        house.agents.gates["b"].opened.set()
        await peer.until("run.completed")
        assert (await grown())['runs_ended_total{status="completed"}'] == 1


async def test_the_feed_counts_what_it_gives_and_drops(open_house: Open) -> None:
    house = await open_house(feed_events_s=10.0)
    async with watched(house) as grown, house.server.http.stream("GET", "/v1/feed", headers=NDJSON) as stream:
        lines = stream.aiter_lines()
        answer = await house.server.http.post("/v1/runs", json={"input": "say 200 9000"})
        given, dropped, last = 0, 0, ""
        while not (last == "feed.dropped" and given + dropped > 20):
            frame = json.loads(await anext(lines))
            last = frame["type"]
            if last == "feed.dropped":
                dropped += frame["payload"]["count"]
            else:
                given += 1
        found = await grown()
        assert answer.status_code == 201
        assert found["feed_events_total"] == given
        assert found["feed_dropped_total"] == dropped > 0
