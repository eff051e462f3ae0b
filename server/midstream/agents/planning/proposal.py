"""What a planner proposes, read out of what it said. Reading is lenient about the form; what it means is judged in
merging.py. Pure.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from midstream.agents.planning.contract import ProposedTodo
from midstream_protocol.codec import json_safe

MAX_PROBLEMS: Final = 20
"""Problems of one plan that its planner is told: enough to mend it."""

_MAX_QUOTED: Final = 80


class BadPlan(ValueError):
    """A plan that cannot be used. `problems` are sentences for the planner."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems[:MAX_PROBLEMS])
        super().__init__("\n".join(self.problems))


def plan_schema(agents: Sequence[str]) -> dict[str, Any]:
    """JSON Schema of an answer, as a model is given it. It is loose: a mistake is told in the words of this package."""
    todo = {
        "type": "object",
        "properties": {
            "id": {"type": ["string", "integer", "null"], "description": "A short id, unique in the plan."},
            "title": {"type": "string", "description": "What is to be done, in a few words."},
            "agent": {"type": ["string", "null"], "description": f"Who does it, one of: {', '.join(agents)}."},
            "depends_on": {
                "type": ["array", "null"],
                "items": {"type": ["string", "integer"]},
                "description": "Ids of the todos that must be done first; [] if it may begin at once.",
            },
        },
        "required": ["title"],
    }
    return {"type": "object", "properties": {"todos": {"type": "array", "items": todo}}, "required": ["todos"]}


def proposed(said: Any, *, limit: int) -> list[ProposedTodo]:
    """The todos of an answer: a list of them, or an object that holds one as `todos`. Raises `BadPlan`."""
    todos = said.get("todos") if isinstance(said, dict) else said
    if not isinstance(todos, list | tuple):
        raise BadPlan(["There is no list of todos. Give an object with the list `todos`."])
    if len(todos) > limit:
        raise BadPlan([f"There are {len(todos):,} todos and at most {limit} are taken. Join steps."])
    problems: list[str] = []
    read = [_todo(number, each, problems) for number, each in enumerate(todos, start=1)]
    if problems:
        raise BadPlan(problems)
    return read


def quoted(value: object) -> str:
    """A value of a planner's inside a sentence to it: short."""
    text = value if isinstance(value, str) else repr(json_safe(value))
    return f"“{text[:_MAX_QUOTED]}{'…' if len(text) > _MAX_QUOTED else ''}”"


def _todo(number: int, said: Any, problems: list[str]) -> ProposedTodo:
    """One todo. What is wrong with it goes to `problems`."""
    if isinstance(said, ProposedTodo):
        said = msgspec.structs.asdict(said)
    elif isinstance(said, str):
        said = {"title": said}
    if not isinstance(said, dict):
        problems.append(f"Todo {number} is no object with a `title`.")
        return ProposedTodo(title="")
    where = f"Todo {number}"
    depends_on = said.get("depends_on")
    if isinstance(depends_on, str | int):
        depends_on = [depends_on]
    if depends_on is not None and not isinstance(depends_on, list | tuple):
        problems.append(f"{where}: `depends_on` is no list of ids.")
        depends_on = None
    title = _text(where, "title", said.get("title"), problems) or ""
    if not title and isinstance(said.get("title", ""), str):
        problems.append(f"{where} has no `title`. Say in a few words what is to be done.")
    return ProposedTodo(
        title=title,
        id=_text(where, "id", said.get("id"), problems),
        agent=_text(where, "agent", said.get("agent"), problems),
        depends_on=None
        if depends_on is None
        else [name for each in depends_on if (name := _text(where, "depends_on", each, problems))],
    )


def _text(where: str, field: str, value: Any, problems: list[str]) -> str | None:
    """The text of one field on one line; None: it is not there. A whole number is the text of itself."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        problems.append(f"{where}: `{field}` is no text.")
        return None
    if isinstance(value, int) and field not in ("id", "depends_on"):
        problems.append(f"{where}: `{field}` is no text.")
        return None
    return " ".join(str(json_safe(str(value))).split()) or None
