"""`apply`: the one function that changes a run's working state. Pure: no clock, no I/O, no ids of its own.

The state is a fold of the run's events and journal and of nothing else, so it is the same after a crash as before it
(tests/runs/test_properties.py holds it to that). What clients see of a run is another fold of the same events:
`midstream_protocol.view`.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, NamedTuple

import msgspec

from midstream.log import JournalRecord, StoredReceipt
from midstream.runs.contract import AskedRecord, CallRecord, GrantRecord, Offered, ResultRecord
from midstream.runs.grants import outlives
from midstream.runs.state import (
    SYSTEM,
    Answer,
    CallState,
    Cancelling,
    CorrectionState,
    Host,
    OpenMessage,
    OpenQuestion,
    Question,
    RunState,
)
from midstream_protocol.codec import parse_iso
from midstream_protocol.events import (
    TERMINAL_TYPES,
    ApprovalRequired,
    ApprovalResolved,
    CorrectionAccepted,
    CorrectionApplied,
    CorrectionHeld,
    CorrectionReturned,
    CorrectionRevoked,
    InputRequired,
    InputResolved,
    MessageCompleted,
    MessageDelta,
    MessageStarted,
    MessageSuperseded,
    Payload,
    PlanCreated,
    PlanUpdated,
    RecoveryStarted,
    RunCancelling,
    RunStarted,
    RunStatusChanged,
    RunStep,
    ToolCompleted,
    ToolFailed,
    ToolPending,
    ToolPreparing,
    ToolRequested,
    ToolStarted,
    Usage,
    UsageUpdated,
)

_PROGRESS: Final = frozenset(
    cls.TYPE for cls in (MessageCompleted, ToolCompleted, ToolFailed, ApprovalResolved, InputResolved)
)


class At(NamedTuple):
    """Where and when an event happened."""

    seq: int
    ts_ms: int
    step_id: str | None


def apply(
    state: RunState, seq: int, payload: Payload, ts_ms: int, *, step_id: str | None = None, size: int = 0
) -> None:
    """Move `state` over the event `seq` of `size` bytes, which happened at `ts_ms` (Unix milliseconds) in that step."""
    state.head = seq
    state.size += size
    kind = payload.TYPE
    step = _STEPS.get(kind)
    if step is not None:
        step(state, payload, At(seq, ts_ms, step_id))
    if kind in _PROGRESS:
        state.recoveries = 0
    elif kind in TERMINAL_TYPES:
        state.ended = True
        state.status = kind.removeprefix("run.")


def apply_deltas(state: RunState, message_id: str, texts: Sequence[str], size: int) -> None:
    """The same for the next text deltas of one open message, one event each, `size` bytes in all."""
    state.head += len(texts)
    state.size += size
    state.message[message_id].text.extend(texts)


def apply_journal(state: RunState, record: JournalRecord, *, live: bool) -> None:
    """Take from the journal what `decide` needs. `live` False: the record is from before this actor's program."""
    if record.kind == "call":
        call = msgspec.json.decode(record.data, type=CallRecord)
        state.call_args[record.key] = call.args
    elif record.kind == "offer":
        offered = msgspec.json.decode(record.data, type=Offered)
        for tool in offered.tools:
            state.hosts[tool.name] = Host(client_id=offered.client_id, tool=tool)
    elif record.kind == "grant":
        state.grant_ends[record.key] = msgspec.json.decode(record.data, type=GrantRecord).expires_ms
    elif record.kind == "asked" and msgspec.json.decode(record.data, type=AskedRecord).replan:
        # It stands beside the event, and is read before it when a run is loaded.
        state.replans[record.key] = None
        if (correction := state.corrections.get(record.key)) is not None:
            correction.asked_replan = True
    elif record.kind == "result" and live and record.key in state.calls and state.calls[record.key].client_id:
        state.tool_values[record.key] = msgspec.json.decode(record.data, type=ResultRecord)


def apply_receipt(state: RunState, receipt: StoredReceipt) -> None:
    state.receipts[receipt.command_id] = receipt


Step = Callable[[RunState, Any, At], None]


def _run_started(state: RunState, p: RunStarted, at: At) -> None:
    state.agent = p.agent
    state.thread_id = p.thread_id
    state.created_ms = at.ts_ms


def _run_status(state: RunState, p: RunStatusChanged, _at: At) -> None:
    state.status = p.status
    state.phase = p.phase


def _run_step(state: RunState, p: RunStep, _at: At) -> None:
    if p.state == "started":
        state.steps[p.step_id] = p
    else:
        state.steps.pop(p.step_id, None)
        state.spent[f"step:{p.step_id}"] = None


def _run_cancelling(state: RunState, p: RunCancelling, at: At) -> None:
    if p.tool_call_id is not None:
        state.call_cancels[p.tool_call_id] = None
        return
    before = state.cancelling
    forced = before is not None and before.mode == "now"
    # The first who asked for this mode is who did it; asking again only hurries it.
    since = before.since_ms if before is not None and before.mode == p.mode else at.ts_ms
    state.cancelling = Cancelling(mode=p.mode, by=p.by, reason=p.reason, since_ms=since, forced=forced)


def _message_started(state: RunState, p: MessageStarted, _at: At) -> None:
    state.message[p.message_id] = OpenMessage(message_id=p.message_id, text=[])


def _message_delta(state: RunState, p: MessageDelta, _at: At) -> None:
    state.message[p.message_id].text.append(p.text)


def _message_completed(state: RunState, p: MessageCompleted, _at: At) -> None:
    state.message.pop(p.message_id, None)
    state.spent[f"message:{p.message_id}"] = None


def _message_superseded(state: RunState, p: MessageSuperseded, _at: At) -> None:
    state.message.pop(p.message_id, None)
    state.spent[f"message:{p.message_id}"] = None
    for call in state.dropped_with(p.message_id):
        del state.calls[call.tool_call_id]
        state.spent[f"call:{call.tool_call_id}"] = None


def _call(  # noqa: PLR0917 - private, and always called with all six
    state: RunState, tool_call_id: str, tool: str, label: str, message_id: str | None, ts_ms: int
) -> CallState:
    call = state.calls.get(tool_call_id)
    if call is None:
        call = state.calls[tool_call_id] = CallState(
            tool_call_id=tool_call_id,
            tool=tool,
            label=label,
            message_id=message_id,
            state="preparing",
            opened_ms=ts_ms,
        )
    return call


def _tool_preparing(state: RunState, p: ToolPreparing, at: At) -> None:
    _call(state, p.tool_call_id, p.tool, p.label, p.message_id, at.ts_ms)


def _tool_started(state: RunState, p: ToolStarted, at: At) -> None:
    call = _call(state, p.tool_call_id, p.tool, p.label, p.message_id, at.ts_ms)
    call.label = p.label
    call.state, call.outcome, call.attempt, call.args_digest = "running", "unknown", p.attempt, p.args_digest
    call.opened_ms, call.started_seq = at.ts_ms, at.seq


def _tool_requested(state: RunState, p: ToolRequested, at: At) -> None:
    call = _call(state, p.tool_call_id, p.tool, p.label, p.message_id, at.ts_ms)
    call.label = p.label
    call.state, call.outcome, call.client_id = "requested", "unknown", p.client_id
    call.opened_ms, call.started_seq = at.ts_ms, at.seq
    _ask(state, p.tool_call_id, p, at)


def _tool_pending(state: RunState, p: ToolPending, _at: At) -> None:
    state.calls[p.tool_call_id].state = "background"


def _tool_completed(state: RunState, p: ToolCompleted, at: At) -> None:
    call = state.calls[p.tool_call_id]
    call.state, call.outcome, call.ended_seq = "completed", "completed", at.seq
    if state.questions.pop(p.tool_call_id, None) is not None:
        state.answers[p.tool_call_id] = Answer(
            kind=ToolRequested, key=p.tool_call_id, seq=at.seq, decision="completed", by=call.client_id or ""
        )


def _tool_failed(state: RunState, p: ToolFailed, at: At) -> None:
    call = _call(state, p.tool_call_id, "", "", None, 0)
    call.state, call.outcome, call.ended_seq = "failed", p.outcome, at.seq
    if p.outcome == "unknown":
        state.unknown_calls[p.tool_call_id] = None
    if state.questions.pop(p.tool_call_id, None) is not None:
        state.answers[p.tool_call_id] = Answer(
            kind=ToolRequested,
            key=p.tool_call_id,
            seq=at.seq,
            decision="failed",
            by=call.client_id or "",
            code=p.code,
            text=p.text,
            outcome=p.outcome,
        )


def _ask(state: RunState, key: str, p: Question, at: At) -> None:
    state.questions[key] = OpenQuestion(
        key=key,
        payload=p,
        expires_ms=parse_iso(p.expires_at),
        step_id=at.step_id,
        todo_id=state.todo_of(at.step_id),
    )


def _approval_required(state: RunState, p: ApprovalRequired, at: At) -> None:
    call = _call(state, p.tool_call_id, p.tool, p.label, None, at.ts_ms)
    call.label, call.args_digest = p.label, p.args_digest
    state.approvals[p.tool_call_id] = p.approval_id
    _ask(state, p.approval_id, p, at)


def _approval_resolved(state: RunState, p: ApprovalResolved, at: At) -> None:
    question = state.questions.pop(p.approval_id, None)
    state.answers[p.approval_id] = Answer(
        kind=ApprovalRequired,
        key=p.approval_id,
        seq=at.seq,
        decision=p.decision,
        by=p.by,
        reason=p.reason,
        edited=p.edited,
    )
    own = p.grant_id is not None and not outlives(p.grant_id)
    if own and p.grant_id is not None and question is not None and isinstance(question.payload, ApprovalRequired):
        state.grants[question.payload.tool] = p.grant_id
    if (call := state.calls.get(p.tool_call_id)) is not None:
        call.args_digest = p.args_digest


def _input_required(state: RunState, p: InputRequired, at: At) -> None:
    _ask(state, p.input_id, p, at)


def _input_resolved(state: RunState, p: InputResolved, at: At) -> None:
    question = state.questions.pop(p.input_id, None)
    # The event does not say why nobody answered, but its time does: a cancel comes before the deadline.
    late = question is None or question.expires_ms <= at.ts_ms
    unanswered = "expired" if late else "cancelled"
    state.answers[p.input_id] = Answer(
        kind=InputRequired,
        key=p.input_id,
        seq=at.seq,
        decision=unanswered if p.by == SYSTEM else "answered",
        by=p.by,
        value=p.answer,
    )


def _correction_accepted(state: RunState, p: CorrectionAccepted, _at: At) -> None:
    state.corrections[p.correction_id] = CorrectionState(
        correction_id=p.correction_id,
        text=p.text,
        mode=p.mode,
        state="accepted",
        preempts=p.mode == "now" and bool(state.message),
        asked_replan=p.correction_id in state.replans,
    )


def _correction_moved(to: Literal["held", "applied", "returned", "revoked"]) -> Step:
    def step(state: RunState, p: Any, _at: At) -> None:
        state.corrections[p.correction_id].state = to

    return step


def _planned(state: RunState, p: PlanCreated | PlanUpdated, _at: At) -> None:
    state.plan = tuple(p.todos)


def _usage_updated(state: RunState, p: UsageUpdated, _at: At) -> None:
    state.usage = Usage(
        input_tokens=p.input_tokens,
        output_tokens=p.output_tokens,
        cached_input_tokens=p.cached_input_tokens,
        total_tokens=p.total_tokens,
        by_model=p.by_model,
    )


def _recovery_started(state: RunState, p: RecoveryStarted, _at: At) -> None:
    if p.kind == "crash":
        state.recoveries += 1


_STEPS: Final[dict[str, Step]] = {
    RunStarted.TYPE: _run_started,
    RunStatusChanged.TYPE: _run_status,
    RunStep.TYPE: _run_step,
    RunCancelling.TYPE: _run_cancelling,
    MessageStarted.TYPE: _message_started,
    MessageDelta.TYPE: _message_delta,
    MessageCompleted.TYPE: _message_completed,
    MessageSuperseded.TYPE: _message_superseded,
    ToolPreparing.TYPE: _tool_preparing,
    ToolStarted.TYPE: _tool_started,
    ToolRequested.TYPE: _tool_requested,
    ToolPending.TYPE: _tool_pending,
    ToolCompleted.TYPE: _tool_completed,
    ToolFailed.TYPE: _tool_failed,
    ApprovalRequired.TYPE: _approval_required,
    ApprovalResolved.TYPE: _approval_resolved,
    InputRequired.TYPE: _input_required,
    InputResolved.TYPE: _input_resolved,
    CorrectionAccepted.TYPE: _correction_accepted,
    CorrectionHeld.TYPE: _correction_moved("held"),
    CorrectionApplied.TYPE: _correction_moved("applied"),
    CorrectionReturned.TYPE: _correction_moved("returned"),
    CorrectionRevoked.TYPE: _correction_moved("revoked"),
    PlanCreated.TYPE: _planned,
    PlanUpdated.TYPE: _planned,
    UsageUpdated.TYPE: _usage_updated,
    RecoveryStarted.TYPE: _recovery_started,
}
