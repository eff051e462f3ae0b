"""`midstream top`, at a terminal and without one, over a real server."""

import contextlib
import json
import os
import signal
import termios

import pytest

from tests.cli.console import call, free_port, run

LEFT = b"\x1b[?1049l"
"""A terminal's own screen comes back."""


def chatted(url: str) -> str:
    """A run that has ended: its id."""
    done = call("chat", "--url", url, "--json", "hello")
    return str(json.loads(done.stdout.split("\n")[0])["run_id"])


@pytest.fixture
def top(served, terminals):
    def start(*arguments, **variables):
        return terminals("top", "--url", served.url, "--interval", "0.2", *arguments, folder=served.folder, **variables)

    return start


def test_once_prints_one_frame(served):
    run_id = chatted(served.url)
    done = call("top", "--url", served.url, "--once", "--interval", "0.2", COLUMNS="100")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"midstream top · {served.url} · started ")
    rows = [line.split() for line in lines]
    assert any(row[:3] == [run_id, "completed", "desk"] for row in rows)
    by_label = {row[0]: row for row in rows if row}
    assert int(by_label["ended"][2]) >= 1
    assert by_label["append"][1] in {"p50", "–"}
    assert "1 feed" in done.stdout
    assert "\x1b" not in done.stdout


def test_without_a_terminal_it_is_one_frame_too(served):
    done = run("top", "--url", served.url, "--interval", "0.2", folder=served.folder, FORCE_COLOR="", COLUMNS="50")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("midstream top") == 1
    assert max(map(len, done.stdout.splitlines())) <= 50


def test_a_terminal_that_obeys_nothing_gets_one_frame(top):
    terminal = top(TERM="dumb")
    assert terminal.wait() == 0
    assert terminal.screen.count("midstream top") == 1
    assert LEFT not in terminal.raw


@pytest.fixture
def modes():
    """The local modes of a terminal, now and for as long as it is asked: its last closing would reset them."""
    with contextlib.ExitStack() as stack:

        def of(terminal) -> int:
            fd = os.open(f"/proc/{terminal._process.pid}/fd/0", os.O_RDWR | os.O_NOCTTY)
            stack.callback(os.close, fd)
            return fd

        yield of


@pytest.mark.parametrize("key", ["q", "\x03"])
def test_q_and_ctrl_c_leave_the_terminal_as_it_was(top, modes, key):
    terminal = top()
    fd = modes(terminal)
    local_modes = termios.tcgetattr(fd)[3]
    terminal.expect("midstream top").expect("RUN")
    assert not termios.tcgetattr(fd)[3] & (termios.ECHO | termios.ICANON)
    os.write(terminal._fd, key.encode())
    assert terminal._process.wait(20) == 0
    assert termios.tcgetattr(fd)[3] == local_modes
    terminal.read()
    assert LEFT in terminal.raw
    assert "Traceback" not in terminal.screen


def test_it_comes_back_to_a_server_that_was_started_again(mortal, terminals):
    terminal = terminals("top", "--url", mortal.url, "--interval", "0.2", folder=mortal.folder).expect("RUN")
    first = chatted(mortal.url)
    terminal.expect(first).expect("run.completed")
    mortal.end(signal.SIGKILL)
    terminal.expect("trying again")
    mortal.start()
    second = chatted(mortal.url)
    terminal.expect(second)
    os.write(terminal._fd, b"q")
    assert terminal.wait() == 0


def test_what_cannot_be_watched_is_told_in_one_line(mortal):
    nowhere = call("top", "--once", "--url", f"http://127.0.0.1:{free_port()}")
    assert (nowhere.returncode, nowhere.stdout) == (1, "")
    assert "no Midstream server answers" in nowhere.stderr
    mortal.end()
    mortal._variables["MIDSTREAM_TOKEN"] = "s3cret"
    mortal.start()
    refused = call("top", "--once", "--url", mortal.url)
    assert refused.returncode == 1
    assert "give its token with --token" in refused.stderr
    assert refused.stderr.count("\n") == 1
    right = call("top", "--once", "--interval", "0.1", "--url", mortal.url, "--token", "s3cret")
    assert right.returncode == 0, right.stderr
