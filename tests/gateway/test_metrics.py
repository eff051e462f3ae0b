"""What operators count, over HTTP."""

import re

import pytest

from midstream.telemetry import count_guardrail_trip, count_model_call, count_recovery
from tests.gateway.conftest import House, Open

pytestmark = pytest.mark.asyncio


def value(text: str, name: str) -> float:
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


async def test_what_is_counted_is_shown_in_the_text_format(house: House) -> None:
    before = (await house.server.http.get("/metrics")).text
    count_recovery("overloaded")
    count_model_call("answered")
    count_guardrail_trip()
    answer = await house.server.http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert answer.headers["cache-control"] == "no-store"
    for name in (
        'midstream_recoveries_total{kind="overloaded"}',
        'midstream_model_calls_total{outcome="answered"}',
        "midstream_guardrail_trips_total",
    ):
        assert value(answer.text, name) == value(before, name) + 1


async def test_it_needs_the_token_where_there_is_one(open_house: Open) -> None:
    house = await open_house(token="plain")
    assert (await house.server.http.get("/metrics")).status_code == 401
    known = {"authorization": "Bearer plain"}
    assert (await house.server.http.get("/metrics", headers=known)).status_code == 200
