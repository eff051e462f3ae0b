"""The benchmark measures what it says: every asked run is played to its end, and all its text arrives."""

import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tests.house.checkout import ROOT

pytestmark = pytest.mark.slow

BENCH = ROOT / "bench"
DELTAS = 200
PATIENCE_S = 30


@pytest.mark.parametrize("variant", ["raw", "msgspec", "memory", "sqlite"])
def test_every_variant_plays_the_runs_it_is_asked_for(variant: str, tmp_path: Path):
    server = subprocess.Popen(
        [sys.executable, BENCH / "servers.py", variant, tmp_path / "bench.db"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        done = subprocess.run(
            [sys.executable, BENCH / "load.py", port, "3", "2"], stdout=subprocess.PIPE, timeout=PATIENCE_S, check=True
        )
    finally:
        server.terminate()
        server.communicate(timeout=PATIENCE_S)
    seen = msgspec.json.decode(done.stdout)
    assert seen["runs"] == 6
    if variant in ("raw", "msgspec"):
        assert seen["events"] == 6 * (DELTAS + 1)
    else:
        # Deltas may be joined, but not lost: a joined one carries the text of all.
        assert seen["bytes"] > 6 * DELTAS * len("some words ")
        assert seen["events"] > 6 * 5
    assert 0 < seen["first_ms"][0] <= seen["text_ms"][0]


def test_planning_is_measured_beside_one_call():
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import planning; "
        "found = planning.measure(rounds=1, runs=2); print(planning.section(found, rounds=1))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, BENCH], stdout=subprocess.PIPE, timeout=2 * PATIENCE_S, check=True, text=True
    )
    rows = re.findall(r"until `plan.created` \| ([\d.]+)", done.stdout)
    assert len(rows) == 2
    # Not how fast it is, which a busy machine cannot say (nor that it is slower than the one call beside it, made at
    # another moment): that three calls, one after the other, would have taken longer.
    assert all(0 < float(ratio) < 3.0 for ratio in rows), done.stdout
