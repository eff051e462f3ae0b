"""The guide's Python clients, run as a reader would: against the ten-line agent, whose script asks for an approval."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.console import PATIENCE_S, Served
from tests.house.checkout import ROOT, code_blocks, read

TEN_LINES = ROOT / "examples" / "ten_lines"
PROGRAMS = code_blocks(read("docs/clients.md"), "python")


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    shutil.copy(TEN_LINES / "agent.py", tmp_path)
    server = Served(tmp_path, (TEN_LINES / "script.yaml").read_text(), target="agent:app")
    yield server.start().url
    server.end()


def run(program: str, url: str, folder: Path) -> str:
    path = folder / "client.py"
    path.write_text(program.replace("http://127.0.0.1:8484", url))
    done = subprocess.run(
        [sys.executable, path], capture_output=True, text=True, timeout=PATIENCE_S, check=False, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_is_one_of_each_kind():
    assert ["async with connect" in program for program in PROGRAMS] == [True, False]


def test_the_async_one(url: str, tmp_path: Path):
    printed = run(PROGRAMS[0], url, tmp_path)
    assert printed.startswith("Refund 9.9 on order 17 medium")
    assert printed.endswith("completed\n")


def test_the_blocking_one(url: str, tmp_path: Path):
    printed = run(PROGRAMS[1], url, tmp_path)
    assert "Refund 9.9 on order 17" in printed
    assert "Done: order 17 is refunded." in printed
