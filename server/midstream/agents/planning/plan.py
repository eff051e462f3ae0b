"""The plan: todos with their states, and the questions asked of them. Pure."""

from collections.abc import Iterable, Sequence

import msgspec
from msgspec import Struct

from midstream_protocol.events import Todo, TodoStatus

OVER = ("completed", "failed", "skipped")
"""States that a todo does not leave."""


class Plan(Struct, kw_only=True, frozen=True):
    """Todos in the order in which they are shown. Every `depends_on` is given, and names todos of the plan."""

    todos: tuple[Todo, ...]

    def todo(self, todo_id: str) -> Todo:
        """Raises KeyError."""
        for todo in self.todos:
            if todo.id == todo_id:
                return todo
        raise KeyError(todo_id)

    def marked(self, todo_id: str, status: TodoStatus) -> "Plan":
        """The same plan with one todo in another state."""
        todos = (msgspec.structs.replace(t, status=status) if t.id == todo_id else t for t in self.todos)
        return Plan(todos=tuple(todos))

    def marked_all(self, todo_ids: Iterable[str], status: TodoStatus) -> "Plan":
        ids = set(todo_ids)
        return Plan(todos=tuple(msgspec.structs.replace(t, status=status) if t.id in ids else t for t in self.todos))

    def position(self, todo_id: str) -> tuple[int, int]:
        """(index, of): which step of how many, from 1."""
        ids = [todo.id for todo in self.todos]
        return ids.index(todo_id) + 1, len(ids)

    def ready(self) -> list[Todo]:
        """Todos that may begin: pending, with all that they depend on over."""
        over = {todo.id for todo in self.todos if todo.status in OVER}
        return [t for t in self.todos if t.status == "pending" and set(t.depends_on or ()) <= over]

    def of_status(self, *statuses: TodoStatus) -> list[Todo]:
        return [todo for todo in self.todos if todo.status in statuses]

    @property
    def over(self) -> bool:
        return all(todo.status in OVER for todo in self.todos)

    def sinks(self) -> list[Todo]:
        """Todos that no other depends on: what the plan is for."""
        wanted = {needed for todo in self.todos for needed in todo.depends_on or ()}
        return [todo for todo in self.todos if todo.id not in wanted]

    def shown(self) -> list[Todo]:
        return list(self.todos)


def sequence(titles: Sequence[tuple[str, str]]) -> Plan:
    """A plan of (title, agent), one after the other."""
    todos = [
        Todo(
            id=f"todo_{number}",
            title=title,
            agent=agent,
            status="pending",
            depends_on=[f"todo_{number - 1}"] if number > 1 else [],
        )
        for number, (title, agent) in enumerate(titles, start=1)
    ]
    return Plan(todos=tuple(todos))
