"""The log over plain HTTP: server-sent events and NDJSON, from any seq, with the same bytes."""

import asyncio
import json
from typing import Any

import pytest

from midstream.gateway.ndjson_sse import last_event_id
from midstream_protocol.errors import Malformed
from tests.gateway.conftest import House, Open

pytestmark = pytest.mark.asyncio

NDJSON = {"accept": "application/x-ndjson"}


async def finished(house: House, script: str = "say 5") -> tuple[str, list[bytes], str]:
    async with house.peer() as peer:
        run_id = (await peer.ask("run.start", {"input": script}))["run_id"]
        epoch = (await peer.by_now("run.attached"))["payload"]["epoch"]
        await peer.by_now("run.completed")
        return run_id, peer.events(run_id), epoch


def parsed(body: bytes) -> list[dict[str, str]]:
    """Server-sent events by the standard's rules, comments left out."""
    found = []
    for block in body.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":"))
        if "data" in fields:
            found.append(fields)
    return found


async def test_sse_and_ndjson_from_every_seq_are_the_bytes_of_the_log(house: House) -> None:
    run_id, log, epoch = await finished(house)
    url = f"/v1/runs/{run_id}/events"
    for since in range(len(log)):
        lines = await house.server.http.get(url, params={"since_seq": since}, headers=NDJSON)
        assert lines.headers["content-type"] == "application/x-ndjson"
        assert lines.content == b"".join(event + b"\n" for event in log[since:])
        sse = await house.server.http.get(url, params={"since_seq": since})
        assert sse.headers["content-type"].startswith("text/event-stream")
        events = parsed(sse.content)
        assert [event["data"].encode() for event in events] == log[since:]
        assert [event["id"] for event in events] == [f"{epoch}.{seq}" for seq in range(since + 1, len(log) + 1)]
        assert events[-1]["event"] == "run.completed"


async def test_stream_headers(house: House) -> None:
    run_id, _, _ = await finished(house)
    answer = await house.server.http.get(f"/v1/runs/{run_id}/events")
    assert answer.headers["cache-control"] == "no-store, no-transform"
    assert "content-encoding" not in answer.headers
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.content.startswith(b"retry: ")


async def test_from_the_terminal_event_on_there_is_nothing(house: House) -> None:
    run_id, log, epoch = await finished(house)
    url = f"/v1/runs/{run_id}/events"
    asked: list[dict[str, Any]] = [
        {"params": {"since_seq": len(log)}},
        {"params": {"since_seq": len(log)}, "headers": NDJSON},
        {"headers": {"last-event-id": f"{epoch}.{len(log)}"}},
        {"headers": {"last-event-id": str(len(log))}},
    ]
    for options in asked:
        answer = await house.server.http.get(url, **options)
        assert (answer.status_code, answer.content) == (204, b"")


def told(body: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in body.splitlines()]


@pytest.mark.parametrize(
    "asked",
    [{}, {"since_seq": 2}, {"replay": "snapshot"}, {"since_seq": 2, "epoch": "other"}, {"since_seq": 99}, None],
)
async def test_frames_are_those_of_a_websocket(house: House, asked: dict[str, Any] | None) -> None:
    run_id, log, _ = await finished(house)
    asked = {"since_seq": len(log)} if asked is None else asked
    async with house.peer() as peer:
        await peer.ask("run.attach", asked, run_id=run_id)
        await peer.by_now("run.caught_up")
        await peer.ping()
        expected = [frame for frame in peer.frames[1:] if frame["type"] not in ("receipt", "heartbeat", "pong")]
    url = f"/v1/runs/{run_id}/events"
    lines = told((await house.server.http.get(url, params={"frames": 1, **asked}, headers=NDJSON)).content)
    for attached in (expected[0], lines[0]):
        assert attached["type"] == "run.attached"
        del attached["payload"]["command_id"]
    assert lines == expected
    sse = parsed((await house.server.http.get(url, params={"frames": 1, **asked})).content)
    assert [event["event"] for event in sse] == [frame["type"] for frame in expected]
    assert [json.loads(event["data"]) for event in sse][1:] == expected[1:]
    assert ["id" in event for event in sse] == ["seq" in f or f["type"] == "run.reset" for f in expected]


async def test_an_event_source_that_asks_for_frames_ends_too(house: House) -> None:
    run_id, log, epoch = await finished(house)
    answer = await house.server.http.get(
        f"/v1/runs/{run_id}/events", params={"frames": 1}, headers={"last-event-id": f"{epoch}.{len(log)}"}
    )
    assert answer.status_code == 204


async def test_a_live_stream_of_frames_says_when_it_has_caught_up_its_life_and_its_end(open_house: Open) -> None:
    house = await open_house(heartbeat_s=0.01)
    async with house.peer() as peer:
        run_id = (await peer.ask("run.start", {"input": "say 2; gate a; say 200"}))["run_id"]
        await house.agents.gates["a"].reached.wait()
        async with house.server.http.stream("GET", f"/v1/runs/{run_id}/events", params={"frames": 1}) as stream:
            body = b""
            async for chunk in stream.aiter_bytes():
                body += chunk
                if body.count(b"event: heartbeat") == 2:
                    break
            said = parsed(body)
            assert b"keep-alive" not in body
            kinds = [event["event"] for event in said if "id" not in event]
            assert kinds[:2] == ["run.attached", "run.caught_up"]
            attached, beat = json.loads(said[0]["data"])["payload"], json.loads(said[-1]["data"])["payload"]
            assert "cancel" in attached["can"]
            assert beat["runs"] == {run_id: attached["head_seq"]}
        async with house.server.http.stream(
            "GET", f"/v1/runs/{run_id}/events", params={"frames": 1}, headers=NDJSON
        ) as stream:
            pieces = stream.aiter_bytes()
            body = await anext(pieces)
            await house.drain()
            body += b"".join([chunk async for chunk in pieces])
        assert told(body)[-1]["type"] == "connection.draining"
        assert told(body)[-1]["payload"]["reconnect_in_s"] > 0


async def test_a_head_request_answers_and_streams_nothing(house: House) -> None:
    async with house.peer() as peer:
        run_id = (await peer.ask("run.start", {"input": "gate a"}))["run_id"]
        answer = await house.server.http.head(f"/v1/runs/{run_id}/events")
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["content-type"].startswith("text/event-stream")


async def test_last_event_id_beats_since_seq(house: House) -> None:
    run_id, log, epoch = await finished(house)
    answer = await house.server.http.get(
        f"/v1/runs/{run_id}/events", params={"since_seq": 1}, headers={"last-event-id": f"{epoch}.4", **NDJSON}
    )
    assert answer.content == b"".join(event + b"\n" for event in log[4:])


async def test_a_cursor_of_another_history_or_beyond_the_head_is_a_reset(house: House) -> None:
    run_id, log, epoch = await finished(house)
    url = f"/v1/runs/{run_id}/events"
    other = await house.server.http.get(url, headers={"last-event-id": "another.3"})
    (reset,) = parsed(other.content)
    assert (reset["event"], reset["id"]) == ("run.reset", f"{epoch}.{len(log)}")
    assert '"reason":"epoch"' in reset["data"]
    ahead = await house.server.http.get(url, params={"since_seq": len(log) + 1}, headers=NDJSON)
    assert ahead.content.count(b"\n") == 1
    assert b'"reason":"ahead"' in ahead.content
    snapshot = await house.server.http.get(url, params={"replay": "snapshot"}, headers=NDJSON)
    assert b'"reason":"requested"' in snapshot.content


@pytest.mark.parametrize(
    "options",
    [
        {"params": {"since_seq": "-1"}},
        {"params": {"since_seq": "x"}},
        {"params": {"replay": "odd"}},
        {"params": {"frames": "yes"}},
        {"headers": {"last-event-id": "a b.1"}},
        {"headers": {"last-event-id": "x"}},
    ],
)
async def test_bad_cursors_are_refused(house: House, options: dict) -> None:
    run_id, _, _ = await finished(house)
    answer = await house.server.http.get(f"/v1/runs/{run_id}/events", **options)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "malformed")


async def test_last_event_ids() -> None:
    assert last_event_id("abc.12", None) == ("abc", 12)
    assert last_event_id("12", "e") == ("e", 12)
    for bad in ("", ".", "abc.", ".5", "abc.-1", "abc.1.5x", "١", f"{2**53}", "9" * 40):
        with pytest.raises(Malformed):
            last_event_id(bad, None)


async def test_a_live_stream_follows_and_ends_after_the_terminal_event(house: House) -> None:
    async with house.peer() as peer:
        run_id = (await peer.ask("run.start", {"input": "say 2; gate a; say 200"}))["run_id"]
        await house.agents.gates["a"].reached.wait()
        async with house.server.http.stream("GET", f"/v1/runs/{run_id}/events", headers=NDJSON) as stream:
            house.agents.gates["a"].opened.set()
            body = b"".join([chunk async for chunk in stream.aiter_bytes()])
        await peer.by_now("run.completed")
        assert body == b"".join(event + b"\n" for event in peer.events(run_id))
        await peer.ping()
    assert house.gateway.connected <= 1


async def test_a_silent_run_keeps_its_stream_alive(open_house: Open) -> None:
    house = await open_house(heartbeat_s=0.01)
    async with house.peer() as peer:
        run_id = (await peer.ask("run.start", {"input": "gate a; say 1"}))["run_id"]
        async with house.server.http.stream("GET", f"/v1/runs/{run_id}/events") as stream:
            body = b""
            async for chunk in stream.aiter_bytes():
                body += chunk
                if body.count(b": keep-alive\n\n") == 3:
                    house.agents.gates["a"].opened.set()
        assert parsed(body)[-1]["event"] == "run.completed"


async def test_a_reader_that_leaves_frees_its_place(open_house: Open) -> None:
    house = await open_house(max_connections=2)
    async with house.peer() as peer:
        run_id = (await peer.ask("run.start", {"input": "gate a"}))["run_id"]
        async with house.server.http.stream("GET", f"/v1/runs/{run_id}/events"):
            full = await house.server.http.get(f"/v1/runs/{run_id}/events")
            assert (full.status_code, full.json()["error"]["code"]) == (429, "quota_exceeded")
            assert full.headers["retry-after"]
        async with asyncio.timeout(5):
            while house.gateway.connected > 1:
                await peer.ping()
