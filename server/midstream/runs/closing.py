"""How a run ends: everything open is closed, truthfully, and then exactly one terminal event. Pure.

Shared by completion, failure, cancel and recovery, so that there is one truth about what became of each thing.
"""

from typing import Any

import msgspec

from midstream.runs.inputs import Planned
from midstream.runs.state import SYSTEM, OpenMessage, OpenQuestion, RunState
from midstream_protocol.codec import json_safe
from midstream_protocol.digest import terminal_digest
from midstream_protocol.events import (
    ApprovalRequired,
    ApprovalResolved,
    CorrectionReturned,
    Effect,
    InputRequired,
    InputResolved,
    MessageCompleted,
    MessageSuperseded,
    Outcome,
    Payload,
    PlanUpdated,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunStep,
    Todo,
    TodoStatus,
    ToolFailed,
    ToolRequested,
)

DEADLINE = "deadline"
"""The reason of a cancel that the run's own deadline asked for."""

ABANDONED = "abandoned"
"""The reason of a cancel because nobody was attached for too long."""


def close_all(state: RunState, *, why: str) -> list[Planned]:
    """Events that close everything open in `state`. `why` is the code that closed calls and corrections carry."""
    closings = [close_message(message, reason=why) for message in state.message.values()]
    dropped = _dropped(state, closings)
    closings += [close_question(question) for question in state.questions.values() if not _is_call(question)]
    closings += [
        ToolFailed(
            tool_call_id=call.tool_call_id,
            code=why,
            text="The run ended before this call did." if call.outcome == "unknown" else "The run ended first.",
            outcome=call.outcome,
            retryable=False,
        )
        for call in state.open_calls()
        if call.tool_call_id not in dropped
    ]
    closings += close_steps(state)
    closings += _close_plan(state.plan or (), reason=why)
    closings += return_corrections(state, reason=why)
    return [planned_closing(payload) for payload in closings]


def close_steps(state: RunState) -> list[Payload]:
    """Those that are inside others first."""
    return [msgspec.structs.replace(step, state="failed") for step in reversed(state.steps.values())]


def planned_closing(payload: Payload) -> Planned:
    """A step's end belongs to that step, whoever writes it."""
    return Planned(payload=payload, step_id=payload.step_id if isinstance(payload, RunStep) else None)


def _close_plan(plan: tuple[Todo, ...], *, reason: str) -> list[Payload]:
    """What had begun has failed, what had not is skipped."""
    closed: dict[TodoStatus, TodoStatus] = {"in_progress": "failed", "pending": "skipped"}
    todos = [msgspec.structs.replace(todo, status=closed.get(todo.status, todo.status)) for todo in plan]
    return [PlanUpdated(todos=todos, reason=reason)] if tuple(todos) != plan else []


def close_message(message: OpenMessage, *, reason: str) -> Payload:
    """An interrupted message keeps its text, which people have read; one without text never was."""
    text = "".join(message.text)
    if not text:
        return MessageSuperseded(message_id=message.message_id, reason=reason)
    return MessageCompleted(message_id=message.message_id, role="assistant", text=text, state="interrupted")


def close_question(question: OpenQuestion, *, expired: bool = False) -> Payload:
    payload = question.payload
    match payload:
        case ApprovalRequired():
            return ApprovalResolved(
                approval_id=payload.approval_id,
                tool_call_id=payload.tool_call_id,
                decision="expired" if expired else "cancelled",
                by=SYSTEM,
                edited=False,
                args_digest=payload.args_digest,
            )
        case InputRequired():
            return InputResolved(input_id=payload.input_id, by=SYSTEM)
        case ToolRequested():
            return ToolFailed(
                tool_call_id=payload.tool_call_id,
                code="timeout" if expired else "cancelled",
                text="The client did not answer in time." if expired else "The call was cancelled.",
                outcome="unknown",
                retryable=False,
            )


def return_corrections(state: RunState, *, reason: str) -> list[Payload]:
    return [
        CorrectionReturned(correction_id=c.correction_id, text=c.text, reason=reason)
        for c in state.pending_corrections()
    ]


def completed(state: RunState, result: Any) -> list[Planned]:
    closings = close_all(state, why="run_completed")
    return [*closings, _signed(RunCompleted(result=result, usage=state.usage, digest=""))]


def failed(
    state: RunState, *, code: str, text: str, retryable: bool, error_id: str, resume: Any = None
) -> list[Planned]:
    closings = close_all(state, why="run_failed")
    done = [todo.title for todo in state.plan or () if todo.status == "completed"]
    done += [f"{call.tool}: {call.label}" for call in state.calls.values() if call.outcome == "completed"]
    return [
        *closings,
        _signed(
            RunFailed(
                code=code,
                text=text,
                retryable=retryable,
                error_id=error_id,
                completed=done,
                effects=_effects(state, closings),
                usage=state.usage,
                digest="",
                resume=resume,
            )
        ),
    ]


def cancelled(state: RunState) -> list[Planned]:
    """The end of a run whose cancel was accepted (`state.cancelling`)."""
    cancel = state.cancelling
    assert cancel is not None
    if cancel.by == SYSTEM and cancel.reason == DEADLINE:
        text = "The run reached its deadline."
        return failed(state, code=DEADLINE, text=text, retryable=False, error_id="")
    closings = close_all(state, why="cancelled")
    return [
        *closings,
        _signed(
            RunCancelled(
                by=cancel.by,
                mode=cancel.mode,
                reason=cancel.reason,
                last_seq=state.head + len(closings),
                effects=_effects(state, closings),
                usage=state.usage,
                digest="",
            )
        ),
    ]


def _effects(state: RunState, closings: list[Planned]) -> list[Effect]:
    closed: dict[str, Outcome] = {
        p.payload.tool_call_id: p.payload.outcome for p in closings if isinstance(p.payload, ToolFailed)
    }
    dropped = _dropped(state, [planned.payload for planned in closings])
    return [
        Effect(tool_call_id=c.tool_call_id, tool=c.tool, outcome=closed.get(c.tool_call_id, c.outcome))
        for c in state.calls.values()
        if c.tool_call_id not in dropped
    ]


def _dropped(state: RunState, closings: list[Payload]) -> set[str]:
    """Calls that need no closing of their own: they go with the message they were being written in."""
    gone = [p.message_id for p in closings if isinstance(p, MessageSuperseded)]
    return {call.tool_call_id for message_id in gone for call in state.dropped_with(message_id)}


def _signed(payload: RunCompleted | RunFailed | RunCancelled) -> Planned:
    try:
        digest = terminal_digest(payload)
    except ValueError:
        # An agent's own words (a label, a failure's text) can hold half a surrogate pair. The digest is of what is
        # sent, so it is replaced here and not by the encoder.
        plain = json_safe(msgspec.to_builtins(payload), max_depth=64)
        payload = msgspec.convert(plain, type(payload))
        digest = terminal_digest(payload)
    return Planned(payload=msgspec.structs.replace(payload, digest=digest))


def _is_call(question: OpenQuestion) -> bool:
    return isinstance(question.payload, ToolRequested)
