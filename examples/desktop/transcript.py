"""A run as text, in blocks. Pure: the window draws what changed."""

from typing import Final, Literal

from msgspec import Struct

from midstream.client.safe_text import safe_line, safe_text
from midstream_protocol.shape import CallView, CorrectionView, View

MAX_BLOCK_CHARS: Final = 20_000
"""Of one block. Tk lays a whole line out at once, and a tool may print ten megabytes on one."""

MAX_BLOCKS: Final = 400
"""The newest. Whoever wants to read a longer run opens it in the console."""

CUT: Final = "\n[the rest is left out here]"

Kind = Literal["note", "user", "assistant", "call", "end"]


class Block(Struct, frozen=True):
    """`text` is harmless: nothing in it moves a cursor, hides, or turns the direction of writing."""

    key: str
    kind: Kind
    text: str


def blocks(view: View) -> list[Block]:
    """Messages, each with the calls it made; before them the plan, after them how it ended."""
    found: list[Block] = []
    if view.plan:
        steps = "\n".join(f"{_MARKS[todo.status]} {safe_line(todo.title)}" for todo in view.plan)
        found.append(Block("plan", "note", steps))
    calls: dict[str | None, list[CallView]] = {}
    for call in view.calls:
        calls.setdefault(call.message_id, []).append(call)
    for message in view.messages:
        if message.text:
            found.append(Block(message.message_id, message.role, bounded(message.text)))
        found += [_call(call) for call in calls.pop(message.message_id, ())]
    # Of messages that were taken back, or of none.
    found += [_call(call) for left in calls.values() for call in left]
    if (end := _end(view)) is not None:
        found.append(Block("end", "end", end))
    return found[-MAX_BLOCKS:]


def bounded(text: str) -> str:
    """Harmless, and at most `MAX_BLOCK_CHARS` and a note."""
    return safe_text(text) if len(text) <= MAX_BLOCK_CHARS else safe_text(text[:MAX_BLOCK_CHARS]) + CUT


def correction_line(correction: CorrectionView) -> str:
    return f"{_HEARD.get(correction.state, correction.state)}: {safe_line(correction.text, limit=100)}"


_MARKS: Final = {"pending": "[ ]", "in_progress": "[>]", "completed": "[x]", "skipped": "[-]", "failed": "[!]"}

_HEARD: Final = {
    "accepted": "Waits for the next step",
    "held": "Waits",
    "applied": "Heard",
    "returned": "Came too late",
    "revoked": "Taken back",
}

_STATES: Final = {
    "preparing": "being prepared",
    "waiting_approval": "waits for you",
    "requested": "runs in another program",
    "running": "running",
    "retrying": "will be tried again",
    "background": "goes on in the background",
    "completed": "done",
    "failed": "failed",
}


def _call(call: CallView) -> Block:
    state = _STATES.get(call.state, call.state)
    if call.state == "running" and call.fraction is not None:
        state = f"{call.fraction:.0%}"
    said = call.preview if call.state == "completed" else call.text
    lines = [f"{safe_line(call.label or call.tool)} ({state})"]
    if said:
        lines.append(safe_line(said))
    return Block(call.tool_call_id, "call", "\n".join(lines))


def _end(view: View) -> str | None:
    match view.status:
        case "completed":
            return "The run has completed."
        case "cancelled":
            unclear = view.cancelled is not None and any(each.outcome == "unknown" for each in view.cancelled.effects)
            return "The run was stopped." + (" Whether its last call took effect is not known." if unclear else "")
        case "failed":
            return f"The run failed. {bounded(view.failure.text) if view.failure is not None else ''}".strip()
    return None
