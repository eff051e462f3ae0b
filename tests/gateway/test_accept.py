"""Which form of a run's events the `Accept` headers choose, and what a HEAD and an empty cursor get."""

import httpx2
import pytest

from midstream.gateway.stream_forms import wants_lines
from tests.gateway.conftest import House

NDJSON = "application/x-ndjson"
SSE = "text/event-stream"


@pytest.mark.parametrize(
    "accept",
    [
        [NDJSON],
        ["Application/X-NDJSON"],
        ["application/ndjson"],
        [f"{SSE};q=0.5, {NDJSON}"],
        [f"{NDJSON}; q=0.9, */*;q=1"],
        ["text/html", NDJSON],
        [f"{NDJSON};charset=utf-8; q=1.000 , {SSE}"],
    ],
)
def test_ndjson_is_chosen_by_its_name(accept: list[str]) -> None:
    assert wants_lines(accept)


@pytest.mark.parametrize(
    "accept",
    [
        [],
        [""],
        ["*/*"],
        ["application/*"],
        [f"{NDJSON};q=0"],
        [f"{NDJSON}; Q=0.000"],
        [f"{SSE}, {NDJSON};q=0.1"],
        ["application/x-ndjson-not"],
        ["garbage;;;,"],
    ],
)
def test_everything_else_gets_server_sent_events(accept: list[str]) -> None:
    assert not wants_lines(accept)


@pytest.mark.asyncio
async def test_a_head_tells_no_length_and_an_empty_cursor_is_none(house: House) -> None:
    async with house.peer() as peer:
        run_id = (await peer.ask("run.start", {"input": "say 3"}))["run_id"]
        await peer.by_now("run.completed")
    url = f"/v1/runs/{run_id}/events"
    whole = await house.server.http.get(url)
    again = await house.server.http.get(url, headers={"last-event-id": ""})
    assert (again.status_code, again.content) == (200, whole.content)
    for path in (url, "/v1/feed"):
        head = await house.server.http.head(path, headers=httpx2.Headers([("accept", "text/html"), ("accept", NDJSON)]))
        assert head.status_code == 200
        assert head.headers["content-type"] == NDJSON
        assert "content-length" not in head.headers
