"""One stage with a model: a todo's specialist works on its brief until it has an answer, or fails."""

from typing import Final

from midstream.agents.crew import Crew
from midstream.agents.loop import Came, Loop
from midstream.agents.pipeline.contract import Assignment, StageResult
from midstream.runs.contract import RunFailure

NO_ANSWER: Final = "no_answer"
"""The code of a stage in which nothing was said at all."""


class ModelStage:
    """`Works` with the loops of a crew."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew

    async def __call__(self, assignment: Assignment) -> StageResult:
        todo, attempt = assignment.todo, assignment.attempt
        loop: Loop | None = None
        try:
            loop = self._crew.loop(
                todo.agent,
                stage=assignment.stage_id,
                parent=assignment.step.step_id,
                brief=assignment.brief,
                heard=assignment.heard,
                last=assignment.last,
                doing=assignment.doing,
            )
            came = await loop.run()
            text = answer_of(came, said=loop.partial)
        except RunFailure as failure:
            return StageResult(
                todo=todo,
                ok=False,
                text=loop.partial if loop is not None else "",
                attempt=attempt,
                code=failure.code,
                error=failure.text,
                retryable=failure.retryable,
            )
        return StageResult(todo=todo, ok=True, text=text, attempt=attempt, value=came.value)


def answer_of(came: Came, *, said: str) -> str:
    """The text of a stage that came to its end; `said` is the last that it said. Raises `RunFailure` `no_answer`."""
    # Some models end with an empty message after their last call: then what they said before it counts.
    text = came.text if came.text.strip() else said
    if not text.strip() and came.value is None:
        raise RunFailure(NO_ANSWER, "The step ended without an answer.", retryable=True)
    return text
