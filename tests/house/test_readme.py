"""The README, followed word for word."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from examples.ten_lines.agent import app
from midstream.cli.program import app as program
from midstream.settings import OTHER_VARIABLES, Settings, load_settings
from midstream.testing import call, play
from tests.house.checkout import ROOT, code_blocks, read

README = read("README.md")
TEN_LINES = ROOT / "examples" / "ten_lines"
PAGES = sorted(
    path
    for path in [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "bench").glob("*.md"),
        # Not of packages that an example has installed.
        *ROOT.glob("examples/*.md"),
        *ROOT.glob("examples/*/*.md"),
        *ROOT.glob("clients/*/*.md"),
        *ROOT.glob("protocol/**/*.md"),
    ]
    if "node_modules" not in path.parts
)
PATIENCE_S = 30


def test_its_programs_are_the_examples():
    assert code_blocks(README, "python") == [
        (TEN_LINES / "agent.py").read_text(encoding="utf-8"),
        (TEN_LINES / "client.py").read_text(encoding="utf-8"),
    ]


@pytest.mark.asyncio
async def test_its_agent_asks_before_it_acts():
    (support,) = app._agents
    async with play(support, [call("refund", order_id="17", amount=9.9), "Done."]) as run:
        asked = await run.until("approval.required")
        assert asked.payload.label == "Refund 9.9 on order 17"
        await run.approve()
        assert await run.result() == "Done."


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The address of the server that the README starts, on a free port and with a store of its own."""
    command = next(line for line in README.splitlines() if " serve examples.ten_lines" in line).split()
    program = Path(sys.executable).with_name("midstream")
    assert command[0] == ".venv/bin/midstream"
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("MIDSTREAM_", "ANTHROPIC_"))
    }
    server = subprocess.Popen(
        [program, *command[1:], "--port", "0", "--store", f"sqlite:///{tmp_path}/runs.db"],
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stderr is not None
        for line in server.stderr:
            if found := re.search(r"listens on (http://\S+)", line):
                yield found[1]
                break
        else:
            pytest.fail(f"the server did not start: {server.wait()}")
    finally:
        server.terminate()
        try:
            server.communicate(timeout=PATIENCE_S)
        finally:
            server.kill()
    assert server.returncode == 0


def test_its_client_follows_and_approves(served: str, tmp_path: Path):
    written = code_blocks(README, "python")[1]
    assert "http://127.0.0.1:8484" in written
    script = tmp_path / "client.py"
    script.write_text(written.replace("http://127.0.0.1:8484", served))
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=PATIENCE_S, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Of course. I will refund order 17. Done: order 17 is refunded.\n"


def test_its_commands_exist():
    blocks = "\n".join(block for page in PAGES for block in code_blocks(page.read_text(encoding="utf-8"), "sh"))
    targets = set(re.findall(r"\bmake ([a-z]+)", blocks))
    assert {"run", "test"} <= targets
    assert targets <= set(re.findall(r"^([a-z]+):", read("Makefile"), re.MULTILINE))
    known = set(typer.main.get_command(program).commands)  # type: ignore[attr-defined]
    asked = set(re.findall(r"\bmidstream ([a-z]+)\b", blocks)) | set(re.findall(r"`([a-z]+) RUN`", README))
    assert {"chat", "runs", "serve"} <= asked
    assert asked <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), target
    for named in re.findall(r"`((?:server|protocol|tests|docs|examples|bench)/[\w./-]+)`", text):
        assert (ROOT / named).exists(), named


@pytest.mark.parametrize("page", [*PAGES, ROOT / "Dockerfile", ROOT / "compose.yaml"], ids=lambda path: path.name)
def test_variables_it_speaks_of_exist(page: Path):
    known = {f"MIDSTREAM_{name.upper()}" for name in Settings.model_fields} | OTHER_VARIABLES
    assert set(re.findall(r"MIDSTREAM_[A-Z][A-Z_]+", page.read_text(encoding="utf-8"))) <= known


def test_the_settings_page_has_every_setting_with_its_default(monkeypatch):
    for name in [name for name in os.environ if name.startswith("MIDSTREAM_")]:
        monkeypatch.delenv(name)
    rows = re.findall(r"^\| `(MIDSTREAM_\w+)` \| (\S.*?) \| (\S.*?) \|$", read("docs/settings.md"), re.MULTILINE)
    told = {name: default.strip("`") for name, default, _ in rows}
    assert len(told) == len(rows)
    assert told == {f"MIDSTREAM_{name.upper()}": shown(value) for name, value in load_settings()}


def shown(value: object) -> str:
    if value is None or value == ():
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) and value < 100_000 else str(value).removesuffix(".0")


def test_no_page_names_a_place_of_this_machine():
    places = re.compile(r"/work/|/root/|/home/|\.pyenv|/opt/")
    assert {page.name: places.findall(page.read_text(encoding="utf-8")) for page in PAGES} == {
        page.name: [] for page in PAGES
    }
