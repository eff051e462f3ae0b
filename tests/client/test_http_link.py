"""Streams and requests as a link: what the core hears of answers that a WebSocket never gives."""

import asyncio
import json

import httpx2
import pytest

from midstream.agents.definition import Agent
from midstream.agents.providers.scripted import ScriptedProvider
from midstream.app import Midstream
from midstream.client import Address, Unreachable, connect
from midstream.client.http_link import PENDING_S, HttpLink
from midstream.client.link import LinkClosed
from midstream.log import MemoryStore
from midstream.settings import Settings
from midstream_protocol.codec import decode_frame, encode_command
from midstream_protocol.commands import (
    AuthRefresh,
    ClientTool,
    Command,
    Ping,
    RunAttach,
    RunCancel,
    ToolsOffer,
)
from midstream_protocol.errors import Unauthorized, UnknownAgent
from tests.client.peer import PATIENCE_S, Impatient
from tests.testkit.served import served

pytestmark = pytest.mark.asyncio

VIEW = {
    "run_id": "run_1", "thread_id": "t", "agent": "a", "status": "running", "messages": [], "plan": [], "steps": [],
    "calls": [], "pending": [], "corrections": [], "objects": [], "notices": [], "cursor": {"seq": 2, "epoch": "e1"},
}  # fmt: skip


class Site:
    """A server of canned answers, by method and path, each the next of its list; and a link to it."""

    def __init__(self, **answers) -> None:
        self.asked = []
        self.answers = {"GET /v1/runs": [(200, {"items": []})], **answers}
        http = httpx2.AsyncClient(transport=httpx2.MockTransport(self._answer))
        self.clock = Calm()
        self.link = HttpLink(Address("http://there"), http, client_id="me", token="t1", clock=self.clock)

    async def __aenter__(self):
        await self.link.open()
        assert (await self.next()).type == "connection.ready"
        return self

    async def __aexit__(self, *_):
        await self.link.close(None)

    def _answer(self, request):
        self.asked.append(request)
        answers = self.answers[f"{request.method} {request.url.path}"]
        status, body = answers.pop(0) if len(answers) > 1 else answers[0]
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return httpx2.Response(status, content=content, headers={"date": "Thu, 01 Jan 2026 00:00:00 GMT"})

    async def next(self):
        async with asyncio.timeout(PATIENCE_S):
            return decode_frame(await self.link.receive())

    async def send(self, payload, run_id="run_1"):
        await self.link.send(
            encode_command(Command(type=payload.TYPE, command_id="c1", payload=payload, run_id=run_id))
        )


class Calm(Impatient):
    """The beat, which would come again and again, never comes."""

    async def sleep(self, seconds: float) -> None:
        if seconds > PENDING_S:
            await asyncio.Event().wait()
        await super().sleep(seconds)


COMMANDS = "POST /v1/runs/run_1/commands"


async def test_a_command_that_is_not_decided_yet_is_sent_again():
    decided = {"command_id": "c1", "status": "accepted", "run_id": "run_1"}
    async with Site(**{COMMANDS: [(202, {"status": "pending"}), (202, {"status": "pending"}), (200, decided)]}) as site:
        await site.send(RunCancel())
        assert (await site.next()).payload.status == "accepted"
        assert site.clock.slept == [PENDING_S] * 2
        assert len({request.content for request in site.asked[1:]}) == 1
        assert site.asked[-1].url.params["client_id"] == "me"
        assert site.asked[-1].headers["Authorization"] == "Bearer t1"


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ((409, {"command_id": "c1", "status": "rejected", "code": "run_ended", "run_id": "run_1"}), "run_ended"),
        ((404, {"error": {"code": "not_found", "text": "no run"}}), "not_found"),
        ((413, b"<html>413 Request Entity Too Large</html>"), "too_large"),
        ((418, b"a teapot"), "invalid"),
    ],
)
async def test_a_refusal_is_a_receipt_whoever_says_it(answer, code):
    async with Site(**{COMMANDS: [answer]}) as site:
        await site.send(RunCancel())
        receipt = (await site.next()).payload
        assert (receipt.command_id, receipt.status, receipt.code) == ("c1", "rejected", code)


@pytest.mark.parametrize(
    ("answer", "close"),
    [((502, b"bad gateway"), 1006), ((401, {"error": {"code": "unauthorized", "text": "who?"}}), 4500)],
)
async def test_what_is_not_the_servers_answer_ends_the_link(answer, close):
    async with Site(**{COMMANDS: [answer]}) as site:
        await site.send(RunCancel())
        with pytest.raises(LinkClosed) as closed:
            await site.next()
        assert closed.value.code == close
        with pytest.raises(LinkClosed):
            await site.send(RunCancel())


async def test_an_attach_is_a_view_and_a_stream():
    waits = {
        "kind": "input",
        "input_id": "i",
        "question": "?",
        "expires_at": "2026-01-01T00:01:00.000Z",
        "expires_in_s": 300,
    }
    events = [
        {"v": 1, "seq": n, "run_id": "run_1", "type": "x.y", "ts": "2026-01-01T00:00:00.000Z", "payload": {}}
        for n in (1, 2, 3)
    ]
    beat = {"v": 1, "type": "heartbeat", "payload": {"now": "2026-01-01T00:00:00.000Z", "runs": {"run_1": 3}}}
    lines = b"".join(json.dumps(line).encode() + b"\n" for line in (*events, beat))
    answers = {"GET /v1/runs/run_1": [(200, {**VIEW, "pending": [waits]})], "GET /v1/runs/run_1/events": [(200, lines)]}
    async with Site(**answers) as site:
        await site.send(RunAttach())
        assert (await site.next()).payload.status == "accepted"
        attached = (await site.next()).payload
        assert (attached.head_seq, attached.epoch, attached.command_id) == (2, "e1", "c1")
        assert attached.pending[0]["expires_in_s"] == 60
        said = [await site.next() for _ in range(5)]
        assert [each.type for each in said] == ["x.y", "x.y", "run.caught_up", "x.y", "heartbeat"]
        with pytest.raises(LinkClosed, match="ended"):
            await site.next()


async def test_what_a_connection_alone_can_do_is_answered_here():
    async with Site() as site:
        await site.send(ToolsOffer(run_id="run_1", client_tools=[ClientTool(name="t")]))
        refused = (await site.next()).payload
        assert refused.status == "rejected"
        assert "with the start" in refused.text
        await site.send(Ping())
        assert (await site.next()).type == "pong"
        await site.send(AuthRefresh(token="t2"), run_id=None)
        assert (await site.next()).payload.status == "accepted"
        site.answers[COMMANDS] = [(200, {"command_id": "c1", "status": "accepted"})]
        await site.send(RunCancel())
        await site.next()
        assert site.asked[-1].headers["Authorization"] == "Bearer t2"


async def test_what_is_no_server_of_ours_is_unreachable():
    for answer in ((404, b"nginx"), (200, b"<html>"), (200, {"hello": 1})):
        site = Site(**{"GET /v1/runs": [answer]})
        with pytest.raises(Unreachable, match="is it the address of a Midstream server"):
            await site.link.open()
        await site.link.close(None)


async def test_a_token_and_a_refused_start_over_a_real_server():
    settings = Settings(store="memory:", token="secret")
    app = Midstream(
        [Agent("a", instructions="x")],
        settings=settings,
        store=MemoryStore(),
        provider=ScriptedProvider({"turns": [{"steps": [{"text": "x"}]}]}),
    )
    async with asyncio.timeout(30), app.lifespan(), served(app, settings=settings, drain=app.drain) as server:
        with pytest.raises(Unauthorized):
            async with connect(server.url, token="wrong", transport="http"):
                pass
        tokens = ["expired", "secret"]
        async with connect(
            server.url, get_token=lambda: tokens.pop(0) if len(tokens) > 1 else tokens[0], transport="http"
        ) as client:
            assert client.transport == "http"
            with pytest.raises(UnknownAgent):
                await client.start(input="hi", agent="nobody")
