"""Hooks after a stage: asking them, what follows from what they say, and the ones that come with us."""

from collections.abc import Callable, Sequence
from inspect import isawaitable
from typing import Any, Final

from msgspec import Struct

from midstream.agents.declared import check_function, check_kind, check_number
from midstream.agents.pipeline.contract import Abort, Finish, Go, Hook, Retry, StageResult, Verdict
from midstream.agents.planning.plan import Plan
from midstream.logs import Logger
from midstream.runs.contract import RunFailure, Stopping

_log = Logger("midstream.agents")

DEFAULT_FAILURE: Final = "The step failed."


class Said(Struct, kw_only=True, frozen=True):
    """What the hooks said of one result. `verdict` None: none of them said anything."""

    verdict: Verdict | None
    notes: tuple[str, ...] = ()


async def run_hooks(hooks: Sequence[Hook], result: StageResult, plan: Plan) -> Said:
    """Ask one after the other. Raises `RunFailure` `hook_failed` for one that raises or gives no verdict."""
    notes: list[str] = []
    going = False
    for hook in hooks:
        verdict = await _asked(hook, result, plan)
        if isinstance(verdict, Go):
            going = True
            if verdict.note:
                notes.append(verdict.note)
        elif verdict is not None:
            return Said(verdict=verdict, notes=tuple(notes))
    return Said(verdict=Go() if going else None, notes=tuple(notes))


def decided(result: StageResult, said: Said, *, max_attempts: int) -> Verdict:
    """What follows. A stage that may not be tried again is one that failed."""
    match said.verdict:
        case None:
            return Go() if result.ok else Abort(result.error or DEFAULT_FAILURE)
        case Retry(why=why) if result.attempt >= max_attempts:
            return Abort(result.error or why)
        case verdict:
            return verdict


async def _asked(hook: Hook, result: StageResult, plan: Plan) -> Verdict | None:
    try:
        answer: Any = hook(result, plan)
        verdict: Any = await answer if isawaitable(answer) else answer
    except (RunFailure, Stopping):
        raise
    except Exception as error:
        _log.exception("a hook failed", hook=_name(hook), todo=result.todo.id)
        raise RunFailure("hook_failed", "A check after this step failed.") from error
    if verdict is not None and not isinstance(verdict, Go | Retry | Finish | Abort):
        wanted = "Go, Retry, Finish, Abort or None"
        _log.error("a hook gave no verdict", hook=_name(hook), got=type(verdict).__name__, wanted=wanted)
        raise RunFailure("hook_failed", "A check after this step failed.")
    return verdict


def _name(hook: Hook) -> str:
    return getattr(hook, "__qualname__", type(hook).__name__)


# -- the ones that come with us. They raise ValueError for what they cannot be made of.


def validated(check: Callable[[StageResult], str | None]) -> Hook:
    """Have a completed stage done again while `check` says what is wrong with its result (None: nothing)."""
    check_function("validated", "check", check, "result", plain=True)

    async def hook(result: StageResult, _plan: Plan) -> Verdict | None:
        wrong = check(result) if result.ok else None
        return Retry(wrong) if wrong is not None else None

    return hook


def stop_when(condition: Callable[[StageResult, Plan], bool]) -> Hook:
    """Stop early, with the result of the completed stage for which `condition` holds."""
    check_function("stop_when", "condition", condition, "result, plan", plain=True)

    async def hook(result: StageResult, plan: Plan) -> Verdict | None:
        if not result.ok or not condition(result, plan):
            return None
        return Finish(result.text if result.value is None else result.value)

    return hook


def retry_failed(times: int = 1) -> Hook:
    """Try a failed stage again, so many times."""
    check_number("retry_failed", "times", times, whole=True, least=0)

    async def hook(result: StageResult, _plan: Plan) -> Verdict | None:
        if result.ok or result.attempt > times:
            return None
        return Retry(f"It failed: {result.error or result.code}")

    return hook


def continue_failed(*agents: str) -> Hook:
    """Go on without a failed stage (of these specialists; of any, if none is named)."""
    for agent in agents:
        check_kind("continue_failed", "one of agents", agent, str, "names of specialists")

    async def hook(result: StageResult, _plan: Plan) -> Verdict | None:
        return Go() if not result.ok and (not agents or result.todo.agent in agents) else None

    return hook


def note(fn: Callable[[StageResult], str | None]) -> Hook:
    """Tell the stages after a completed one what `fn` says of it (None: nothing)."""
    check_function("note", "fn", fn, "result", plain=True)

    async def hook(result: StageResult, _plan: Plan) -> Verdict | None:
        text = fn(result) if result.ok else None
        return Go(note=text) if text else None

    return hook
