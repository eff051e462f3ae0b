"""The I/O around the core: a real WebSocket on loopback, and a peer that says what the test tells it."""

import asyncio
import contextlib
from collections.abc import Callable
from http import HTTPStatus

import msgspec
import pytest
import pytest_asyncio
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

from midstream.client import BadAddress, Disconnected, Unreachable, connect
from midstream.client.run import MAX_UNREAD
from midstream.clock import SystemClock
from midstream_protocol.errors import Conflict, InvalidArgs, NotFound, ProtocolError, Unauthorized
from tests.client.server_model import Server, event, frame, receipt

PATIENCE_S = 10

pytestmark = pytest.mark.asyncio


class Moved:
    """Something happened: look again."""

    def __init__(self) -> None:
        self._news = asyncio.Event()

    def __call__(self) -> None:
        self._news.set()

    async def until(self, check: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not check():
                self._news.clear()
                await self._news.wait()


class Impatient(SystemClock):
    """Waits that are asked for are noted, not waited."""

    def __init__(self) -> None:
        self.slept: list[float] = []
        self.ahead = 0.0
        self.timers: list[Callable[[], object]] = []
        self.moved = Moved()

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.moved()
        await asyncio.sleep(0)

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Callable[[], None]:
        del seconds
        self.timers.append(callback)
        return lambda: self.timers.remove(callback) if callback in self.timers else None


class Peer:
    """The server model behind a real socket. `cut_after`: cut connections after so many frames, one number each."""

    def __init__(self) -> None:
        self.model = Server()
        self.cut_after: list[int] = []
        self.connections = 0
        self.headers = []
        self.paths: list[str] = []
        self.socket = None
        self.status: HTTPStatus | None = None
        self.close_with: tuple[int, str] | None = None
        self.moved = Moved()

    async def __call__(self, socket) -> None:
        self.connections += 1
        self.socket = socket
        self.headers.append(socket.request.headers)
        self.paths.append(socket.request.path)
        if self.close_with is not None:
            await socket.close(*self.close_with)
            return
        self.model.connect()
        left = self.cut_after.pop(0) if self.cut_after else None
        with contextlib.suppress(ConnectionClosed):
            while True:
                left = await self._flush(socket, left)
                if left == 0:
                    socket.transport.abort()
                    return
                data = await socket.recv()
                self.model.receive(data.encode())
                self.moved()

    async def _flush(self, socket, left):
        while self.model.out and left != 0:
            await socket.send(self.model.out.pop(0), text=True)
            left = None if left is None else left - 1
        return left

    async def push(self) -> None:
        """Write what the model has, unasked."""
        await self._flush(self.socket, None)

    def answer_upgrade(self, connection, request):
        return None if self.status is None else connection.respond(self.status, "no\n")


@pytest_asyncio.fixture
async def peer():
    found = Peer()
    async with serve(found, "127.0.0.1", 0, process_request=found.answer_upgrade) as server:
        found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        found.server = server
        yield found


@pytest.fixture
def clock():
    return Impatient()


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
        run = await client.attach("run_1", since_seq=1)
        with pytest.raises(ValueError, match="followed already"):
            await client.attach("run_1")
        run.detach()
        assert [each async for each in run] == []
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


async def test_a_slow_reader_makes_the_server_wait(peer, clock):
    for _ in range(MAX_UNREAD + 50):
        peer.model.append()
    peer.model.append(last=True)
    async with asyncio.timeout(PATIENCE_S), connect(peer.url, clock=clock) as client:
        received = []
        plain = peer.model.receive
        peer.model.receive = lambda data: (received.append(data), plain(data))
        run = await client.attach("run_1")
        await peer.moved.until(lambda: any(b"run.detach" in each for each in received))
        assert len(run._unread) <= MAX_UNREAD
        assert [each.seq async for each in run] == list(range(1, MAX_UNREAD + 52))
        assert sum(b"run.attach" in each for each in received) == 2


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


@pytest.mark.parametrize("url", ["", "localhost:8484", "ftp://x", "http://", "http://h:port"])
async def test_a_bad_address(url):
    with pytest.raises(BadAddress):
        async with connect(url):
            pass
