"""What a typed line means, by what is being asked."""

import pytest

from midstream.cli.keys import (
    Approve,
    Correct,
    Deny,
    Edit,
    Hold,
    Quit,
    Reply,
    Revoke,
    Say,
    Stop,
    changed_args,
    parse,
)


@pytest.mark.parametrize(
    ("line", "intent"),
    [
        ("use the tests folder", Correct("use the tests folder", "next_step")),
        ("  ! stop that ", Correct("stop that", "now")),
        ("/idle then write docs", Correct("then write docs", "when_idle")),
        ("/say y", Correct("y", "next_step")),
        ("/stop", Stop("now", None)),
        ("/stop wrong file", Stop("now", "wrong file")),
        ("/after", Stop("after_step", None)),
        ("/revoke", Revoke()),
        ("/quit", Quit()),
        ("", Hold()),
    ],
)
def test_while_it_runs(line, intent):
    assert parse(line, asked=None) == intent


@pytest.mark.parametrize("line", ["y", "Yes", "n", "a", "e"])
def test_a_late_answer_does_not_become_a_correction(line):
    assert isinstance(parse(line, asked=None), Say)


@pytest.mark.parametrize("line", ["/idle", "/say", "!", "/nonsense", "/help"])
def test_what_is_not_understood_is_explained(line):
    assert isinstance(parse(line, asked=None), Say)


@pytest.mark.parametrize(
    ("line", "intent"),
    [
        ("y", Approve()),
        (" YES ", Approve()),
        ("a", Approve(for_run=True)),
        ("n", Deny(None)),
        ("no not that file", Deny("not that file")),
        ("e", Edit(None)),
        ('e {"path": "b.txt"}', Edit({"path": "b.txt"})),
        ("!wait", Correct("wait", "now")),
        ("/say use another", Correct("use another")),
        ("/stop", Stop("now", None)),
    ],
)
def test_an_approval(line, intent):
    assert parse(line, asked="approval") == intent


@pytest.mark.parametrize("line", ["", "yes but not that", "ok", "approve", "e [1]", "e {", "a b"])
def test_only_a_clear_answer_approves(line):
    assert isinstance(parse(line, asked="approval"), Say)


def test_a_question():
    choices = ("red", "green")
    assert parse("2", asked="input", choices=choices) == Reply("green")
    assert parse("3", asked="input", choices=choices) == Reply("3")
    assert parse("y", asked="input") == Reply("y")
    assert parse("3.5", asked="input", as_json=True) == Reply(3.5)
    assert isinstance(parse("three", asked="input", as_json=True), Say)
    assert isinstance(parse("", asked="input"), Say)
    assert parse("/stop", asked="input") == Stop("now", None)


def test_only_changed_arguments_are_sent():
    before = {"path": "a", "key": "[hidden]", "n": 1, "flag": True}
    assert changed_args(before, {"path": "b", "key": "[hidden]", "n": True, "new": [1]}) == {
        "path": "b",
        "n": True,
        "new": [1],
    }
    assert changed_args(before, dict(before)) == {}
