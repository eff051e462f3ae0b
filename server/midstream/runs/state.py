"""A run's working state, and the questions asked of it. Pure; `apply` changes it (see apply.py), in place: the actor
owns it, and drops it whole when a write fails.
"""

import hashlib
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from msgspec import Struct

from midstream.log import StoredReceipt
from midstream.runs.contract import ResultRecord
from midstream_protocol.commands import ClientTool
from midstream_protocol.events import (
    ApprovalRequired,
    CancelMode,
    CorrectionMode,
    Effect,
    InputRequired,
    Outcome,
    RunStep,
    Todo,
    ToolRequested,
    Usage,
)

Question = ApprovalRequired | InputRequired | ToolRequested


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
    asked_replan: bool = False
    """Its sender wants the plan made anew."""


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
    payload: Question
    expires_ms: int
    step_id: str | None = None
    """The step in which it was asked."""
    todo_id: str | None = None
    """The todo that step was part of."""


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


SYSTEM: Final = "system"
"""`by` when no person did it."""

NO_USAGE: Final = Usage(input_tokens=0, output_tokens=0, cached_input_tokens=0, total_tokens=0, by_model={})


@dataclass(slots=True)
class RunState:
    run_id: str
    created_ms: int = 0
    head: int = 0
    size: int = 0
    """Bytes of all its events."""
    agent: str = ""
    thread_id: str = ""
    status: str = "running"
    phase: str = "working"
    ended: bool = False
    message: dict[str, OpenMessage] = field(default_factory=dict)
    steps: dict[str, RunStep] = field(default_factory=dict)
    calls: dict[str, CallState] = field(default_factory=dict)
    unknown_calls: dict[str, None] = field(default_factory=dict)
    """Ids of calls that ended with an outcome that nobody knows."""
    call_args: dict[str, dict[str, Any]] = field(default_factory=dict)
    questions: dict[str, OpenQuestion] = field(default_factory=dict)
    answers: dict[str, Answer] = field(default_factory=dict)
    approvals: dict[str, str] = field(default_factory=dict)
    """tool_call_id → the newest approval about it."""
    tool_values: dict[str, ResultRecord] = field(default_factory=dict)
    """Results of client-run tools that their program has not read yet."""
    corrections: dict[str, CorrectionState] = field(default_factory=dict)
    replans: dict[str, None] = field(default_factory=dict)
    """Ids of corrections that ask for a new plan."""
    cancelling: Cancelling | None = None
    call_cancels: dict[str, None] = field(default_factory=dict)
    grants: dict[str, str] = field(default_factory=dict)
    """tool → the grant for the rest of this run. Wider ones are records (grants.py), which can be revoked."""
    grant_ends: dict[str, int] = field(default_factory=dict)
    """grant_id → Unix ms at which it holds no more, of grants that end before the run does."""
    hosts: dict[str, Host] = field(default_factory=dict)
    usage: Usage = NO_USAGE
    recoveries: int = 0
    """Recoveries since the last progress."""
    plan: tuple[Todo, ...] | None = None
    """None: there was never one."""
    spent: dict[str, None] = field(default_factory=dict)
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

    def grant_of(self, tool: str, now_ms: int) -> str | None:
        """The run's own grant by which this tool needs no approval now."""
        grant_id = self.grants.get(tool)
        if grant_id is None or now_ms >= self.grant_ends.get(grant_id, now_ms + 1):
            return None
        return grant_id

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
        return "waiting" if self.rests() and not self._ready() else "running"

    def rests(self) -> bool:
        """Whether all that was begun waits for somebody's answer."""
        if not self.questions or self.message or self.cancelling is not None:
            return False
        # A call whose repetition a person is asked about is not under way, whatever its events say so far.
        if any(self.question_of(call.tool_call_id) is None for call in self.open_calls()):
            return False
        questions = self.questions.values()
        if any(question.step_id is None for question in questions):
            # Whose question it is cannot be told: then it is the question of all.
            return True
        parents = {step.parent_step_id for step in self.steps.values()}
        at_work = [(step_id, self.todo_of(step_id)) for step_id in self.steps if step_id not in parents]
        begun = {todo_id for _, todo_id in at_work}
        # Of a stage that was cut off only its todo is left.
        at_work += [("", t.id) for t in self.plan or () if t.status == "in_progress" and t.id not in begun]
        asked = {question.step_id for question in questions}
        # A question outlives its step when the server dies; then it is its todo's, or that of a run without a plan.
        left = {question.todo_id for question in questions if question.step_id not in self.steps}
        return all(step_id in asked or todo_id in left for step_id, todo_id in at_work)

    def todo_of(self, step_id: str | None) -> str | None:
        """The todo that this open step is part of."""
        while step_id is not None and (step := self.steps.get(step_id)) is not None:
            if step.todo_id is not None:
                return step.todo_id
            step_id = step.parent_step_id
        return None

    def _ready(self) -> bool:
        """Whether a todo may begin that has not begun."""
        over = {todo.id for todo in self.plan or () if todo.status in ("completed", "failed", "skipped")}
        return any(todo.status == "pending" and over.issuperset(todo.depends_on or ()) for todo in self.plan or ())

    def wake_at(self) -> int | None:
        """Unix ms of the next deadline that is in the log."""
        if not self.questions or self.ended:
            return None
        return min(question.expires_ms for question in self.questions.values())
