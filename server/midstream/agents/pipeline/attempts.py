"""How far a pipeline is, as the journal has it: the attempts at each todo and what they came to. Pure."""

from collections.abc import Iterable, Sequence

import msgspec
from msgspec import Struct

from midstream.agents.pipeline.contract import Abort, Finish, Go, Retry, StageResult, Verdict
from midstream.agents.planning.plan import Plan
from midstream.agents.records import OutcomeRecord, ResumedRecord, StageEndRecord, StageRecord
from midstream.log import JournalRecord
from midstream_protocol.events import Todo


class Attempt(Struct, kw_only=True):
    """One attempt at a todo. `end` None: it is not over."""

    stage_id: str
    record: StageRecord
    end: StageEndRecord | None = None


class Attempts:
    """`latest` is the newest attempt at each todo, by its id. `outcome`: what everything came to, unless more was
    planned since.
    """

    def __init__(self, journal: Iterable[JournalRecord]) -> None:
        self.latest: dict[str, Attempt] = {}
        self._resumed: dict[str, StageEndRecord] = {}
        self.outcome: OutcomeRecord | None = None
        stages: dict[str, Attempt] = {}
        for record in journal:
            match record.kind:
                case "stage":
                    begun = msgspec.json.decode(record.data, type=StageRecord)
                    attempt = stages[record.key] = Attempt(stage_id=record.key, record=begun)
                    self.latest[begun.todo_id] = attempt
                case "stage_end" if record.key in stages:
                    stages[record.key].end = msgspec.json.decode(record.data, type=StageEndRecord)
                case "resumed":
                    self._resumed = msgspec.json.decode(record.data, type=ResumedRecord).ends
                case "outcome":
                    self.outcome = msgspec.json.decode(record.data, type=OutcomeRecord)
                case "plan":
                    self.outcome = None
                case _:
                    pass

    def settled(self, todos: Iterable[Todo]) -> list[tuple[Todo, StageEndRecord, int]]:
        """Of these todos, those that are over and came to something: (todo, end, attempt)."""
        found = []
        for todo in todos:
            own = self.latest.get(todo.id)
            if todo.status == "completed" and own is None and todo.id in self._resumed:
                found.append((todo, self._resumed[todo.id], 1))
            elif todo.status in ("completed", "failed") and own is not None and own.end is not None:
                found.append((todo, own.end, own.record.attempt))
        return found

    def finished(self, plan: Plan) -> StageEndRecord | None:
        """The end that stopped the run early, if one did and the plan says so already."""
        ends = (attempt.end for attempt in self.latest.values()) if plan.over else ()
        return next((end for end in ends if end is not None and end.verdict == "finish"), None)

    def completed(self) -> dict[str, StageEndRecord]:
        """What the completed todos came to, for the run that goes on with this one."""
        own = {todo_id: attempt.end for todo_id, attempt in self.latest.items()}
        done = {todo_id: end for todo_id, end in own.items() if end is not None and end.ok and end.verdict == "go"}
        return {**self._resumed, **done}


def ended_as(result: StageResult) -> StageEndRecord:
    """What is kept of a result, before the hooks are asked."""
    return StageEndRecord(
        ok=result.ok,
        text=result.text,
        value=result.value,
        code=result.code,
        error=result.error,
        retryable=result.retryable,
    )


def result_of(todo: Todo, end: StageEndRecord, *, attempt: int) -> StageResult:
    return StageResult(
        todo=todo,
        ok=end.ok,
        text=end.text,
        attempt=attempt,
        value=end.value,
        code=end.code,
        error=end.error,
        retryable=end.retryable,
    )


def with_verdict(end: StageEndRecord, verdict: Verdict, notes: Sequence[str]) -> StageEndRecord:
    """The same with what the hooks said of it."""
    kept = tuple(notes)
    match verdict:
        case Go():
            return msgspec.structs.replace(end, verdict="go", notes=kept)
        case Retry(why=why):
            return msgspec.structs.replace(end, verdict="retry", notes=kept, why=why)
        case Finish(result=result):
            return msgspec.structs.replace(end, verdict="finish", notes=kept, result=result)
        case Abort(why=why):
            return msgspec.structs.replace(end, verdict="abort", notes=kept, why=why)
