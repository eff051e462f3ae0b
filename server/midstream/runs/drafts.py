"""What agent code may propose, and when: `plan_draft` turns one drafted payload into events, or refuses it. Pure.

From `run.cancelling` on nothing new begins - `BEGINNINGS` are refused - but results and closings are still taken, so
that what the terminal event tells about effects is as true as it can be.
"""

from collections.abc import Callable
from typing import Any, Final

from midstream.runs.contract import BadDraft, Stopping
from midstream.runs.inputs import Planned
from midstream.runs.state import RunState
from midstream_protocol.events import (
    ApprovalRequired,
    CorrectionHeld,
    InputRequired,
    MessageCompleted,
    MessageDelta,
    MessageStarted,
    MessageSuperseded,
    Payload,
    PlanCreated,
    PlanUpdated,
    ReasoningDelta,
    RunStatusChanged,
    RunStep,
    ToolCompleted,
    ToolFailed,
    ToolPending,
    ToolPreparing,
    ToolProgress,
    ToolRequested,
    ToolRetrying,
    ToolStarted,
)

BEGINNINGS: Final = frozenset(
    cls.TYPE
    for cls in (
        ApprovalRequired,
        InputRequired,
        MessageStarted,
        PlanCreated,
        PlanUpdated,
        ToolRequested,
        ToolRetrying,
        ToolStarted,
    )
)
"""What a run that is being cancelled does not begin any more."""

OWN: Final = frozenset(
    {
        "run.started",
        "run.cancelling",
        "run.completed",
        "run.failed",
        "run.cancelled",
        "approval.resolved",
        "input.resolved",
        "correction.accepted",
        "correction.held",
        "correction.applied",
        "correction.returned",
        "correction.revoked",
    }
)
"""What only the run itself writes."""


def plan_draft(state: RunState, payload: Payload, step_id: str | None) -> list[Planned]:
    """The events for one draft. Raises `Stopping` (nothing new now), `BadDraft` (the order does not allow it)."""
    if state.ended:
        raise Stopping
    kind = payload.TYPE
    if kind in OWN:
        raise BadDraft(f"{kind} is written by the run itself")
    if state.cancelling is not None and kind in BEGINNINGS:
        raise Stopping
    check = _CHECKS.get(kind)
    if check is not None and (wrong := check(state, payload)) is not None:
        raise BadDraft(f"{kind}: {wrong}")
    planned = [Planned(payload=payload, step_id=step_id)]
    if isinstance(payload, ApprovalRequired | InputRequired):
        planned += _now_waiting(state, payload)
    return planned


def resumed(state: RunState, key: str) -> list[Planned]:
    """The status that follows when question `key` was settled and nobody is waited for any more."""
    others = [q for q in state.questions.values() if q.key != key and not isinstance(q.payload, ToolRequested)]
    if state.status != "waiting" or others or state.cancelling is not None:
        return []
    return [Planned(payload=RunStatusChanged(status="running", phase=state.phase, text="Working"))]


def _now_waiting(state: RunState, question: ApprovalRequired | InputRequired) -> list[Planned]:
    planned: list[Planned] = []
    if isinstance(question, ApprovalRequired):
        text = f"Waiting for approval: {question.label}"
        planned += [
            Planned(payload=CorrectionHeld(correction_id=c.correction_id, text=c.text, reason=HELD_FOR_APPROVAL))
            for c in state.pending_corrections()
            if c.state != "held"
        ]
    else:
        text = "Waiting for an answer"
    if state.status != "waiting":
        planned.append(Planned(payload=RunStatusChanged(status="waiting", phase=state.phase, text=text)))
    return planned


HELD_FOR_APPROVAL: Final = "approval_open"


# -- the order of events, a rule a type: what is wrong, or None


def _message_open(state: RunState, p: Any) -> str | None:
    return None if p.message_id in state.message else f"message {p.message_id} is not open"


def _message_completed(state: RunState, p: MessageCompleted) -> str | None:
    if p.role == "user":
        return None
    if wrong := _message_open(state, p):
        return wrong
    joined = "".join(state.message[p.message_id].text)
    return None if p.text == joined else "its text is not its deltas joined"


def _message_new(state: RunState, p: MessageStarted) -> str | None:
    return f"message {p.message_id} is open already" if p.message_id in state.message else None


def _call_open(state: RunState, p: Any) -> str | None:
    call = state.calls.get(p.tool_call_id)
    return None if call is not None and call.open else f"call {p.tool_call_id} is not open"


def _call_running(state: RunState, p: Any) -> str | None:
    call = state.calls.get(p.tool_call_id)
    if call is not None and call.state in ("running", "background"):
        return None
    return f"call {p.tool_call_id} is not running"


def _call_startable(state: RunState, p: Any) -> str | None:
    call = state.calls.get(p.tool_call_id)
    if call is None or call.state == "preparing":
        approval = state.open_approval_of(p.tool_call_id)
        return None if approval is None else f"approval {approval} is open"
    # A further attempt after a restart or a failed try is a start too.
    if isinstance(p, ToolStarted) and call.state == "running" and p.attempt > call.attempt:
        return None
    return f"call {p.tool_call_id} is {call.state}"


def _call_new(state: RunState, p: ToolPreparing) -> str | None:
    if p.tool_call_id in state.calls:
        return f"call {p.tool_call_id} is there already"
    return _message_open(state, p)


def _call_failable(state: RunState, p: ToolFailed) -> str | None:
    call = state.calls.get(p.tool_call_id)
    if call is None:
        return f"call {p.tool_call_id} is not known"
    return _call_open(state, p)


def _approval_new(state: RunState, p: ApprovalRequired) -> str | None:
    if p.approval_id in state.questions or p.approval_id in state.answers:
        return f"approval {p.approval_id} was asked already"
    if (other := state.open_approval_of(p.tool_call_id)) is not None:
        return f"approval {other} is open for the same call"
    call = state.calls.get(p.tool_call_id)
    return None if call is None or call.open else f"call {p.tool_call_id} is over"


def _input_new(state: RunState, p: InputRequired) -> str | None:
    known = p.input_id in state.questions or p.input_id in state.answers
    return f"input {p.input_id} was asked already" if known else None


def _step_order(state: RunState, p: RunStep) -> str | None:
    if p.state in ("started", "skipped"):
        return f"step {p.step_id} is open already" if p.step_id in state.steps else None
    return None if p.step_id in state.steps else f"step {p.step_id} is not open"


_CHECKS: Final[dict[str, Callable[[RunState, Any], str | None]]] = {
    MessageStarted.TYPE: _message_new,
    MessageDelta.TYPE: _message_open,
    ReasoningDelta.TYPE: _message_open,
    MessageCompleted.TYPE: _message_completed,
    MessageSuperseded.TYPE: _message_open,
    ToolPreparing.TYPE: _call_new,
    ToolStarted.TYPE: _call_startable,
    ToolRequested.TYPE: _call_startable,
    ToolProgress.TYPE: _call_running,
    ToolRetrying.TYPE: _call_running,
    ToolPending.TYPE: _call_running,
    ToolCompleted.TYPE: _call_running,
    ToolFailed.TYPE: _call_failable,
    ApprovalRequired.TYPE: _approval_new,
    InputRequired.TYPE: _input_new,
    RunStep.TYPE: _step_order,
}
