import contextlib
import signal

import pytest

from tests.cli.console import Served, Terminal

SCRIPT = """
loop: true
turns:
  - steps: [{text: "All done."}]
  - match: {last_user_contains: write a note}
    steps:
      - {text: "I would write a note.", by: word, delay_s: 0.005}
      - call: {tool: write_note, args: {path: note.txt, text: "first\\nsecond\\n"}}
  - match: {last_user_contains: wait for the file}
    steps:
      - text: "Waiting now."
      - call: {tool: wait_for, args: {path: go.txt}}
  - match: {last_user_contains: ask me}
    steps:
      - call: {tool: ask_user, args: {question: "Which colour?", choices: [red, blue]}}
  - match: {last_user_contains: talk long}
    steps:
      - {text: "word word word word word word word word word word", by: word, delay_s: 0.3}
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    server = Served(tmp_path_factory.mktemp("desk"), SCRIPT).start()
    yield server
    # What its runs still wait for will not come; they need no grace.
    server.end(signal.SIGKILL)


@pytest.fixture
def mortal(tmp_path):
    """A server of the test's own, to be killed."""
    server = Served(tmp_path, SCRIPT).start()
    yield server
    server.end(signal.SIGKILL)


@pytest.fixture
def terminals():
    """Opens terminals and closes them all."""
    with contextlib.ExitStack() as stack:

        def open_one(*arguments, folder, **variables):
            terminal = Terminal(*arguments, folder=folder, **variables)
            stack.callback(terminal.close)
            return terminal

        yield open_one


@pytest.fixture
def chat(served, terminals):
    """`midstream chat …` at a terminal."""

    def start(*arguments, **variables):
        return terminals("chat", "--url", served.url, *arguments, folder=served.folder, **variables)

    for name in ("note.txt", "other.txt", "go.txt"):
        (served.folder / name).unlink(missing_ok=True)
    return start
