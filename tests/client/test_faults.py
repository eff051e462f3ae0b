"""A network that breaks in every way, and a server that dies: what the client gives is as if nothing had happened."""

import asyncio
import itertools
import signal

import pytest
import pytest_asyncio

from midstream.agents.definition import Agent
from midstream.agents.providers.scripted import ScriptedProvider
from midstream.agents.tools.definition import client_tool, tool
from midstream.app import Midstream
from midstream.client import Received, connect
from midstream.clock import SystemClock
from midstream.log import MemoryStore
from midstream.settings import Settings
from midstream_protocol.events import ApprovalRequired
from midstream_protocol.view import fold
from tests.scenarios.world import World
from tests.testkit.fault_proxy import FaultProxy, Line, cuts, mixed
from tests.testkit.served import served

pytestmark = pytest.mark.asyncio

PATIENCE_S = 60
HURRY = 40
"""How many times faster than a person's patience: what the client would wait between two attempts."""


class Hurried(SystemClock):
    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / HURRY)


@tool(approval="always", label="Pay {amount}")
async def pay(amount: int) -> str:
    """Pay."""
    return f"paid {amount}"


@client_tool(label="Where am I")
async def locate() -> str:
    """Where the user is."""
    raise AssertionError("runs in the client")


LONG = "It is a long way to say little. " * 8
SCRIPT = {
    "turns": [
        {"steps": [{"text": LONG, "by": "word", "delay_s": 0.002}, {"call": {"tool": "locate", "args": {}}}]},
        {"steps": [{"text": LONG, "by": "word", "delay_s": 0.002}, {"call": {"tool": "pay", "args": {"amount": 5}}}]},
        {"steps": [{"text": LONG, "by": "word", "delay_s": 0.002}]},
    ]
}


@pytest_asyncio.fixture
async def server():
    settings = Settings(store="memory:", heartbeat_s=0.2)
    agent = Agent("shop", instructions="Sell.", tools=[pay, locate])
    app = Midstream([agent], settings=settings, store=MemoryStore(), provider=ScriptedProvider(SCRIPT))
    async with asyncio.timeout(PATIENCE_S), app.lifespan(), served(app, settings=settings, drain=app.drain) as running:
        running.port = int(running.url.rpartition(":")[2])
        yield running


class Story:
    """One run, started, answered and read to its end over a bad network; `located` counts what its tool did."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.taps: list[int] = []
        self.located = 0
        self.view = None
        self.run_id = ""

    async def play(self, url: str, *, transport: str) -> None:
        async with connect(url, transport=transport, patient=True, clock=Hurried()) as client:
            run = await client.start(input="pay", tools={"locate": self.locate})
            self.run_id = run.run_id
            run.on_update(lambda update: self.taps.append(update.event.seq) if isinstance(update, Received) else None)
            folded = None
            async for update in run.updates():
                if not isinstance(update, Received):
                    continue
                self.texts.append(update.text)
                folded = fold(folded, update.event)
                if isinstance(update.event.payload, ApprovalRequired):
                    await run.approve(update.event.payload.approval_id, args={"amount": 7})
            self.view = await run.wait()
            assert folded.messages == self.view.messages

    async def locate(self, _args, call):
        self.located += 1
        call.progress(fraction=0.5)
        return "at home"

    async def check(self, direct: str) -> None:
        async with connect(direct) as client:
            exported = [line.decode().rstrip("\n") async for line in client.rest.export(self.run_id)]
            assert self.texts == exported
            # Those that came with the receipt of the start were there before anybody could listen.
            assert self.taps == list(range(self.taps[0], len(exported) + 1))
            assert self.view == await client.rest.view(self.run_id)
        assert self.view.status == "completed"
        assert self.located == 1
        assert "paid 7" in self.view.calls[1].preview


@pytest.fixture(params=["websocket", "http"])
def transport(request):
    return request.param


async def over(server, lines, transport, *, rest=None) -> FaultProxy:
    story = Story()
    async with FaultProxy(server.port, lines=lines, **({} if rest is None else {"rest": rest})) as proxy:
        await story.play(f"http://127.0.0.1:{proxy.port}", transport=transport)
    await story.check(server.url)
    return proxy


@pytest.mark.parametrize("seed", range(3))
async def test_any_cuts_give_what_no_cuts_give(server, transport, seed):
    proxy = await over(server, cuts(seed=seed, least=300, most=8_000), transport)
    assert proxy.counts.cuts > 1


@pytest.mark.parametrize("seed", range(3))
async def test_every_other_fault_too(server, transport, seed):
    await over(server, mixed(seed=seed, least=1_000, most=20_000), transport)


@pytest.mark.parametrize(
    "line",
    [
        Line(piece=1),
        Line(duplicate=0.5, seed=1),
        Line(swap=0.3, seed=2, spare=0),
        Line(duplicate=0.3, swap=0.3, drop=0.02, seed=3),
    ],
    ids=["byte by byte", "twice", "out of order", "all of it"],
)
async def test_one_bad_line_that_never_ends(server, transport, line):
    await over(server, [], transport, rest=line)


@pytest.mark.parametrize("seed", range(6))
async def test_a_line_that_loses_frames_for_ever(server, seed):
    proxy = await over(server, [], "websocket", rest=Line(drop=0.05, seed=seed))
    assert proxy.counts.dropped > 0


async def test_lines_that_lose_every_fourth_frame(server):
    # Each by other dice: one that loses the same frames again and again lets nobody through.
    await over(server, (Line(drop=0.25, seed=seed) for seed in itertools.count()), "websocket")


async def test_a_way_up_that_breaks(server, transport):
    lines = (Line(up_cut_at=at, how=how) for at, how in itertools.product(range(300, 1_500, 250), ("close", "reset")))
    await over(server, lines, transport)


async def test_a_line_that_stalls_is_given_up_and_not_waited_for(server):
    story = Story()
    async with FaultProxy(server.port) as proxy:
        playing = asyncio.create_task(story.play(f"http://127.0.0.1:{proxy.port}", transport="websocket"))
        while not story.texts:  # noqa: ASYNC110 - the story has no event to wait for, and does not last
            await asyncio.sleep(0)
        proxy.stall()
        # 2.5 heartbeats of silence; the next connection hangs in the same place until the way is free.
        while proxy.counts.connections < 2:  # noqa: ASYNC110 - nor has the proxy
            await asyncio.sleep(0.02)
        proxy.flow()
        await playing
    await story.check(server.url)


async def test_websockets_that_do_not_get_through(server):
    story = Story()
    async with FaultProxy(server.port, lines=cuts(seed=3, least=2_000, most=12_000)) as proxy:
        proxy.block_websockets = True
        await story.play(f"http://127.0.0.1:{proxy.port}", transport="auto")
        assert proxy.counts.refused >= 1
    await story.check(server.url)


TWO_TURNS = [
    {"steps": [{"call": {"tool": "delete", "args": {"what": "it"}}}]},
    {"steps": [{"text": "Done."}]},
]


async def ended_as_the_log_says(client, run, texts) -> None:
    assert run.ended
    exported = [line.decode().rstrip("\n") async for line in client.rest.export(run.run_id)]
    assert texts == exported
    assert run.view == await client.rest.view(run.run_id)


@pytest.mark.slow
async def test_a_server_that_is_killed_and_comes_back(tmp_path, transport):
    world = World(tmp_path, [{"steps": [{"text": LONG, "by": "word", "delay_s": 0.002}]}])
    await world.up()
    url, texts = f"http://127.0.0.1:{world.port}", []
    try:
        async with asyncio.timeout(PATIENCE_S), connect(url, transport=transport, clock=Hurried()) as client:
            run = await client.start(input="go")
            async for update in run.updates():
                if isinstance(update, Received):
                    texts.append(update.text)
                    if update.event.seq == 12:
                        await world.kill(signal.SIGKILL)
                        await world.up()
            await ended_as_the_log_says(client, run, texts)
    finally:
        await world.kill()


@pytest.mark.slow
async def test_an_answer_given_while_the_server_drains_reaches_the_next_one(tmp_path, transport):
    world = World(tmp_path, TWO_TURNS)
    await world.up()
    url, texts = f"http://127.0.0.1:{world.port}", []
    try:
        async with asyncio.timeout(PATIENCE_S), connect(url, transport=transport, clock=Hurried()) as client:
            run = await client.start(input="go")
            (approval,) = await run.until(lambda run: run.approvals)
            world.process.send_signal(signal.SIGTERM)
            answering = asyncio.create_task(approval.approve())
            await world.process.wait()
            await world.up()
            assert (await answering).status == "accepted"
            texts = [update.text async for update in run.updates() if isinstance(update, Received)]
            await ended_as_the_log_says(client, run, texts)
            assert len(world.did()) == 1
    finally:
        await world.kill()
