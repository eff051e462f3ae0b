"""Where a run is drawn: the output of a notebook's cell, a terminal, or plain lines when it is neither."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final

from rich.console import Console
from rich.live import Live
from rich.text import Text

from midstream.client.display import as_html, as_text
from midstream_protocol.view import View

DRAW_EVERY_S: Final = 0.1
"""Between two drawings: as fast as an eye follows text, and few enough messages for a notebook's browser."""

Draw = Callable[[View], object]


@contextlib.contextmanager
def screen() -> Iterator[Draw]:
    """Each drawing replaces the one before. What was drawn last stays."""
    notebook = _notebook()
    if notebook is not None:
        yield notebook
        return
    console = Console()
    with _terminal(console) if console.is_terminal else _lines() as draw:
        yield draw


def _notebook() -> Draw | None:
    """None outside of one. IPython is there if this is a notebook, and need not be otherwise."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is None or not hasattr(shell, "kernel"):
        return None
    show: Callable[..., Any] = sys.modules["IPython"].display.display
    handle: Any = None

    def draw(view: View) -> None:
        nonlocal handle
        drawn = {"text/html": as_html(view), "text/plain": as_text(view)}
        if handle is None:
            handle = show(drawn, raw=True, display_id=True)
        else:
            handle.update(drawn, raw=True)

    return draw


@contextlib.contextmanager
def _terminal(console: Console) -> Iterator[Draw]:
    last = Text()
    with Live(console=console, auto_refresh=False, vertical_overflow="visible") as live:

        def draw(view: View) -> None:
            nonlocal last
            last = Text(as_text(view))
            # The end is what is new, and more than the terminal is high cannot be taken back.
            lines = last.wrap(console, console.width)[-(console.height - 1) :]
            live.update(Text("\n").join(lines), refresh=True)

        try:
            yield draw
        finally:
            live.update(last, refresh=True)


@contextlib.contextmanager
def _lines() -> Iterator[Draw]:
    last: View | None = None

    def draw(view: View) -> None:
        nonlocal last
        last = view

    try:
        yield draw
    finally:
        if last is not None:
            sys.stdout.write(as_text(last) + "\n")
