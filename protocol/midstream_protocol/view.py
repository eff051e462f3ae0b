"""`fold`: the one meaning of every event. PROTOCOL.md §6 says the same in words, `conformance/fold` in cases.

Persistent: each fold returns a new `View` and shares every item that did not change, so a user interface may compare
by identity. Total: an event that speaks of an item the view does not have, or of a type this version does not know,
moves the cursor and nothing else.

Cost: one event copies one tuple of references and, for a delta, joins the message's text anew (a memory copy: 10,000
deltas of 10 characters copy half a gigabyte in all, well under a second). `fold_all` is for replays: it joins runs of
deltas once, so its cost is linear in the text.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from midstream_protocol import events as ev
from midstream_protocol.events import EVENTS, Event, Payload
from midstream_protocol.shape import (
    CallState,
    CallView,
    CorrectionView,
    Cursor,
    MessageView,
    StepView,
    View,
    view_from_builtins,
    view_to_builtins,
)

__all__ = [
    "CallState",
    "CallView",
    "CorrectionView",
    "Cursor",
    "MessageView",
    "StepView",
    "View",
    "empty_view",
    "fold",
    "fold_all",
    "view_from_builtins",
    "view_to_builtins",
]

_Item = TypeVar("_Item", bound=Struct)


def fold(view: View | None, event: Event, *, epoch: str | None = None) -> View:
    """The view after `event`; `view` itself when it has seen that seq already.

    `epoch` names the log's history in the cursor (kept from `view` when not given). Whether an event is missing
    between the view and this one is the caller's to check. Raises ValueError for an event of another run.
    """
    if view is None:
        view = empty_view(event.run_id)
    elif view.run_id != event.run_id:
        raise ValueError(f"an event of run {event.run_id} cannot be folded into the view of run {view.run_id}")
    if event.seq <= view.cursor.seq:
        return view
    changes: dict[str, Any] = {"cursor": Cursor(seq=event.seq, epoch=epoch or view.cursor.epoch)}
    known = _FOLDS.get(event.type)
    if known is not None:
        payload = event.payload
        if not isinstance(payload, Payload):
            payload = msgspec.convert(payload, EVENTS[event.type])
        changes |= known(view, payload, event)
    return replace(view, **changes)


def fold_all(events: Iterable[Event], view: View | None = None, *, epoch: str | None = None) -> View | None:
    """The view after all of `events`, as `fold` one by one would make it. None when there is nothing at all."""
    for event in _joined(events, view.cursor.seq if view is not None else 0):
        view = fold(view, event, epoch=epoch)
    return view


def _joined(events: Iterable[Event], seen: int) -> Iterable[Event]:
    """`events`, with uninterrupted runs of `message.delta` joined to one event per message.

    Deltas of different messages do not touch each other, so within a run their order across messages does not matter.
    """
    waiting: dict[str, list[str]] = {}
    last: Event | None = None
    for event in events:
        if event.seq <= seen:
            continue
        seen = event.seq
        if isinstance(event.payload, ev.MessageDelta):
            waiting.setdefault(event.payload.message_id, []).append(event.payload.text)
            last = event
            continue
        if last is not None:
            yield from _flushed(waiting, last)
            last = None
        yield event
    if last is not None:
        yield from _flushed(waiting, last)


def _flushed(waiting: dict[str, list[str]], last: Event) -> Iterable[Event]:
    # All but one of these stand at a seq that belonged to another message. They take distinct seqs that end at the
    # last one, which `fold` lets pass because each is beyond the one before.
    first = last.seq - len(waiting) + 1
    for at, (message_id, texts) in enumerate(waiting.items()):
        joined = ev.MessageDelta(message_id=message_id, text="".join(texts))
        yield replace(last, seq=first + at, payload=joined)
    waiting.clear()


def empty_view(run_id: str) -> View:
    """What the view of a run is before its first event."""
    return View(
        run_id=run_id,
        thread_id="",
        agent="",
        status="running",
        messages=(),
        plan=(),
        steps=(),
        calls=(),
        pending=(),
        corrections=(),
        objects=(),
        notices=(),
        cursor=Cursor(seq=0),
    )


# -- items in order, found from the end because what changes is nearly always young


def _find(items: tuple[_Item, ...], key: str, value: str) -> int:
    for at in range(len(items) - 1, -1, -1):
        if getattr(items[at], key) == value:
            return at
    return -1


def _with(items: tuple[_Item, ...], at: int, item: _Item) -> tuple[_Item, ...]:
    return (*items, item) if at < 0 else (*items[:at], item, *items[at + 1 :])


def _said(payload: Payload) -> dict[str, Any]:
    """The fields that `payload` has on the wire: absent means absent."""
    values = ((name, getattr(payload, name)) for name in payload.__struct_fields__)
    return {name: value for name, value in values if value is not None}


# -- the run


def _run_started(_view: View, p: ev.RunStarted, _event: Event) -> dict[str, Any]:
    return {"agent": p.agent, "thread_id": p.thread_id, "status": "running"}


def _run_status(_view: View, p: ev.RunStatusChanged, _event: Event) -> dict[str, Any]:
    return {"status": p.status, "phase": p.phase, "status_text": p.text}


def _run_step(view: View, p: ev.RunStep, _event: Event) -> dict[str, Any]:
    at = _find(view.steps, "step_id", p.step_id)
    step = StepView(**_said(p)) if at < 0 else replace(view.steps[at], **_said(p))
    return {"steps": _with(view.steps, at, step)}


def _run_cancelling(_view: View, p: ev.RunCancelling, _event: Event) -> dict[str, Any]:
    return {} if p.tool_call_id is not None else {"phase": "cancelling"}


def _recovery_started(_view: View, _p: ev.RecoveryStarted, _event: Event) -> dict[str, Any]:
    return {"phase": "recovering"}


def _thread_titled(_view: View, p: ev.ThreadTitled, _event: Event) -> dict[str, Any]:
    return {"title": p.title}


def _plan(_view: View, p: ev.PlanCreated | ev.PlanUpdated, _event: Event) -> dict[str, Any]:
    return {"plan": tuple(p.todos)}


def _usage(_view: View, p: ev.UsageUpdated, _event: Event) -> dict[str, Any]:
    return {"usage": ev.Usage(**_said(p))}


def _notice(view: View, p: ev.Notice, _event: Event) -> dict[str, Any]:
    return {"notices": (*view.notices, p)}


def _object_created(view: View, p: ev.ObjectCreated, _event: Event) -> dict[str, Any]:
    return {"objects": _with(view.objects, _find(view.objects, "object_id", p.object_id), p)}


# -- the end: nothing is going on any more, so nothing says what is going on

_ENDED: Final[dict[str, Any]] = {"phase": None, "status_text": None, "pending": ()}


def _run_completed(_view: View, p: ev.RunCompleted, _event: Event) -> dict[str, Any]:
    return {**_ENDED, "status": "completed", "result": p.result, "usage": p.usage}


def _run_failed(_view: View, p: ev.RunFailed, _event: Event) -> dict[str, Any]:
    return {**_ENDED, "status": "failed", "failure": p, "usage": p.usage}


def _run_cancelled(_view: View, p: ev.RunCancelled, _event: Event) -> dict[str, Any]:
    return {**_ENDED, "status": "cancelled", "cancelled": p, "usage": p.usage}


# -- messages


def _message_started(view: View, p: ev.MessageStarted, event: Event) -> dict[str, Any]:
    message = MessageView(
        message_id=p.message_id, role=p.role, text="", state="open", agent=p.agent, step_id=event.step_id
    )
    return {"messages": _with(view.messages, _find(view.messages, "message_id", p.message_id), message)}


def _message_delta(view: View, p: ev.MessageDelta, _event: Event) -> dict[str, Any]:
    at = _find(view.messages, "message_id", p.message_id)
    if at < 0:
        return {}
    message = view.messages[at]
    return {"messages": _with(view.messages, at, replace(message, text=message.text + p.text))}


def _reasoning_delta(view: View, p: ev.ReasoningDelta, _event: Event) -> dict[str, Any]:
    at = _find(view.messages, "message_id", p.message_id)
    if at < 0:
        return {}
    message = view.messages[at]
    return {"messages": _with(view.messages, at, replace(message, reasoning=(message.reasoning or "") + p.text))}


def _message_completed(view: View, p: ev.MessageCompleted, event: Event) -> dict[str, Any]:
    at = _find(view.messages, "message_id", p.message_id)
    if at < 0:
        message = MessageView(
            message_id=p.message_id,
            role=p.role,
            text=p.text,
            state=p.state,
            stop_reason=p.stop_reason,
            step_id=event.step_id,
        )
    else:
        message = replace(view.messages[at], role=p.role, text=p.text, state=p.state, stop_reason=p.stop_reason)
    return {"messages": _with(view.messages, at, message)}


def _message_superseded(view: View, p: ev.MessageSuperseded, _event: Event) -> dict[str, Any]:
    return {
        "messages": tuple(message for message in view.messages if message.message_id != p.message_id),
        "calls": tuple(call for call in view.calls if call.message_id != p.message_id or call.state != "preparing"),
    }


# -- tool calls

_PASSING: Final[dict[str, Any]] = dict.fromkeys(
    ("text", "fraction", "chunk", "code", "max_attempts", "wait_s", "expires_at", "expires_in_s")
)
"""Fields that say how a call is getting on: the next state of the call does not inherit them."""


def _call(view: View, tool_call_id: str, state: CallState | None, said: dict[str, Any]) -> dict[str, Any]:
    """The call with what was `said` written over it; a call first heard of now is named as well as `said` can."""
    at = _find(view.calls, "tool_call_id", tool_call_id)
    if state is not None:
        said["state"] = state
    if at < 0:
        call = CallView(**{"tool": "", "label": "", "state": "running", **said})
    else:
        call = replace(view.calls[at], **said)
    return {"calls": _with(view.calls, at, call)}


def _tool(state: CallState) -> Callable[[View, Any, Event], dict[str, Any]]:
    return lambda view, p, _event: _call(view, p.tool_call_id, state, _PASSING | _said(p))


def _tool_requested(view: View, p: ev.ToolRequested, _event: Event) -> dict[str, Any]:
    return _call(view, p.tool_call_id, "requested", _PASSING | _said(p)) | _opened(view, "tool", p)


def _tool_progress(view: View, p: ev.ToolProgress, _event: Event) -> dict[str, Any]:
    at = _find(view.calls, "tool_call_id", p.tool_call_id)
    # Work is seen again: the wait before a retry is over.
    again: CallState | None = "running" if at >= 0 and view.calls[at].state == "retrying" else None
    return _call(view, p.tool_call_id, again, _said(p))


def _tool_ended(state: CallState) -> Callable[[View, Any, Event], dict[str, Any]]:
    def ended(view: View, p: ev.ToolCompleted | ev.ToolFailed, _event: Event) -> dict[str, Any]:
        closed = _closed(view, "tool", "tool_call_id", p.tool_call_id)
        return _call(view, p.tool_call_id, state, _PASSING | _said(p)) | closed

    return ended


# -- questions


def _opened(view: View, kind: str, payload: Payload) -> dict[str, Any]:
    return {"pending": (*view.pending, {"kind": kind, **msgspec.to_builtins(payload)})}


def _closed(view: View, kind: str, key: str, value: str) -> dict[str, Any]:
    left = tuple(item for item in view.pending if item["kind"] != kind or item.get(key) != value)
    return {"pending": left} if len(left) != len(view.pending) else {}


def _approval_required(view: View, p: ev.ApprovalRequired, _event: Event) -> dict[str, Any]:
    named = {"tool_call_id": p.tool_call_id, "tool": p.tool, "label": p.label, "args_digest": p.args_digest}
    return _call(view, p.tool_call_id, "waiting_approval", named) | _opened(view, "approval", p)


def _approval_resolved(view: View, p: ev.ApprovalResolved, _event: Event) -> dict[str, Any]:
    closed = _closed(view, "approval", "approval_id", p.approval_id)
    if _find(view.calls, "tool_call_id", p.tool_call_id) < 0:
        return closed
    # Answered, and not yet started or failed: that event comes next and says which.
    return closed | _call(view, p.tool_call_id, "preparing", {"args_digest": p.args_digest})


def _input_required(view: View, p: ev.InputRequired, _event: Event) -> dict[str, Any]:
    return _opened(view, "input", p)


def _input_resolved(view: View, p: ev.InputResolved, _event: Event) -> dict[str, Any]:
    return _closed(view, "input", "input_id", p.input_id)


# -- corrections


def _correction(state: str) -> Callable[[View, Any, Event], dict[str, Any]]:
    def changed(view: View, p: Any, _event: Event) -> dict[str, Any]:
        at = _find(view.corrections, "correction_id", p.correction_id)
        said = {"reason": None, **_said(p), "state": state}
        if at < 0:
            correction = CorrectionView(**{"mode": "next_step", **said})
        else:
            correction = replace(view.corrections[at], **said)
        return {"corrections": _with(view.corrections, at, correction)}

    return changed


_FOLDS: Final[dict[str, Callable[[View, Any, Event], dict[str, Any]]]] = {
    ev.RunStarted.TYPE: _run_started,
    ev.RunStatusChanged.TYPE: _run_status,
    ev.RunStep.TYPE: _run_step,
    ev.RunCancelling.TYPE: _run_cancelling,
    ev.ThreadTitled.TYPE: _thread_titled,
    ev.PlanCreated.TYPE: _plan,
    ev.PlanUpdated.TYPE: _plan,
    ev.MessageStarted.TYPE: _message_started,
    ev.MessageDelta.TYPE: _message_delta,
    ev.MessageCompleted.TYPE: _message_completed,
    ev.MessageSuperseded.TYPE: _message_superseded,
    ev.ReasoningDelta.TYPE: _reasoning_delta,
    ev.ToolPreparing.TYPE: _tool("preparing"),
    ev.ToolStarted.TYPE: _tool("running"),
    ev.ToolRequested.TYPE: _tool_requested,
    ev.ToolProgress.TYPE: _tool_progress,
    ev.ToolRetrying.TYPE: _tool("retrying"),
    ev.ToolPending.TYPE: _tool("background"),
    ev.ToolCompleted.TYPE: _tool_ended("completed"),
    ev.ToolFailed.TYPE: _tool_ended("failed"),
    ev.ApprovalRequired.TYPE: _approval_required,
    ev.ApprovalResolved.TYPE: _approval_resolved,
    ev.InputRequired.TYPE: _input_required,
    ev.InputResolved.TYPE: _input_resolved,
    ev.CorrectionAccepted.TYPE: _correction("accepted"),
    ev.CorrectionHeld.TYPE: _correction("held"),
    ev.CorrectionApplied.TYPE: _correction("applied"),
    ev.CorrectionReturned.TYPE: _correction("returned"),
    ev.CorrectionRevoked.TYPE: _correction("revoked"),
    ev.RecoveryStarted.TYPE: _recovery_started,
    ev.ObjectCreated.TYPE: _object_created,
    ev.UsageUpdated.TYPE: _usage,
    ev.Notice.TYPE: _notice,
    ev.RunCompleted.TYPE: _run_completed,
    ev.RunFailed.TYPE: _run_failed,
    ev.RunCancelled.TYPE: _run_cancelled,
}
"""`guardrail.triggered` and `context.trimmed` move the cursor only."""
