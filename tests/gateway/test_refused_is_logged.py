"""Who sets a server up finds in its log why a page cannot connect; who knocks again and again does not fill it."""

import pytest
from structlog.testing import capture_logs

from midstream.gateway.door import MAX_LOGGED
from tests.gateway.conftest import House

pytestmark = pytest.mark.asyncio


async def test_a_refused_page_is_named_once(house: House) -> None:
    with capture_logs() as logs:
        for _ in range(3):
            answer = await house.server.http.get("/v1/runs", headers={"origin": "http://evil.example"})
            assert answer.status_code == 403
    (line,) = [each for each in logs if each["event"] == "refused at the door"]
    assert line["origin"] == "http://evil.example"
    assert "MIDSTREAM_ALLOWED_ORIGINS" in line["text"]


async def test_strangers_do_not_fill_the_log(house: House) -> None:
    with capture_logs() as logs:
        for number in range(MAX_LOGGED + 20):
            await house.server.http.get("/healthz", headers={"origin": f"http://{number}.example"})
    assert len([each for each in logs if each["event"] == "refused at the door"]) == MAX_LOGGED
