"""The I/O around the core: a real WebSocket on loopback, and a peer that says what the test tells it."""

import asyncio
from http import HTTPStatus

import msgspec
import pytest

from midstream.client import Address, BadAddress, Disconnected, Rest, Unreachable, connect
from midstream.client.credentials import Credentials
from midstream.client.reader import MAX_UNREAD
from midstream.clock import SystemClock
from midstream_protocol.errors import Conflict, InvalidArgs, NotFound, ProtocolError, Unauthorized
from midstream_protocol.view import view_to_builtins
from tests.client.peer import PATIENCE_S, Impatient
from tests.client.server_model import attached, event, frame, receipt

pytestmark = pytest.mark.asyncio


async def test_a_run_is_followed_to_its_end(peer, clock):
    for _ in range(3):
        peer.model.append()
    peer.model.append(last=True)
    async with asyncio.timeout(PATIENCE_S), connect(peer.url, token="t0", client_id="me", clock=clock) as client:
        assert client.state == "ready"
        run = await client.start(input="hi")
        assert [each.seq async for each in run] == [1, 2, 3, 4]
        assert run.view.status == "completed"
        assert run.view.cursor.seq == 4
        assert run.view.cursor.epoch == "e1"
        assert run.info.thread_id == "thread_1"
    assert peer.paths == ["/v1/ws?client_id=me"]
    assert peer.headers[0]["Authorization"] == "Bearer t0"
    assert peer.headers[0]["Sec-WebSocket-Protocol"] == "midstream.v1.json"


@pytest.mark.parametrize("cuts", [[4, 5, 3, 6], [2], [1, 1, 1], [3, 4, 4, 4, 4, 4, 4, 4]])
async def test_cuts_lose_and_repeat_nothing(peer, clock, cuts):
    for _ in range(8):
        peer.model.append()
    peer.model.append(last=True)
    # The first connection has to become ready, or there is nothing to come back to.
    peer.cut_after = cuts
    states = []
    async with (
        asyncio.timeout(PATIENCE_S),
        connect(peer.url, clock=clock, on_state=lambda *s: states.append(s)) as client,
    ):
        run = await client.start(input="hi")
        assert [each.seq async for each in run] == list(range(1, 10))
    assert len(peer.model.performed) == 1
    assert [state for state, _ in states].count("reconnecting") >= 1
    assert clock.slept


async def test_a_command_is_resent_until_its_receipt_and_refusals_are_typed(peer, clock):
    peer.model.append()
    async with asyncio.timeout(PATIENCE_S), connect(peer.url, clock=clock) as client:
        run = await client.attach("run_1")
        sending = asyncio.create_task(run.correct("be brief"))
        await asyncio.sleep(0)
        peer.socket.transport.abort()
        answered = await sending
        assert answered.status == "accepted"
        assert peer.model.performed == [answered.command_id]

        peer.model.receipts.clear()
        errors = [{"path": "/n", "code": "type", "text": "a number"}]
        peer.model.receive = lambda data: peer.model.out.append(
            receipt(_id(data), "rejected", code="invalid_args", text="no", errors=errors)
        )
        with pytest.raises(InvalidArgs) as refused:
            await run.approve("ap_1", args={"n": "x"})
        assert refused.value.errors[0].path == "/n"
        peer.model.receive = lambda data: peer.model.out.append(
            receipt(_id(data), "rejected", code="brand_new", text="no")
        )
        with pytest.raises(ProtocolError) as unknown:
            await run.cancel()
        assert unknown.value.code == "brand_new"


def _id(data: bytes) -> str:
    return msgspec.json.decode(data)["command_id"]


async def test_attaching_to_nothing_and_twice(peer, clock):
    peer.model.append()
    async with asyncio.timeout(PATIENCE_S), connect(peer.url, clock=clock) as client:
        run = await client.attach("run_1")
        assert await client.attach("run_1") is run
        run.detach()
        assert [each.seq async for each in run] == [1]
        assert [each async for each in run] == []
        with pytest.raises(Disconnected, match="not followed"):
            await run.wait()
        peer.model.receive = lambda data: peer.model.out.append(
            receipt(_id(data), "rejected", code="not_found", text="no run")
        )
        with pytest.raises(NotFound):
            await client.attach("run_1")
        peer.model.receive = lambda data: peer.model.out.append(
            receipt(_id(data), "rejected", code="conflict", text="other")
        )
        with pytest.raises(Conflict):
            await client.start(input="x", run_id="run_1")


async def test_a_slow_reader_gets_all_and_the_view_does_not_wait_for_it(peer, clock):
    for _ in range(MAX_UNREAD + 50):
        peer.model.append()
    peer.model.append(last=True)
    async with asyncio.timeout(PATIENCE_S), connect(peer.url, clock=clock) as client:
        run = await client.attach("run_1")
        events = aiter(run)
        seen = [(await anext(events)).seq]
        assert (await run.wait()).cursor.seq == MAX_UNREAD + 51
        assert max(len(reader._unread) for reader in run._readers) <= MAX_UNREAD
        seen += [each.seq async for each in events]
        assert seen == list(range(1, MAX_UNREAD + 52))


async def test_nobody_who_reads_costs_nothing_and_late_comers_get_all(peer, clock):
    for _ in range(MAX_UNREAD + 50):
        peer.model.append()
    peer.model.append(last=True)
    async with asyncio.timeout(PATIENCE_S), connect(peer.url, clock=clock) as client:
        run = await client.attach("run_1")
        view = await run.wait()
        assert not run._first._unread
        assert [each.seq async for each in run] == list(range(1, MAX_UNREAD + 52))
        assert [each.seq async for each in run] == list(range(1, MAX_UNREAD + 52))
        assert run.view is view


async def test_silence_is_noticed_and_the_run_goes_on(peer, clock):
    peer.model.append()
    async with asyncio.timeout(PATIENCE_S), connect(peer.url, clock=clock) as client:
        run = await client.attach("run_1")
        events = aiter(run)
        assert (await anext(events)).seq == 1
        clock.ahead += 26
        for ring in list(clock.timers):
            ring()
        await peer.moved.until(lambda: peer.connections == 2 and peer.model.following)
        peer.model.append(last=True)
        await peer.push()
        assert [each.seq async for each in events] == [2]


async def test_a_final_close_ends_every_waiter(peer, clock):
    peer.model.append()
    async with asyncio.timeout(PATIENCE_S), connect(peer.url, clock=clock) as client:
        run = await client.attach("run_1")
        peer.model.receive = lambda _data: None
        cancelling = asyncio.create_task(run.cancel())
        await asyncio.sleep(0)
        await peer.socket.close(4503, "not yours")
        with pytest.raises(ProtocolError, match="not yours"):
            await cancelling
        with pytest.raises(ProtocolError, match="not yours"):
            await run.wait()
        with pytest.raises(ProtocolError, match="not yours"):
            await client.start(input="x")
        assert client.state == "closed"


async def test_bad_credentials_are_said_at_once(peer):
    peer.close_with = (4500, "bad token")
    with pytest.raises(Unauthorized, match="bad token"):
        async with connect(peer.url):
            pass
    assert peer.connections == 1


async def test_a_first_connection_that_fails_is_said_at_once(peer):
    peer.status = HTTPStatus.FORBIDDEN
    with pytest.raises(Unreachable) as refused:
        async with connect(peer.url):
            pass
    assert refused.value.status == 403
    peer.server.close()
    await peer.server.wait_closed()
    with pytest.raises(Unreachable) as refused:
        async with connect(peer.url):
            pass
    assert refused.value.status is None


async def test_a_patient_client_waits_for_its_server(peer, clock):
    peer.status = HTTPStatus.SERVICE_UNAVAILABLE
    waiting = asyncio.create_task(_connected(peer.url, clock))
    await clock.moved.until(lambda: len(clock.slept) >= 2)
    peer.status = None
    async with asyncio.timeout(PATIENCE_S):
        assert await waiting == "ready"


async def _connected(url: str, clock: Impatient) -> str:
    async with connect(url, patient=True, clock=clock) as client:
        return client.state


async def test_a_defect_of_the_application_is_heard_and_not_waited_for(peer, clock):
    def on_state(state, _reason):
        if state == "reconnecting":
            raise ZeroDivisionError

    peer.model.append()
    async with asyncio.timeout(PATIENCE_S), connect(peer.url, clock=clock, on_state=on_state) as client:
        run = await client.attach("run_1")
        peer.socket.transport.abort()
        with pytest.raises(ZeroDivisionError):
            await run.wait()
        with pytest.raises(ZeroDivisionError):
            await client.start(input="x")


async def test_leaving_ends_what_still_waits(peer, clock):
    peer.model.append()
    async with asyncio.timeout(PATIENCE_S):
        async with connect(peer.url, clock=clock) as client:
            run = await client.attach("run_1")
        with pytest.raises(Disconnected):
            await run.wait()
        with pytest.raises(Disconnected):
            await run.cancel()


async def test_a_reset_replaces_the_view(peer, clock):
    peer.model.append()
    snapshot = {
        "run_id": "run_1", "thread_id": "t", "agent": "a", "status": "running", "messages": [], "plan": [], "steps": [],
        "calls": [], "pending": [], "corrections": [], "objects": [], "notices": [], "title": "as it was",
        "cursor": {"seq": 6, "epoch": "e2"},
    }  # fmt: skip
    async with asyncio.timeout(PATIENCE_S), connect(peer.url, clock=clock) as client:
        run = await client.attach("run_1")
        events = aiter(run)
        await anext(events)
        reset = frame("run.reset", run_id="run_1", reason="ahead", epoch="e2", snapshot=snapshot, snapshot_seq=6)
        peer.model.out += [reset, event(7)]
        await peer.push()
        assert (await anext(events)).seq == 7
        assert run.view.title == "as it was"
        assert (run.view.cursor.seq, run.view.cursor.epoch) == (7, "e2")


async def test_a_reset_for_a_late_iteration_takes_the_view_nowhere(peer, clock):
    for _ in range(5):
        peer.model.append()
    async with asyncio.timeout(PATIENCE_S), connect(peer.url, clock=clock) as client:
        run = await client.attach("run_1")
        first = aiter(run)
        for _ in range(5):
            await anext(first)
        late = run.updates()
        view = await run.until(lambda run: run.caught_up and run.view)
        # The log's beginning is gone, and what stands for it is older than what was seen.
        snapshot = view_to_builtins(view) | {"title": "as it was", "cursor": {"seq": 3, "epoch": "e1"}}
        reset = {"reason": "trimmed", "epoch": "e1", "snapshot": snapshot, "snapshot_seq": 3}
        peer.model.receive = lambda data: peer.model.out.extend(
            [attached(_id(data), head=5), frame("run.reset", run_id="run_1", **reset), event(4), event(5)]
        )
        told = [await anext(late) for _ in range(4)]
        assert [type(each).__name__ for each in told] == ["RunAttached", "RunReset", "Received", "Received"]
        assert run.view is view
        peer.model.out.append(event(6))
        await peer.push()
        assert [(await anext(first)).seq, (await anext(late)).event.seq] == [6, 6]


@pytest.mark.parametrize("url", ["", "localhost:8484", "ftp://x", "http://", "http://h:port"])
async def test_a_bad_address(url):
    with pytest.raises(BadAddress):
        async with connect(url):
            pass


# -- tokens


class Tokens:
    def __init__(self, *made) -> None:
        self.made = list(made)
        self.given = []

    async def __call__(self):
        self.given.append(self.made.pop(0))
        if isinstance(self.given[-1], Exception):
            raise self.given[-1]
        return self.given[-1]


def bearers(peer):
    return [headers.get("Authorization") for headers in peer.headers]


async def test_a_token_is_asked_for_at_every_attempt(peer, clock):
    peer.model.append()
    tokens = Tokens("t1", "t2", None)
    async with asyncio.timeout(PATIENCE_S), connect(peer.url, get_token=tokens, clock=clock) as client:
        await client.attach("run_1")
        await peer.socket.close(4005, "the token expired")
        await peer.moved.until(lambda: peer.connections == 2 and peer.model.following)
        assert clock.slept == [0]
        peer.socket.transport.abort()
        await peer.moved.until(lambda: peer.connections == 3 and peer.model.following)
    assert bearers(peer) == ["Bearer t1", "Bearer t2", None]


async def test_bad_credentials_are_renewed_once(peer, clock):
    peer.close_with = (4500, "bad token")
    with pytest.raises(Unauthorized, match="bad token"):
        async with asyncio.timeout(PATIENCE_S), connect(peer.url, get_token=Tokens("t1", "t2"), clock=clock):
            pass
    assert bearers(peer) == ["Bearer t1", "Bearer t2"]


async def test_an_expiring_token_is_refreshed_on_the_connection(peer, clock):
    peer.model.append()
    tokens = Tokens("t1", "t2", RuntimeError("the issuer is down"))
    async with asyncio.timeout(PATIENCE_S), connect(peer.url, get_token=tokens, clock=clock) as client:
        await client.attach("run_1")
        received = []
        peer.model.receive = lambda data: received.append(msgspec.json.decode(data))
        peer.model.out.append(frame("auth.expiring", in_s=30))
        await peer.push()
        await peer.moved.until(lambda: received)
        assert (received[0]["type"], received[0]["payload"]) == ("auth.refresh", {"token": "t2"})
        peer.model.out.append(frame("auth.expiring", in_s=30))
        await peer.push()
        while len(tokens.given) < 3:  # noqa: ASYNC110 - what fails there is only logged
            await asyncio.sleep(0)
        assert client.state == "ready"


async def test_a_token_that_cannot_be_had_may_be_there_later(peer, clock):
    tokens = Tokens("t1", OSError("no network"), "t2")
    peer.model.append()
    async with asyncio.timeout(PATIENCE_S), connect(peer.url, get_token=tokens, clock=clock) as client:
        await client.attach("run_1")
        peer.socket.transport.abort()
        await peer.moved.until(lambda: peer.connections == 2 and peer.model.following)
    with pytest.raises(Unreachable, match="get_token failed: ValueError: wrong"):
        async with connect(peer.url, get_token=Tokens(*[ValueError("wrong")] * 3), clock=clock):
            pass
    with pytest.raises(ValueError, match="either token or get_token"):
        async with connect(peer.url, get_token=tokens, token="x"):
            pass


async def test_a_request_asks_for_its_token_too(peer):
    peer.status = HTTPStatus.SERVICE_UNAVAILABLE
    tokens = Tokens("t1", "t2")
    rest = Rest(Address(peer.url), credentials=Credentials(get_token=tokens))
    for _ in range(2):
        with pytest.raises(Unreachable):
            await rest.agents()
    await rest.aclose()
    assert tokens.given == ["t1", "t2"]


async def test_what_is_waited_for_can_be_had_now(peer):
    peer.model.append()
    async with asyncio.timeout(PATIENCE_S), connect(peer.url, clock=Patient()) as client:
        await client.attach("run_1")
        peer.socket.transport.abort()
        while client.state != "reconnecting":  # noqa: ASYNC110 - the loss takes a turn of the loop
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        client.reconnect()
        await peer.moved.until(lambda: peer.connections == 2 and peer.model.following)


class Patient(SystemClock):
    async def sleep(self, seconds: float) -> None:
        await asyncio.Event().wait()
