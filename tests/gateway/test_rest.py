"""The HTTP door: start, command, look, list, and one shape for everything that is refused."""

import asyncio
import json
from typing import Any

import pytest

from midstream.gateway.auth import LOCAL
from midstream.runs.keys import store_key
from midstream_protocol.schema import text as schema_text
from tests.gateway.conftest import House, Open

pytestmark = pytest.mark.asyncio


async def started(house: House, script: str = "say 2", **options: object) -> str:
    answer = await house.server.http.post("/v1/runs", json={"input": script}, **options)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["run_id"])


async def ended(house: House, run_id: str) -> dict[str, object]:
    async with house.peer() as peer:
        await peer.send("run.attach", {}, run_id=run_id)
        while not (await peer.receive())["type"].startswith(("run.completed", "run.failed", "run.cancelled")):
            pass
    return dict((await house.server.http.get(f"/v1/runs/{run_id}")).json())


async def test_a_start_answers_at_once_with_where_to_go_on(house: House) -> None:
    answer = await house.server.http.post("/v1/runs", json={"input": "gate a; say 2"})
    body = answer.json()
    assert answer.status_code == 201
    assert body["status"] == "running"
    assert body["cursor"]["seq"] == 0
    assert answer.headers["location"] == body["links"]["self"] == f"/v1/runs/{body['run_id']}"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    view = (await house.server.http.get(body["links"]["self"])).json()
    assert view["cursor"]["epoch"] == body["cursor"]["epoch"]
    cancelled = await house.server.http.post(body["links"]["cancel"], json={"reason": "enough"})
    assert cancelled.status_code == 200
    assert cancelled.json()["status"] == "accepted"
    assert (await ended(house, body["run_id"]))["status"] == "cancelled"


async def test_a_start_in_a_busy_thread_says_what_became_of_it(house: House) -> None:
    first = (await house.server.http.post("/v1/runs", json={"input": "gate a; say 2"})).json()
    assert first["as"] == "started"

    async def started(if_busy: str) -> tuple[str, str, bool]:
        fields = {"input": "say 1", "thread_id": first["thread_id"], "if_busy": if_busy}
        body = (await house.server.http.post("/v1/runs", json=fields)).json()
        return body["as"], body["status"], body["run_id"] == first["run_id"]

    assert await started("queue") == ("queued", "queued", False)
    assert await started("parallel") == ("started", "running", False)
    assert await started("correct") == ("corrected", "running", True)
    await house.server.http.post(first["links"]["cancel"])
    await ended(house, first["run_id"])


@pytest.mark.parametrize("key", ["simple-key_1", "with spaces / and {signs}", "x" * 255])
async def test_the_same_idempotency_key_is_the_same_run(house: House, key: str) -> None:
    headers = {"idempotency-key": key}
    first = await house.server.http.post("/v1/runs", json={"input": "say 1"}, headers=headers)
    again = await house.server.http.post("/v1/runs", json={"input": "say 1"}, headers=headers)
    assert (first.status_code, first.json()) == (again.status_code, again.json())
    other = await house.server.http.post("/v1/runs", json={"input": "say 2"}, headers=headers)
    assert other.status_code == 409
    assert other.json()["error"]["code"] == "conflict"
    assert len((await house.server.http.get("/v1/runs")).json()["items"]) == 1


async def test_keys_that_differ_are_different_runs(house: House) -> None:
    runs = {await started(house, headers={"idempotency-key": key}) for key in ("a b", "a  b", "a_b", "A b")}
    assert len(runs) == 4


async def test_a_start_over_http_and_over_a_socket_share_their_ids(house: House) -> None:
    run_id = await started(house, "say 1", headers={"idempotency-key": "k1"})
    async with house.peer() as peer:
        receipt = await peer.ask("run.start", {"input": "say 1"}, command_id="k1")
    assert receipt["run_id"] == run_id


async def test_the_view_has_an_etag_that_changes_with_the_run(house: House) -> None:
    run_id = await started(house, "say 1; gate a; say 1")
    await house.agents.gates["a"].reached.wait()
    first = await house.server.http.get(f"/v1/runs/{run_id}")
    etag = first.headers["etag"]
    for sent in (etag, f'"other", {etag}', "*", etag.removeprefix("W/")):
        same = await house.server.http.get(f"/v1/runs/{run_id}", headers={"if-none-match": sent})
        assert (same.status_code, same.content) == (304, b"")
    house.agents.gates["a"].opened.set()
    await ended(house, run_id)
    after = await house.server.http.get(f"/v1/runs/{run_id}", headers={"if-none-match": etag})
    assert after.status_code == 200
    assert after.headers["etag"] != etag
    assert after.json()["status"] == "completed"


async def test_commands_are_answered_by_their_receipt(house: House) -> None:
    run_id = await started(house, "gate a; ask")
    url = f"/v1/runs/{run_id}/commands"
    body = {"v": 1, "type": "run.correct", "command_id": "fix-1", "payload": {"text": "shorter"}}
    answer = await house.server.http.post(url, json=body)
    assert answer.status_code == 200
    assert (answer.json()["status"], answer.json()["command_id"], answer.json()["run_id"]) == (
        "accepted",
        "fix-1",
        run_id,
    )
    assert (await house.server.http.post(url, json={**body, "run_id": run_id})).json() == answer.json()
    refused = await house.server.http.post(
        url, json={"type": "input.respond", "command_id": "i", "payload": {"input_id": "no", "answer": 1}}
    )
    assert refused.status_code == 404
    assert (refused.json()["status"], refused.json()["command_id"], refused.json()["code"]) == (
        "rejected",
        "i",
        "not_found",
    )
    malformed = await house.server.http.post(url, json={"type": "run.correct", "command_id": "m", "payload": {}})
    assert malformed.status_code == 400
    assert malformed.json()["code"] == "malformed"
    # What may be left out may be null.
    nulls = {"v": None, "type": "run.correct", "command_id": None, "run_id": None, "payload": {"text": "more"}}
    assert (await house.server.http.post(url, json=nulls)).json()["status"] == "accepted"
    # An id of its own is made where none was sent; the header gives one too.
    keyed = await house.server.http.post(url, json={"type": "run.cancel"}, headers={"idempotency-key": "stop"})
    assert keyed.json()["command_id"] == "stop"
    await ended(house, run_id)
    late = await house.server.http.post(f"/v1/runs/{run_id}/cancel")
    assert (late.status_code, late.json()["code"]) == (409, "run_ended")


async def test_commands_of_a_connection_have_no_place_here(house: House) -> None:
    run_id = await started(house)
    url = f"/v1/runs/{run_id}/commands"
    for body in (
        {"type": "run.attach"},
        {"type": "run.detach"},
        {"type": "auth.refresh", "payload": {"token": "t"}},
        {"type": "ping"},
    ):
        answer = await house.server.http.post(url, json=body)
        assert answer.status_code in (400, 404), body
        assert (answer.json()["command_id"][:4], answer.json()["code"]) == ("cmd_", "unknown_command"), body
    start = await house.server.http.post(url, json={"type": "run.start", "payload": {"input": "x"}})
    assert start.status_code == 400
    assert "POST it to /v1/runs" in start.json()["error"]["text"]
    other = await house.server.http.post(url, json={"type": "run.cancel", "run_id": "another"})
    assert other.status_code == 400


async def test_tools_are_offered_by_a_post_each_time_anew(house: House) -> None:
    run_id = await started(house, "gate a")
    run = store_key(LOCAL.id, run_id)

    async def offer(*tools: str, who: str | None = "cl_1", command_id: str = "o", run_id: str = run_id) -> Any:
        body = {"type": "tools.offer", "command_id": command_id, "payload": {"client_tools": list(tools)}}
        params = {"client_id": who} if who is not None else {}
        return await house.server.http.post(f"/v1/runs/{run_id}/commands", json=body, params=params)

    def hosts() -> dict[str, str]:
        state = house.registry._living.actors[run]._state
        return {name: host.client_id for name, host in state.hosts.items()}

    answer = await offer("open_file", "say")
    assert (answer.status_code, answer.json()) == (
        200,
        {"command_id": "o", "run_id": run_id, "status": "accepted"},
    )
    assert hosts() == {"open_file": "cl_1", "say": "cl_1"}
    assert (await offer("open_file", who="cl_2")).status_code == 200, "never remembered: the same id is another offer"
    assert hosts() == {"open_file": "cl_2", "say": "cl_1"}
    async with house.peer("/v1/ws?client_id=cl_3") as peer:
        assert (await peer.ask("tools.offer", {"run_id": run_id, "client_tools": ["say"]}))["status"] == "accepted"
    assert hosts() == {"open_file": "cl_2", "say": "cl_3"}, "the same door, and no connection is needed to stay host"

    for answer, status, code in (
        (await offer("open_file", who=None), 400, "malformed"),
        (await offer("srv_tool"), 409, "conflict"),
        (await offer("x", "x"), 400, "malformed"),
        (await offer("x", run_id="nope"), 404, "not_found"),
    ):
        refused = answer.json()
        assert (answer.status_code, refused["status"], refused["command_id"]) == (status, "rejected", "o")
        assert refused["code"] == code
    assert "client_id" in (await offer("x", who=None)).json()["text"]
    house.agents.gates["a"].opened.set()
    await ended(house, run_id)
    late = await offer("x")
    assert (late.status_code, late.json()["code"]) == (409, "run_ended")


async def test_what_a_connection_is_told_first_is_told_to_who_asks(house: House) -> None:
    async with house.peer("/v1/ws?client_id=cl_1", ready=False) as peer:
        said = (await peer.receive())["payload"]
    asked = (await house.server.http.get("/v1/connection", params={"client_id": "cl_1"})).json()
    assert asked["connection_id"] != said["connection_id"]
    changing = ("connection_id", "now")
    assert {k: v for k, v in asked.items() if k not in changing} == {k: v for k, v in said.items() if k not in changing}
    bad = await house.server.http.get("/v1/connection", params={"client_id": "a b"})
    assert (bad.status_code, bad.json()["error"]["code"]) == (400, "malformed")


async def test_a_failed_run_is_gone_on_with_at_its_own_address(house: House) -> None:
    run_id = await started(house, "fail")
    resume = (await ended(house, run_id))["failure"]["resume"]  # type: ignore[index]
    url = f"/v1/runs/{run_id}/commands"
    body = {"type": "run.start", "command_id": "again", "payload": {"resume": resume, "input": "say 1"}}
    answer = await house.server.http.post(url, json=body)
    receipt = answer.json()
    assert (answer.status_code, receipt["status"], receipt["as"]) == (200, "accepted", "started")
    assert receipt["run_id"] != run_id
    assert (await house.server.http.post(url, json={**body, "run_id": run_id})).json() == receipt
    view = await ended(house, receipt["run_id"])
    assert (view["status"], view["thread_id"]) == ("completed", receipt["thread_id"])
    # The address says which run; what it says besides may be left out.
    bare = {"type": "run.start", "payload": {"resume": {"text": "Go on."}}, "command_id": "bare"}
    refused = (await house.server.http.post(f"/v1/runs/{receipt['run_id']}/commands", json=bare)).json()
    assert (refused["command_id"], refused["code"]) == ("bare", "conflict")
    for payload, status in (
        ({"resume": {"run_id": "another"}}, 400),
        ({"resume": True}, 400),
        ({"resume": None, "input": "x"}, 400),
        ({"resume": {}, "thread_id": "another"}, 409),
        ({"resume": {}, "run_id": run_id}, 409),
    ):
        wrong = await house.server.http.post(url, json={"type": "run.start", "payload": payload})
        assert wrong.status_code == status, payload
    nobody = await house.server.http.post("/v1/runs/nobody/commands", json={**body, "command_id": "n"})
    assert nobody.status_code == 400
    nobody = await house.server.http.post(
        "/v1/runs/nobody/commands", json={"type": "run.start", "payload": {"resume": {}}}
    )
    assert (nobody.status_code, nobody.json()["code"]) == (404, "not_found")


async def test_a_failed_run_is_gone_on_with_from_every_door(house: House) -> None:
    run_id = await started(house, "fail")
    await ended(house, run_id)
    answer = await house.server.http.post("/v1/runs", json={"resume": {"run_id": run_id}, "input": "say 1"})
    assert answer.status_code == 201
    await ended(house, answer.json()["run_id"])
    async with house.peer() as peer:
        receipt = await peer.ask("run.start", {"resume": {"run_id": run_id}, "input": "say 1"})
    assert (receipt["status"], receipt["thread_id"]) == ("accepted", answer.json()["thread_id"])
    neither = await house.server.http.post("/v1/runs", json={"agent": "a"})
    assert (neither.status_code, neither.json()["error"]["code"]) == (400, "malformed")


async def test_a_thread_shows_who_has_it_and_who_was_there(house: House) -> None:
    first = await started(house, "gate a")
    thread_id = (await house.server.http.get(f"/v1/runs/{first}")).json()["thread_id"]
    url = f"/v1/threads/{thread_id}"
    second = await house.server.http.post(
        "/v1/runs", json={"input": "title", "thread_id": thread_id, "if_busy": "queue"}
    )
    waiting = second.json()["run_id"]
    answer = await house.server.http.get(url)
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json() == {"thread_id": thread_id, "active": first, "queue": [waiting], "runs": []}
    house.agents.gates["a"].opened.set()
    await ended(house, waiting)
    assert (await house.server.http.get(url)).json() == {
        "thread_id": thread_id,
        "title": "A thread",
        "queue": [],
        "runs": [first, waiting],
    }
    for unknown in ("never", "no%20id"):
        missing = await house.server.http.get(f"/v1/threads/{unknown}")
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")
    assert (await house.server.http.post(url)).status_code == 405


async def test_a_command_that_takes_long_is_pending_and_goes_on(
    open_house: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = await open_house(receipt_wait_s=0.01)
    slow = asyncio.Event()
    submit = house.registry.submit

    async def held(*args: object, **options: object) -> object:
        await slow.wait()
        return await submit(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(house.gateway.registry, "submit", held)
    async with house.peer() as peer:
        run_id = (await peer.ask("run.start", {"input": "gate a"}))["run_id"]
        answer = await house.server.http.post(f"/v1/runs/{run_id}/cancel", headers={"idempotency-key": "later"})
        assert answer.status_code == 202
        assert answer.json() == {"status": "pending", "command_id": "later"}
        slow.set()
        await peer.until("run.cancelled")


async def test_lists_are_newest_first_filtered_and_paged(house: House) -> None:
    ids = [await started(house, "say 1") for _ in range(5)]
    threaded = (await house.server.http.post("/v1/runs", json={"input": "gate a", "thread_id": "t1"})).json()["run_id"]
    for run_id in ids:
        await ended(house, run_id)
    everything = (await house.server.http.get("/v1/runs")).json()
    order = [item["run_id"] for item in everything["items"]]
    # Runs started in one millisecond have no order that anybody could know.
    assert sorted(order) == sorted([threaded, *ids])
    assert order.index(ids[0]) > order.index(threaded)
    assert not {"messages", "calls", "steps"} & set(everything["items"][0])
    assert [i["run_id"] for i in (await house.server.http.get("/v1/runs?thread_id=t1")).json()["items"]] == [threaded]
    assert [i["run_id"] for i in (await house.server.http.get("/v1/runs?status=completed")).json()["items"]] == [
        i for i in order if i != threaded
    ]
    paged: list[str] = []
    url = "/v1/runs?limit=2"
    while True:
        page = (await house.server.http.get(url)).json()
        paged += [item["run_id"] for item in page["items"]]
        if "next_cursor" not in page:
            break
        url = f"/v1/runs?limit=2&cursor={page['next_cursor']}"
    assert paged == order


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "code"),
    [
        ("GET", "/nowhere", {}, 404, "not_found"),
        ("GET", "/v1/runs/", {}, 404, "not_found"),
        ("PUT", "/v1/runs", {}, 405, "method_not_allowed"),
        ("GET", "/v1/runs/x/cancel", {}, 405, "method_not_allowed"),
        ("GET", "/v1/ws", {}, 426, "upgrade_required"),
        ("GET", "/v1/runs/unknown", {}, 404, "not_found"),
        ("GET", "/v1/runs/no%20id", {}, 404, "not_found"),
        ("GET", "/v1/runs/unknown/events", {}, 404, "not_found"),
        ("POST", "/v1/runs/unknown/cancel", {}, 404, "not_found"),
        ("GET", "/v1/runs?limit=0", {}, 400, "malformed"),
        ("GET", "/v1/runs?limit=x", {}, 400, "malformed"),
        ("GET", "/v1/runs?limit=9999999999999999999999", {}, 400, "malformed"),
        ("GET", "/v1/runs?status=odd", {}, 400, "malformed"),
        ("GET", "/v1/runs?cursor=a%0Ab", {}, 400, "malformed"),
        ("POST", "/v1/runs", {"content": b"{", "headers": {"content-type": "application/json"}}, 400, "malformed"),
        ("POST", "/v1/runs", {"content": b"[]", "headers": {"content-type": "application/json"}}, 400, "malformed"),
        (
            "POST",
            "/v1/runs",
            {"content": b'{"input":"a","input":"b"}', "headers": {"content-type": "application/json"}},
            400,
            "malformed",
        ),
        (
            "POST",
            "/v1/runs",
            {"content": b'{"input":NaN}', "headers": {"content-type": "application/json"}},
            400,
            "malformed",
        ),
        (
            "POST",
            "/v1/runs",
            {"content": b'{"input":"\xff"}', "headers": {"content-type": "application/json"}},
            400,
            "malformed",
        ),
        (
            "POST",
            "/v1/runs",
            {"content": b"input=a", "headers": {"content-type": "text/plain"}},
            415,
            "unsupported_media_type",
        ),
        ("POST", "/v1/runs", {"json": {}}, 400, "malformed"),
        ("POST", "/v1/runs", {}, 400, "malformed"),
        ("POST", "/v1/runs", {"json": {"input": 5}}, 400, "malformed"),
        ("POST", "/v1/runs", {"json": {"input": "a", "agent": "nobody"}}, 404, "unknown_agent"),
        ("POST", "/v1/runs", {"json": {"input": "a", "wait_s": -1}}, 400, "malformed"),
        ("POST", "/v1/runs", {"json": {"input": "a", "wait_s": 301}}, 400, "malformed"),
        ("POST", "/v1/runs", {"json": {"input": "a", "wait_s": True}}, 400, "malformed"),
        ("POST", "/v1/runs", {"json": {"input": "a", "wait_s": "5"}}, 400, "malformed"),
        ("POST", "/v1/runs?wait_s=nan", {"json": {"input": "a"}}, 400, "malformed"),
        ("POST", "/v1/runs?wait_s=1", {"json": {"input": "a", "wait_s": 2}}, 400, "malformed"),
        ("POST", "/v1/runs", {"json": {"input": "a", "background": "yes"}}, 400, "malformed"),
        ("POST", "/v1/runs", {"json": {"input": "a", "background": True, "wait_s": 5}}, 400, "malformed"),
        ("POST", "/v1/runs?background=maybe", {"json": {"input": "a"}}, 400, "malformed"),
        ("GET", "/v1/runs/x?wait_s=1e9", {}, 400, "malformed"),
        ("DELETE", "/v1/runs/unknown", {}, 404, "not_found"),
        ("POST", "/v1/runs", {"json": {"input": "a"}, "headers": {"idempotency-key": "x" * 256}}, 400, "malformed"),
        ("POST", "/v1/runs", {"json": {"input": "x" * 20_000}}, 413, "too_large"),
        ("POST", "/v1/runs/x/commands", {"json": {"type": "run.fly"}}, 404, None),
    ],
)
async def test_bad_input_on_every_route_has_one_shape(
    open_house: Open, method: str, path: str, options: dict, status: int, code: str | None
) -> None:
    house = await open_house(max_frame_bytes=8192)
    answer = await house.server.http.request(method, path, **options)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    if code is None or (path.endswith("/cancel") and status != 405):
        # A command is answered by its receipt.
        assert answer.json()["status"] == "rejected"
    else:
        assert answer.json()["error"]["code"] == code
        assert answer.json()["error"]["text"]
    if status == 405:
        assert answer.headers["allow"]
    assert (await house.server.http.get("/healthz")).status_code == 200


async def test_a_body_without_length_is_bounded_too(open_house: Open) -> None:
    house = await open_house(max_frame_bytes=8192)

    async def body():
        yield b'{"input":"'
        for _ in range(100):
            yield b"x" * 1000
        yield b'"}'

    answer = await house.server.http.post("/v1/runs", content=body(), headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")


async def test_a_failing_server_says_so_and_nothing_else(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object, **__: object) -> object:
        raise RuntimeError("secret path /etc/x")

    monkeypatch.setattr(house.gateway.registry, "place", broken)
    answer = await house.server.http.get("/v1/runs/x")
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal"
    assert "secret" not in answer.text


async def test_health_readiness_agents_and_schema(house: House) -> None:
    assert (await house.server.http.get("/healthz")).json() == {"status": "ok"}
    assert (await house.server.http.get("/readyz")).json() == {"status": "ready"}
    assert (await house.server.http.get("/v1/agents")).json() == {"items": [{"name": "a"}]}
    assert (await house.server.http.get("/v1/schema")).text == schema_text()
    assert json.loads(schema_text())
