"""What a pipeline is made of: what came of a stage, what hooks may say about it, and what carries a stage out."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from msgspec import Struct

from midstream.agents.planning.plan import Plan
from midstream_protocol.events import RunStep, Todo


class StageResult(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """What came of one attempt at a todo. `text` is the stage's answer, also the part of it that a failed one said.

    `value` is the typed answer of a specialist with an `output`. `code` and `error` say why it failed (`ok` False).
    """

    todo: Todo
    ok: bool
    text: str
    attempt: int = 1
    value: Any = None
    code: str | None = None
    error: str | None = None
    retryable: bool = False


class Go(Struct, frozen=True, omit_defaults=True):
    """Go on. `note` is told to the stages that come after. After a failed stage: go on without it."""

    note: str | None = None


class Retry(Struct, frozen=True):
    """Do this stage once more; `why` is told to it."""

    why: str


class Finish(Struct, frozen=True):
    """Stop early: the run is completed with this result, and what has not begun is skipped."""

    result: Any


class Abort(Struct, frozen=True):
    """End the run as failed; `why` is shown to the user."""

    why: str


Verdict = Go | Retry | Finish | Abort

Hook = Callable[[StageResult, Plan], Awaitable[Verdict | None]]
"""Asked after every stage, one hook after the other: the first that says something else than `Go` is followed, and the
notes of those before it are kept. None says nothing; when no hook says anything, a completed stage goes on and a failed
one ends the run.
"""

Join = Callable[[Sequence[StageResult], Plan], Awaitable[Any]]
"""Makes one of what several stages came to, once all have ended: for a stage that depends on them (then it is told as
text), and for the run's result."""


class Assignment(Struct, kw_only=True, frozen=True):
    """One attempt at a todo, for whoever carries it out. `step` is the stage's, and open; `heard` are the ids of the
    corrections that are in the `brief`. `last`: nothing follows, so its answer is (part of) the run's. `doing` is what
    people read meanwhile.
    """

    stage_id: str
    todo: Todo
    attempt: int
    step: RunStep
    brief: str
    heard: tuple[str, ...] = ()
    last: bool = True
    doing: str = ""


Works = Callable[[Assignment], Awaitable[StageResult]]
"""Carries out one attempt. A failure of the stage is a result; raises `Stopping`, and what ends the whole run."""


class Piped(Struct, kw_only=True, frozen=True):
    """What a pipeline came to. `spent`: it can use no correction any more."""

    result: Any
    spent: bool = False


class Pipes(Protocol):
    """The pipeline as the executor knows it."""

    async def run(self) -> Piped:
        """Carry the plan out. Raises `RunFailure`, with how to go on, when a stage failed for good; `Stopping`."""
        ...

    async def go_on(self) -> Piped:
        """A correction came after everything was done: use it. Raises as `run` does."""
        ...
