"""Runs asked for over HTTP, one after the other, by nobody who stays to read them."""

import http.client
from typing import Any

import msgspec
from clients.dialects import SALT

LIMIT_S = 30.0


def started(port: int, order: str, count: int, *, agent: str = "bench", first: int = 0) -> list[str]:
    """The ids of the new runs."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
    found = []
    for number in range(count):
        body = msgspec.json.encode({"input": order, "agent": agent})
        key = f"{SALT}-{agent}-{first + number}"
        headers = {"content-type": "application/json", "idempotency-key": key}
        found.append(_json(connection, "POST", "/v1/runs", body, headers, wanted=201)["run_id"])
    connection.close()
    return found


def listed(port: int, *, status: str | None = None, limit: int = 50) -> list[str]:
    """Ids of the newest runs."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
    query = f"limit={limit}" + (f"&status={status}" if status else "")
    items = _json(connection, "GET", f"/v1/runs?{query}", None, {}, wanted=200)["items"]
    connection.close()
    return [item["run_id"] for item in items]


def status_of(port: int, run_id: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
    found = _json(connection, "GET", f"/v1/runs/{run_id}", None, {}, wanted=200)["status"]
    connection.close()
    return str(found)


def _json(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes | None,
    headers: dict[str, str],
    *,
    wanted: int,
) -> Any:
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    content = answer.read()
    if answer.status != wanted:
        raise ConnectionError(f"{method} {path}: {answer.status} {content[:400].decode(errors='replace')}")
    return msgspec.json.decode(content)
