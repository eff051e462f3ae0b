"""A run as the text of one chat message: how it stands, its plan, its answer so far. Pure."""

import json
from typing import Any, Final

from midstream_protocol.view import View

_MAX_TODOS: Final = 20
_MAX_LINE_CHARS: Final = 200
_MARKS: Final = {"completed": "✓", "in_progress": "▸", "failed": "✗", "skipped": "–"}
_ACTIVE: Final = frozenset({"preparing", "requested", "running", "retrying", "background"})


def rendered(view: View, max_chars: int) -> str:
    """The text, at most `max_chars` UTF-16 units; what does not fit is left out at the end, and that is said."""
    parts = [_standing(view), _plan(view), _answer(view)]
    return shortened("\n\n".join(part for part in parts if part), max_chars)


def shortened(text: str, max_chars: int) -> str:
    """The beginning of a text and how much of it is missing, within `max_chars` UTF-16 units."""
    units = text.encode("utf-16-le", "surrogatepass")
    total = len(units) // 2
    if total <= max_chars:
        return text
    # As long as the note can become, so that what it counts does not change its length.
    room = max(0, max_chars - len(_note(total)))
    kept = units[: 2 * room].decode("utf-16-le", "ignore")
    note = _note(total - len(kept.encode("utf-16-le", "surrogatepass")) // 2)
    return (kept + note)[:max_chars]


def _note(missing: int) -> str:
    return f"\n[… {missing} more characters]"


def _standing(view: View) -> str:
    match view.status:
        case "queued":
            return _line(view.status_text or "Queued")
        case "waiting":
            return _line(_question(view) or view.status_text or "Waiting")
        case "completed":
            return "Done"
        case "failed":
            return _line(f"Failed: {view.failure.text}" if view.failure is not None else "Failed")
        case "cancelled":
            return "Cancelled"
        case _:
            doing = next((call.label for call in reversed(view.calls) if call.state in _ACTIVE), None)
            return _line(doing or view.status_text or "Working")


def _question(view: View) -> str | None:
    for item in view.pending:
        if item["kind"] == "approval":
            return f"Waiting for approval: {item['label']}. {item['reason']}"
        if item["kind"] == "input":
            return f"Waiting for an answer: {item['question']}"
    return None


def _plan(view: View) -> str:
    if not view.plan:
        return ""
    done = sum(todo.status == "completed" for todo in view.plan)
    lines = [f"Plan: {done} of {len(view.plan)}"]
    lines += [_line(f"{_MARKS.get(todo.status, '·')} {todo.title}") for todo in view.plan[:_MAX_TODOS]]
    if len(view.plan) > _MAX_TODOS:
        lines.append(f"… and {len(view.plan) - _MAX_TODOS} more")
    return "\n".join(lines)


def _answer(view: View) -> str:
    if view.status == "completed" and view.result is not None:
        return _text_of(view.result)
    said = (message.text for message in reversed(view.messages) if message.role == "assistant" and message.text)
    return next(said, "")


def _text_of(result: Any) -> str:
    return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, indent=2)


def _line(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _MAX_LINE_CHARS else f"{flat[: _MAX_LINE_CHARS - 1]}…"
