"""What happened in a run: one struct per event type, and the envelope that carries it.

A payload's fields without a default are always on the wire; a field whose default is None is left out when it is
None (absent means absent, never null). Open sets (`code`, `phase`, `reason`, `stop_reason`, `kind`) are plain
strings: a reader shows values that it does not know as they are.

Directions, duties and examples: protocol/PROTOCOL.md.
"""

from typing import Any, ClassVar, Final, Literal

from msgspec import Struct, field

RunStatus = Literal["queued", "running", "waiting", "completed", "failed", "cancelled"]
Risk = Literal["low", "medium", "high"]
Outcome = Literal["not_started", "completed", "failed", "unknown"]
CancelMode = Literal["now", "after_step"]
CorrectionMode = Literal["next_step", "now", "when_idle"]
Decided = Literal["approved", "denied", "expired", "cancelled"]
TodoStatus = Literal["pending", "in_progress", "completed", "failed", "skipped"]

TERMINAL_STATUSES: Final = frozenset({"completed", "failed", "cancelled"})


class Payload(Struct, kw_only=True, omit_defaults=True, frozen=True):
    """The body of one event. `TYPE` is its name on the wire."""

    TYPE: ClassVar[str] = ""


# -- parts that several payloads share


class Origin(Struct, kw_only=True, omit_defaults=True, frozen=True):
    """Who caused an event: the client and the command it sent."""

    client_id: str | None = None
    command_id: str | None = None


class Todo(Struct, kw_only=True, omit_defaults=True, frozen=True):
    id: str
    title: str
    agent: str
    status: TodoStatus
    depends_on: list[str] | None = None


class ModelUsage(Struct, kw_only=True, frozen=True):
    """Tokens. `cached_input_tokens` are part of `input_tokens`; total = input + output."""

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int
    total_tokens: int


class Usage(ModelUsage, kw_only=True, frozen=True):
    """Cumulative for the run, the same also by model."""

    by_model: dict[str, ModelUsage]


class Effect(Struct, kw_only=True, frozen=True):
    """What became of one tool call: part of the truth that a terminal event tells."""

    tool_call_id: str
    tool: str
    outcome: Outcome


class Preview(Struct, kw_only=True, omit_defaults=True, frozen=True):
    """What an approval shows instead of raw arguments: `kind` (`diff`, `text`, …) says what `data` is."""

    kind: str
    data: Any


class Chunk(Struct, kw_only=True, omit_defaults=True, frozen=True):
    """A part of a tool's result, sent before the whole."""

    index: int
    data: Any
    total: int | None = None


class Resume(Struct, kw_only=True, omit_defaults=True, frozen=True):
    """How to go on after a failure."""

    text: str
    run_id: str | None = None
    step_id: str | None = None


# -- the run


class RunStarted(Payload, kw_only=True, frozen=True):
    TYPE = "run.started"
    agent: str
    thread_id: str


class RunStatusChanged(Payload, kw_only=True, frozen=True):
    """`run.status`: what the run does now, in a word for programs and a text for people."""

    TYPE = "run.status"
    status: Literal["queued", "running", "waiting"]
    phase: str
    text: str


class RunStep(Payload, kw_only=True, frozen=True):
    """A stage, turn or retry starts or ends. A retry is a new step: history is appended to, never rewritten."""

    TYPE = "run.step"
    step_id: str
    state: Literal["started", "completed", "failed", "skipped"]
    kind: str
    title: str
    agent: str
    parent_step_id: str | None = None
    todo_id: str | None = None
    index: int | None = None
    of: int | None = None
    attempt: int | None = None


class RunCancelling(Payload, kw_only=True, frozen=True):
    """A cancel was accepted. With `tool_call_id` it is that call alone; the run goes on."""

    TYPE = "run.cancelling"
    mode: CancelMode
    by: str
    escalated: bool
    tool_call_id: str | None = None
    reason: str | None = None


class ThreadTitled(Payload, kw_only=True, frozen=True):
    TYPE = "thread.titled"
    title: str


class PlanCreated(Payload, kw_only=True, frozen=True):
    TYPE = "plan.created"
    todos: list[Todo]
    reason: str | None = None
    correction_id: str | None = None


class PlanUpdated(Payload, kw_only=True, frozen=True):
    TYPE = "plan.updated"
    todos: list[Todo]
    reason: str | None = None
    correction_id: str | None = None


class GuardrailTriggered(Payload, kw_only=True, frozen=True):
    TYPE = "guardrail.triggered"
    name: str
    reason: str


# -- messages


class MessageStarted(Payload, kw_only=True, frozen=True):
    TYPE = "message.started"
    message_id: str
    role: Literal["assistant"]
    agent: str


class MessageDelta(Payload, kw_only=True, frozen=True):
    TYPE = "message.delta"
    message_id: str
    text: str


class MessageCompleted(Payload, kw_only=True, frozen=True):
    """`text` is the deltas joined. The run's input and applied corrections come as one with role `user`."""

    TYPE = "message.completed"
    message_id: str
    role: Literal["assistant", "user"]
    text: str
    state: Literal["complete", "interrupted"]
    stop_reason: str | None = None
    correction_id: str | None = None


class MessageSuperseded(Payload, kw_only=True, frozen=True):
    """Remove this message and its calls in preparation; another follows."""

    TYPE = "message.superseded"
    message_id: str
    reason: str
    next_message_id: str | None = None


class ReasoningDelta(Payload, kw_only=True, frozen=True):
    TYPE = "reasoning.delta"
    message_id: str
    text: str


# -- tool calls


class ToolPreparing(Payload, kw_only=True, frozen=True):
    """The model is still writing the call. `description` and `icon` are an app's, for people, here and below."""

    TYPE = "tool.preparing"
    tool_call_id: str
    message_id: str
    tool: str
    label: str
    description: str | None = None
    icon: str | None = None


class ToolStarted(Payload, kw_only=True, frozen=True):
    TYPE = "tool.started"
    tool_call_id: str
    tool: str
    label: str
    args_preview: dict[str, Any]
    args_digest: str
    attempt: int
    message_id: str | None = None
    description: str | None = None
    icon: str | None = None


class ToolRequested(Payload, kw_only=True, frozen=True):
    """A client-run tool: only `client_id` may answer it. Its arguments are for that client, so they are whole."""

    TYPE = "tool.requested"
    tool_call_id: str
    tool: str
    label: str
    args: dict[str, Any]
    client_id: str
    expires_at: str
    expires_in_s: float
    message_id: str | None = None
    description: str | None = None
    icon: str | None = None


class ToolProgress(Payload, kw_only=True, frozen=True):
    TYPE = "tool.progress"
    tool_call_id: str
    text: str | None = None
    fraction: float | None = None
    chunk: Chunk | None = None


class ToolRetrying(Payload, kw_only=True, frozen=True):
    TYPE = "tool.retrying"
    tool_call_id: str
    attempt: int
    max_attempts: int
    wait_s: float
    code: str


class ToolPending(Payload, kw_only=True, frozen=True):
    """The call goes on in the background; the run waits for it before it ends."""

    TYPE = "tool.pending"
    tool_call_id: str
    expires_at: str


class ToolCompleted(Payload, kw_only=True, frozen=True):
    TYPE = "tool.completed"
    tool_call_id: str
    duration_ms: int
    preview: str
    via: str
    truncated: bool | None = None
    partial: bool | None = None


class ToolFailed(Payload, kw_only=True, frozen=True):
    TYPE = "tool.failed"
    tool_call_id: str
    code: str
    text: str
    outcome: Outcome
    retryable: bool
    execution_id: str | None = None


# -- questions


class ApprovalRequired(Payload, kw_only=True, frozen=True):
    TYPE = "approval.required"
    approval_id: str
    tool_call_id: str
    tool: str
    label: str
    reason: str
    risk: Risk
    args: dict[str, Any]
    editable: bool
    args_digest: str
    decisions: list[str]
    remember_scopes: list[str]
    expires_at: str
    expires_in_s: float
    on_expire: str
    preview: Preview | None = None
    args_schema: dict[str, Any] | None = None


class ApprovalResolved(Payload, kw_only=True, frozen=True):
    TYPE = "approval.resolved"
    approval_id: str
    tool_call_id: str
    decision: Decided
    by: str
    edited: bool
    args_digest: str
    reason: str | None = None
    args: dict[str, Any] | None = None
    grant_id: str | None = None


class InputRequired(Payload, kw_only=True, frozen=True):
    """The agent asks the user. `choices` are answers offered; `schema` is what an answer must fit."""

    TYPE = "input.required"
    input_id: str
    question: str
    expires_at: str
    expires_in_s: float
    schema: dict[str, Any] | None = None
    choices: list[str] | None = None


class InputResolved(Payload, kw_only=True, frozen=True):
    """`answer` is absent when nobody gave one (`by` is then `system`)."""

    TYPE = "input.resolved"
    input_id: str
    by: str
    answer: Any = None


# -- corrections


class CorrectionAccepted(Payload, kw_only=True, frozen=True):
    TYPE = "correction.accepted"
    correction_id: str
    text: str
    mode: CorrectionMode
    step_id: str | None = None


class CorrectionHeld(Payload, kw_only=True, frozen=True):
    TYPE = "correction.held"
    correction_id: str
    text: str
    reason: str


class CorrectionApplied(Payload, kw_only=True, frozen=True):
    TYPE = "correction.applied"
    correction_id: str
    text: str
    step_id: str
    preempted: bool
    replanned: bool


class CorrectionReturned(Payload, kw_only=True, frozen=True):
    TYPE = "correction.returned"
    correction_id: str
    text: str
    reason: str


class CorrectionRevoked(Payload, kw_only=True, frozen=True):
    TYPE = "correction.revoked"
    correction_id: str
    text: str


# -- the rest


class RecoveryStarted(Payload, kw_only=True, frozen=True):
    """Over with the next `run.status`."""

    TYPE = "recovery.started"
    kind: str
    attempt: int
    max_attempts: int
    wait_s: float


class ContextTrimmed(Payload, kw_only=True, frozen=True):
    TYPE = "context.trimmed"
    before_tokens: int
    after_tokens: int
    dropped: int
    truncated: int


class ObjectCreated(Payload, kw_only=True, frozen=True):
    TYPE = "object.created"
    object_id: str
    kind: str
    data: Any
    message_id: str | None = None
    tool_call_id: str | None = None


class UsageUpdated(Payload, kw_only=True, frozen=True):
    """`usage.updated`: cumulative for the run."""

    TYPE = "usage.updated"
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int
    total_tokens: int
    by_model: dict[str, ModelUsage]


class Notice(Payload, kw_only=True, frozen=True):
    TYPE = "notice"
    level: Literal["info", "warning", "error"]
    code: str
    text: str


# -- the end: exactly one, the last


class RunCompleted(Payload, kw_only=True, frozen=True):
    TYPE = "run.completed"
    result: Any
    usage: Usage
    digest: str


class RunFailed(Payload, kw_only=True, frozen=True):
    TYPE = "run.failed"
    code: str
    text: str
    retryable: bool
    error_id: str
    completed: list[str]
    effects: list[Effect]
    usage: Usage
    digest: str
    resume: Resume | None = None


class RunCancelled(Payload, kw_only=True, frozen=True):
    TYPE = "run.cancelled"
    by: str
    mode: CancelMode
    last_seq: int
    effects: list[Effect]
    usage: Usage
    digest: str
    reason: str | None = None


EVENTS: Final[dict[str, type[Payload]]] = {cls.TYPE: cls for cls in Payload.__subclasses__()}
"""Every event type by its wire name."""

TERMINAL_TYPES: Final = frozenset({RunCompleted.TYPE, RunFailed.TYPE, RunCancelled.TYPE})


class Event(Struct, kw_only=True, omit_defaults=True, frozen=True):
    """One event of a run, as it stands in the log and on every transport.

    `from_` (`from` on the wire) only in merged replay: this event stands for `from_..seq`.
    """

    v: int
    seq: int
    run_id: str
    type: str
    ts: str
    payload: Any
    step_id: str | None = None
    origin: Origin | None = None
    from_: int | None = field(default=None, name="from")
