"""What reaches the terminal, byte for byte."""

import io
import re

import pytest

from midstream.cli.blocks import Break, Line, Status, Stream
from midstream.cli.terminal import Terminal

CLEAR = "\r\x1b[2K"


class Screen(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def live(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Terminal(Screen(), io.StringIO(), now=lambda: 0.0)


@pytest.fixture
def plain():
    return Terminal(io.StringIO(), io.StringIO())


def printed(terminal, *parts):
    """What these parts add."""
    before = len(terminal._out.getvalue())
    terminal.show(parts)
    return terminal._out.getvalue()[before:]


def test_streamed_text_goes_on_and_a_line_begins_anew(plain):
    assert printed(plain, Stream("Hello ")) == "Hello "
    assert printed(plain, Stream("world")) == "world"
    assert printed(plain, Line("● Tool", "good")) == "\n● Tool\n"
    assert printed(plain, Stream("a\n"), Break(), Stream("b"), Break(), Break()) == "a\nb\n"


def test_without_a_terminal_there_is_no_status_no_prompt_and_no_colour(plain):
    assert printed(plain, Status("working"), Line("x", "bad")) == "x\n"
    plain.ask("approve? ")
    assert "approve" not in plain._out.getvalue()
    plain.note("beside", "bad")
    assert plain._err.getvalue() == "beside\n"


def test_the_status_is_the_last_line_and_is_wiped_before_others(live):
    assert printed(live, Status("working")) == "\x1b[2m  0 s working\x1b[0m"
    assert printed(live, Line("done", "good")) == f"{CLEAR}\x1b[32mdone\x1b[0m\n\x1b[2m  0 s working\x1b[0m"
    assert printed(live, Stream("text")) == f"{CLEAR}text"
    assert printed(live, Status("hidden while text is open")) == ""
    assert printed(live, Status(""), Break()) == "\n"


def test_a_status_never_takes_two_lines(live):
    shown = printed(live, Status("日本語" * 20))
    assert len(shown) < 40
    assert "…" in shown


def test_a_status_tells_how_long_it_lasts_and_leaves_what_is_being_typed_alone(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    times = iter([100.0, 100.0, 100.9, 101.2, 160.0, 700.0])
    terminal = Terminal(Screen(), io.StringIO(), now=lambda: next(times))

    def ticked():
        before = len(terminal._out.getvalue())
        terminal.tick()
        return re.sub(r"\x1b\[[0-9;]*m", "", terminal._out.getvalue()[before:])

    terminal.show([Status("building")])
    assert ticked() == "", "nothing to say anew in the same second"
    # Overwritten in place, and the cursor put back: a wiped line would take half a correction with it.
    assert ticked() == "\x1b7\r  1 s \x1b8"
    assert ticked() == "\x1b7\r 60 s \x1b8"
    assert ticked() == "\x1b7\r 10 m \x1b8"


def test_a_status_that_goes_on_is_as_old_as_it_was(live):
    live._now = lambda: 100.0
    live.show([Status("build")])
    live._now = lambda: 107.0
    assert "  7 s build: 40%" in printed(live, Status("build: 40%", goes_on=True))
    assert "  0 s test" in printed(live, Status("test"))


def test_nothing_ticks_below_streamed_text_or_beside_a_prompt(live):
    times = iter(range(100))
    live._now = lambda: float(next(times))
    for change in (lambda: live.show([Stream("half a line")]), lambda: live.ask("approve? › ")):
        change()
        before = live._out.getvalue()
        live.tick()
        assert live._out.getvalue() == before


def test_a_prompt_stays_below_what_is_printed(live):
    live.show([Stream("partial")])
    live.ask("approve? › ")
    assert live._out.getvalue().endswith("partial\n\x1b[1;33mapprove? › \x1b[0m")
    assert printed(live, Line("news")) == f"{CLEAR}news\n\x1b[1;33mapprove? › \x1b[0m"
    live.typed()
    assert printed(live, Line("next")) == "next\n", "the echoed answer stays where it is"


def test_a_prompt_that_nobody_answers_is_taken_away(live):
    live.ask("approve? › ")
    live.unask()
    assert live._out.getvalue().endswith(CLEAR)


def test_a_dumb_terminal_gets_plain_lines_and_prompts(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    terminal = Terminal(Screen(), io.StringIO())
    assert printed(terminal, Status("x"), Line("y", "bad")) == "y\n"
    terminal.ask("approve? › ")
    assert printed(terminal, Line("z")) == "\nz\napprove? › "


def test_after_ctrl_c_the_next_thing_begins_a_line(live):
    live.show([Status("working")])
    live.interrupted()
    assert live._out.getvalue().endswith("\x1b[0m\n")
    assert printed(live, Line("cancelling")).startswith("cancelling\n")


def test_no_colour_when_told_so(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[31m" not in printed(Terminal(Screen(), io.StringIO()), Line("y", "bad"))


def test_raw_lines_are_raw_but_for_a_terminal(live, plain):
    for terminal, expected in ((live, "<U+009B>2J\n"), (plain, "\x9b2J\n")):
        terminal.raw("\x9b2J")
        assert terminal._out.getvalue() == expected
