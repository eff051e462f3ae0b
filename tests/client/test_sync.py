"""The client of a program without an event loop, against a real server in a thread of its own."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

from midstream.client import Disconnected, Unreachable
from midstream.client.sync import connect
from midstream_protocol.errors import AlreadyResolved, NotFound
from midstream_protocol.events import ApprovalRequired

PATIENCE_S = 30


@pytest.fixture(params=["websocket", "http"])
def client(request, url):
    with connect(url, transport=request.param) as client:
        yield client


def test_start_read_approve(client):
    run = client.start(input="pay")
    seen = []
    for event in run:
        seen.append(event.seq)
        if isinstance(event.payload, ApprovalRequired):
            run.until(lambda inner: inner.approvals)
            (approval,) = run.approvals
            assert run.approvals[0] is approval
            assert (approval.label, approval.args) == ("Pay <b>5</b>", {"amount": 5})
            approval.edit({"amount": 7})
            with pytest.raises(AlreadyResolved):
                approval.deny("too late")
    assert seen == list(range(1, len(seen) + 1))
    assert run.ended
    assert "paid 7" in run.view.calls[0].preview
    assert run.wait() is run.view
    assert [event.seq for event in run] == seen, "each for has a place of its own"
    assert run.view.status in repr(run)


def test_tools_that_run_here_may_block_and_may_use_this_client(client):
    def where(args, call):
        assert args == {}
        call.progress(text="looking", fraction=0.5)
        return f"near {len(client.rest.agents()['items'])} agents, on thread {threading.current_thread().name}"

    run = client.start(input="locate", tools={"locate": where})
    view = run.wait()
    assert (view.calls[0].state, view.calls[0].via) == ("completed", "client")
    assert "near 1 agents" in view.calls[0].preview


def _nothing_left(_args, _call):
    return next(iter([]))


def _leaves(_args, _call):
    sys.exit(3)


async def _waits_for_what_was_cancelled(_args, _call):
    inner = asyncio.ensure_future(asyncio.sleep(PATIENCE_S))
    inner.cancel()
    await inner


@pytest.mark.parametrize("handler", [_nothing_left, _leaves, _waits_for_what_was_cancelled])
def test_whatever_ends_a_tool_ends_its_call(url, handler):
    with connect(url) as client:
        view = client.start(input="locate", tools={"locate": handler}).wait()
        assert view.calls[0].state == "failed"
        assert client.start(input="hello").wait().status == "completed", "and nothing else"


def test_rest_streams_and_errors(client):
    run = client.start(input="hello")
    final = run.wait()
    assert client.rest.view(run.run_id) == final
    lines = [json.loads(line) for line in client.rest.export(run.run_id)]
    assert [line["seq"] for line in lines] == list(range(1, final.cursor.seq + 1))
    assert "runs" in dir(client.rest)
    with pytest.raises(NotFound):
        client.attach("run_nobody_has")
    with pytest.raises(AttributeError):
        _ = client.rest.nothing


def test_it_works_inside_a_running_loop(url):
    async def cell():
        with connect(url) as client:
            return client.start(input="hello").wait().status

    assert asyncio.run(cell()) == "completed"


def test_its_own_loop_says_no_instead_of_waiting_for_itself(url):
    with connect(url) as client:
        run = client.start(input="pay")
        caught = []

        async def looks(_args, _call):
            try:
                client.rest.agents()
            except RuntimeError as error:
                caught.append(str(error))

        client.start(input="locate", tools={"locate": looks}).wait()
        assert "wait for itself" in caught[0]
        run.cancel()
        run.wait()


def test_closing_ends_what_waits_and_says_so_afterwards(url):
    client = connect(url)
    run = client.start(input="pay")
    run.until(lambda inner: inner.approvals)
    ended = []

    def wait():
        try:
            run.wait()
        except Disconnected as error:
            ended.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    client.close()
    client.close()
    waiting.join(PATIENCE_S)
    assert ended
    with pytest.raises(RuntimeError, match="connect again"):
        run.cancel()
    with connect(url) as again:
        again.attach(run.run_id).cancel()


def test_no_server_is_said_at_once_and_leaves_no_thread():
    before = threading.active_count()
    with pytest.raises(Unreachable):
        connect("http://127.0.0.1:9")
    assert threading.active_count() == before


PROGRAM = """
import sys
from midstream.client.sync import connect
client = connect(sys.argv[1])
run = client.start(input="pay")
run.until(lambda inner: inner.approvals)
try:
    print(run.run_id, flush=True)
    run.wait()
except KeyboardInterrupt:
    print(run.approvals[0].label, run.cancel().status, run.wait().status, flush=True)
"""


def test_an_interrupt_ends_the_waiting_and_nothing_else_and_a_forgotten_client_ends_with_its_program(url):
    program = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert program.stdout.readline().startswith("run_")
        os.kill(program.pid, signal.SIGINT)
        out, err = program.communicate(timeout=PATIENCE_S)
    finally:
        program.kill()
    assert out == "Pay <b>5</b> accepted cancelled\n"
    assert err == ""
    assert program.returncode == 0


LOUD = """
import sys
from midstream.client.sync import connect

def locate(args, call):
    secret = "CANARY"
    raise ValueError("x" * 3_000_000)

with connect(sys.argv[1]) as client:
    print(client.start(input="locate", tools={"locate": locate}).wait().calls[0].state)
"""


def test_the_output_is_the_programs_own_and_a_traceback_shows_no_variables(url):
    command = [sys.executable, "-c", textwrap.dedent(LOUD), url]
    program = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    assert program.stdout == "failed\n"
    assert program.stderr.startswith("a tool of this program failed tool='locate'\nTraceback")
    assert "CANARY" not in program.stderr


HUNG = """
import sys, threading
from midstream.client.sync import connect

begun = threading.Event()

def locate(args, call):
    begun.set()
    threading.Event().wait()

with connect(sys.argv[1]) as client:
    run = client.start(input="locate", tools={"locate": locate})
    begun.wait()
    run.cancel()
    print(run.wait().status)
"""


def test_a_tool_that_hangs_does_not_hold_up_the_end_of_the_program(url):
    command = [sys.executable, "-c", textwrap.dedent(HUNG), url]
    program = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    assert (program.stdout, program.stderr) == ("cancelled\n", "")
