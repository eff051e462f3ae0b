"""Pieces of output that more than one event needs: diffs, arguments, plans, effects, numbers. Pure."""

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final, Literal

from msgspec import Struct

from midstream.client.safe_text import safe_line, safe_text
from midstream_protocol.events import ApprovalRequired, Effect, InputRequired, Preview, Todo, Usage

Style = Literal["plain", "dim", "good", "bad", "warn", "ask", "user", "head", "add", "remove", "hunk"]

SCRIPTED: Final = "scripted"
"""The name of the model that plays a script."""
MAX_PREVIEW_LINES: Final = 8
"""Lines of a tool's result that are printed; the whole is in the run's view."""
MAX_BLOCK_LINES: Final = 400
"""Lines of one approval's preview. What is approved must be visible, so it is far more than a screen."""


class Line(Struct, frozen=True):
    """A whole line. Its text is safe for a terminal."""

    text: str
    style: Style = "plain"


class Stream(Struct, frozen=True):
    """Text that goes on where the last one ended."""

    text: str
    style: Style = "plain"


class Break(Struct, frozen=True):
    """The streamed text is over: the next thing begins on a line of its own."""


class Status(Struct, frozen=True):
    """What happens just now; replaces the status before. Empty: nothing. `goes_on`: the same thing, further on."""

    text: str
    goes_on: bool = False


Part = Line | Stream | Break | Status

_BOXES: Final = {"pending": "☐", "in_progress": "▶", "completed": "☑", "failed": "✗", "skipped": "–"}
_WHY_ASKED: Final = {
    "unknown_outcome": "it may have happened already: nobody knows how the first attempt ended",
    "changed": "what it would change is not what it was when this was approved",
}
_OUTCOMES: Final = {
    "completed": "done",
    "failed": "failed",
    "not_started": "not started",
    "unknown": "OUTCOME UNKNOWN - it may have happened",
}


def line(text: str, style: Style = "plain", *, indent: str = "") -> Line:
    """One line of text that is not ours."""
    return Line(indent + safe_line(text, limit=500), style)


def block(text: str, style: Style = "dim", *, indent: str = "    ", most: int = MAX_PREVIEW_LINES) -> Iterator[Line]:
    """A text of several lines, indented, cut after `most` lines."""
    lines = safe_text(text).rstrip("\n").split("\n")
    for each in lines[:most]:
        yield Line(f"{indent}{each}", style)
    if len(lines) > most:
        yield Line(f"{indent}… {len(lines) - most} more lines", "dim")


def diff(text: str, *, indent: str = "    ") -> Iterator[Line]:
    for each in block(text, "plain", indent="", most=MAX_BLOCK_LINES):
        yield Line(f"{indent}{each.text}", _diff_style(each.text))


def _diff_style(text: str) -> Style:
    if text.startswith(("+++", "---")):
        return "head"
    if text.startswith("@@"):
        return "hunk"
    if text.startswith("+"):
        return "add"
    return "remove" if text.startswith("-") else "dim"


def value_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)


def approval(ask: ApprovalRequired) -> Iterator[Line]:
    risk: Style = "bad" if ask.risk == "high" else "ask"
    yield Line(f"? {safe_line(ask.label)}  [{safe_line(ask.tool)} · {safe_line(ask.risk)} risk]", risk)
    if (why := _WHY_ASKED.get(ask.reason)) is not None:
        yield Line(f"    {why}", "warn")
    yield from _shown(ask.preview, ask.args)
    yield Line(f"    {_expiry(ask.expires_in_s)}, then: {safe_line(ask.on_expire)}", "dim")


def _shown(preview: Preview | None, args: dict[str, Any]) -> Iterator[Line]:
    if preview is None:
        for name, value in args.items():
            text = value_text(value)
            if "\n" in text:
                yield Line(f"    {safe_line(name)}:", "head")
                yield from block(text, "plain", indent="      ", most=MAX_BLOCK_LINES)
            else:
                yield Line(f"    {safe_line(name)}: {safe_text(text)}")
    elif preview.kind == "diff":
        yield from diff(value_text(preview.data))
    else:
        yield from block(value_text(preview.data), "plain", most=MAX_BLOCK_LINES)


def question(ask: InputRequired) -> Iterator[Line]:
    first, *more = safe_text(ask.question).rstrip().split("\n")
    yield Line(f"? {first}", "ask")
    for each in more:
        yield Line(f"  {each}", "ask")
    for number, choice in enumerate(ask.choices or (), start=1):
        yield Line(f"    {number}  {safe_line(choice)}")
    yield Line(f"    {_expiry(ask.expires_in_s)}", "dim")


def _expiry(seconds: float) -> str:
    return f"expires in {duration(seconds)}" if seconds > 0 else "expires now"


def plan(todos: Iterable[Todo]) -> Iterator[Line]:
    for todo in todos:
        style: Style = "dim" if todo.status in ("completed", "skipped") else "plain"
        yield Line(f"  {_BOXES.get(todo.status, '?')} {safe_line(todo.title)}", style)


def effects(items: Iterable[Effect]) -> Iterator[Line]:
    """What became of the calls: the truth that an ending owes."""
    for each in items:
        style: Style = "warn" if each.outcome == "unknown" else "dim"
        yield Line(f"    {safe_line(each.tool)}: {_OUTCOMES.get(each.outcome, safe_line(each.outcome))}", style)


def spent(usage: Usage) -> str:
    """Tokens; and the truth about an answer that no model gave."""
    scripted = " · scripted: no real model answered" if SCRIPTED in usage.by_model else ""
    return f"{usage.total_tokens:,} tokens{scripted}"


def duration(seconds: float) -> str:
    if seconds < 1:
        return f"{round(seconds * 1000)} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    large, small = (f"{hours} h", f"{minutes} min") if hours else (f"{minutes} min", f"{rest} s")
    return large if small.startswith("0 ") else f"{large} {small}"
