"""A run as an application sees it: its view, its questions as objects, its tools, its places. A real server."""

import asyncio
import json
import threading
from datetime import UTC, datetime

import pytest
import pytest_asyncio

from midstream.agents.definition import Agent
from midstream.agents.providers.scripted import ScriptedProvider
from midstream.app import Midstream
from midstream.client import Disconnected, Received, connect
from midstream.client.cursors import MAX_CURSORS, Cursors
from midstream.log import MemoryStore
from midstream.settings import Settings
from midstream.testing import ManualClock
from midstream_protocol.commands import ClientTool
from midstream_protocol.errors import AlreadyResolved, InvalidArgs, RunEnded
from tests.client.conftest import locate, pay
from tests.testkit.served import served

pytestmark = pytest.mark.asyncio


SCRIPT = {
    "loop": True,
    "turns": [
        {"steps": [{"text": "Done."}]},
        {"match": {"last_user_contains": "pay"}, "steps": [{"call": {"tool": "pay", "args": {"amount": 5}}}]},
        {"match": {"last_user_contains": "locate"}, "steps": [{"call": {"tool": "locate", "args": {}}}]},
        {
            "match": {"last_user_contains": "ask"},
            "steps": [{"call": {"tool": "ask_user", "args": {"question": "Which?"}}}],
        },
    ],
}


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


async def test_an_approval_is_one_object_until_somebody_answers(server, transport):
    async with connect(server.url, transport=transport) as client, connect(server.url) as other:
        run = await client.start(input="pay")
        (approval,) = await run.until(lambda run: run.approvals)
        left_s = (approval.expires_at - datetime.now(UTC)).total_seconds()
        assert 0 < left_s <= approval_required(run)["expires_in_s"] + 1
        assert (approval.tool, approval.label, approval.args, approval.editable) == (
            "pay",
            "Pay <b>5</b>",
            {"amount": 5},
            True,
        )
        with pytest.raises(InvalidArgs):
            await approval.edit({"amount": "much"})
        assert run.approvals == (approval,)
        assert run.approvals[0] is approval

        watching = await other.attach(run.run_id)
        (same,) = await watching.until(lambda run: run.caught_up and run.approvals)
        await same.approve(remember="run")
        await run.wait()
        assert run.approvals == ()
        with pytest.raises(AlreadyResolved):
            await approval.approve()
        assert "paid 5" in run.view.calls[0].preview


def approval_required(run):
    return next(item for item in run.view.pending if item["kind"] == "approval")


async def test_what_was_answered_long_ago_is_not_offered_again_while_history_is_read(server, transport):
    async with connect(server.url, transport=transport) as client, connect(server.url, transport=transport) as other:
        run = await client.start(input="pay")
        await (await run.until(lambda run: run.approvals))[0].approve()
        await run.wait()
        seen = []
        again = await other.attach(run.run_id)
        again.on_update(lambda _update: seen.append(again.approvals))
        await again.wait()
        assert set(seen) <= {()}


async def test_the_view_is_whole_wherever_an_iteration_begins(server, transport):
    async with connect(server.url, transport=transport) as client, connect(server.url, transport=transport) as other:
        run = await client.start(input="hello")
        whole = await run.wait()
        last = whole.cursor.seq
        part = await other.attach(run.run_id, since_seq=3)
        assert [event.seq async for event in part] == list(range(4, last + 1))
        assert part.view == whole
        assert [event.seq async for event in part] == list(range(4, last + 1)), "each iteration has its own place"
        nothing = await client.attach(run.run_id, since_seq=last)
        assert [event.seq async for event in nothing] == []
        only_new = await client.attach(run.run_id, replay="snapshot")
        assert [event.seq async for event in only_new] == []
        assert only_new.view == whole
        merged = await client.attach(run.run_id, replay="merged")
        assert [event.seq async for event in merged][-1] == last
        assert merged.view.messages == whole.messages


async def test_iterations_do_not_disturb_one_another(server, transport):
    async with connect(server.url, transport=transport) as client:
        run = await client.start(input="pay")
        first = aiter(run)
        assert (await anext(first)).seq == 1
        async for event in run:
            if event.seq == 3:
                break
        (approval,) = await run.until(lambda run: run.approvals)
        await approval.deny("no")
        last = (await run.wait()).cursor.seq
        assert [event.seq async for event in first] == list(range(2, last + 1))
        assert [event.seq async for event in run] == list(range(1, last + 1))


async def test_waiting_says_what_can_never_come(server):
    async with connect(server.url) as client:
        run = await client.start(input="hello")
        with pytest.raises(RunEnded):
            await run.until(lambda run: run.approvals)
        running = await client.start(input="pay")
        await running.until(lambda run: run.approvals)
        running.detach()
        with pytest.raises(Disconnected):
            await running.changed()
        assert [each.run_id for each in client.runs] == []


# -- tools


async def test_a_registered_tool_is_run_once_and_its_failure_is_told(server, transport):
    async with connect(server.url, transport=transport) as client:
        calls = []

        async def at_home(args, call):
            calls.append((args, call.label))
            call.progress(text="looking", fraction=0.5)
            return {"at": "home"}

        run = await client.start(input="locate", tools={"locate": at_home})
        await run.wait()
        assert calls == [({}, "Where am I")]
        assert run.view.calls[0].via == "client"

        def lost(_args, _call):
            assert threading.current_thread() is not threading.main_thread(), "it may block"
            raise LookupError("nowhere")

        run = await client.start(input="locate", tools={"locate": lost})
        await run.wait()
        (call,) = run.view.calls
        assert (call.state, call.code, call.text) == ("failed", "tool_error", "nowhere")

        run = await client.start(input="locate", tools={"locate": lambda _args, _call: "x" * 2_000_000})
        await run.wait()
        assert run.view.calls[0].code == "too_large"

        run = await client.start(input="locate", tools={"locate": lambda _args, _call: object()})
        await run.wait()
        assert run.view.calls[0].state == "failed"


async def test_a_call_that_is_taken_back_cancels_its_handler(server, transport):
    async with connect(server.url, transport=transport) as client:
        begun, ended = asyncio.Event(), asyncio.Event()
        seen = []

        async def for_ever(_args, call):
            seen.append(call)
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        run = await client.start(input="locate", tools={"locate": for_ever})
        await begun.wait()
        await run.cancel(tool_call_id=seen[0].tool_call_id)
        await ended.wait()
        assert seen[0].ended
        assert (await run.wait()).status == "completed"
        assert not client.tasks


async def test_tools_can_come_later_and_go(server):
    async with connect(server.url, client_id="desk") as client:
        run = await client.start(input="locate", client_tools=[ClientTool(name="locate")])
        await run.until(lambda run: run.view.pending)
        stop = run.register_tool("locate", lambda _args, _call: "at home")
        with pytest.raises(ValueError, match="registered already"):
            run.register_tool("locate", lambda _args, _call: "elsewhere")
        assert (await run.wait()).calls[0].state == "completed"
        stop()
        stop()


# -- places


async def test_a_program_that_is_started_again_goes_on_where_it_was(server, transport, tmp_path):
    path = tmp_path / "cursors.json"
    async with connect(server.url, transport=transport, cursors=path) as client:
        run = await client.start(input="pay")
        async for event in run:
            if event.seq == 4:
                break
        await run.until(lambda run: run.approvals)
    assert json.loads(path.read_text())[run.run_id][1] == 3, "the one in hand may not have been dealt with"
    async with connect(server.url, transport=transport, cursors=path) as client:
        again = await client.attach(run.run_id)
        (approval,) = await again.until(lambda run: run.approvals)
        await approval.approve()
        seen = [update.event.seq async for update in again.updates() if isinstance(update, Received)]
        assert seen == list(range(4, again.view.cursor.seq + 1))
    async with connect(server.url, transport=transport, cursors=path) as client:
        over = await client.attach(run.run_id)
        assert [event async for event in over] == []
        assert over.view == again.view


async def test_the_file_of_cursors_is_bounded_and_never_in_the_way(tmp_path):
    path = tmp_path / "cursors.json"
    for bad in ("", "[]", '{"run_1": 5}', '{"run_1": ["e", -1]}', "\x00"):
        path.write_text(bad)
        assert Cursors(path, clock=ManualClock()).get("run_1") is None
    clock = ManualClock()
    cursors = Cursors(path, clock=clock)
    for number in range(MAX_CURSORS + 5):
        cursors.put(f"run_{number}", epoch="e", seq=number)
    cursors.put("run_7", epoch="e", seq=99)
    cursors.write()
    cursors.write()
    read = Cursors(path, clock=clock)
    assert read.get("run_7") == ("e", 99)
    assert read.get("run_4") is None
    assert len(json.loads(path.read_text())) == MAX_CURSORS
    assert [each.name for each in tmp_path.iterdir()] == ["cursors.json"]
