"""What clients may ask, and what wins: `decide_command` settles one command against the state. Pure.

Two answers to one approval, a cancel against an approve, a correction against the end: whichever is decided first
wins, because commands are decided one after the other and each is applied before the next is looked at. The order of
the checks is the protocol's: the most specific refusal first.
"""

import hashlib
from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec

from midstream.log import JournalRecord
from midstream.runs.closing import close_question
from midstream.runs.contract import AskedRecord, CallRecord, GrantRecord, Limits, ResultRecord, Rules
from midstream.runs.drafts import HELD_FOR_APPROVAL, resumed
from midstream.runs.grants import run_grant_id, standing_grant
from midstream.runs.inputs import Asked, Decision, Planned
from midstream.runs.keys import namespace
from midstream.runs.state import Answer, CallState, OpenQuestion, RunState
from midstream_protocol.codec import json_safe
from midstream_protocol.commands import (
    ApprovalRespond,
    Command,
    CorrectionRevoke,
    InputRespond,
    Remember,
    RunCancel,
    RunCorrect,
    ToolResult,
)
from midstream_protocol.digest import args_digest
from midstream_protocol.errors import (
    AlreadyApplied,
    AlreadyResolved,
    Conflict,
    DigestMismatch,
    Expired,
    FieldError,
    Forbidden,
    InvalidArgs,
    Malformed,
    NotFound,
    NotSteerable,
    ProtocolError,
    RunEnded,
    TooLarge,
    TooManyPending,
    UnknownCall,
)
from midstream_protocol.events import (
    ApprovalRequired,
    ApprovalResolved,
    CorrectionAccepted,
    CorrectionHeld,
    CorrectionRevoked,
    InputRequired,
    InputResolved,
    Payload,
    RunCancelling,
    ToolCompleted,
    ToolFailed,
    ToolProgress,
    ToolRequested,
)
from midstream_protocol.frames import Receipt
from midstream_protocol.limits import MAX_PREVIEW_CHARS


class Door:
    """What a command is decided with: the state as it is now, the rules, the limits, the time, the run's secret."""

    __slots__ = (
        "joins",
        "limits",
        "now_ms",
        "rules",
        "secret",
        "state",
    )

    def __init__(self, *, state: RunState, rules: Rules, limits: Limits, now_ms: int, secret: bytes) -> None:
        self.state = state
        self.rules = rules
        self.limits = limits
        self.now_ms = now_ms
        self.secret = secret
        self.joins = limits.coalesce_ms > 0
        """Whether deltas that were gathered become one event."""

    @property
    def full(self) -> bool:
        """Whether the run goes on although its log is as long as it may be."""
        state, limits = self.state, self.limits
        return (state.head >= limits.max_run_events or state.size >= limits.max_run_bytes) and not state.ended


def fingerprint(command: Command) -> str:
    """What makes two commands the same: their type, run and payload."""
    body = (command.type, command.run_id, command.payload)
    return hashlib.sha256(msgspec.json.encode(body, order="deterministic")).hexdigest()


def decide_command(door: Door, asked: Asked) -> Decision:
    """Settle one command: its effect and its receipt, or its refusal."""
    command = asked.command
    known = door.state.receipts.get(command.command_id)
    if known is not None:
        if known.fingerprint == asked.fingerprint:
            return Decision(receipt=msgspec.json.decode(known.data, type=Receipt))
        refusal = Conflict("this command_id was used for another command: make a new id for each command")
        return Decision(receipt=refused(command, refusal))
    try:
        return _accept(door, asked)
    except ProtocolError as error:
        return Decision(
            receipt=refused(command, error, run_id=door.state.run_id),
            remember=asked.fingerprint if error.remembered else None,
        )


def refused(command: Command, error: ProtocolError, *, run_id: str | None = None) -> Receipt:
    """The receipt of a refusal."""
    return Receipt(
        command_id=command.command_id,
        run_id=run_id or command.run_id,
        status="rejected",
        code=error.code,
        text=error.text,
        errors=list(error.errors) or None,
        resolution=error.resolution,
        retryable=True if error.retryable else None,
    )


def _accept(door: Door, asked: Asked) -> Decision:
    command = asked.command
    handler = _HANDLERS.get(command.type)
    if handler is None:
        raise Malformed(f"{command.type} is not a command to a run")
    decision = Decision(remember=asked.fingerprint)
    effect, *rest = handler(door, asked, decision)
    origin = {"client_id": asked.client_id, "command_id": command.command_id}
    decision.events = [Planned(payload=effect, **origin), *(Planned(payload=p) for p in rest), *decision.events]
    decision.receipt = Receipt(
        command_id=command.command_id,
        run_id=door.state.run_id,
        thread_id=door.state.thread_id,
        status="accepted",
        at_seq=door.state.head + 1,
    )
    return decision


# -- one handler a command: the effect first, then what follows from it


def _cancel(door: Door, asked: Asked, _decision: Decision) -> list[Payload]:
    state, ask = door.state, _payload(asked, RunCancel)
    if ask.tool_call_id is not None:
        return _cancel_call(state, asked, ask, ask.tool_call_id)
    if state.ended:
        raise RunEnded("the run has ended: there is nothing left to cancel")
    before = state.cancelling
    mode = "now" if before is not None else ask.mode
    effect = RunCancelling(
        mode=mode,
        by=before.by if before is not None else asked.principal.id,
        reason=ask.reason if ask.reason is not None else (before.reason if before is not None else None),
        escalated=before is not None,
    )
    # What has not begun does not begin: who is asked for it is told so at once.
    closings = [close_question(q) for q in state.questions.values() if mode == "now" or not _is_call(q)]
    return [effect, *closings]


def _cancel_call(state: RunState, asked: Asked, ask: RunCancel, call_id: str) -> list[Payload]:
    call = state.calls.get(call_id)
    if call is None:
        raise UnknownCall("this run has no such tool call")
    if not call.open:
        raise _over(call)
    effect = RunCancelling(
        mode=ask.mode,
        tool_call_id=call_id,
        by=asked.principal.id,
        reason=ask.reason,
        escalated=call_id in state.call_cancels,
    )
    question = state.question_of(call_id)
    if question is None:
        return [effect]
    closings: list[Payload] = [close_question(question)]
    if not _is_call(question):
        closings += [planned.payload for planned in resumed(state, question.key)]
    return [effect, *closings]


def _correct(door: Door, asked: Asked, decision: Decision) -> list[Payload]:
    state, ask = door.state, _payload(asked, RunCorrect)
    if state.ended:
        raise RunEnded("the run has ended: start a new run in its thread")
    if state.cancelling is not None:
        raise RunEnded("the run is being cancelled: start a new run in its thread")
    if not door.rules.steerable:
        raise NotSteerable("this agent takes no corrections: cancel the run and start another")
    if len(ask.text.encode()) > door.limits.max_input_bytes:
        raise TooLarge(f"a correction may have {door.limits.max_input_bytes} bytes")
    if len(state.pending_corrections()) >= door.limits.max_pending_corrections:
        raise TooManyPending("too many corrections wait already: let some be applied, or revoke some")
    correction_id = asked.command.command_id
    events: list[Payload] = [
        CorrectionAccepted(correction_id=correction_id, text=ask.text, mode=ask.mode, step_id=ask.step_id)
    ]
    if ask.replan:
        data = msgspec.json.encode(AskedRecord(replan=True))
        decision.journal.append(JournalRecord(kind="asked", key=correction_id, data=data))
    if state.waits_for_approval():
        events.append(CorrectionHeld(correction_id=correction_id, text=ask.text, reason=HELD_FOR_APPROVAL))
    return events


def _revoke(door: Door, asked: Asked, _decision: Decision) -> list[Payload]:
    ask = _payload(asked, CorrectionRevoke)
    correction = door.state.corrections.get(ask.correction_id)
    if correction is None:
        raise NotFound("this run has no such correction")
    if correction.state not in ("accepted", "held"):
        raise AlreadyApplied(f"the correction was {correction.state} already")
    return [CorrectionRevoked(correction_id=correction.correction_id, text=correction.text)]


def _approve(door: Door, asked: Asked, decision: Decision) -> list[Payload]:
    state, ask = door.state, _payload(asked, ApprovalRespond)
    question = _open(door, ask.approval_id, ApprovalRequired, "approval")
    required = question.payload
    assert isinstance(required, ApprovalRequired)
    if ask.args_digest is not None and ask.args_digest != required.args_digest:
        raise DigestMismatch("the call has other arguments than the ones you saw: look at the approval again")
    if ask.remember is not None and ask.remember.scope not in required.remember_scopes:
        scopes = ", ".join(required.remember_scopes)
        raise InvalidArgs(
            f"this approval can be remembered for: {scopes or 'nothing'}",
            errors=(FieldError(path="/remember/scope", code="not_offered", text=f"one of: {scopes}"),),
        )
    approved = ask.decision == "approve"
    args, digest = None, required.args_digest
    if approved and ask.args:
        args = _edited(door, required, ask.args)
        digest = args_digest(door.secret, args)
        record = CallRecord(tool=required.tool, args=args)
        decision.journal.append(JournalRecord(kind="call", key=required.tool_call_id, data=msgspec.json.encode(record)))
    grant_id = _grant(door, asked, required, ask.remember, decision) if ask.remember and approved else None
    resolved = ApprovalResolved(
        approval_id=required.approval_id,
        tool_call_id=required.tool_call_id,
        decision="approved" if approved else "denied",
        by=asked.principal.id,
        reason=ask.reason,
        edited=args is not None,
        args=door.rules.shown_args(required.tool, args) if args is not None else None,
        args_digest=digest,
        grant_id=grant_id,
    )
    decision.events = resumed(state, required.approval_id)
    return [resolved]


def _grant(door: Door, asked: Asked, required: ApprovalRequired, remember: Remember, decision: Decision) -> str:
    """Note the grant that is given with an approval; its id."""
    state, seconds = door.state, remember.expires_in_s
    if remember.scope == "run":
        grant_id = run_grant_id(required.approval_id)
        if seconds is not None:
            data = msgspec.json.encode(GrantRecord(expires_ms=door.now_ms + round(seconds * 1000)))
            decision.journal.append(JournalRecord(kind="grant", key=grant_id, data=data))
        return grant_id
    grant_id, write = standing_grant(
        namespace(asked.principal.id),
        required,
        scope=remember.scope,
        agent=state.agent,
        thread_id=state.thread_id,
        run_id=state.run_id,
        by=asked.principal.id,
        now_ms=door.now_ms,
        expires_in_s=seconds,
    )
    decision.records.append(write)
    return grant_id


def _edited(door: Door, required: ApprovalRequired, changes: dict[str, Any]) -> dict[str, Any]:
    if not required.editable:
        raise InvalidArgs(
            "this call can be approved or denied, not edited",
            errors=(FieldError(path="/args", code="not_editable", text="leave args out"),),
        )
    before = door.state.call_args.get(required.tool_call_id, {})
    merged = {**before, **changes}
    errors = _check_call(door, required.tool, merged)
    if errors:
        raise InvalidArgs("the edited arguments do not fit the tool", errors=tuple(errors))
    return merged


def _check_call(door: Door, tool: str, args: dict[str, Any]) -> list[FieldError]:
    host = door.state.hosts.get(tool)
    if host is not None and host.tool.input_schema is not None and not door.rules.is_server_tool(tool):
        return door.rules.check_value(host.tool.input_schema, args)
    return door.rules.check_args(tool, args)


def _answer(door: Door, asked: Asked, decision: Decision) -> list[Payload]:
    ask = _payload(asked, InputRespond)
    question = _open(door, ask.input_id, InputRequired, "question")
    required = question.payload
    assert isinstance(required, InputRequired)
    errors: list[FieldError] = []
    if required.schema is not None:
        errors = door.rules.check_value(required.schema, ask.answer)
    elif required.choices is not None and ask.answer not in required.choices:
        errors = [FieldError(path="", code="not_a_choice", text=f"one of: {', '.join(required.choices)}")]
    if errors:
        raise InvalidArgs("the answer does not fit the question", errors=tuple(errors))
    decision.events = resumed(door.state, required.input_id)
    return [InputResolved(input_id=required.input_id, answer=ask.answer, by=asked.principal.id)]


def _tool_result(door: Door, asked: Asked, decision: Decision) -> list[Payload]:
    state, ask = door.state, _payload(asked, ToolResult)
    call = state.calls.get(ask.tool_call_id)
    if call is None or call.client_id is None:
        raise UnknownCall("this run has no such call for a client to run")
    if asked.client_id != call.client_id:
        raise Forbidden("another client hosts this call: only it may answer")
    if not call.open:
        raise _over(call)
    if state.ended:
        raise RunEnded("the run has ended")
    if ask.ok is None:
        report = ask.progress
        return [
            ToolProgress(
                tool_call_id=call.tool_call_id,
                text=report.text if report is not None else None,
                fraction=report.fraction if report is not None else None,
            )
        ]
    size = len(msgspec.json.encode(ask.result))
    if size > door.limits.max_tool_result_bytes:
        raise TooLarge(f"the result has {size} bytes; {door.limits.max_tool_result_bytes} are allowed")
    if ask.ok:
        record = ResultRecord(ok=True, value=json_safe(ask.result))
        text = ask.result if isinstance(ask.result, str) else msgspec.json.encode(ask.result).decode()
        payload: Payload = ToolCompleted(
            tool_call_id=call.tool_call_id,
            duration_ms=max(0, door.now_ms - call.opened_ms),
            preview=text[:MAX_PREVIEW_CHARS],
            truncated=True if len(text) > MAX_PREVIEW_CHARS else None,
            via="client",
        )
    else:
        error = ask.error
        code = error.code if error is not None else "tool_error"
        detail = error.text if error is not None else "The client could not run the call."
        record = ResultRecord(ok=False, error=code, text=detail)
        payload = ToolFailed(tool_call_id=call.tool_call_id, code=code, text=detail, outcome="failed", retryable=False)
    data = msgspec.json.encode(record)
    decision.journal.append(JournalRecord(kind="result", key=call.tool_call_id, data=data))
    return [payload]


_HANDLERS: Final[dict[str, Callable[[Door, Asked, Decision], list[Payload]]]] = {
    RunCancel.TYPE: _cancel,
    RunCorrect.TYPE: _correct,
    CorrectionRevoke.TYPE: _revoke,
    ApprovalRespond.TYPE: _approve,
    InputRespond.TYPE: _answer,
    ToolResult.TYPE: _tool_result,
}


# -- parts


def _open(door: Door, key: str, kind: type, word: str) -> OpenQuestion:
    """The open question of that id. Raises the refusal that says most."""
    question = door.state.questions.get(key)
    if question is not None and isinstance(question.payload, kind):
        if question.expires_ms <= door.now_ms:
            # Its timer has not been looked at yet; the answer is late all the same.
            raise Expired(f"this {word} has expired")
        return question
    answer = door.state.answers.get(key)
    if answer is None or answer.kind is not kind:
        raise NotFound(f"this run has no such {word}")
    if answer.decision == "expired":
        raise Expired(f"this {word} has expired", resolution=_resolution(answer))
    raise AlreadyResolved(f"this {word} was answered already", resolution=_resolution(answer))


def _over(call: CallState) -> AlreadyResolved:
    """Why nothing more can be said of a call. Also after the run's end: it is the most specific that is true."""
    by = call.client_id or "tool"
    resolution = {"decision": call.state, "by": by, "at_seq": call.ended_seq}
    return AlreadyResolved("the call is over already", resolution=resolution)


def _resolution(answer: Answer) -> dict[str, Any]:
    return {"decision": answer.decision, "by": answer.by, "at_seq": answer.seq}


T = TypeVar("T")


def _payload(asked: Asked, kind: type[T]) -> T:
    payload = asked.command.payload
    assert isinstance(payload, kind)
    return payload


def _is_call(question: OpenQuestion) -> bool:
    return isinstance(question.payload, ToolRequested)
