"""The program without a terminal, and the commands that steer a run from elsewhere."""

import contextlib
import json
import re
import signal
import subprocess
import sys

import pytest

from midstream.cli.serving import NoApp, find_app
from tests.cli.console import PROGRAM, call, environment, free_port, run


@contextlib.contextmanager
def started(*arguments, folder):
    """A chat without a terminal that is still under way."""
    process = subprocess.Popen(
        [*PROGRAM, "chat", *arguments],
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def folder(served):
    for name in ("note.txt", "go.txt"):
        (served.folder / name).unlink(missing_ok=True)
    return served.folder


@pytest.fixture
def midstream(served):
    def invoke(command, *arguments, **variables):
        return call(command, "--url", served.url, *arguments, **variables)

    return invoke


@pytest.fixture
def waiting(served, folder):
    """A run that waits for the file, without anybody attached: its id."""
    with started("--url", served.url, "--json", "wait for the file", folder=folder) as process:
        for line in process.stdout:
            if '"tool.started"' in line:
                break
        yield json.loads(line)["run_id"]


# -- chat without a terminal


def test_output_that_is_no_terminal_has_no_control_codes(served, folder):
    done = run("chat", "--url", served.url, "--yes", "write a note", folder=folder, FORCE_COLOR="1")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout + done.stderr
    assert "\r" not in done.stdout
    assert "All done.\n✓ completed" in done.stdout
    assert "!! APPROVED WITHOUT ASKING (--yes): Write note.txt" in done.stderr
    assert (folder / "note.txt").exists()


def test_the_text_may_come_from_standard_input(served):
    done = call("chat", "--url", served.url, stdin="hello\n")
    assert done.stdout.startswith("All done.\n")
    nothing = call("chat", "--url", served.url)
    assert nothing.returncode == 2
    assert "standard input is empty" in nothing.stderr


@pytest.mark.parametrize(("verb", "there"), [("approve", True), ("deny", False)])
def test_an_approval_is_given_from_elsewhere(served, folder, verb, there):
    with started("--url", served.url, "write a note", folder=folder) as process:
        hint = process.stderr.readline()
        run_id, approval_id = re.search(r"midstream approve\|deny (\S+) (\S+)", hint).groups()
        said = call(verb, "--url", served.url, run_id, approval_id)
        assert said.returncode == 0, said.stderr
        assert "Write note.txt" in said.stdout
        assert process.wait() == 0
    assert (folder / "note.txt").exists() is there


def test_a_question_is_answered_from_elsewhere(served, folder):
    with started("--url", served.url, "ask me", folder=folder) as process:
        run_id = re.search(r"midstream answer (\S+)", process.stderr.readline()).group(1)
        assert call("answer", "--url", served.url, run_id, "blue").returncode == 0
        assert "blue" in process.stdout.read()


def test_json_is_the_log_byte_for_byte(served, midstream):
    done = midstream("chat", "--json", "hello")
    run_id = json.loads(done.stdout.split("\n")[0])["run_id"]
    assert midstream("export", run_id).stdout == done.stdout
    assert midstream("tail", "--json", run_id).stdout == done.stdout
    output = served.folder / "log.ndjson"
    assert midstream("export", run_id, "--output", str(output)).stdout == ""
    assert output.read_text() == done.stdout


def test_json_over_a_server_that_is_killed_is_still_the_log(mortal):
    with started("--url", mortal.url, "--json", "wait for the file", folder=mortal.folder) as process:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if '"tool.started"' in line:
                break
        mortal.end(signal.SIGKILL)
        assert "reconnecting" in process.stderr.readline()
        mortal.start()
        (mortal.folder / "go.txt").touch()
        rest, _ = process.communicate()
        assert process.returncode == 0
    run_id = json.loads(lines[0])["run_id"]
    exported = call("export", "--url", mortal.url, run_id).stdout
    assert "".join(lines) + rest == exported
    seqs = [json.loads(line)["seq"] for line in exported.splitlines()]
    assert seqs == list(range(1, len(seqs) + 1))


# -- looking


def test_export_of_a_live_run_ends_at_its_head_and_follows_when_asked(midstream, folder, waiting):
    now = midstream("export", waiting).stdout
    assert now.endswith("\n")
    assert "run.completed" not in now
    (folder / "go.txt").touch()
    followed = midstream("export", waiting, "--follow").stdout
    assert followed.startswith(now)
    assert json.loads(followed.splitlines()[-1])["type"] == "run.completed"


def test_tail_since(midstream):
    run_id = json.loads(midstream("chat", "--json", "hello").stdout.split("\n")[0])["run_id"]
    whole = midstream("tail", run_id, "--json").stdout.splitlines()
    assert midstream("tail", run_id, "--json", "--since", "3").stdout.splitlines() == whole[3:]
    assert midstream("tail", run_id).stdout.startswith("› hello\nAll done.\n✓ completed")
    past = midstream("tail", run_id, "--since", str(len(whole)))
    assert (past.returncode, past.stdout) == (0, "the run is over: completed\n")


def test_runs_and_agents_are_listed(midstream, waiting):
    rows = [row.split("\t") for row in midstream("runs", "--status", "running").stdout.splitlines()]
    assert [waiting, "running", "desk"] in [row[:3] for row in rows]
    assert len(midstream("runs", "--limit", "1").stdout.splitlines()) == 1
    assert midstream("agents").stdout.startswith("desk\t")


def test_a_list_at_a_terminal_breaks_its_texts_and_keeps_its_names(served, terminals):
    terminal = terminals("agents", "--url", served.url, folder=served.folder, COLUMNS="52")
    assert terminal.wait() == 0
    header, *rows = terminal.screen.strip().split("\n")
    assert header.split() == ["AGENT", "MODEL", "TOOLS", "DESCRIPTION"]
    assert rows[0].split()[:2] == ["desk", "scripted"]
    assert "write_note*" in terminal.screen


def test_schema_and_version():
    assert json.loads(call("schema").stdout)["$schema"]
    assert call("--version").stdout.startswith("midstream 0.")


# -- steering


def test_correct_then_cancel_from_elsewhere(midstream, waiting):
    assert midstream("correct", waiting, "be brief").stdout.startswith("accepted (event ")
    assert midstream("cancel", waiting, "--reason", "enough").stdout.startswith("cancelling (event ")
    tail = midstream("tail", waiting)
    assert tail.returncode == 130
    assert "↪ correction accepted (at the next step): be brief" in tail.stdout
    assert "↩ correction NOT used" in tail.stdout
    assert ": enough" in tail.stdout
    late = midstream("correct", waiting, "more")
    assert late.returncode == 1
    assert "start a new run in its thread (run_ended)" in late.stderr


def test_what_does_not_wait_cannot_be_approved(midstream, waiting):
    done = midstream("approve", waiting)
    assert done.returncode == 1
    assert "waits for no approval; `midstream runs --status waiting`" in done.stderr
    assert "waits for no answer" in midstream("answer", waiting, "blue").stderr


# -- what goes wrong is one line that says what to do


def _one_line(done) -> str:
    assert done.returncode != 0
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


@pytest.mark.parametrize(
    "command", [["chat", "hi"], ["runs"], ["tail", "run_1"], ["export", "run_1"], ["cancel", "run_1"]]
)
def test_no_server(command):
    said = _one_line(call(*command, "--url", f"http://127.0.0.1:{free_port()}"))
    assert "no Midstream server answers" in said
    assert "`midstream serve`" in said


@pytest.mark.parametrize(
    "command", [["chat", "--run", "run_1"], ["tail", "run_1"], ["export", "run_1"], ["cancel", "run_1"]]
)
def test_no_such_run(midstream, command):
    said = _one_line(midstream(*command))
    assert "(not_found)" in said
    assert "`midstream runs`" in said


def test_no_such_agent(midstream):
    assert "`midstream agents`" in _one_line(midstream("chat", "--agent", "nobody", "hi"))


def test_an_address_under_which_no_midstream_answers(served):
    said = _one_line(call("chat", "hi", "--url", f"{served.url}/elsewhere"))
    assert "/elsewhere refused the connection: it answered 403: is it the address of a Midstream server?" in said


def test_a_bad_address():
    assert "is no server address" in _one_line(call("runs", "--url", "ftp://x"))


def test_a_token_is_needed(mortal):
    mortal.end()
    mortal._variables["MIDSTREAM_TOKEN"] = "s3cret"
    mortal.start()
    for command in (["chat", "hi"], ["runs"]):
        assert "give its token with --token" in _one_line(call(*command, "--url", mortal.url))
        right = call(*command, "--url", mortal.url, "--token", "s3cret")
        assert right.returncode == 0, right.stderr


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("nowhere_app:app", "there is no module 'nowhere_app' in"),
        ("some_app:nothing", "'some_app' has no 'nothing'; do you mean some_app:service?"),
        ("some_app", "'some_app' has no 'app'"),
        ("some_app:name", "'some_app:name' is of type str, not an app"),
        ("some_app:Midstream", "'some_app:Midstream' is a class, not an app"),
        ("crooked_app:app", "importing 'crooked_app' failed: SyntaxError: invalid syntax (crooked_app.py, line 1)"),
        (
            "broken_app:app",
            "importing 'broken_app' failed: ZeroDivisionError: division by zero (broken_app.py, line 2)",
        ),
        (
            "wrong_app:app",
            "BadTool: agent a: title is 'x'; give True, an Agent, or a function of (request) (wrong_app.py, line 2)",
        ),
        ("needs_app:app", "importing 'needs_app' failed: ModuleNotFoundError: No module named 'missing_thing'"),
        ("some app", "write MODULE:APP"),
    ],
)
def test_an_app_that_cannot_be_served(tmp_path, monkeypatch, target, text):
    (tmp_path / "broken_app.py").write_text("x = 1\nx / 0\n")
    (tmp_path / "crooked_app.py").write_text("def f(:\n")
    (tmp_path / "wrong_app.py").write_text(
        "from midstream import Agent\napp = Agent('a', instructions='', title='x')\n"
    )
    (tmp_path / "needs_app.py").write_text("import missing_thing\n")
    (tmp_path / "some_app.py").write_text("from midstream.app import Midstream\nservice = Midstream([])\nname = 'x'\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("broken_app", "crooked_app", "needs_app", "some_app", "wrong_app"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(NoApp) as refused:
        find_app(target, folder=tmp_path)
    assert text in str(refused.value)


def test_serve_says_in_one_line_why_it_cannot_start(tmp_path):
    assert "there is no module 'nowhere'" in _one_line(run("serve", "nowhere:app", folder=tmp_path))
    assert "MIDSTREAM_PORT: " in _one_line(run("serve", folder=tmp_path, MIDSTREAM_PORT="x"))
    assert "--store: " in _one_line(run("serve", "--store", "nosuch://", folder=tmp_path))


def test_a_reader_that_leaves_is_no_error(served, folder):
    done = subprocess.run(
        f"{PROGRAM[0]} -m midstream.cli schema | head -1; {PROGRAM[0]} -m midstream.cli runs --url {served.url} | true",
        shell=True,
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
