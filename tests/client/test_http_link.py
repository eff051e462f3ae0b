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
)
from midstream_protocol.errors import Unauthorized, UnknownAgent
from tests.client.peer import PATIENCE_S, Impatient
from tests.client.server_model import USAGE, attached, caught_up, event, frame, ready
from tests.testkit.served import served

pytestmark = pytest.mark.asyncio

CONNECTION = "GET /v1/connection"
READY = json.loads(ready())["payload"]


class Site:
    """A server of canned answers, by method and path, each the next of its list; and a link to it."""

    def __init__(self, **answers) -> None:
        self.asked = []
        self.answers = {CONNECTION: [(200, READY)], **answers}
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
    """The beat, which would come again and again, comes when told."""

    def __init__(self) -> None:
        super().__init__()
        self.beats = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        if seconds > PENDING_S:
            await self.beats.wait()
            return
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


EVENTS = "GET /v1/runs/run_1/events"
BEAT = frame("heartbeat", now="2026-01-01T00:00:00.000Z", runs={"run_1": 3})


def lines(*said: bytes) -> bytes:
    return b"".join(line + b"\n" for line in said)


async def test_an_attach_is_a_stream_and_its_frames():
    said = lines(attached("http", head=2), event(1), event(2), caught_up(2), event(3), BEAT)
    async with Site(**{EVENTS: [(200, said)]}) as site:
        await site.send(RunAttach(since_seq=0, epoch="e1", replay="merged"))
        assert (await site.next()).payload.status == "accepted"
        frame = (await site.next()).payload
        assert (frame.head_seq, frame.command_id, frame.can) == (2, "c1", ["correct", "cancel"])
        assert [(await site.next()).type for _ in range(4)] == [
            "message.delta", "message.delta", "run.caught_up", "message.delta",
        ]  # fmt: skip
        assert dict(site.asked[-1].url.params) == {"frames": "1", "since_seq": "0", "epoch": "e1", "replay": "merged"}
        with pytest.raises(LinkClosed, match="ended"):
            await site.next()


@pytest.mark.parametrize(
    "said",
    [
        lines(attached("http", head=1), event(1, "run.completed", result=None, usage=USAGE, digest="d")),
        lines(attached("http", head=1, status="failed"), caught_up(1)),
        lines(
            attached("http", head=1),
            frame("run.reset", run_id="run_1", reason="too_far", snapshot={"status": "cancelled"}, snapshot_seq=1),
            caught_up(1),
        ),
        lines(attached("http", head=1), frame("run.reset", run_id="run_1", reason="gone")),
    ],
)
async def test_the_end_of_a_run_is_not_the_end_of_the_link(said):
    async with Site(**{EVENTS: [(200, said)]}) as site:
        await site.send(RunAttach())
        for _ in range(1 + said.count(b"\n")):
            await site.next()
        await site.send(Ping())
        assert (await site.next()).type == "pong"


async def test_a_beat_names_every_run():
    held = asyncio.Event()

    async def stream(run_id):
        yield lines(attached("http", head=2, run_id=run_id), event(1, run_id=run_id), event(2, run_id=run_id), BEAT)
        await held.wait()

    class Streaming(Site):
        def _answer(self, request):
            if request.url.path.endswith("/events"):
                return httpx2.Response(200, content=stream(request.url.path.split("/")[3]))
            return super()._answer(request)

    async with Streaming(**{"GET /healthz": [(200, {})]}) as site:
        for run_id in ("run_1", "run_2"):
            await site.send(RunAttach(), run_id=run_id)
        said = [await site.next() for _ in range(8)]
        assert "heartbeat" not in {each.type for each in said}, "of a stream: it would leave the other run out"
        site.clock.beats.set()
        site.clock.beats = asyncio.Event()
        assert (await site.next()).payload.runs == {"run_1": 2, "run_2": 2}


@pytest.mark.parametrize("code", ["conflict", "not_found"])
async def test_the_tools_of_an_attach_are_offered_first(code):
    refused = {"command_id": "x", "status": "rejected", "code": code, "run_id": "run_1"}
    async with Site(**{COMMANDS: [(409, refused)], EVENTS: [(200, lines(attached("http")))]}) as site:
        await site.send(RunAttach(client_tools=[ClientTool(name="t")]))
        receipt = (await site.next()).payload
        assert (receipt.command_id, receipt.code) == ("c1", code)
        asked = json.loads(site.asked[-1].content)
        assert (asked["type"], asked["payload"]["client_tools"]) == ("tools.offer", [{"name": "t"}])
        site.answers[COMMANDS] = [(409, {**refused, "code": "run_ended"})]
        await site.send(RunAttach(client_tools=[ClientTool(name="t")]))
        assert (await site.next()).payload.status == "accepted"


async def test_what_is_sent_again_while_it_is_answered_is_asked_once():
    answer = asyncio.Event()

    class Slow(Site):
        async def _answer(self, request):
            if request.method == "POST":
                await answer.wait()
            return super()._answer(request)

    async with Slow(**{COMMANDS: [(200, {"command_id": "c1", "status": "accepted"})]}) as site:
        await site.send(RunCancel())
        await site.send(RunCancel())
        answer.set()
        assert (await site.next()).payload.status == "accepted"
        assert [request.method for request in site.asked] == ["GET", "POST"]


async def test_what_a_connection_alone_can_do_is_answered_here():
    async with Site() as site:
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
        site = Site(**{CONNECTION: [answer]})
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
