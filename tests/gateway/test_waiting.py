"""Callers who do not stream: they wait for the end, or start the run and look at it later."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from midstream.runs import Limits
from tests.gateway.conftest import House, Open

pytestmark = pytest.mark.asyncio


async def post(house: House, script: str, *, query: str = "", key: str | None = None, **fields: Any) -> Any:
    headers = {"idempotency-key": key} if key else {}
    return await house.server.http.post(f"/v1/runs{query}", json={"input": script, **fields}, headers=headers)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - it comes true on a server's own tasks, which have no event for it
            await asyncio.sleep(0.001)


async def test_who_waits_is_answered_with_the_final_view(house: House) -> None:
    answer = await post(house, "say 3", wait_s=30)
    assert answer.status_code == 200
    view = answer.json()
    assert view["status"] == "completed"
    assert view["result"] == {"said": 3}
    again = await house.server.http.get(answer.headers["location"])
    assert again.json() == view
    assert again.headers["etag"] == answer.headers["etag"]
    assert "retry-after" not in again.headers
    failed = await post(house, "fail", query="?wait_s=30")
    assert (failed.status_code, failed.json()["status"]) == (200, "failed")


async def test_the_view_so_far_when_the_time_is_up(house: House) -> None:
    answer = await post(house, "say 2; gate a; say 1", wait_s=0.05)
    assert answer.status_code == 202
    body = answer.json()
    assert body["status"] == "running"
    assert answer.headers["retry-after"] == "1"
    assert body["links"]["self"] == answer.headers["location"] == f"/v1/runs/{body['run_id']}"
    assert body["cursor"]["seq"] > 0
    # Nothing was cancelled by leaving.
    house.agents.gates["a"].opened.set()
    final = await house.server.http.get(body["links"]["self"], params={"wait_s": 30})
    assert final.json()["status"] == "completed"


async def test_no_time_at_all_is_the_view_now(house: House) -> None:
    answer = await post(house, "gate a", wait_s=0)
    assert (answer.status_code, answer.json()["status"]) == (202, "running")


async def test_the_same_key_waits_for_the_same_run(house: House) -> None:
    first = asyncio.ensure_future(post(house, "gate a; say 1", key="k", wait_s=30))
    await house.agents.gates["a"].reached.wait()
    again = asyncio.ensure_future(post(house, "gate a; say 1", key="k", wait_s=30))
    later = await post(house, "gate a; say 1", key="k", background=True)
    assert later.status_code == 202
    house.agents.gates["a"].opened.set()
    answers = [await first, await again, await post(house, "gate a; say 1", key="k", wait_s=30)]
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["run_id"] for answer in answers} == {later.json()["run_id"]}


async def test_a_waiting_caller_is_attached_and_leaving_cancels_nothing(house: House) -> None:
    waiting = asyncio.ensure_future(post(house, "gate a; say 1", wait_s=30))
    await house.agents.gates["a"].reached.wait()
    (feed,) = house.registry._living._feeds.values()
    await until(lambda: not feed.idle)
    # It reads nothing, and nobody takes it for a reader that does not keep up.
    assert feed.keeps_up(0)
    assert house.gateway.connected == 1
    waiting.cancel()
    await until(lambda: not house.gateway.connected and feed.idle)
    house.agents.gates["a"].opened.set()
    run_id = feed.run_id
    final = await house.server.http.get(f"/v1/runs/{run_id}", params={"wait_s": 30})
    assert final.json()["status"] == "completed"


async def test_a_shutdown_answers_those_who_wait(house: House) -> None:
    waiting = asyncio.ensure_future(post(house, "ask", wait_s=30))
    await until(lambda: house.gateway.connected == 1)
    await house.gateway.close()
    answer = await waiting
    assert (answer.status_code, answer.headers["retry-after"]) == (202, "1")


async def test_places_for_waiting_are_counted(open_house: Open) -> None:
    house = await open_house(max_connections=1, limits=Limits(drain_grace_s=0.2, max_readers=1))
    waiting = asyncio.ensure_future(post(house, "gate a", key="k", wait_s=30))
    await until(lambda: house.gateway.connected == 1)
    full = await post(house, "gate a", wait_s=30)
    assert (full.status_code, full.json()["error"]["code"]) == (429, "quota_exceeded")
    crowded = await post(house, "gate a", key="k", wait_s=30)
    assert (crowded.status_code, crowded.json()["error"]["code"]) == (429, "quota_exceeded")
    house.agents.gates["a"].opened.set()
    assert (await waiting).status_code == 200


async def test_a_background_start_says_where_to_look_and_when(house: House) -> None:
    answer = await post(house, "gate a; say 1", background=True)
    assert answer.status_code == 202
    body = answer.json()
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["location"] == body["links"]["self"]
    assert set(body["links"]) == {"self", "events", "commands", "cancel"}
    assert body["cursor"] == {"epoch": body["cursor"]["epoch"], "seq": 0}
    house.agents.gates["a"].opened.set()
    final = await house.server.http.get(body["links"]["self"], params={"wait_s": 30})
    assert final.json()["status"] == "completed"


async def test_polling_costs_no_view_until_something_changed(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    url = (await post(house, "say 1; gate a; say 1", background=True)).headers["location"]
    await house.agents.gates["a"].reached.wait()
    first = await house.server.http.get(url)
    assert first.headers["retry-after"] == "1"
    etag = first.headers["etag"]
    assert etag.startswith('W/"')

    async def never(*_: object) -> None:
        raise AssertionError("a view was made")

    with monkeypatch.context() as without:
        without.setattr(house.registry, "_view_now", never)
        same = await house.server.http.get(url, headers={"if-none-match": etag})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
    assert same.headers["retry-after"] == "1"
    house.agents.gates["a"].opened.set()
    after = await house.server.http.get(url, headers={"if-none-match": etag}, params={"wait_s": 30})
    assert after.status_code == 200
    assert after.headers["etag"] != etag


async def test_a_long_poll_is_answered_by_the_next_change_or_with_nothing_new(house: House) -> None:
    url = (await post(house, "gate a; say 1", background=True)).headers["location"]
    await house.agents.gates["a"].reached.wait()
    etag = (await house.server.http.get(url)).headers["etag"]
    nothing = await house.server.http.get(url, headers={"if-none-match": etag}, params={"wait_s": 0.02})
    assert nothing.status_code == 304
    polling = asyncio.ensure_future(
        house.server.http.get(url, headers={"if-none-match": etag}, params={"wait_s": 30}, timeout=30)
    )
    await until(lambda: house.gateway.connected == 1)
    house.agents.gates["a"].opened.set()
    assert (await polling).status_code == 200
    final = await house.server.http.get(url, params={"wait_s": 30})
    # An ended run is not waited for.
    ended = {"if-none-match": final.headers["etag"]}
    assert (await house.server.http.get(url, headers=ended, params={"wait_s": 30})).status_code == 304


async def test_an_ended_run_is_deleted_and_a_live_one_is_not(house: House) -> None:
    url = (await post(house, "gate a; say 1", background=True)).headers["location"]
    live = await house.server.http.delete(url)
    assert (live.status_code, live.json()["error"]["code"]) == (409, "run_active")
    house.agents.gates["a"].opened.set()
    await house.server.http.get(url, params={"wait_s": 30})
    assert (await house.server.http.delete(url)).status_code == 204
    assert (await house.server.http.get(url)).status_code == 404
    assert (await house.server.http.delete(url)).status_code == 404
