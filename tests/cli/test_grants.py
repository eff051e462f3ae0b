"""Approving for more than one call from the command line, and taking it back."""

import re
import subprocess

import pytest

from tests.cli.console import PROGRAM, call, environment


@pytest.fixture
def asks(served):
    """Starts a run that asks; the ids of the run and of its approval, and its process."""
    processes = []

    def start():
        process = subprocess.Popen(
            [*PROGRAM, "chat", "--url", served.url, "write a note"],
            cwd=served.folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def approved(served, process, *words):
    run, approval = re.search(r"midstream approve\|deny (\S+) (\S+)", process.stderr.readline()).groups()
    done = call("approve", "--url", served.url, run, approval, *words)
    assert done.returncode == 0, done.stderr
    assert process.wait() == 0


def listed(served):
    done = call("grants", "--url", served.url)
    assert done.returncode == 0, done.stderr
    return [row.split("\t") for row in done.stdout.splitlines()]


def test_given_listed_used_and_taken_back(served, asks):
    assert listed(served) == []
    approved(served, asks(), "--for-run")
    assert listed(served) == []
    approved(served, asks(), "--always")
    ((grant, reach, agent, tool, until, label),) = listed(served)
    assert (reach, agent, tool, until, label) == ("every run", "desk", "write_note", "revoked", "Write note.txt")
    unasked = asks()
    assert unasked.wait() == 0
    revoked = call("grants", "--url", served.url, "revoke", grant)
    assert (revoked.returncode, revoked.stdout) == (0, f"revoked: {grant}\n")
    assert listed(served) == []
    again = call("grants", "--url", served.url, "revoke", grant)
    assert again.returncode == 1
    assert "not_found" in again.stderr
    approved(served, asks(), "--for-thread")
    ((_, reach, *_),) = listed(served)
    assert reach.startswith("thread th")
