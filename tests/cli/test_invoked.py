"""What a person is told to type works where they are."""

import sys

import pytest

from midstream.cli.invoked import DEFAULT_URL, command, invoked


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder with the program in its virtual environment, called from there by its path."""
    program = tmp_path / ".venv" / "bin" / "midstream"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(sys, "argv", [".venv/bin/midstream", "chat"])
    return program


def test_by_its_path_in_a_checkout(checkout, tmp_path, monkeypatch):
    assert invoked() == ".venv/bin/midstream"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setattr(sys, "argv", [str(checkout)])
    monkeypatch.chdir(elsewhere)
    assert invoked() == str(checkout)


def test_by_its_name_where_that_finds_it_and_not_another_one(checkout, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(checkout.parent))
    assert invoked() == "midstream"
    other = tmp_path / "midstream"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert invoked() == ".venv/bin/midstream"


@pytest.mark.parametrize("first", ["/usr/lib/midstream/cli/__main__.py", "pytest", "", "/nonexistent/midstream"])
def test_by_its_name_where_no_path_is_known(checkout, monkeypatch, first):
    monkeypatch.setattr(sys, "argv", [first])
    assert invoked() == "midstream"


def test_the_server_is_named_where_another_one_would_be_asked(checkout, monkeypatch):
    monkeypatch.delenv("MIDSTREAM_URL", raising=False)
    assert command("runs", url=DEFAULT_URL) == ".venv/bin/midstream runs"
    assert command("runs", url="http://h:1") == ".venv/bin/midstream runs --url http://h:1"
    monkeypatch.setenv("MIDSTREAM_URL", "http://h:1")
    assert command("runs", url="http://h:1") == ".venv/bin/midstream runs"
    assert command("runs", url=DEFAULT_URL) == f".venv/bin/midstream runs --url {DEFAULT_URL}"
