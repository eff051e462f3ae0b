"""Grants and dead letters over HTTP: listed, revoked, dismissed, each person their own."""

from typing import Any

import pytest

from midstream.clock import SystemClock
from midstream.gateway.auth import Credentials
from midstream.log import MemoryStore
from midstream.runs import Principal
from midstream.runs.dead_letters import Letter, letter_id, letter_writes
from midstream.runs.grants import standing_grant
from midstream.runs.keys import namespace
from midstream_protocol.codec import iso_ms
from midstream_protocol.events import ApprovalRequired
from tests.gateway.conftest import House, Open

pytestmark = pytest.mark.asyncio

ALICE = {"authorization": "Bearer alice"}
BOB = {"authorization": "Bearer bob"}


async def who(credentials: Credentials) -> Principal | None:
    return Principal(id=credentials.token, name=credentials.token) if credentials.token else None


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(clock=SystemClock())


async def put(store: MemoryStore, *writes: Any) -> None:
    for write in writes:
        await store.records.put(write.kind, write.id, write.data)


async def give(store: MemoryStore, tool: str, *, scope: Any = "always", seconds: float | None = None) -> str:
    required = ApprovalRequired(
        approval_id="appr_1", tool_call_id="c", tool=tool, label=f"Do {tool}", reason="policy", risk="low", args={},
        editable=False, args_digest="d", decisions=["approve", "deny"], remember_scopes=[],
        expires_at="2026-01-02T00:00:00.000Z", expires_in_s=1.0, on_expire="deny",
    )  # fmt: skip
    now = SystemClock().now_ms()
    grant_id, write = standing_grant(
        namespace("alice"), required, scope=scope, agent="coder", thread_id="th_1", run_id="run_1", by="alice",
        now_ms=now, expires_in_s=seconds,
    )  # fmt: skip
    await put(store, write)
    return grant_id


async def drop(store: MemoryStore, n: int, *, kind: str = "tool") -> str:
    at_ms = SystemClock().now_ms() - 1000 + n
    letter = Letter(
        id=letter_id(at_ms, "run", str(n)), kind=kind, run_id="run_1", thread_id="th_1", at=iso_ms(at_ms),
        what=str(n), code="timeout", text="Slow.", attempts=1, outcome="unknown", tool_call_id="call_1", agent="a",
        label="Do",
    )  # fmt: skip
    await put(store, *letter_writes(namespace("alice"), [letter]))
    return letter.id


async def listed(house: House, path: str, **options: Any) -> Any:
    answer = await house.server.http.get(path, **{"headers": ALICE, **options})
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    return answer.json()


async def test_grants_as_they_are_shown(open_house: Open, store: MemoryStore) -> None:
    house = await open_house(store=store, authenticate=who)
    assert await listed(house, "/v1/grants") == {"items": []}
    grant_id = await give(store, "search", scope="thread", seconds=3600)
    (item,) = (await listed(house, "/v1/grants"))["items"]
    assert {name: item.pop(name) for name in ("created_at", "expires_at")}.keys() == {"created_at", "expires_at"}
    assert item == {
        "grant_id": grant_id,
        "scope": "thread",
        "tool": "search",
        "agent": "coder",
        "risk": "low",
        "by": "alice",
        "from": {"run_id": "run_1", "approval_id": "appr_1", "label": "Do search"},
        "thread_id": "th_1",
    }
    always = await give(store, "search")
    shown = next(i for i in (await listed(house, "/v1/grants"))["items"] if i["grant_id"] == always)
    assert not shown.keys() & {"thread_id", "expires_at"}


async def test_a_grant_is_revoked_by_whom_it_belongs_to(open_house: Open, store: MemoryStore) -> None:
    house = await open_house(store=store, authenticate=who)
    path = f"/v1/grants/{await give(store, 'search')}"
    assert await listed(house, "/v1/grants", headers=BOB) == {"items": []}
    for headers, status in ((BOB, 404), (ALICE, 204), (ALICE, 404)):
        answer = await house.server.http.delete(path, headers=headers)
        assert answer.status_code == status
        assert status == 204 or answer.json()["error"]["code"] == "not_found"
    assert await listed(house, "/v1/grants") == {"items": []}


async def test_grants_come_in_pages(open_house: Open, store: MemoryStore) -> None:
    house = await open_house(store=store, authenticate=who)
    for n in range(5):
        await give(store, f"tool{n}")
    seen: list[str] = []
    params: dict[str, Any] = {"limit": 2}
    while True:
        page = await listed(house, "/v1/grants", params=params)
        seen += [item["tool"] for item in page["items"]]
        if "next_cursor" not in page:
            break
        params["cursor"] = page["next_cursor"]
    assert sorted(seen) == [f"tool{n}" for n in range(5)]


async def test_dead_letters_as_they_are_shown(open_house: Open, store: MemoryStore) -> None:
    house = await open_house(store=store, authenticate=who)
    first, second = await drop(store, 1), await drop(store, 2, kind="webhook")
    items = (await listed(house, "/v1/dead-letters"))["items"]
    assert [item["id"] for item in items] == [second, first]
    assert {name: items[1][name] for name in ("kind", "what", "code", "outcome", "attempts")} == {
        "kind": "tool",
        "what": "1",
        "code": "timeout",
        "outcome": "unknown",
        "attempts": 1,
    }
    assert [i["id"] for i in (await listed(house, "/v1/dead-letters?kind=tool"))["items"]] == [first]
    page = await listed(house, "/v1/dead-letters?limit=1")
    rest = await listed(house, "/v1/dead-letters", params={"limit": 1, "cursor": page["next_cursor"]})
    assert [i["id"] for i in rest["items"]] == [first]
    assert "next_cursor" not in rest
    assert await listed(house, "/v1/dead-letters", headers=BOB) == {"items": []}


async def test_dead_letters_are_dismissed(open_house: Open, store: MemoryStore) -> None:
    house = await open_house(store=store, authenticate=who)
    first, second = await drop(store, 1), await drop(store, 2, kind="webhook")
    third = await drop(store, 3)
    http = house.server.http
    assert (await http.delete(f"/v1/dead-letters/{first}", headers=BOB)).status_code == 404
    assert (await http.delete("/v1/dead-letters", headers=BOB)).status_code == 204
    assert (await http.delete(f"/v1/dead-letters/{first}", headers=ALICE)).status_code == 204
    assert (await http.delete(f"/v1/dead-letters/{first}", headers=ALICE)).status_code == 404
    assert [i["id"] for i in (await listed(house, "/v1/dead-letters"))["items"]] == [third, second]
    assert (await http.delete("/v1/dead-letters?kind=webhook", headers=ALICE)).status_code == 204
    assert [i["id"] for i in (await listed(house, "/v1/dead-letters"))["items"]] == [third]
    assert (await http.delete("/v1/dead-letters", headers=ALICE)).status_code == 204
    assert await listed(house, "/v1/dead-letters") == {"items": []}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/grants?limit=0", 400),
        ("GET", "/v1/grants?limit=201", 400),
        ("GET", "/v1/grants?cursor=%00", 400),
        ("GET", "/v1/dead-letters?limit=x", 400),
        ("GET", "/v1/dead-letters?kind=a%20b", 400),
        ("DELETE", "/v1/dead-letters?kind=", 400),
        ("DELETE", "/v1/grants/a%2Fb", 404),
        ("DELETE", "/v1/grants/a%20b", 404),
        ("DELETE", "/v1/dead-letters/dl_1_%F0%9F%98%80", 404),
        ("DELETE", "/v1/grants", 405),
        ("GET", "/v1/grants/x", 405),
        ("POST", "/v1/dead-letters", 405),
    ],
)
async def test_what_cannot_be_is_refused(open_house: Open, method: str, path: str, status: int) -> None:
    house = await open_house(authenticate=who)
    answer = await house.server.http.request(method, path, headers=ALICE)
    assert answer.status_code == status
    assert answer.json()["error"]["text"]
    assert (await house.server.http.request(method, path)).status_code in (401, 404, 405)
