"""What a stage is told: the plan, which step of it this is, and what the steps before it came to. Pure."""

from collections.abc import Sequence
from typing import Final

from midstream.agents.pipeline.contract import StageResult
from midstream.agents.pipeline.schedule import is_last
from midstream.agents.planning.plan import Plan
from midstream.agents.tools.shown import bounded
from midstream_protocol.events import Todo

_STATE: Final = {
    "pending": "to come",
    "in_progress": "under way",
    "completed": "done",
    "failed": "failed",
    "skipped": "left out",
}

MAX_NOTE_CHARS: Final = 2_000
"""Characters of one note or reason in a brief."""


def brief(
    plan: Plan,
    todo: Todo,
    *,
    results: Sequence[StageResult] = (),
    joined: str | None = None,
    notes: Sequence[str] = (),
    corrections: Sequence[str] = (),
    why: str | None = None,
    max_chars: int,
) -> str:
    """The text of the brief. `results` are of the steps that this one depends on, `joined` what was made of them
    together; `max_chars` bounds each. `why`: what was wrong with the attempt before.
    """
    index, of = plan.position(todo.id)
    goes = "is for the user" if is_last(plan, todo.id) else "is given to the steps after it"
    parts = [
        f"This is done in {of} steps:\n{_steps(plan, todo)}",
        f"You are on step {index} of {of}: {todo.title}\nDo this step only; your answer {goes}.",
    ]
    if joined is not None:
        parts.append(f"What the steps before it came to:\n\n{bounded(joined, max_chars)}")
    elif results:
        came = "\n\n".join(_came(result, max_chars) for result in results)
        parts.append(f"What the steps before it came to:\n\n{came}")
    if notes:
        parts.append("To be kept in mind:\n" + "\n".join(_item(note) for note in notes))
    if corrections:
        said = "\n".join(_item(text) for text in corrections)
        parts.append(f"What the user has said since the request, which goes before it:\n{said}")
    if why is not None:
        parts.append(f"This step was done before, and has to be done again:\n{bounded(why, MAX_NOTE_CHARS)}")
    return "\n\n".join(parts)


def status_text(plan: Plan, todo: Todo) -> str:
    """What a person reads while this step is done."""
    index, of = plan.position(todo.id)
    return f"Step {index} of {of}: {todo.title}"


def titled(results: Sequence[StageResult]) -> str:
    """Several results as one text, each under its title."""
    return "\n\n".join(f"## {result.todo.title}\n\n{result.text}" for result in results)


def _steps(plan: Plan, own: Todo) -> str:
    lines = []
    for number, todo in enumerate(plan.todos, start=1):
        state = "yours, now" if todo.id == own.id else _STATE.get(todo.status, todo.status)
        lines.append(f"{number}. {todo.title} ({todo.agent}; {state})")
    return "\n".join(lines)


def _came(result: StageResult, max_chars: int) -> str:
    if result.ok:
        return f"## {result.todo.title}\n\n{bounded(result.text, max_chars) or '(no text)'}"
    said = f"\n\n{bounded(result.text, max_chars)}" if result.text else ""
    return f"## {result.todo.title}\n\n[This step failed: {result.error or result.code}]{said}"


def _item(text: str) -> str:
    return f"- {bounded(text, MAX_NOTE_CHARS)}"
