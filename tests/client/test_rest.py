"""What needs no socket, against answers that the test gives."""

import json

import httpx2
import pytest

from midstream.client import Address, Pending, Rest, Unreachable, connect
from midstream_protocol.commands import RunCancel
from midstream_protocol.errors import AlreadyResolved, NotFound
from tests.client.peer import Impatient
from tests.client.server_model import TERMINAL, USAGE, event, frame

pytestmark = pytest.mark.asyncio

LOG = [event(1), event(2), event(3), event(4, TERMINAL, result=None, usage=USAGE, digest="d")]


class Cut(httpx2.AsyncByteStream):
    """A body that breaks after its bytes, as a killed server's does."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def __aiter__(self):
        yield self._data
        raise httpx2.RemoteProtocolError("peer closed connection")


class Web:
    """Answers in turn; what was asked is kept."""

    def __init__(self, *answers) -> None:
        self.answers = list(answers)
        self.asked = []
        self.clock = Impatient()
        self.rest = Rest(
            Address("http://127.0.0.1:1/base/"),
            token="t",
            clock=self.clock,
            transport=httpx2.MockTransport(self._answer),
        )

    def _answer(self, request):
        self.asked.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def export(self, **options):
        return [line async for line in self.rest.export("run_1", **options)]


def lines(*events):
    return httpx2.Response(200, content=b"".join(each + b"\n" for each in events))


async def test_signs_of_life_between_the_lines_are_no_part_of_the_log():
    beat = frame("heartbeat", now="2026-01-01T00:00:00.000Z", runs={"run_1": 1})
    web = Web(lines(LOG[0], beat, *LOG[1:]))
    assert b"".join(await web.export()) == b"".join(each + b"\n" for each in LOG)


async def test_an_export_is_the_log():
    web = Web(lines(*LOG))
    assert await web.export() == [each + b"\n" for each in LOG]
    (request,) = web.asked
    assert str(request.url) == "http://127.0.0.1:1/base/v1/runs/run_1/events?since_seq=0"
    assert request.headers["accept"] == "application/x-ndjson"
    assert request.headers["authorization"] == "Bearer t"


async def test_an_export_up_to_a_seq_stops_there():
    assert await Web(lines(*LOG)).export(until_seq=2) == [LOG[0] + b"\n", LOG[1] + b"\n"]
    assert await Web().export(since_seq=2, until_seq=2) == []


async def test_a_broken_export_goes_on_where_it_broke():
    """Cut in the middle of a line, refused, ended too early by a server that goes down: nothing is lost or doubled."""
    web = Web(
        httpx2.Response(200, stream=Cut(LOG[0] + b"\n" + LOG[1][:20])),
        httpx2.ConnectError("refused"),
        lines(LOG[1], LOG[2]),
        lines(LOG[3]),
    )
    assert await web.export() == [each + b"\n" for each in LOG]
    assert [request.url.params["since_seq"] for request in web.asked] == ["0", "1", "1", "3"]
    assert len(web.clock.slept) == 3


async def test_an_export_gives_up_when_nothing_comes():
    with pytest.raises(Unreachable, match="refused"):
        await Web(*[httpx2.ConnectError("refused")] * 6).export()


async def test_an_export_after_the_end_is_empty():
    assert await Web(httpx2.Response(204)).export(since_seq=4) == []


async def test_an_export_of_a_log_that_lost_its_beginning_says_so():
    reset = frame("run.reset", run_id="run_1", reason="trimmed", epoch="e", snapshot={}, snapshot_seq=9)
    with pytest.raises(NotFound, match="not whole"):
        await Web(lines(reset, event(10))).export()


async def test_errors_are_typed_and_strangers_are_recognised():
    body = {"error": {"code": "not_found", "text": "no such run"}}
    with pytest.raises(NotFound, match="no such run"):
        await Web(httpx2.Response(404, json=body)).rest.view("run_1")
    with pytest.raises(NotFound, match="no such run"):
        await Web(httpx2.Response(404, json=body)).export()
    for stranger in (
        httpx2.Response(404, text="<html>"),
        httpx2.Response(500, json={"detail": "x"}),
        httpx2.Response(200, text="hi"),
    ):
        with pytest.raises(Unreachable):
            await Web(stranger).rest.runs()


async def test_a_command_and_its_refusal():
    accepted = {"command_id": "c1", "run_id": "run_1", "status": "accepted", "at_seq": 7}
    web = Web(httpx2.Response(200, json=accepted))
    assert (await web.rest.command("run_1", RunCancel(), command_id="c1")).at_seq == 7
    sent = json.loads(web.asked[0].content)
    assert (sent["type"], sent["command_id"], sent["run_id"]) == ("run.cancel", "c1", "run_1")

    rejected = accepted | {"status": "rejected", "code": "already_resolved", "resolution": {"decision": "denied"}}
    with pytest.raises(AlreadyResolved) as refused:
        await Web(httpx2.Response(409, json=rejected)).rest.command("run_1", RunCancel())
    assert refused.value.resolution == {"decision": "denied"}
    with pytest.raises(Pending):
        await Web(httpx2.Response(202, json={"status": "pending"})).rest.command("run_1", RunCancel())


async def test_grants_and_dead_letters():
    page = {"items": [], "next_cursor": "c"}
    gone = httpx2.Response(404, json={"error": {"code": "not_found", "text": "no"}})
    done = [httpx2.Response(204) for _ in range(4)]
    web = Web(httpx2.Response(200, json=page), httpx2.Response(200, json=page), *done, gone)
    assert await web.rest.grants(limit=2) == page
    assert await web.rest.dead_letters(kind="tool", cursor="c") == page
    await web.rest.revoke_grant("g/1")
    await web.rest.dismiss("dl")
    await web.rest.dismiss_all()
    await web.rest.dismiss_all(kind="webhook")
    with pytest.raises(NotFound):
        await web.rest.dismiss("dl")
    asked = [(each.method, each.url.raw_path.decode().removeprefix("/base/v1")) for each in web.asked]
    assert asked[:6] == [
        ("GET", "/grants?limit=2"),
        ("GET", "/dead-letters?kind=tool&cursor=c"),
        ("DELETE", "/grants/g%2F1"),
        ("DELETE", "/dead-letters/dl"),
        ("DELETE", "/dead-letters"),
        ("DELETE", "/dead-letters?kind=webhook"),
    ]


@pytest.mark.parametrize("typed", [".", "..", "a/../b", "?kind=tool", "%2e"])
async def test_what_is_no_id_asks_for_nothing_else(typed):
    missing = httpx2.Response(404, json={"error": {"code": "not_found", "text": "no such thing"}})
    web = Web(*[missing] * 5)
    rest = web.rest
    for ask in (rest.dismiss, rest.revoke_grant, rest.delete, rest.thread, rest.view):
        with pytest.raises(NotFound):
            await ask(typed)
    parts = [request.url.raw_path.decode().split("/") for request in web.asked]
    kinds = ["dead-letters", "grants", "runs", "threads", "runs"]
    assert [part[:4] for part in parts] == [["", "base", "v1", kind] for kind in kinds]
    assert all(len(part) == 5 and part[4] not in ("", ".", "..") and "?" not in part[4] for part in parts)


@pytest.mark.parametrize("transport", ["websocket", "http", "auto"])
async def test_a_token_that_cannot_be_sent_is_not_shown(transport):
    with pytest.raises(Unreachable, match="line break") as refused:
        async with connect("http://127.0.0.1:9", token="CANARY\n", transport=transport):
            pass
    assert "CANARY" not in str(refused.value)
    rest = Rest(Address("http://127.0.0.1:9"), token="CANARY\n")
    with pytest.raises(Unreachable, match="line break"):
        await rest.grants()
    await rest.aclose()
