"""A run's working state, and `apply`: the one function that changes it. Pure: no clock, no I/O, no ids of its own.

The state is a fold of the run's events and journal and of nothing else, so it is the same after a crash as before it
(tests/runs/test_properties.py holds it to that). It is changed in place: the actor owns it, and drops it whole when a
write fails. What clients see of a run is another fold of the same events: `midstream_protocol.view`.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from midstream.log import JournalRecord, StoredReceipt
from midstream.runs.contract import CallRecord, Offered, ResultRecord
from midstream_protocol.codec import parse_iso
from midstream_protocol.commands import ClientTool
from midstream_protocol.events import (
    TERMINAL_TYPES,
    ApprovalRequired,
    ApprovalResolved,
    CancelMode,
    CorrectionAccepted,
    CorrectionApplied,
    CorrectionHeld,
    CorrectionMode,
    CorrectionReturned,
    CorrectionRevoked,
    Effect,
    InputRequired,
    InputResolved,
    MessageCompleted,
    MessageDelta,
    MessageStarted,
    MessageSuperseded,
    Outcome,
    Payload,
    PlanCreated,
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

# -- the state


class Answer(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """How a question was settled. `decision`: an approval's, or `answered`/`expired`/`cancelled` of an input, or
    `completed`/`failed` of a client-run tool (then `value`, or `code` and `text`).
    """

    kind: type[ApprovalRequired | InputRequired | ToolRequested]
    """What was asked."""
    key: str
    seq: int
    decision: str
    by: str
    reason: str | None = None
    edited: bool = False
    value: Any = None
    code: str | None = None
    text: str | None = None
    outcome: Outcome | None = None


class CorrectionState(Struct, kw_only=True):
    correction_id: str
    text: str
    mode: CorrectionMode
    state: Literal["accepted", "held", "applied", "returned", "revoked"]
    preempts: bool
    """It came in as `now` while a message was being written: that message is interrupted for it."""


@dataclass(slots=True)
class CallState:
    tool_call_id: str
    tool: str
    label: str
    """The newest: while its arguments are still being written only the tool's own name can be told."""
    message_id: str | None
    state: Literal["preparing", "requested", "running", "background", "completed", "failed"]
    args_digest: str | None = None
    client_id: str | None = None
    attempt: int = 0
    outcome: Outcome = "not_started"
    opened_ms: int = 0
    started_seq: int = 0
    """Its newest start or request (0: none yet)."""
    ended_seq: int = 0

    @property
    def open(self) -> bool:
        return self.state not in ("completed", "failed")


@dataclass(slots=True)
class OpenQuestion:
    """What waits for somebody: an approval, an input, or a client-run tool."""

    key: str
    payload: ApprovalRequired | InputRequired | ToolRequested
    expires_ms: int


@dataclass(slots=True)
class OpenMessage:
    message_id: str
    text: list[str]


@dataclass(slots=True)
class Cancelling:
    mode: CancelMode
    by: str
    reason: str | None
    since_ms: int
    forced: bool
    """Asked again: the grace is skipped."""


@dataclass(slots=True)
class Host:
    client_id: str
    tool: ClientTool


def input_of(tool_call_id: str) -> str:
    """The id of the question to the user that a call consists of. The same call asks the same question, so a restart
    finds it open or answered, and who cancels the call finds what to close.
    """
    return f"input_{hashlib.sha256(tool_call_id.encode()).hexdigest()[:24]}"


NO_USAGE: Final = Usage(input_tokens=0, output_tokens=0, cached_input_tokens=0, total_tokens=0, by_model={})


@dataclass(slots=True)
class RunState:
    run_id: str
    created_ms: int = 0
    head: int = 0
    agent: str = ""
    thread_id: str = ""
    status: str = "running"
    phase: str = "working"
    ended: bool = False
    message: dict[str, OpenMessage] = field(default_factory=dict)
    steps: dict[str, RunStep] = field(default_factory=dict)
    calls: dict[str, CallState] = field(default_factory=dict)
    call_args: dict[str, dict[str, Any]] = field(default_factory=dict)
    questions: dict[str, OpenQuestion] = field(default_factory=dict)
    answers: dict[str, Answer] = field(default_factory=dict)
    approvals: dict[str, str] = field(default_factory=dict)
    """tool_call_id → the newest approval about it."""
    tool_values: dict[str, ResultRecord] = field(default_factory=dict)
    """Results of client-run tools that their program has not read yet."""
    corrections: dict[str, CorrectionState] = field(default_factory=dict)
    cancelling: Cancelling | None = None
    call_cancels: set[str] = field(default_factory=set)
    grants: dict[str, str] = field(default_factory=dict)
    hosts: dict[str, Host] = field(default_factory=dict)
    usage: Usage = NO_USAGE
    recoveries: int = 0
    """Recoveries since the last progress."""
    planned: bool = False
    spent: set[str] = field(default_factory=set)
    """Ids of messages, steps and dropped calls that are over (`message:…`, `step:…`, `call:…`): none comes again."""
    receipts: dict[str, StoredReceipt] = field(default_factory=dict)

    # -- questions about it

    def is_open(self, key: str) -> bool:
        return key in self.questions

    def answer(self, key: str) -> Answer | None:
        return self.answers.get(key)

    def approval_of(self, tool_call_id: str) -> Answer | None:
        approval_id = self.approvals.get(tool_call_id)
        return self.answers.get(approval_id) if approval_id is not None else None

    def open_approval_of(self, tool_call_id: str) -> str | None:
        approval_id = self.approvals.get(tool_call_id)
        return approval_id if approval_id is not None and approval_id in self.questions else None

    def question_of(self, tool_call_id: str) -> OpenQuestion | None:
        """The question that holds up this call: its approval, its client's answer, or the question that it is."""
        keys = (self.approvals.get(tool_call_id), tool_call_id, input_of(tool_call_id))
        return next((self.questions[key] for key in keys if key in self.questions), None)

    def knows_step(self, step_id: str) -> bool:
        return step_id in self.steps or f"step:{step_id}" in self.spent

    def leave_for(self, call: CallState) -> Answer | None:
        """The newest answer about this call that came after it was last started."""
        answer = self.approval_of(call.tool_call_id)
        return answer if answer is not None and answer.seq > call.started_seq else None

    def dropped_with(self, message_id: str) -> list[CallState]:
        """The calls that go when this message is superseded: the model never finished writing them."""
        return [c for c in self.calls.values() if c.message_id == message_id and c.state == "preparing"]

    def open_calls(self) -> list[CallState]:
        return [call for call in self.calls.values() if call.open]

    def pending_corrections(self) -> list[CorrectionState]:
        return [c for c in self.corrections.values() if c.state in ("accepted", "held")]

    def due_corrections(self, *, ending: bool) -> list[CorrectionState]:
        if self.waits_for_approval():
            return []
        return [c for c in self.pending_corrections() if ending or c.mode != "when_idle"]

    def has_due_correction(self, *, ending: bool) -> bool:
        return bool(self.corrections) and bool(self.due_corrections(ending=ending))

    def waits_for_approval(self) -> bool:
        return any(isinstance(q.payload, ApprovalRequired) for q in self.questions.values())

    def waits_for_people(self) -> bool:
        return any(not isinstance(q.payload, ToolRequested) for q in self.questions.values())

    def effects(self) -> list[Effect]:
        return [Effect(tool_call_id=c.tool_call_id, tool=c.tool, outcome=c.outcome) for c in self.calls.values()]

    def log_status(self) -> str:
        """The status the store keeps: `waiting` only when nothing but a person can move the run on, so that a crash
        while something else was under way is noticed at once.
        """
        if self.ended or self.status == "queued":
            return self.status
        if not self.questions or self.message or self.cancelling is not None:
            return "running"
        # A call whose repetition a person is asked about is not under way, whatever its events say so far.
        busy = any(
            c.state in ("running", "background") and self.open_approval_of(c.tool_call_id) is None
            for c in self.calls.values()
        )
        return "running" if busy else "waiting"

    def wake_at(self) -> int | None:
        """Unix ms of the next deadline that is in the log."""
        if not self.questions or self.ended:
            return None
        return min(question.expires_ms for question in self.questions.values())


# -- apply

_PROGRESS: Final = frozenset(
    cls.TYPE for cls in (MessageCompleted, ToolCompleted, ToolFailed, ApprovalResolved, InputResolved)
)


def apply(state: RunState, seq: int, payload: Payload, ts_ms: int) -> None:
    """Move `state` over the event `seq`, which happened at `ts_ms` (Unix milliseconds)."""
    state.head = seq
    kind = payload.TYPE
    step = _STEPS.get(kind)
    if step is not None:
        step(state, payload, seq, ts_ms)
    if kind in _PROGRESS:
        state.recoveries = 0
    elif kind in TERMINAL_TYPES:
        state.ended = True
        state.status = kind.removeprefix("run.")


def apply_journal(state: RunState, record: JournalRecord, *, live: bool) -> None:
    """Take from the journal what `decide` needs. `live` False: the record is from before this actor's program."""
    if record.kind == "call":
        call = msgspec.json.decode(record.data, type=CallRecord)
        state.call_args[record.key] = call.args
    elif record.kind == "offer":
        offered = msgspec.json.decode(record.data, type=Offered)
        for tool in offered.tools:
            state.hosts[tool.name] = Host(client_id=offered.client_id, tool=tool)
    elif record.kind == "result" and live and record.key in state.calls and state.calls[record.key].client_id:
        state.tool_values[record.key] = msgspec.json.decode(record.data, type=ResultRecord)


def apply_receipt(state: RunState, receipt: StoredReceipt) -> None:
    state.receipts[receipt.command_id] = receipt


Step = Callable[[RunState, Any, int, int], None]


def _run_started(state: RunState, p: RunStarted, _seq: int, ts_ms: int) -> None:
    state.agent = p.agent
    state.thread_id = p.thread_id
    state.created_ms = ts_ms


def _run_status(state: RunState, p: RunStatusChanged, _seq: int, _ts: int) -> None:
    state.status = p.status
    state.phase = p.phase


def _run_step(state: RunState, p: RunStep, _seq: int, _ts: int) -> None:
    if p.state == "started":
        state.steps[p.step_id] = p
    else:
        state.steps.pop(p.step_id, None)
        state.spent.add(f"step:{p.step_id}")


def _run_cancelling(state: RunState, p: RunCancelling, _seq: int, ts_ms: int) -> None:
    if p.tool_call_id is not None:
        state.call_cancels.add(p.tool_call_id)
        return
    before = state.cancelling
    forced = before is not None and before.mode == "now"
    # The first who asked for this mode is who did it; asking again only hurries it.
    since = before.since_ms if before is not None and before.mode == p.mode else ts_ms
    state.cancelling = Cancelling(mode=p.mode, by=p.by, reason=p.reason, since_ms=since, forced=forced)


def _message_started(state: RunState, p: MessageStarted, _seq: int, _ts: int) -> None:
    state.message[p.message_id] = OpenMessage(message_id=p.message_id, text=[])


def _message_delta(state: RunState, p: MessageDelta, _seq: int, _ts: int) -> None:
    state.message[p.message_id].text.append(p.text)


def _message_completed(state: RunState, p: MessageCompleted, _seq: int, _ts: int) -> None:
    state.message.pop(p.message_id, None)
    state.spent.add(f"message:{p.message_id}")


def _message_superseded(state: RunState, p: MessageSuperseded, _seq: int, _ts: int) -> None:
    state.message.pop(p.message_id, None)
    state.spent.add(f"message:{p.message_id}")
    for call in state.dropped_with(p.message_id):
        del state.calls[call.tool_call_id]
        state.spent.add(f"call:{call.tool_call_id}")


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


def _tool_preparing(state: RunState, p: ToolPreparing, _seq: int, ts_ms: int) -> None:
    _call(state, p.tool_call_id, p.tool, p.label, p.message_id, ts_ms)


def _tool_started(state: RunState, p: ToolStarted, seq: int, ts_ms: int) -> None:
    call = _call(state, p.tool_call_id, p.tool, p.label, p.message_id, ts_ms)
    call.label = p.label
    call.state, call.outcome, call.attempt, call.args_digest = "running", "unknown", p.attempt, p.args_digest
    call.opened_ms, call.started_seq = ts_ms, seq


def _tool_requested(state: RunState, p: ToolRequested, seq: int, ts_ms: int) -> None:
    call = _call(state, p.tool_call_id, p.tool, p.label, p.message_id, ts_ms)
    call.label = p.label
    call.state, call.outcome, call.client_id = "requested", "unknown", p.client_id
    call.opened_ms, call.started_seq = ts_ms, seq
    state.questions[p.tool_call_id] = OpenQuestion(key=p.tool_call_id, payload=p, expires_ms=parse_iso(p.expires_at))


def _tool_pending(state: RunState, p: ToolPending, _seq: int, _ts: int) -> None:
    state.calls[p.tool_call_id].state = "background"


def _tool_completed(state: RunState, p: ToolCompleted, seq: int, _ts: int) -> None:
    call = state.calls[p.tool_call_id]
    call.state, call.outcome, call.ended_seq = "completed", "completed", seq
    if state.questions.pop(p.tool_call_id, None) is not None:
        state.answers[p.tool_call_id] = Answer(
            kind=ToolRequested, key=p.tool_call_id, seq=seq, decision="completed", by=call.client_id or ""
        )


def _tool_failed(state: RunState, p: ToolFailed, seq: int, _ts: int) -> None:
    call = _call(state, p.tool_call_id, "", "", None, 0)
    call.state, call.outcome, call.ended_seq = "failed", p.outcome, seq
    if state.questions.pop(p.tool_call_id, None) is not None:
        state.answers[p.tool_call_id] = Answer(
            kind=ToolRequested,
            key=p.tool_call_id,
            seq=seq,
            decision="failed",
            by=call.client_id or "",
            code=p.code,
            text=p.text,
            outcome=p.outcome,
        )


def _approval_required(state: RunState, p: ApprovalRequired, _seq: int, ts_ms: int) -> None:
    call = _call(state, p.tool_call_id, p.tool, p.label, None, ts_ms)
    call.label, call.args_digest = p.label, p.args_digest
    state.approvals[p.tool_call_id] = p.approval_id
    state.questions[p.approval_id] = OpenQuestion(key=p.approval_id, payload=p, expires_ms=parse_iso(p.expires_at))


def _approval_resolved(state: RunState, p: ApprovalResolved, seq: int, _ts: int) -> None:
    question = state.questions.pop(p.approval_id, None)
    state.answers[p.approval_id] = Answer(
        kind=ApprovalRequired,
        key=p.approval_id,
        seq=seq,
        decision=p.decision,
        by=p.by,
        reason=p.reason,
        edited=p.edited,
    )
    if p.grant_id is not None and question is not None and isinstance(question.payload, ApprovalRequired):
        state.grants[question.payload.tool] = p.grant_id
    if (call := state.calls.get(p.tool_call_id)) is not None:
        call.args_digest = p.args_digest


def _input_required(state: RunState, p: InputRequired, _seq: int, _ts: int) -> None:
    state.questions[p.input_id] = OpenQuestion(key=p.input_id, payload=p, expires_ms=parse_iso(p.expires_at))


def _input_resolved(state: RunState, p: InputResolved, seq: int, ts_ms: int) -> None:
    question = state.questions.pop(p.input_id, None)
    # The event does not say why nobody answered, but its time does: a cancel comes before the deadline.
    late = question is None or question.expires_ms <= ts_ms
    unanswered = "expired" if late else "cancelled"
    state.answers[p.input_id] = Answer(
        kind=InputRequired,
        key=p.input_id,
        seq=seq,
        decision=unanswered if p.by == SYSTEM else "answered",
        by=p.by,
        value=p.answer,
    )


def _correction_accepted(state: RunState, p: CorrectionAccepted, _seq: int, _ts: int) -> None:
    state.corrections[p.correction_id] = CorrectionState(
        correction_id=p.correction_id,
        text=p.text,
        mode=p.mode,
        state="accepted",
        preempts=p.mode == "now" and bool(state.message),
    )


def _correction_moved(to: Literal["held", "applied", "returned", "revoked"]) -> Step:
    def step(state: RunState, p: Any, _seq: int, _ts: int) -> None:
        state.corrections[p.correction_id].state = to

    return step


def _planned(state: RunState, _p: PlanCreated, _seq: int, _ts: int) -> None:
    state.planned = True


def _usage_updated(state: RunState, p: UsageUpdated, _seq: int, _ts: int) -> None:
    state.usage = Usage(
        input_tokens=p.input_tokens,
        output_tokens=p.output_tokens,
        cached_input_tokens=p.cached_input_tokens,
        total_tokens=p.total_tokens,
        by_model=p.by_model,
    )


def _recovery_started(state: RunState, p: RecoveryStarted, _seq: int, _ts: int) -> None:
    if p.kind == "crash":
        state.recoveries += 1


SYSTEM: Final = "system"
"""`by` when no person did it."""

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
    UsageUpdated.TYPE: _usage_updated,
    RecoveryStarted.TYPE: _recovery_started,
}
