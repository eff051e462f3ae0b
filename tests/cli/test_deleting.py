"""Deleting runs from the command line."""

import json

import pytest

from tests.cli.console import call


@pytest.fixture
def midstream(served):
    def invoke(*words, **variables):
        return call("runs", "--url", served.url, *words, **variables)

    return invoke


@pytest.fixture
def over(served):
    """The id of a run that has ended."""
    done = call("chat", "--url", served.url, "--json", "hello")
    return json.loads(done.stdout.split("\n")[0])["run_id"]


def listed(midstream):
    return {row.split("\t")[0] for row in midstream().stdout.splitlines()}


def test_a_run_is_deleted_by_name(midstream, over):
    assert over in listed(midstream)
    assert midstream("delete", over, "--yes").stdout == f"deleted: {over}\n"
    assert over not in listed(midstream)
    again = midstream("delete", over, "--yes")
    assert (again.returncode, again.stdout) == (1, "")
    assert "not_found" in again.stderr


def test_nothing_is_deleted_that_was_neither_named_nor_agreed_to(midstream, over):
    done = midstream("delete", "--ended-before", "0s")
    assert (done.returncode, done.stdout) == (1, "")
    assert "say --yes" in done.stderr
    assert over in listed(midstream)


def test_a_script_that_names_a_run_is_not_asked(midstream, over):
    assert midstream("delete", over).stdout == f"deleted: {over}\n"
    assert over not in listed(midstream)


def test_a_person_is_asked(served, terminals, midstream, over):
    for answer, left in (("n", True), ("y", False)):
        terminal = terminals("runs", "--url", served.url, "delete", over, folder=served.folder)
        terminal.expect(f"Delete {over} for good?")
        terminal.type(answer)
        terminal.wait()
        assert (over in listed(midstream)) is left


def test_runs_are_deleted_by_age(midstream, over):
    done = midstream("delete", "--ended-before", "1d", "--yes")
    assert (done.returncode, done.stdout) == (0, "no run ended as long ago as that\n")
    assert over in listed(midstream)
    assert f"deleted: {over}\n" in midstream("delete", "--ended-before", "0s", "--yes").stdout
    assert over not in listed(midstream)


def test_a_live_run_is_not_deleted(served, terminals, midstream):
    chat = terminals("chat", "--url", served.url, "write a note", folder=served.folder)
    chat.expect("Write note.txt")
    run = next(row.split("\t")[0] for row in midstream("--status", "waiting").stdout.splitlines())
    done = midstream("delete", run, "--yes")
    assert done.returncode == 1
    assert "cancel it" in done.stderr
    assert run in listed(midstream)
    assert call("cancel", "--url", served.url, run).returncode == 0


@pytest.mark.parametrize("words", [[], ["r1", "--ended-before", "1d"], ["--ended-before", "soon"]])
def test_what_is_to_be_deleted_is_said_clearly(midstream, words):
    done = midstream("delete", *words, "--yes")
    assert done.returncode == 2
    assert "--ended-before" in done.stderr
