"""What agent code may propose, and when: `plan_draft` turns one drafted payload into events, or refuses it. Pure.

From `run.cancelling` on nothing new begins - `BEGINNINGS` are refused - but results and closings are still taken, so
that what the terminal event tells about effects is as true as it can be.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

from midstream.runs.contract import BadDraft, CallCancelled, Stopping
from midstream.runs.inputs import Planned
from midstream.runs.state import Answer, RunState, input_of
from midstream_protocol.events import (
    ApprovalRequired,
    CorrectionHeld,
    InputRequired,
    MessageCompleted,
    MessageDelta,
    MessageStarted,
    MessageSuperseded,
    ModelUsage,
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
    Usage,
    UsageUpdated,
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


def may_begin(state: RunState, payloads: Iterable[Payload]) -> bool:
    """Whether the run takes drafts of these types now. Asked for all that is written in one step before any of it is,
    so that a writer who is told `Stopping` knows that nothing was written.
    """
    if state.cancelling is not None:
        return not state.ended and all(payload.TYPE not in BEGINNINGS for payload in payloads)
    return not state.ended


def may_say(state: RunState, message_id: str, step_id: str | None) -> bool:
    """Whether `plan_draft` has nothing against text deltas of this message in this step, and makes each one event. The
    answer is the same after any number of them. A run that has ended has no open message.
    """
    return message_id in state.message and (step_id is None or state.knows_step(step_id))


def plan_draft(state: RunState, payload: Payload, step_id: str | None) -> list[Planned]:
    """The events for one draft. Raises `Stopping` (nothing new now), `CallCancelled` (nothing new of this call),
    `BadDraft` (the order does not allow it).
    """
    kind = payload.TYPE
    if kind in OWN:
        raise BadDraft(f"{kind} is written by the run itself")
    if state.call_cancels and _of_cancelled_call(state, payload):
        # The cancel was decided while this was on its way: a question asked now would hold the run for nothing.
        raise CallCancelled
    if _never_began(state, payload):
        return []
    check = _CHECKS.get(kind)
    wrong = check(state, payload) if check is not None else None
    if wrong is None and step_id is not None and not _in_step(state, payload, step_id):
        wrong = f"step {step_id} never started"
    if wrong is not None:
        if state.cancelling is not None:
            # It most likely rests on a beginning that was refused; no defect of the agent's, which is being stopped.
            raise Stopping
        raise BadDraft(f"{kind}: {wrong}")
    if isinstance(payload, UsageUpdated):
        payload = added_up(state.usage, payload)
    planned = [Planned(payload=payload, step_id=step_id)]
    if isinstance(payload, ApprovalRequired | InputRequired):
        planned += _now_waiting(state, payload)
    return planned


def added_up(before: Usage, used: UsageUpdated) -> UsageUpdated:
    """The run's usage after `used` more. Several model calls of a run may end at the same time."""
    by_model = dict(before.by_model)
    for model, more in used.by_model.items():
        by_model[model] = _sum(by_model[model], more) if model in by_model else more
    total = _sum(before, used)
    return UsageUpdated(
        input_tokens=total.input_tokens,
        output_tokens=total.output_tokens,
        cached_input_tokens=total.cached_input_tokens,
        total_tokens=total.total_tokens,
        by_model=by_model,
    )


def _sum(a: ModelUsage, b: ModelUsage | UsageUpdated) -> ModelUsage:
    return ModelUsage(
        input_tokens=a.input_tokens + b.input_tokens,
        output_tokens=a.output_tokens + b.output_tokens,
        cached_input_tokens=a.cached_input_tokens + b.cached_input_tokens,
        total_tokens=a.total_tokens + b.total_tokens,
    )


def _of_cancelled_call(state: RunState, payload: Payload) -> bool:
    match payload:
        case ApprovalRequired() | ToolRequested() | ToolStarted():
            return payload.tool_call_id in state.call_cancels
        case InputRequired():
            return any(payload.input_id == input_of(call_id) for call_id in state.call_cancels)
        case _:
            return False


def _never_began(state: RunState, payload: Payload) -> bool:
    """Whether it prepares a call after an immediate cancel, or closes one that for this reason never was. It is left
    out and not refused: what is written with it, the end of its message, still counts.
    """
    if state.cancelling is None or state.cancelling.mode != "now":
        return False
    match payload:
        case ToolPreparing():
            return True
        case ToolFailed():
            return payload.tool_call_id not in state.calls and payload.outcome == "not_started"
        case _:
            return False


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


# -- the order of events, a rule a type: what is wrong, or None (`midstream_protocol.order` reads the same rules back)


def _in_step(state: RunState, payload: Payload, step_id: str) -> bool:
    return state.knows_step(step_id) or (isinstance(payload, RunStep) and payload.step_id == step_id)


def _message_open(state: RunState, p: Any) -> str | None:
    return None if p.message_id in state.message else f"message {p.message_id} is not open"


def _message_completed(state: RunState, p: MessageCompleted) -> str | None:
    if p.role == "user":
        return _message_new(state, p)
    if wrong := _message_open(state, p):
        return wrong
    joined = "".join(state.message[p.message_id].text)
    return None if p.text == joined else "its text is not its deltas joined"


def _message_new(state: RunState, p: Any) -> str | None:
    if p.message_id in state.message or f"message:{p.message_id}" in state.spent:
        return f"message {p.message_id} was there already"
    return None


def _status(_state: RunState, p: RunStatusChanged) -> str | None:
    return "a run is queued by its thread" if p.status == "queued" else None


def _plan_there(state: RunState, _p: PlanUpdated) -> str | None:
    return None if state.plan is not None else "there is no plan yet"


def _call_open(state: RunState, p: Any) -> str | None:
    call = state.calls.get(p.tool_call_id)
    if call is None or not call.open:
        return f"call {p.tool_call_id} is not open"
    approval = state.open_approval_of(p.tool_call_id)
    return None if approval is None else f"approval {approval} is open"


def _call_running(state: RunState, p: Any) -> str | None:
    if wrong := _call_open(state, p):
        return wrong
    call = state.calls[p.tool_call_id]
    if call.state not in ("running", "background"):
        return f"call {p.tool_call_id} is not running"
    # Whatever was decided about running it again, it has not been started again yet.
    return None if state.leave_for(call) is None else f"call {p.tool_call_id} was asked about and not started since"


def _call_startable(state: RunState, p: ToolStarted | ToolRequested) -> str | None:
    call = state.calls.get(p.tool_call_id)
    if f"call:{p.tool_call_id}" in state.spent:
        return f"call {p.tool_call_id} went with its message"
    message_id = p.message_id if call is None or call.message_id is None else call.message_id
    if message_id in state.message:
        return f"message {message_id} is still being written"
    if isinstance(p, ToolRequested) and (p.tool_call_id in state.questions or p.tool_call_id in state.answers):
        return f"{p.tool_call_id} was asked already"
    if call is None:
        return None
    if (approval := state.open_approval_of(p.tool_call_id)) is not None:
        return f"approval {approval} is open"
    if (answer := state.approval_of(p.tool_call_id)) is not None and (wrong := _not_approved(state, p, answer)):
        return wrong
    if call.state == "preparing":
        return None
    # A further attempt after a restart or a failed try is a start too.
    if isinstance(p, ToolStarted) and call.state in ("running", "background"):
        further = p.attempt > call.attempt or state.leave_for(call) is not None
        return None if further else f"call {p.tool_call_id} is {call.state}"
    return f"call {p.tool_call_id} is {call.state}"


def _not_approved(state: RunState, p: ToolStarted | ToolRequested, answer: Answer) -> str | None:
    """What was approved is what runs: the last place where anything else can be stopped."""
    if answer.decision != "approved":
        return f"call {p.tool_call_id} was {answer.decision}, not approved"
    if isinstance(p, ToolStarted):
        same = p.args_digest == state.calls[p.tool_call_id].args_digest
    else:
        same = p.args == state.call_args.get(p.tool_call_id)
    return None if same else f"call {p.tool_call_id} was approved with other arguments"


def _call_new(state: RunState, p: ToolPreparing) -> str | None:
    if p.tool_call_id in state.calls or f"call:{p.tool_call_id}" in state.spent:
        return f"call {p.tool_call_id} was there already"
    return _message_open(state, p)


def _call_failable(state: RunState, p: ToolFailed) -> str | None:
    if wrong := _call_open(state, p):
        return wrong
    never = state.calls[p.tool_call_id].started_seq == 0
    return f"call {p.tool_call_id} never started" if never and p.outcome != "not_started" else None


def _approval_new(state: RunState, p: ApprovalRequired) -> str | None:
    if p.approval_id in state.questions or p.approval_id in state.answers:
        return f"approval {p.approval_id} was asked already"
    call = state.calls.get(p.tool_call_id)
    if f"call:{p.tool_call_id}" in state.spent:
        return f"call {p.tool_call_id} went with its message"
    if call is None:
        return None
    if wrong := _call_open(state, p):
        return wrong
    if call.message_id in state.message:
        return f"message {call.message_id} is still being written"
    if call.state == "requested":
        return f"call {p.tool_call_id} was requested already"
    answer = state.approval_of(p.tool_call_id)
    refused = answer is not None and answer.decision != "approved"
    return f"call {p.tool_call_id} was refused already" if refused else None


def _input_new(state: RunState, p: InputRequired) -> str | None:
    known = p.input_id in state.questions or p.input_id in state.answers
    return f"input {p.input_id} was asked already" if known else None


def _step_order(state: RunState, p: RunStep) -> str | None:
    if p.parent_step_id is not None and not state.knows_step(p.parent_step_id):
        return f"its parent {p.parent_step_id} never started"
    if p.state in ("started", "skipped"):
        return f"step {p.step_id} was there already" if state.knows_step(p.step_id) else None
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
    RunStatusChanged.TYPE: _status,
    PlanUpdated.TYPE: _plan_there,
}
