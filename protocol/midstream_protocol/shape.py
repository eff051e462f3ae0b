"""The view: what a run looks like at one `seq`, as plain data.

A snapshot, `GET /v1/runs/{id}` and a client's screen are all this structure. It is made only by `view.fold`; its
JSON shape is the structs' own, with optional fields left out. PROTOCOL.md §6 says what each event does to it.
"""

from typing import Any, Literal

import msgspec
from msgspec import Struct

from midstream_protocol.errors import Malformed
from midstream_protocol.events import (
    Chunk,
    CorrectionMode,
    Notice,
    ObjectCreated,
    Outcome,
    RunCancelled,
    RunFailed,
    RunStatus,
    Todo,
    Usage,
)

CallState = Literal[
    "preparing", "waiting_approval", "requested", "running", "retrying", "background", "completed", "failed"
]


class Cursor(Struct, kw_only=True, omit_defaults=True, frozen=True):
    """How far the view has come: `epoch` is the identity of the log's history, absent where nobody said it."""

    seq: int
    epoch: str | None = None


class MessageView(Struct, kw_only=True, omit_defaults=True, frozen=True):
    message_id: str
    role: Literal["assistant", "user"]
    text: str
    state: Literal["open", "complete", "interrupted"]
    reasoning: str | None = None
    step_id: str | None = None
    agent: str | None = None
    stop_reason: str | None = None


class CallView(Struct, kw_only=True, omit_defaults=True, frozen=True):
    """One tool call. The optional fields are those of its `tool.*` events, each with the latest value it was given."""

    tool_call_id: str
    tool: str
    label: str
    state: CallState
    message_id: str | None = None
    description: str | None = None
    icon: str | None = None
    args_preview: dict[str, Any] | None = None
    args_digest: str | None = None
    args: dict[str, Any] | None = None
    client_id: str | None = None
    expires_at: str | None = None
    expires_in_s: float | None = None
    attempt: int | None = None
    max_attempts: int | None = None
    wait_s: float | None = None
    text: str | None = None
    fraction: float | None = None
    chunk: Chunk | None = None
    duration_ms: int | None = None
    preview: str | None = None
    truncated: bool | None = None
    via: str | None = None
    partial: bool | None = None
    code: str | None = None
    outcome: Outcome | None = None
    retryable: bool | None = None
    execution_id: str | None = None


class StepView(Struct, kw_only=True, omit_defaults=True, frozen=True):
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


class CorrectionView(Struct, kw_only=True, omit_defaults=True, frozen=True):
    correction_id: str
    text: str
    mode: CorrectionMode
    state: Literal["accepted", "held", "applied", "returned", "revoked"]
    reason: str | None = None
    step_id: str | None = None
    preempted: bool | None = None
    replanned: bool | None = None


class View(Struct, kw_only=True, omit_defaults=True, frozen=True):
    """A run. Items stand in the order in which they first appeared; `pending` holds what waits for an answer.

    `pending` items are the opening payload of an approval, an input or a client-run tool with its `kind`
    (`approval`, `input`, `tool`); `expires_in_s` is as it was then, `expires_at` is absolute.
    """

    run_id: str
    thread_id: str
    agent: str
    status: RunStatus
    messages: tuple[MessageView, ...]
    plan: tuple[Todo, ...]
    steps: tuple[StepView, ...]
    calls: tuple[CallView, ...]
    pending: tuple[dict[str, Any], ...]
    corrections: tuple[CorrectionView, ...]
    objects: tuple[ObjectCreated, ...]
    notices: tuple[Notice, ...]
    cursor: Cursor
    title: str | None = None
    phase: str | None = None
    status_text: str | None = None
    usage: Usage | None = None
    result: Any = None
    failure: RunFailed | None = None
    cancelled: RunCancelled | None = None


def view_to_builtins(view: View) -> dict[str, Any]:
    """The JSON shape of `view`, as dicts and lists."""
    # `to_builtins` would leave tuples, which no parsed JSON is equal to.
    built: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(view))
    return built


def view_from_builtins(value: Any) -> View:
    """The view that `value` (parsed JSON) says; fields this version does not know are dropped. Raises `Malformed`."""
    try:
        return msgspec.convert(value, View)
    except msgspec.ValidationError as refused:
        raise Malformed(f"not a view: {refused}") from None
