"""The benchmark measures what it says: every asked run is played to its end, and all its text arrives."""

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
