"""Where nobody has set structlog up, lines go to the standard library's logging, without anybody's local variables."""

import logging
import subprocess
import sys

import pytest
import structlog

from midstream.logs import Logger

UNCONFIGURED = """
import logging
from midstream.logs import Logger
logging.basicConfig(format="%(levelname)s %(name)s %(message)s")
log = Logger("midstream.example")
def work(secret="hunter2"):
    raise ValueError("a\\nb")
try:
    work()
except ValueError:
    log.exception("it failed", said="one\\ntwo")
log.warning("careful")
log.info("not asked for")
"""


def test_standard_logging_is_the_default():
    done = subprocess.run([sys.executable, "-c", UNCONFIGURED], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[0] == "ERROR midstream.example it failed said='one\\ntwo'"
    assert "Traceback (most recent call last):" in lines
    assert lines[-1] == "WARNING midstream.example careful"
    # A traceback shows the code, never what the variables hold.
    assert "secret=" not in done.stderr.replace('def work(secret="hunter2")', "")
    assert "not asked for" not in done.stderr


def test_structlog_hears_it_where_it_is_set_up(caplog: pytest.LogCaptureFixture):
    with structlog.testing.capture_logs() as logs, caplog.at_level(logging.DEBUG):
        Logger("midstream.example").error("it failed", run="run_1")
    assert logs == [{"event": "it failed", "run": "run_1", "log_level": "error"}]
    assert caplog.records == []
