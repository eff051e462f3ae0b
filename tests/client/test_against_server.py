"""The client and the real server: the whole way, in one process, over a real socket."""

import asyncio

import pytest
import pytest_asyncio

from midstream.agents.definition import Agent
from midstream.agents.providers.scripted import ScriptedProvider
from midstream.app import Midstream
from midstream.client import connect
from midstream.log import MemoryStore
from midstream.settings import Settings
from midstream_protocol.commands import ClientTool, ResumeFrom
from midstream_protocol.errors import AlreadyResolved, Conflict, NotFound, RunEnded
from midstream_protocol.events import ApprovalRequired, ToolRequested
from tests.client.conftest import SCRIPT, locate, pay
from tests.testkit.fault_proxy import FaultProxy
from tests.testkit.served import served

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def server():
    settings = Settings(store="memory:")
    agent = Agent("shop", instructions="Sell.", tools=[pay, locate])
    app = Midstream([agent], settings=settings, store=MemoryStore(), provider=ScriptedProvider(SCRIPT))
    async with asyncio.timeout(30), app.lifespan(), served(app, settings=settings, drain=app.drain) as running:
        yield running


@pytest.fixture(params=["websocket", "http"])
def transport(request):
    return request.param


async def test_watch_approve_and_look_again(server, transport):
    async with connect(server.url, transport=transport) as client, connect(server.url, transport=transport) as other:
        run = await client.start(input="pay")
        async for event in run:
            if isinstance(event.payload, ApprovalRequired):
                watcher = await other.attach(run.run_id)
                receipt = await run.approve(event.payload.approval_id, args={"amount": 7})
                assert receipt.at_seq is not None
                with pytest.raises(AlreadyResolved) as refused:
                    await watcher.deny(event.payload.approval_id)
                assert refused.value.resolution["decision"] == "approved"
        assert run.view.status == "completed"
        assert await watcher.wait() == run.view
        assert run.view == await client.rest.view(run.run_id)
        assert any("paid 7" in (call.preview or "") for call in run.view.calls)
        with pytest.raises(RunEnded):
            await run.correct("more")
        with pytest.raises(NotFound):
            await client.attach("run_nobody_has")


async def test_a_tool_that_runs_here(server, transport):
    async with connect(server.url, client_id="desktop", transport=transport) as client:
        run = await client.start(input="locate", client_tools=[ClientTool(name="locate")])
        async for event in run:
            if isinstance(event.payload, ToolRequested):
                assert event.payload.client_id == "desktop"
                await run.tool_result(event.payload.tool_call_id, result="at home")
        (call,) = run.view.calls
        assert (call.state, call.via) == ("completed", "client")


@pytest.mark.parametrize("away", [False, True])
async def test_a_tool_that_is_registered_after_the_start(server, transport, away):
    located = []
    async with (
        FaultProxy(int(server.url.rpartition(":")[2])) as proxy,
        connect(f"http://127.0.0.1:{proxy.port}", client_id="desktop", transport=transport) as client,
        connect(server.url, client_id="phone") as other,
    ):
        run = await client.start(input="pay")
        (approval,) = await run.until(lambda run: run.approvals)
        run.register_tool("locate", lambda _args, call: located.append(call.tool_call_id) or "at home")
        # The receipt of what was sent after it: the offer is there.
        await run.correct("locate me")
        if away:
            await proxy.refuse()
            proxy.cut()
            # Over HTTP a stream that breaks is the end of the link, as a socket is.
            while client.state == "ready":  # noqa: ASYNC110 - it has no event for that, and does not last
                await asyncio.sleep(0.01)
            # Meanwhile another takes it over; with its attach this one takes it back.
            await other.attach(run.run_id, client_tools=[ClientTool(name="locate")])
            await proxy.accept()
            while client.state != "ready":  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await approval.deny()
        await run.wait()
        assert [call.state for call in run.view.calls if call.tool == "locate"] == ["completed"]
        assert len(located) == 1


async def test_what_comes_too_late_starts_the_next_run(server, transport):
    async with connect(server.url, transport=transport) as client:
        run = await client.start(input="hello")
        await run.wait()
        receipt = await run.correct("and now pay", if_ended="start")
        assert receipt.as_ == "started"
        following = client.run(receipt.run_id)
        async for event in following:
            if isinstance(event.payload, ApprovalRequired):
                await following.deny(event.payload.approval_id, reason="no money")
        assert following.view.thread_id == run.view.thread_id
        assert following.run_id != run.run_id
        assert len((await client.rest.runs())["items"]) == 2


async def test_going_on_with_a_run_that_was_cancelled(server, transport):
    async with connect(server.url, transport=transport) as client:
        run = await client.start(input="pay")
        async for event in run:
            if isinstance(event.payload, ApprovalRequired):
                await run.cancel()
        following = await client.start(resume=ResumeFrom(run_id=run.run_id), input="hello")
        await following.wait()
        assert following.view.thread_id == run.view.thread_id
        thread = await client.rest.thread(run.view.thread_id)
        assert thread["runs"] == [run.run_id, following.run_id]
        with pytest.raises(Conflict):
            await client.start(resume=ResumeFrom(run_id=following.run_id))
        with pytest.raises(NotFound):
            await client.rest.thread("never/used")


async def test_cutting_the_socket_at_every_event_changes_nothing(server, transport):
    async with connect(server.url, transport=transport) as client:
        run = await client.start(input="pay")
        seen = []
        async for event in run:
            seen.append(event.seq)
            if isinstance(event.payload, ApprovalRequired):
                await run.approve(event.payload.approval_id)
            client._connection._dropped.set()
        assert seen == list(range(1, len(seen) + 1))
        exported = [line async for line in client.rest.export(run.run_id)]
        assert len(exported) == len(seen)
