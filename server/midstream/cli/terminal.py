"""Printing and reading. The terminal stays in its ordinary line mode: the kernel edits, echoes and sends the line.

That needs no library, works over any connection, and leaves nothing to repair when the program is killed. What is
typed may be mixed with what is printed; an empty line holds the output, so that one can type in peace.
"""

import asyncio
import codecs
import contextlib
import os
import time
from collections.abc import Callable, Iterable
from typing import Final, TextIO

from rich.console import Console
from rich.text import Text

from midstream.cli.blocks import Break, Line, Part, Status, Stream, Style
from midstream.client.safe_text import safe_text

_STYLES: Final[dict[Style, str]] = {
    "plain": "",
    "dim": "dim",
    "good": "green",
    "bad": "red",
    "warn": "yellow",
    "ask": "bold yellow",
    "user": "cyan",
    "head": "bold",
    "add": "green",
    "remove": "red",
    "hunk": "cyan",
}
_CLEAR_LINE: Final = "\r\x1b[2K"
_TO_LINE_START: Final = "\x1b7\r"
_BACK: Final = "\x1b8"
"""Save the cursor and go, restore it: what is being typed after the status is neither wiped nor moved."""
_READ_BYTES: Final = 64 * 1024
_SECONDS_SHOWN: Final = 600
"""From here on an age is told in minutes."""


class Terminal:
    """Where output goes. `live`: a person's terminal; else plain lines without one control code.

    `live` False asks for plain lines even there. `now` is a clock in seconds.
    """

    def __init__(
        self, out: TextIO, err: TextIO, *, live: bool = True, now: Callable[[], float] = time.monotonic
    ) -> None:
        for stream in (out, err):
            # A terminal that cannot show a character shows another one; it does not end the program.
            with contextlib.suppress(AttributeError):
                stream.reconfigure(errors="replace")  # type: ignore[attr-defined]
        self._out = out
        self._err = err
        self._console = Console(file=out, force_terminal=out.isatty(), highlight=False, markup=False, emoji=False)
        self.live = live and out.isatty()
        self._obeys = self.live and not self._console.is_dumb_terminal
        """Whether control codes mean something to it."""
        self._now = now
        self._status = ""
        self._since = 0.0
        self._drawn = ""
        self._age = ""
        self._partial = False
        self._prompt = ""

    def show(self, parts: Iterable[Part]) -> None:
        for part in parts:
            match part:
                case Stream(text, style):
                    if self._prompt and not self._partial:
                        self._newline()
                    self._clear()
                    self._write(text, style)
                    self._partial = not text.endswith("\n") if text else self._partial
                case Line(text, style):
                    self._newline()
                    self._write(f"{text}\n", style)
                case Break():
                    self._newline()
                case Status(text, goes_on):
                    if text != self._status and not goes_on:
                        self._since = self._now()
                    self._status = text
        self._settle()

    def tick(self) -> None:
        """Once a second: how long it takes already, if a status is the last thing on the screen."""
        if self._drawn and not self._prompt and (age := self._aged()) != self._age:
            self._age = age
            self._out.write(_TO_LINE_START)
            self._console.print(Text(age, style=_STYLES["dim"], end=""), end="")
            self._out.write(_BACK)
            self._out.flush()

    def raw(self, line: str) -> None:
        """One line as it is; on a terminal, harmless: JSON may hold C1 and bidirectional controls unescaped."""
        self._out.write(f"{safe_text(line) if self._out.isatty() else line}\n")
        self._out.flush()

    def note(self, text: str, style: Style = "dim") -> None:
        """The program speaks of itself: beside the output, where that is not a terminal."""
        if self.live:
            self.show([Line(each, style) for each in text.split("\n")])
        else:
            self._err.write(f"{text}\n")
            self._err.flush()

    def ask(self, prompt: str) -> None:
        """Show a prompt until a line was typed; whatever is printed meanwhile goes above it."""
        if self._prompt != prompt:
            self._newline()
            self._prompt = prompt
            self._settle()

    def typed(self) -> None:
        """The person pressed Enter: the echo has moved to a new line, and the prompt is answered."""
        self._prompt = ""
        self._partial = False
        self._drawn = ""

    def interrupted(self) -> None:
        """Ctrl-C: the terminal has echoed it, and forgot the line that was being typed."""
        if self.live:
            self._out.write("\n")
        self.typed()

    def unask(self) -> None:
        """Nothing is asked any more, although nobody typed."""
        if self._prompt:
            self._newline()
            self._prompt = ""

    def _newline(self) -> None:
        self._clear()
        if self._partial:
            self._out.write("\n")
            self._partial = False

    def _clear(self) -> None:
        if self._drawn:
            self._out.write(_CLEAR_LINE if self._obeys else "\n")
            self._drawn = ""

    def _aged(self) -> str:
        """How long the status lasts, always as wide."""
        seconds = int(self._now() - self._since)
        return f"{seconds:>3} s " if seconds < _SECONDS_SHOWN else f"{min(seconds // 60, 999):>3} m "

    def _write(self, text: str, style: Style) -> None:
        if style == "plain" or not self._obeys:
            self._out.write(text)
        else:
            self._console.print(Text(text, style=_STYLES[style], end=""), end="", soft_wrap=True)

    def _settle(self) -> None:
        """After a batch: the prompt or the status line is the last thing on the screen."""
        last = self._prompt or (self._status if self._obeys else "")
        if self.live and not self._partial and last != self._drawn:
            self._clear()
            self._age = "" if self._prompt else self._aged()
            shown = Text(self._age + last, style=_STYLES["ask" if self._prompt else "dim"], end="")
            # One line, measured in columns, or clearing it would leave a part of it.
            shown.truncate(max(1, self._console.width - 1), overflow="ellipsis")
            if self._obeys:
                self._console.print(shown, end="", soft_wrap=True)
            else:
                self._out.write(shown.plain)
            self._drawn = last
        self._out.flush()


class Typist:
    """The lines that a person types, as they come. `on_line` gets None when no more will come."""

    def __init__(self, fd: int, on_line: Callable[[str | None], None]) -> None:
        self._fd = fd
        self._on_line = on_line
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._partial = ""
        self._listening = False

    def listen(self) -> None:
        if not self._listening:
            asyncio.get_running_loop().add_reader(self._fd, self._read)
            self._listening = True

    def stop(self) -> None:
        """Leave the terminal to somebody else, an editor say."""
        if self._listening:
            asyncio.get_running_loop().remove_reader(self._fd)
            self._listening = False

    def _read(self) -> None:
        try:
            data = os.read(self._fd, _READ_BYTES)
        except OSError:
            # The terminal was hung up.
            data = b""
        if not data:
            self.stop()
            self._on_line(None)
            return
        *lines, self._partial = (self._partial + self._decoder.decode(data)).split("\n")
        for line in lines:
            self._on_line(line)
