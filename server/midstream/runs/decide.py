"""`decide`: what follows from one input. Pure: `decide(state, input) → Decision`, then `apply` each event of it.

The actor runs inputs through this one after the other within a beat, so nothing is ever decided on a stale state.
"""

import hashlib
from collections.abc import Callable
from typing import Any, Final, Literal

import msgspec

from midstream.log import JournalRecord
from midstream.runs.closing import (
    ABANDONED,
    DEADLINE,
    cancelled,
    close_question,
    close_steps,
    completed,
    failed,
    planned_closing,
    return_corrections,
)
from midstream.runs.commands import Door, decide_command
from midstream.runs.contract import BadDraft, CallCancelled, CorrectionRecord, CorrectionsPending, Offered, Stopping
from midstream.runs.drafts import may_begin, plan_draft, resumed
from midstream.runs.inputs import (
    Abandoned,
    Asked,
    Decision,
    Dequeued,
    Drafted,
    End,
    HandedOver,
    Input,
    Offer,
    Outgrown,
    Planned,
    ProgramEnded,
    Recovered,
    TakeCorrections,
    Tick,
)
from midstream.runs.parking import parked_record
from midstream.runs.state import SYSTEM, RunState
from midstream_protocol.events import (
    ApprovalRequired,
    CorrectionApplied,
    InputRequired,
    MessageCompleted,
    MessageSuperseded,
    Payload,
    RecoveryStarted,
    RunCancelling,
    RunStatusChanged,
)


def decide(door: Door, item: Input) -> Decision:
    """What follows from `item`. A `Drafted` must carry one payload at most: the actor hands in one at a time."""
    return _DECIDERS[type(item)](door, item)


def _drafted(door: Door, item: Drafted) -> Decision:
    if not may_begin(door.state, item.payloads):
        return Decision(refused=Stopping())
    try:
        events = [planned for payload in item.payloads for planned in plan_draft(door.state, payload, item.step_id)]
    except (Stopping, CallCancelled, BadDraft) as refused:
        return Decision(refused=refused)
    return Decision(events=events, journal=list(item.journal))


def _take(door: Door, item: TakeCorrections) -> Decision:
    """Corrections enter the conversation: shown as applied and as a message, and journalled, in one step."""
    state = door.state
    if state.ended or state.cancelling is not None:
        return Decision(refused=Stopping())
    decision = Decision()
    due = [
        correction
        for correction in state.due_corrections(ending=item.ending)
        if item.only is None or correction.correction_id in item.only
    ]
    for correction in due:
        message_id = f"msg_{hashlib.sha256(correction.correction_id.encode()).hexdigest()[:24]}"
        applied = CorrectionApplied(
            correction_id=correction.correction_id,
            text=correction.text,
            step_id=item.step_id,
            preempted=correction.preempts,
            replanned=correction.correction_id in item.replan,
        )
        message = MessageCompleted(
            message_id=message_id,
            role="user",
            text=correction.text,
            state="complete",
            correction_id=correction.correction_id,
        )
        decision.events += [Planned(payload=applied, step_id=item.step_id), Planned(payload=message)]
        record = CorrectionRecord(text=correction.text, message_id=message_id, replanned=applied.replanned)
        decision.journal.append(
            JournalRecord(kind="correction", key=correction.correction_id, data=msgspec.json.encode(record))
        )
    decision.reply = due
    return decision


def _end(door: Door, item: End) -> Decision:
    state = door.state
    if state.ended or state.cancelling is not None:
        return Decision(refused=Stopping())
    if state.pending_corrections() and not item.return_corrections:
        return Decision(refused=CorrectionsPending())
    decision = Decision()
    if item.return_corrections:
        decision.events = [Planned(payload=p) for p in return_corrections(state, reason="agent_ended")]
        if decision.events:
            # The ending is decided on the state without them: the actor asks again.
            decision.reply = AGAIN
            return decision
    decision.events = completed(state, item.result)
    return decision


AGAIN: Final = object()
"""A reply that says: apply this, then decide the same input once more."""


def _program_ended(door: Door, item: ProgramEnded) -> Decision:
    state = door.state
    if state.ended:
        return Decision()
    if state.cancelling is not None:
        return Decision(events=cancelled(state))
    if item.code is None:
        return Decision()
    return Decision(
        events=failed(
            state,
            code=item.code,
            text=item.text,
            retryable=item.retryable,
            error_id=item.error_id,
            resume=item.resume,
        )
    )


def _recovered(door: Door, item: Recovered) -> Decision:
    """Take over a run whose program is lost. What was being said is taken back; what was being done stays open, for
    the program knows what to do about it.
    """
    state = door.state
    if state.ended:
        return Decision()
    if state.cancelling is not None:
        return Decision(events=cancelled(state))
    if item.gone is not None:
        gone = failed(state, code="app_changed", text=item.gone, retryable=False, error_id=item.error_id)
        return Decision(events=gone)
    if state.recoveries >= door.limits.max_recoveries and not item.in_order:
        text = "The run was interrupted again and again without getting further."
        return Decision(events=failed(state, code="crash_loop", text=text, retryable=True, error_id=item.error_id))
    waiting = state.rests()
    payloads: list[Payload] = []
    if not waiting and not item.in_order:
        payloads.append(
            RecoveryStarted(
                kind="crash",
                attempt=state.recoveries + 1,
                max_attempts=door.limits.max_recoveries,
                wait_s=0,
            )
        )
    reason = "restart" if item.in_order else "crash"
    payloads += [MessageSuperseded(message_id=m.message_id, reason=reason) for m in state.message.values()]
    payloads += close_steps(state)
    if not waiting:
        status: Literal["waiting", "running"] = "waiting" if state.waits_for_people() else "running"
        phase, text = ("working", "Continuing") if item.in_order else ("recovering", "Continuing after an interruption")
        payloads.append(RunStatusChanged(status=status, phase=phase, text=text))
    return Decision(events=[planned_closing(p) for p in payloads])


def _handed_over(door: Door, _item: HandedOver) -> Decision:
    state = door.state
    return Decision() if state.ended else Decision(journal=[parked_record(state.run_id, state.head)])


def _dequeued(door: Door, _item: Dequeued) -> Decision:
    if door.state.status != "queued" or door.state.ended:
        return Decision()
    return Decision(events=[Planned(payload=RunStatusChanged(status="running", phase="working", text="Starting"))])


def _offer(door: Door, item: Offer) -> Decision:
    if door.state.ended:
        return Decision(refused=Stopping())
    record = Offered(client_id=item.client_id, tools=list(item.tools))
    return Decision(journal=[JournalRecord(kind="offer", key=item.client_id, data=msgspec.json.encode(record))])


def _outgrown(door: Door, _item: Outgrown) -> Decision:
    """The bound of a run's log: what is open is closed beyond it, and that is all."""
    state = door.state
    if state.ended:
        return Decision()
    if state.cancelling is not None:
        # Whoever asked for the end gets it now.
        return Decision(events=cancelled(state))
    text = "The run has more events than one run may have."
    return Decision(events=failed(state, code="too_long", text=text, retryable=False, error_id=""))


def _abandoned(door: Door, _item: Abandoned) -> Decision:
    state = door.state
    if state.ended or (state.cancelling is not None and state.cancelling.mode == "now"):
        return Decision()
    return Decision(events=_cancel_now(state, reason=ABANDONED))


def _cancel_now(state: RunState, *, reason: str) -> list[Planned]:
    """The run's own wish to end. Of one that is to end after its step, who asked for that stays who asked."""
    cancel = state.cancelling
    if cancel is None:
        ask = RunCancelling(mode="now", by=SYSTEM, reason=reason, escalated=False)
    else:
        ask = RunCancelling(mode="now", by=cancel.by, reason=cancel.reason, escalated=True)
    closings = [close_question(q) for q in state.questions.values()]
    return [Planned(payload=p) for p in (ask, *closings)]


def _tick(door: Door, _item: Tick) -> Decision:
    state, now = door.state, door.now_ms
    if state.ended:
        return Decision()
    cancel = state.cancelling
    deadline = door.limits.run_deadline_s
    late = bool(deadline) and now >= state.created_ms + round(deadline * 1000)
    if late and (cancel is None or cancel.mode == "after_step"):
        return Decision(events=_cancel_now(state, reason=DEADLINE))
    due = [q for q in state.questions.values() if q.expires_ms <= now]
    if not due:
        return Decision()
    # One at a time, so that what follows from each is decided on the state after the one before.
    question = due[0]
    events = [Planned(payload=close_question(question, expired=True))]
    if isinstance(question.payload, ApprovalRequired | InputRequired):
        events += resumed(state, question.key)
    return Decision(events=events, reply=AGAIN if len(due) > 1 else None)


_DECIDERS: Final[dict[type, Callable[[Door, Any], Decision]]] = {
    Drafted: _drafted,
    TakeCorrections: _take,
    End: _end,
    Asked: decide_command,
    ProgramEnded: _program_ended,
    Recovered: _recovered,
    HandedOver: _handed_over,
    Dequeued: _dequeued,
    Offer: _offer,
    Abandoned: _abandoned,
    Outgrown: _outgrown,
    Tick: _tick,
}
