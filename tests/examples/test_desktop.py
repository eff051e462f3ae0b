"""The desktop example, driven as a person would: a real window on a virtual screen, a real server, a scripted model."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Some systems leave Tk out of Python. Where CI is set that fails, so that nobody leaves these tests out unseen.
if not os.environ.get("CI"):
    pytest.importorskip("tkinter", reason="this Python has no Tk (Debian, Ubuntu: apt install python3-tk)")

import tkinter as tk

from msgspec.structs import replace

from examples.desktop.feed import Feed
from examples.desktop.transcript import CUT, MAX_BLOCK_CHARS, MAX_BLOCKS, Block, blocks
from examples.desktop.window import Transcript, Window
from midstream.client.sync import connect
from midstream_protocol.shape import CallView, MessageView, View
from midstream_protocol.view import empty_view
from tests.scenarios.world import free_port
from tests.testkit.screen import Screen, virtual_screen

ROOT = Path(__file__).parents[2]
ARTEFACTS = Path(os.environ.get("MIDSTREAM_ARTEFACTS") or ROOT / "artefacts")
PATIENCE_S = 30.0

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def screen() -> Iterator[Screen]:
    with virtual_screen() as screen:
        yield screen


@pytest.fixture
def root(screen: Screen) -> Iterator[tk.Tk]:
    root = tk.Tk(screenName=screen.display)
    yield root
    with contextlib.suppress(tk.TclError):  # the test closed it
        root.destroy()


class Server:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workspace = folder / "workspace"
        self.workspace.mkdir()
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def up(self) -> None:
        script = ROOT / "examples" / "desktop" / "script.yaml"
        command = [sys.executable, "-m", "midstream.cli", "serve", "--model", f"scripted:{script}"]
        command += ["--workspace", str(self.workspace), "--port", str(self.port)]
        command += ["--store", f"sqlite:///{self.folder / 'runs.db'}"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)

    def down(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(PATIENCE_S)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.down()


class Person:
    """Looks at the window, types and presses. Time passes in the window meanwhile."""

    def __init__(self, root: tk.Tk, window: Window) -> None:
        self.root = root
        self.window = window

    def until(self, seen: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not seen():
            assert time.monotonic() < deadline, f"not seen in {PATIENCE_S} s; on the screen: {self.read()}"
            self.root.update()
            time.sleep(0.005)

    def read(self) -> str:
        labels = (self.window.status, self.window.corrections, self.window.prompt)
        return "\n".join([*(str(each.cget("text")) for each in labels), self.window.transcript.text.get("1.0", "end")])

    def reads(self, text: str) -> None:
        self.until(lambda: text in self.read())

    def types(self, text: str) -> None:
        self.window.entry.insert(0, text)
        self.window.send_button.invoke()

    def asked(self):
        self.until(lambda: self.window.dialogs)
        (dialog,) = self.window.dialogs.values()
        return dialog


@pytest.fixture
def person(root: tk.Tk, server: Server) -> Iterator[Person]:
    feed = Feed(server.url)
    window = Window(root, feed)
    yield Person(root, window)
    feed.close()


def test_start_approve_correct_stop(person: Person, server: Server, screen: Screen):
    # It waits for a server that is not there yet.
    person.reads("Connecting")
    server.up()
    person.reads("Connected")
    assert "disabled" in person.window.stop_button.state()
    person.types("Make me a packing list.")

    dialog = person.asked()
    shown = dialog.preview.get("1.0", "end")
    assert "+passport\n" in shown
    assert dialog.preview.tag_ranges("added")
    assert person.root.title() == "(1) Midstream"
    person.root.update()
    screen.shot(ARTEFACTS / "desktop-approval.png")
    assert not (server.workspace / "packing.txt").exists()
    dialog.approve_button.invoke()
    person.reads("Edit packing.txt (done)")
    assert (server.workspace / "packing.txt").read_text() == "passport\nrain coat\ntwo books\n"
    assert person.root.title() == "Midstream"

    person.reads("press Stop")
    assert str(person.window.send_button.cget("text")) == "Correct"
    person.types("Also an umbrella.")
    person.reads("Also an umbrella.")
    screen.shot(ARTEFACTS / "desktop-streaming.png")
    person.reads("Heard: Also an umbrella.")

    person.window.stop_button.invoke()
    person.reads("The run was stopped.")
    assert not person.window.dialogs
    assert str(person.window.send_button.cget("text")) == "Start"
    screen.shot(ARTEFACTS / "desktop-stopped.png")


def test_a_denied_edit_is_not_made_and_later_means_later(person: Person, server: Server):
    server.up()
    person.reads("Connected")
    person.types("Make me a packing list.")
    person.asked().later_button.invoke()
    assert not person.window.dialogs
    assert str(person.window.waiting_button.cget("text")) == "Waiting for you: 1"
    person.window.waiting_button.invoke()
    dialog = person.asked()
    dialog.reason.insert(0, "I travel light.")
    dialog.deny_button.invoke()
    person.reads("Edit packing.txt (failed)")
    assert not (server.workspace / "packing.txt").exists()


def test_a_server_that_was_killed_asks_on(person: Person, server: Server, screen: Screen):
    server.up()
    person.reads("Connected")
    person.types("Make me a packing list.")
    dialog = person.asked()
    server.down()
    person.reads("coming back")
    server.up()
    person.reads("Connected")
    assert person.asked() is dialog
    dialog.approve_button.invoke()
    person.reads("Edit packing.txt (done)")
    # Closing the window stops nothing, and the next one goes on with the run.
    person.window.close()
    root = tk.Tk(screenName=screen.display)
    next_person = Person(root, Window(root, Feed(server.url, run_id=dialog.approval.run_id)))
    next_person.reads("Edit packing.txt (done)")
    next_person.window.stop_button.invoke()
    next_person.reads("The run was stopped.")
    next_person.window.close()


def test_answered_elsewhere_closes_the_dialog(person: Person, server: Server):
    server.up()
    person.reads("Connected")
    person.types("Make me a packing list.")
    approval = person.asked().approval
    with connect(server.url) as other:
        (there,) = other.attach(approval.run_id).approvals
        there.deny("No.")
    person.until(lambda: not person.window.dialogs)


def test_the_window_closes_at_once_without_a_server(root: tk.Tk):
    window = Window(root, Feed(f"http://127.0.0.1:{free_port()}"))
    root.update()
    began = time.monotonic()
    window.close()
    assert time.monotonic() - began < 2.0


def test_a_connection_that_is_refused_for_good_says_why_and_gives_back_what_is_typed(root: tk.Tk):
    window = Window(root, Feed("ftp://nowhere"))
    person = Person(root, window)
    person.reads("Not connected ('ftp://nowhere' is no server address")
    person.types("Make me a packing list.")
    person.until(lambda: window.entry.get() == "Make me a packing list.")
    window.close()


def test_the_program_opens_a_window_or_says_why_not(root: tk.Tk, screen: Screen):
    command = [sys.executable, "-m", "examples.desktop", "--url", f"http://127.0.0.1:{free_port()}"]
    without = {name: value for name, value in os.environ.items() if name != "DISPLAY"}
    failed = subprocess.run(command, cwd=ROOT, env=without, capture_output=True, text=True, check=False)
    assert failed.returncode != 0
    assert failed.stderr.startswith("There is no screen to open a window on")
    before = set(root.winfo_interps())
    program = subprocess.Popen(command, cwd=ROOT, env=without | {"DISPLAY": screen.display})
    try:
        deadline = time.monotonic() + PATIENCE_S
        while set(root.winfo_interps()) == before:
            assert program.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        program.kill()
        program.wait(PATIENCE_S)


def test_the_transcript_is_what_it_was_given_whatever_came_before(root: tk.Tk):
    def block(key: str, text: str) -> Block:
        return Block(key, "assistant", text)

    transcript = Transcript(tk.ttk.Frame(root))
    for shown in (
        [block("a", "one")],
        [block("a", "one two")],
        [block("a", "one two"), block("b", "x")],
        [block("a", "one two three"), block("b", "x")],
        [block("a", "one two three"), block("b", "xy"), block("c", "z")],
        [block("b", "xy"), block("c", "z")],
        [block("b", "other")],
        [],
        [block("d", "new")],
    ):
        transcript.show(shown)
        assert transcript.text.get("1.0", "end-1c") == "\n\n".join(each.text for each in shown)


# -- what a hostile model or tool may say


def view(**changes: object) -> View:
    return replace(empty_view("run_1"), **changes)


def message(text: str, at: int = 0) -> MessageView:
    return MessageView(message_id=f"m{at}", role="assistant", text=text, state="open")


def test_what_moves_cursors_or_turns_text_is_shown_and_not_done():
    (shown,) = blocks(view(messages=(message("\x1b[2Jgone \u202egnp.exe"),)))
    assert shown.text == "␛[2Jgone <U+202E>gnp.exe"
    call = CallView(tool_call_id="c", tool="t", label="a\nb\x07", state="completed", preview="\x1b]0;title\x07")
    (shown,) = blocks(view(calls=(call,)))
    assert shown.text == "a b␇ (done)\n␛]0;title␇"


def test_ten_megabytes_on_one_line_are_cut():
    (shown,) = blocks(view(messages=(message("x" * 10_000_000),)))
    assert len(shown.text) == MAX_BLOCK_CHARS + len(CUT)
    many = blocks(view(messages=tuple(message("x", at) for at in range(MAX_BLOCKS + 5))))
    assert len(many) == MAX_BLOCKS
    assert many[-1].key == f"m{MAX_BLOCKS + 4}"
