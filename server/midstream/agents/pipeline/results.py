"""What the stages of a run came to: kept for the stages after them, and put together at the end."""

from collections.abc import Sequence
from inspect import isawaitable
from typing import Any

from midstream.agents.in_time import in_time
from midstream.agents.pipeline.brief import titled
from midstream.agents.pipeline.contract import Join, StageResult
from midstream.agents.pipeline.schedule import results_of
from midstream.agents.planning.plan import Plan
from midstream.agents.tools.shown import in_text
from midstream.clock import Clock
from midstream.logs import Logger
from midstream.runs.contract import RunFailure, Stopping
from midstream_protocol.codec import json_safe
from midstream_protocol.events import Todo

_log = Logger("midstream.agents")


class Results:
    """`notes` are what hooks said to later stages, in the order in which their stages ended."""

    def __init__(self, join: Join | None, *, clock: Clock, timeout_s: float, name: str) -> None:
        self.notes: list[str] = []
        self._join = join
        self._clock = clock
        self._timeout_s = timeout_s
        self._name = name
        self._results: dict[str, StageResult] = {}

    def keep(self, result: StageResult, notes: Sequence[str]) -> None:
        self._results[result.todo.id] = result
        self.notes += notes

    @property
    def texts(self) -> dict[str, str]:
        """Todo id → text."""
        return {todo_id: result.text for todo_id, result in self._results.items()}

    def needed_by(self, todo: Todo) -> list[StageResult]:
        return [self._results[needed] for needed in todo.depends_on or () if needed in self._results]

    async def joined_for(self, todo: Todo, plan: Plan) -> str | None:
        """What the app makes of the several results that this todo depends on; None: nothing. Raises `RunFailure`."""
        needed = self.needed_by(todo)
        if self._join is None or len(needed) < 2:
            return None
        return in_text(await self._joined(self._join, needed, plan))

    async def came_to(self, plan: Plan) -> Any:
        """What it is all together: the one result that no other was made of, or several in one. Raises `RunFailure`."""
        found = [self._results[todo.id] for todo in results_of(plan) if todo.id in self._results]
        match found:
            case []:
                return ""
            case [only]:
                return only.text if only.value is None else only.value
            case _ if self._join is not None:
                return await self._joined(self._join, found, plan)
            case _:
                return titled(found)

    async def _joined(self, join: Join, results: Sequence[StageResult], plan: Plan) -> Any:
        late = RunFailure("join_failed", f"Putting the results together took more than {self._timeout_s:g} s.")
        return await in_time(
            lambda: _joined(join, results, plan),
            clock=self._clock,
            seconds=self._timeout_s,
            name=self._name,
            late=late,
        )


async def _joined(join: Join, results: Sequence[StageResult], plan: Plan) -> Any:
    try:
        made: Any = join(results, plan)
        return json_safe(await made if isawaitable(made) else made)
    except (RunFailure, Stopping):
        raise
    except Exception as error:
        _log.exception("a join failed", todos=[result.todo.id for result in results])
        raise RunFailure("join_failed", "The results could not be put together.") from error
