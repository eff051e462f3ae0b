"""`verify`: whether a log obeys the order that PROTOCOL.md §5 promises. For tests, and for people who doubt a log.

Rules: seq is dense from 1 (merged replay: `from` continues where the last one ended); `run.started` is first and
alone; exactly one terminal event, the last, with the digest of what it says; deltas lie inside an open message and
join to its text; a call, an approval, an input, a correction and a step live as §5 draws them; everything opened is
closed before the end, a plan's todos too; from an immediate cancel on nothing new begins.
"""

from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from typing import Any, Final

from msgspec import Struct

from midstream_protocol import events as ev
from midstream_protocol.digest import terminal_digest
from midstream_protocol.errors import Malformed
from midstream_protocol.events import TERMINAL_TYPES, Event
from midstream_protocol.times import parse_iso


class _Message(Struct):
    parts: list[str]
    state: str = "open"  # open, ended, superseded


class _Call(Struct):
    state: str = "new"  # new, preparing, asking, approved, refused, requested, running, ended, dropped
    started: bool = False
    attempt: int = 0
    outcome: str = "not_started"
    message_id: str | None = None


def verify(events: Iterable[Event], *, ended: bool = True) -> list[str]:
    """What is wrong with this log, one sentence each, with the seq. Empty when nothing is.

    With `ended=False` the run may still be going on: what is open may be open, and a terminal event may be missing.
    """
    log = _Log()
    for event in events:
        log.take(event)
    if ended:
        log.finish()
    return log.problems


class _Log:
    def __init__(self) -> None:
        self.problems: list[str] = []
        self.seq = 0
        self.run_id = ""
        self.ended = False
        self.cancelled_now = False
        self.todos: dict[str, bool] | None = None  # id → open; None before the first plan
        self.messages: dict[str, _Message] = {}
        self.calls: dict[str, _Call] = {}
        self.approvals: dict[str, str | None] = {}  # id → its call while open, None when resolved
        self.inputs: dict[str, bool] = {}  # id → open
        self.corrections: dict[str, bool] = {}
        self.steps: dict[str, bool] = {}

    def take(self, event: Event) -> None:
        if (event.from_ or event.seq) != self.seq + 1 or event.seq < self.seq + 1:
            self._wrong(event, f"follows seq {self.seq}")
        if self.seq == 0:
            self.run_id = event.run_id
            if event.type != ev.RunStarted.TYPE:
                self._wrong(event, "is first, and only run.started may be")
        elif event.type == ev.RunStarted.TYPE:
            self._wrong(event, "comes a second time")
        if event.run_id != self.run_id:
            self._wrong(event, f"belongs to run {event.run_id}")
        if self.ended:
            self._wrong(event, "comes after the terminal event")
        self.seq = event.seq
        try:
            parse_iso(event.ts)
        except Malformed:
            self._wrong(event, f"has the time {event.ts!r}")
        if self.cancelled_now and event.type in _BEGINNINGS:
            self._wrong(event, "begins after an immediate cancel")
        rule = _RULES.get(event.type)
        if rule is not None:
            rule(self, event, event.payload)
        if event.step_id is not None and event.step_id not in self.steps:
            self._wrong(event, f"belongs to step {event.step_id}, which never started")
        if event.type in TERMINAL_TYPES:
            self._terminal(event, event.payload)

    def finish(self) -> None:
        if not self.ended:
            self.problems.append(f"the log ends at seq {self.seq} without a terminal event")

    def _wrong(self, event: Event, text: str) -> None:
        self.problems.append(f"seq {event.seq}: {event.type} {text}")

    # -- the end

    def _terminal(self, event: Event, p: Any) -> None:
        self.ended = True
        still_open = [
            *(f"message {key}" for key, message in self.messages.items() if message.state == "open"),
            *(f"call {key}" for key, call in self.calls.items() if call.state not in ("ended", "dropped")),
            *(f"approval {key}" for key, call_id in self.approvals.items() if call_id is not None),
            *(f"input {key}" for key, is_open in self.inputs.items() if is_open),
            *(f"correction {key}" for key, is_open in self.corrections.items() if is_open),
            *(f"step {key}" for key, is_open in self.steps.items() if is_open),
            *(f"todo {key}" for key, is_open in (self.todos or {}).items() if is_open),
        ]
        for what in still_open:
            self._wrong(event, f"leaves {what} open")
        if p.digest != terminal_digest(p):
            self._wrong(event, "has a digest that is not that of its payload")
        if not isinstance(p, ev.RunCompleted):
            self._effects(event, p)
        if isinstance(p, ev.RunCancelled) and p.last_seq != event.seq - 1:
            self._wrong(event, f"says last_seq {p.last_seq}; the event before it is {event.seq - 1}")

    def _effects(self, event: Event, p: ev.RunFailed | ev.RunCancelled) -> None:
        said = {effect.tool_call_id: effect.outcome for effect in p.effects}
        real = {key: call.outcome for key, call in self.calls.items() if call.state != "dropped"}
        for key in sorted(said.keys() | real.keys()):
            if said.get(key) != real.get(key):
                self._wrong(event, f"says {said.get(key)} of call {key}; its own events say {real.get(key)}")

    # -- the run

    def step(self, event: Event, p: ev.RunStep) -> None:
        is_open = self.steps.get(p.step_id)
        if p.state == "started":
            if is_open is not None:
                self._wrong(event, f"starts step {p.step_id} a second time")
        elif is_open is False or (is_open is None and p.state != "skipped"):
            self._wrong(event, f"ends step {p.step_id}, which is not open")
        if p.parent_step_id is not None and p.parent_step_id not in self.steps:
            self._wrong(event, f"names the parent {p.parent_step_id}, which never started")
        self.steps[p.step_id] = p.state == "started"

    def cancelling(self, _event: Event, p: ev.RunCancelling) -> None:
        if p.tool_call_id is None and p.mode == "now":
            self.cancelled_now = True

    def plan(self, event: Event, p: ev.PlanCreated | ev.PlanUpdated) -> None:
        if self.todos is None and isinstance(p, ev.PlanUpdated):
            self._wrong(event, "updates a plan that was never created")
        self.todos = {todo.id: todo.status in ("pending", "in_progress") for todo in p.todos}

    # -- messages

    def message_started(self, event: Event, p: ev.MessageStarted) -> None:
        if p.message_id in self.messages:
            self._wrong(event, f"uses the message id {p.message_id} again")
        self.messages[p.message_id] = _Message([])

    def message_delta(self, event: Event, p: ev.MessageDelta) -> None:
        if (message := self._open_message(event, p.message_id)) is not None:
            message.parts.append(p.text)

    def reasoning_delta(self, event: Event, p: ev.ReasoningDelta) -> None:
        self._open_message(event, p.message_id)

    def message_completed(self, event: Event, p: ev.MessageCompleted) -> None:
        if p.role == "user":
            if p.message_id in self.messages:
                self._wrong(event, f"uses the message id {p.message_id} again")
            self.messages[p.message_id] = _Message([], "ended")
        elif (message := self._open_message(event, p.message_id)) is not None:
            if "".join(message.parts) != p.text:
                self._wrong(event, f"gives message {p.message_id} another text than its deltas")
            message.state = "ended"

    def message_superseded(self, event: Event, p: ev.MessageSuperseded) -> None:
        if (message := self._open_message(event, p.message_id)) is not None:
            message.state = "superseded"
        for call in self.calls.values():
            if call.message_id == p.message_id and call.state == "preparing":
                call.state = "dropped"

    def _open_message(self, event: Event, message_id: str) -> _Message | None:
        message = self.messages.get(message_id)
        if message is None or message.state != "open":
            self._wrong(event, f"speaks of message {message_id}, which is not open")
            return None
        return message

    # -- tool calls

    def tool_preparing(self, event: Event, p: ev.ToolPreparing) -> None:
        self._open_message(event, p.message_id)
        self._move(event, p.tool_call_id, {"new"}, "preparing").message_id = p.message_id

    def tool_started(self, event: Event, p: ev.ToolStarted) -> None:
        call = self.calls.get(p.tool_call_id, _Call())
        if call.state == "running" and p.attempt <= call.attempt:
            self._wrong(event, f"starts call {p.tool_call_id} again with attempt {p.attempt}")
        call = self._move(event, p.tool_call_id, {"new", "preparing", "approved", "running"}, "running")
        call.started, call.attempt = True, p.attempt

    def tool_requested(self, event: Event, p: ev.ToolRequested) -> None:
        self._move(event, p.tool_call_id, {"new", "preparing", "approved"}, "requested").started = True

    def tool_going_on(self, event: Event, p: ev.ToolProgress | ev.ToolRetrying | ev.ToolPending) -> None:
        call = self.calls.get(p.tool_call_id, _Call())
        if call.state not in ("running", "requested"):
            self._wrong(event, f"speaks of call {p.tool_call_id}, which is {call.state}")

    def tool_completed(self, event: Event, p: ev.ToolCompleted) -> None:
        call = self._move(event, p.tool_call_id, _BEFORE_THE_END, "ended")
        if not call.started:
            self._wrong(event, f"completes call {p.tool_call_id}, which never started")
        call.outcome = "completed"

    def tool_failed(self, event: Event, p: ev.ToolFailed) -> None:
        call = self._move(event, p.tool_call_id, _BEFORE_THE_END, "ended")
        if not call.started and p.outcome != "not_started":
            self._wrong(event, f"says {p.outcome} of call {p.tool_call_id}, which never started")
        call.outcome = p.outcome

    def _move(self, event: Event, tool_call_id: str, allowed: AbstractSet[str], state: str) -> _Call:
        call = self.calls.setdefault(tool_call_id, _Call())
        if call.state not in allowed:
            self._wrong(event, f"speaks of call {tool_call_id}, which is {call.state}")
        call.state = state
        return call

    # -- questions

    def approval_required(self, event: Event, p: ev.ApprovalRequired) -> None:
        if p.approval_id in self.approvals:
            self._wrong(event, f"uses the approval id {p.approval_id} again")
        self.approvals[p.approval_id] = p.tool_call_id
        self._move(event, p.tool_call_id, {"new", "preparing", "approved", "running"}, "asking")

    def approval_resolved(self, event: Event, p: ev.ApprovalResolved) -> None:
        if self.approvals.get(p.approval_id) != p.tool_call_id:
            self._wrong(event, f"resolves approval {p.approval_id}, which is not open for call {p.tool_call_id}")
            return
        self.approvals[p.approval_id] = None
        self.calls[p.tool_call_id].state = "approved" if p.decision == "approved" else "refused"

    def input_required(self, event: Event, p: ev.InputRequired) -> None:
        if p.input_id in self.inputs:
            self._wrong(event, f"uses the input id {p.input_id} again")
        self.inputs[p.input_id] = True

    def input_resolved(self, event: Event, p: ev.InputResolved) -> None:
        if not self.inputs.get(p.input_id):
            self._wrong(event, f"resolves input {p.input_id}, which is not open")
        self.inputs[p.input_id] = False

    # -- corrections

    def correction_accepted(self, event: Event, p: ev.CorrectionAccepted) -> None:
        if p.correction_id in self.corrections:
            self._wrong(event, f"uses the correction id {p.correction_id} again")
        self.corrections[p.correction_id] = True

    def correction_held(self, event: Event, p: ev.CorrectionHeld) -> None:
        if not self.corrections.get(p.correction_id):
            self._wrong(event, f"speaks of correction {p.correction_id}, which is not open")

    def correction_ended(
        self, event: Event, p: ev.CorrectionApplied | ev.CorrectionReturned | ev.CorrectionRevoked
    ) -> None:
        if not self.corrections.get(p.correction_id):
            self._wrong(event, f"speaks of correction {p.correction_id}, which is not open")
        self.corrections[p.correction_id] = False


_BEFORE_THE_END: Final = frozenset({"new", "preparing", "approved", "refused", "running", "requested"})

_BEGINNINGS: Final = frozenset(
    {
        ev.MessageStarted.TYPE,
        ev.ToolPreparing.TYPE,
        ev.ToolStarted.TYPE,
        ev.ToolRequested.TYPE,
        ev.ApprovalRequired.TYPE,
        ev.InputRequired.TYPE,
    }
)

_RULES: Final[dict[str, Callable[[_Log, Event, Any], None]]] = {
    ev.RunStep.TYPE: _Log.step,
    ev.RunCancelling.TYPE: _Log.cancelling,
    ev.PlanCreated.TYPE: _Log.plan,
    ev.PlanUpdated.TYPE: _Log.plan,
    ev.MessageStarted.TYPE: _Log.message_started,
    ev.MessageDelta.TYPE: _Log.message_delta,
    ev.ReasoningDelta.TYPE: _Log.reasoning_delta,
    ev.MessageCompleted.TYPE: _Log.message_completed,
    ev.MessageSuperseded.TYPE: _Log.message_superseded,
    ev.ToolPreparing.TYPE: _Log.tool_preparing,
    ev.ToolStarted.TYPE: _Log.tool_started,
    ev.ToolRequested.TYPE: _Log.tool_requested,
    ev.ToolProgress.TYPE: _Log.tool_going_on,
    ev.ToolRetrying.TYPE: _Log.tool_going_on,
    ev.ToolPending.TYPE: _Log.tool_going_on,
    ev.ToolCompleted.TYPE: _Log.tool_completed,
    ev.ToolFailed.TYPE: _Log.tool_failed,
    ev.ApprovalRequired.TYPE: _Log.approval_required,
    ev.ApprovalResolved.TYPE: _Log.approval_resolved,
    ev.InputRequired.TYPE: _Log.input_required,
    ev.InputResolved.TYPE: _Log.input_resolved,
    ev.CorrectionAccepted.TYPE: _Log.correction_accepted,
    ev.CorrectionHeld.TYPE: _Log.correction_held,
    ev.CorrectionApplied.TYPE: _Log.correction_ended,
    ev.CorrectionReturned.TYPE: _Log.correction_ended,
    ev.CorrectionRevoked.TYPE: _Log.correction_ended,
}
