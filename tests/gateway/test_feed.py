"""`GET /v1/feed`: all runs of whoever asks, sampled, with what is missing counted."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from midstream.gateway.auth import Credentials
from midstream.gateway.feed import wanted_types
from midstream.gateway.sampling import MAX_QUEUE_BYTES
from midstream.runs import Limits, Principal
from midstream_protocol.errors import Malformed
from midstream_protocol.events import EVENTS
from tests.gateway.conftest import House, Open
from tests.gateway.test_events import NDJSON, parsed
from tests.gateway.test_slow import buffered, small_socket

pytestmark = pytest.mark.asyncio


class Feed:
    """One open feed, read line by line."""

    def __init__(self, lines: AsyncIterator[str]) -> None:
        self._lines = lines
        self.lines: list[str] = []

    @property
    def types(self) -> list[str]:
        return [json.loads(line)["type"] for line in self.lines]

    @property
    def dropped(self) -> int:
        return sum(
            frame["payload"]["count"] for frame in map(json.loads, self.lines) if frame["type"] == "feed.dropped"
        )

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(10):
            self.lines.append(await anext(self._lines))
        found: dict[str, Any] = json.loads(self.lines[-1])
        return found

    async def until(self, kind: str, count: int = 1) -> "Feed":
        while self.types.count(kind) < count:
            await self.next()
        return self


@asynccontextmanager
async def feed(house: House, headers: dict[str, str] = NDJSON, **params: Any) -> AsyncIterator[Feed]:
    async with house.server.http.stream("GET", "/v1/feed", headers=headers, params=params) as stream:
        assert stream.status_code == 200
        yield Feed(stream.aiter_lines())


async def start(house: House, script: str, **options: Any) -> str:
    answer = await house.server.http.post("/v1/runs", json={"input": script}, **options)
    assert answer.status_code == 201
    return str(answer.json()["run_id"])


def by_name(credentials: Credentials) -> Principal | None:
    return Principal(id=credentials.token, name="x") if credentials.token else None


def as_(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {name}", **NDJSON}


async def test_it_has_the_bytes_of_all_runs(house: House) -> None:
    async with feed(house) as told:
        runs = {await start(house, "say 2") for _ in range(3)}
        await told.until("run.completed", 3)
        seen = [line.encode() for line in told.lines]
        for run_id in runs:
            log = (await house.server.http.get(f"/v1/runs/{run_id}/events", headers=NDJSON)).content.splitlines()
            mine = [line for line in seen if json.loads(line)["run_id"] == run_id]
            assert [line for line in log if line in mine] == mine
            assert log[0] in mine
            assert log[-1] in mine
    assert told.dropped == 0


async def test_server_sent_events_have_no_id(house: House) -> None:
    async with house.server.http.stream("GET", "/v1/feed") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert stream.headers["x-accel-buffering"] == "no"
        assert "content-length" not in stream.headers
        await start(house, "say 1")
        body = b""
        async for chunk in stream.aiter_bytes():
            body += chunk
            if b"run.completed" in body:
                break
    events = parsed(body)
    assert events[0]["event"] == "run.started"
    assert "id" not in events[0]
    assert all(json.loads(event["data"])["type"] == event["event"] for event in events)


async def test_types_and_a_run_are_asked_for(house: House) -> None:
    async with feed(house, types="run.,message.completed") as told:
        run_id = await start(house, "say 1; gate a; say 1")
        await told.until("message.completed")
        async with feed(house, run_id=run_id, types="run.completed") as one:
            other = await start(house, "say 1")
            await told.until("run.completed")
            house.agents.gates["a"].opened.set()
            assert (await one.next())["run_id"] == run_id
        await told.until("run.completed", 2)
    assert {"run.started", "message.completed", "run.completed"} == {*told.types} - {"run.status"}
    assert {json.loads(line)["run_id"] for line in told.lines} == {run_id, other}


async def test_what_types_may_say() -> None:
    assert wanted_types(None) == frozenset(EVENTS)
    assert wanted_types("run.completed") == {"run.completed"}
    assert "run.completed" in wanted_types("tool.,run.")
    for bad in ("", "run", "run.,", "runs.", ".", "run.ended", "RUN."):
        with pytest.raises(Malformed):
            wanted_types(bad)


@pytest.mark.parametrize("params", [{"types": "run.ended"}, {"run_id": "a b"}])
async def test_bad_questions_are_refused(house: House, params: dict) -> None:
    answer = await house.server.http.get("/v1/feed", params=params)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "malformed")
    assert next(iter(params)) in answer.json()["error"]["text"]
    assert house.gateway.connected == 0


async def test_nobody_sees_the_runs_of_another(open_house: Open) -> None:
    house = await open_house(authenticate=by_name)
    ann, ben = as_("ann"), as_("ben")
    assert (await house.server.http.get("/v1/feed", headers=NDJSON)).status_code == 401
    async with feed(house, ann) as hers, feed(house, ben) as his:
        await start(house, "say 1", headers=ann)
        await hers.until("run.completed")
        run_id = await start(house, "say 1", headers=ben)
        await his.until("run.completed")
    assert {json.loads(line)["run_id"] for line in his.lines} == {run_id}
    assert run_id not in "".join(hers.lines)


async def test_a_run_of_another_is_one_that_does_not_exist(open_house: Open) -> None:
    house = await open_house(authenticate=by_name)
    run_id = await start(house, "gate a; say 1", headers=as_("ben"))
    async with feed(house, as_("ann"), run_id=run_id) as hers, feed(house, as_("ben")) as his:
        house.agents.gates["a"].opened.set()
        await his.until("run.completed")
        await house.drain()
        with pytest.raises(StopAsyncIteration):
            await hers.next()


async def test_what_is_too_much_is_dropped_counted_and_told(open_house: Open) -> None:
    house = await open_house(feed_events_s=20.0, limits=Limits(coalesce_ms=0))
    async with feed(house) as told:
        run_id = await start(house, "say 100; gate a; say 100")
        await told.until("feed.dropped")
        house.agents.gates["a"].opened.set()
        await told.until("run.completed")
        log = (await house.server.http.get(f"/v1/runs/{run_id}/events", headers=NDJSON)).text.splitlines()
        given = [line for line in told.lines if '"feed.dropped"' not in line]
        while len(given) + told.dropped < len(log):
            await told.next()
    assert len(given) + told.dropped == len(log)
    assert told.types.count("feed.dropped") > 1
    assert given == [line for line in log if line in given]
    # Of what changed the run's state nothing is missing.
    assert [line for line in log if '"message.delta"' not in line] == [line for line in given if ".delta" not in line]


async def test_only_so_many_at_once_and_those_who_leave_free_their_place(open_house: Open) -> None:
    house = await open_house(max_feeds=1)
    async with feed(house):
        assert house.registry.taps
        full = await house.server.http.get("/v1/feed")
        assert (full.status_code, full.json()["error"]["code"]) == (429, "quota_exceeded")
        assert full.headers["retry-after"]
        assert (await house.server.http.head("/v1/feed")).status_code == 200
    async with asyncio.timeout(5):
        while house.registry.taps:
            await house.server.http.get("/healthz")
    assert house.gateway.connected == 0
    async with feed(house) as told:
        await start(house, "say 1")
        await told.until("run.completed")


async def test_a_silent_feed_is_kept_alive(open_house: Open) -> None:
    house = await open_house(heartbeat_s=0.01)
    async with feed(house) as told:
        await told.until("heartbeat", 3)
    async with house.server.http.stream("GET", "/v1/feed") as stream:
        body = b""
        async for chunk in stream.aiter_bytes():
            body += chunk
            if body.count(b": keep-alive\n\n") == 3:
                break
    assert parsed(body) == []


async def test_it_ends_with_the_server(house: House) -> None:
    async with feed(house) as told:
        await house.drain()
        with pytest.raises(StopAsyncIteration):
            await told.next()


async def test_a_reader_that_takes_nothing_is_cut_and_slows_no_run(open_house: Open) -> None:
    house = await open_house(feed_events_s=1e6, send_timeout_s=0.2)
    with small_socket(house) as reader:
        reader.sendall(b"GET /v1/feed HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        while house.gateway.connected < 1:
            await house.server.http.get("/healthz")
        async with feed(house, types="run.") as beside:
            count = 0
            while house.gateway.connected > 1:
                count += 1
                # A megabyte each, and never more than that waits.
                await start(house, "say 16 65000")
                await beside.until("run.completed", count)
                assert max(buffered(house)) <= MAX_QUEUE_BYTES + 128 * 1024
            assert count > 1
            # Cut, with what it was not sent: a server that waits for such a reader would hold its socket for ever.
            async with asyncio.timeout(5):
                while max(buffered(house)):
                    await house.server.http.get("/healthz")
