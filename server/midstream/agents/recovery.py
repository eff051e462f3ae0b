"""What is done about a model that failed: one table (pure), and the one place that tells people that it is being done.

| error | first | then |
|---|---|---|
| `rate_limited` `overloaded` `model_unreachable` `model_stalled` `model_error` | wait and ask again, up to the limit | the next model, else give up |
| `model_denied` `model_bad_request`, or a wait that is too long | | the next model, else give up |
| `context_too_long` | ask again with less, up to `MAX_SHRINKS` times | give up: another model would have to read it too |
"""  # noqa: E501 - a table

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from midstream.agents.providers.contract import ContextTooLong, ModelError, ModelOverloaded, ModelRateLimited
from midstream.log import JournalRecord
from midstream.runs.port import Port
from midstream_protocol.events import Payload, RecoveryStarted

BACKOFF_S: Final = 1.0
"""Wait before the second try; doubles, with jitter, and never less than the provider asks for."""

MAX_BACKOFF_S: Final = 60.0
"""The longest wait of our own choice, and by default the longest that a provider may ask for."""

MAX_SHRINKS: Final = 3
"""How often one model call is made again with a shorter conversation."""


class Wait(Struct, kw_only=True, frozen=True):
    """Ask the same model again after so many seconds."""

    kind: str
    wait_s: float


class NextModel(Struct, kw_only=True, frozen=True):
    """Ask the next model of the list, at once."""

    kind: str


class Shrink(Struct, kw_only=True, frozen=True):
    """Ask again with a shorter conversation, if it can be made shorter."""

    kind: str


class GiveUp(Struct, kw_only=True, frozen=True):
    """It cannot be had: how the run fails."""

    code: str
    text: str
    retryable: bool


Measure = Wait | NextModel | Shrink | GiveUp


def measure_for(
    error: ModelError,
    *,
    tries: int,
    most: int,
    models_left: int,
    shrinks: int = 0,
    jitter: float = 1.0,
    max_wait_s: float = MAX_BACKOFF_S,
) -> Measure:
    """What to do. `tries`: of this model so far, the failed one included, of at most `most`; `models_left` come after
    it; `shrinks`: how often the conversation was shortened; `jitter` from 0 to 1; `max_wait_s`: a provider that asks
    for more is not waited for.
    """
    if isinstance(error, ContextTooLong):
        return Shrink(kind="context") if shrinks < MAX_SHRINKS else give_up(error)
    if error.retryable and tries < most and (error.retry_after_s or 0.0) <= max_wait_s:
        return Wait(kind=kind_of(error), wait_s=max(backoff_s(tries, jitter), error.retry_after_s or 0.0))
    return NextModel(kind="model_error") if models_left else give_up(error)


def give_up(error: ModelError) -> GiveUp:
    return GiveUp(code=error.code, text=error.text, retryable=error.retryable)


def kind_of(error: ModelError | type[ModelError]) -> str:
    """The `recovery.started` kind of a wait for it."""
    kinds = {ModelRateLimited.code: "rate_limit", ModelOverloaded.code: "overloaded"}
    return kinds.get(error.code, "model_error")


def backoff_s(tries: int, jitter: float) -> float:
    """Jitter takes up to half of it: many that failed at once do not come back at once."""
    return min(MAX_BACKOFF_S, BACKOFF_S * 2.0 ** (min(tries, 16) - 1)) * (0.5 + 0.5 * jitter)


async def recovering(
    port: Port,
    *more: Payload,
    kind: str,
    attempt: int,
    max_attempts: int,
    wait_s: float = 0.0,
    step_id: str | None = None,
    journal: Sequence[JournalRecord] = (),
) -> None:
    """Tell people that something failed and is being put right. `attempt` is the one that comes now.

    `more` and `journal` are recorded with it. Over with the next `run.status`. Raises `Stopping`.
    """
    started = RecoveryStarted(kind=kind, attempt=attempt, max_attempts=max_attempts, wait_s=round(wait_s, 3))
    await port.record(started, *more, journal=journal, step_id=step_id)
