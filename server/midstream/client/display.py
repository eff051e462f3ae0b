"""A view as text, HTML and Markdown, for a terminal and a notebook. Pure.

What a model, a tool or a person wrote is shown and never obeyed: no markup, no escape sequence, no mark that turns
the order of letters around, and no line of ten megabytes.
"""

import html
from typing import Final

from midstream.client.safe_text import safe_line, safe_text
from midstream_protocol.events import Todo
from midstream_protocol.view import CallView, MessageView, View

MAX_MESSAGE_CHARS: Final = 20_000
"""Of one message: its end, which is where it grows."""
MAX_LINE_CHARS: Final = 2_000
"""Of one line in it: a browser lays out a line as a whole."""
MAX_ITEMS: Final = 50
"""Of each list: its end."""

_DONE: Final = {"completed": "✓", "failed": "✗", "skipped": "-", "in_progress": "▸", "pending": "·"}
_WIDTH: Final = 160
_FENCE: Final = "````"


def as_text(view: View) -> str:
    """Lines; nothing in them that a terminal acts on."""
    parts = [_headline(view)]
    if view.plan:
        parts.append("\n".join(_todo(todo) for todo in view.plan[:MAX_ITEMS]))
    parts += [_message(message) for message in view.messages[-MAX_ITEMS:]]
    if view.calls:
        parts.append("\n".join(_call(call) for call in view.calls[-MAX_ITEMS:]))
    parts += [_waits(item) for item in view.pending[-MAX_ITEMS:]]
    if view.failure is not None:
        parts.append(f"failed: {safe_line(view.failure.text, limit=_WIDTH)}")
    if view.usage is not None:
        parts.append(f"{view.usage.total_tokens} tokens")
    return "\n\n".join(parts)


def as_html(view: View) -> str:
    """One element. It brings no style sheet and no script, and takes the notebook's colours."""
    return f'<pre style="white-space:pre-wrap;overflow-wrap:anywhere;margin:0">{html.escape(as_text(view))}</pre>'


def as_markdown(view: View) -> str:
    """One block of code, with a fence that its text cannot end."""
    text = as_text(view)
    fence = _FENCE
    while fence in text:
        fence += "`"
    return f"{fence}text\n{text}\n{fence}"


def _headline(view: View) -> str:
    status = f"{view.status}, {safe_line(view.phase, limit=40)}" if view.phase else view.status
    title = f" - {safe_line(view.title, limit=80)}" if view.title else ""
    said = f": {safe_line(view.status_text, limit=80)}" if view.status_text else ""
    return f"run {safe_line(view.run_id, limit=80)}{title} ({status}){said}"


def _todo(todo: Todo) -> str:
    return f"{_DONE.get(todo.status, '?')} {safe_line(todo.title, limit=_WIDTH)}"


def _message(message: MessageView) -> str:
    text = message.text
    before = "… " if len(text) > MAX_MESSAGE_CHARS else ""
    lines = safe_text(text[-MAX_MESSAGE_CHARS:]).split("\n")
    shown = "\n".join(line if len(line) <= MAX_LINE_CHARS else f"{line[:MAX_LINE_CHARS]}…" for line in lines)
    who = "you" if message.role == "user" else safe_line(message.agent or "agent", limit=40)
    interrupted = " (interrupted)" if message.state == "interrupted" else ""
    return f"{who}{interrupted}: {before}{shown}"


def _call(call: CallView) -> str:
    what = safe_line(call.label or call.tool, limit=80)
    progress = f" {call.fraction:.0%}" if call.fraction is not None else ""
    said = call.preview if call.state == "completed" else call.text
    more = f": {safe_line(said, limit=80)}" if said else ""
    return f"[{call.state.replace('_', ' ')}{progress}] {what}{more}"


def _waits(item: dict[str, object]) -> str:
    match item.get("kind"):
        case "approval":
            return f"waits for approval: {safe_line(str(item.get('label')), limit=_WIDTH)} ({item.get('risk')} risk)"
        case "input":
            return f"asks: {safe_line(str(item.get('question')), limit=_WIDTH)}"
        case _:
            return f"waits for a client's tool: {safe_line(str(item.get('label')), limit=_WIDTH)}"
