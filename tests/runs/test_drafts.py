"""Who may write which event: shown (`emit`), a fact (`record`), or the run's own."""

import ast
from pathlib import Path

import pytest

import midstream
from midstream.runs.apply import apply
from midstream.runs.contract import CallCancelled
from midstream.runs.drafts import BEGINNINGS, OWN, plan_draft
from midstream.runs.port import EMITTED
from midstream.runs.state import RunState, input_of
from midstream_protocol.events import (
    EVENTS,
    TERMINAL_TYPES,
    ApprovalRequired,
    InputRequired,
    RunCancelling,
    ToolFailed,
    ToolRequested,
    ToolStarted,
)

FACTS = {
    "approval.required",
    "context.trimmed",
    "guardrail.triggered",
    "input.required",
    "message.completed",
    "message.superseded",
    "object.created",
    "plan.created",
    "plan.updated",
    "recovery.started",
    "run.step",
    "thread.titled",
    "tool.completed",
    "tool.failed",
    "tool.pending",
    "tool.requested",
    "tool.retrying",
    "tool.started",
}


def test_every_event_is_shown_or_a_fact_or_the_runs_own() -> None:
    """A new event type has to be put into one of the three by hand: nothing becomes emittable by itself."""
    assert set(EVENTS) == EMITTED | FACTS | OWN
    assert len(EVENTS) == len(EMITTED) + len(FACTS) + len(OWN)
    assert TERMINAL_TYPES <= OWN
    assert BEGINNINGS <= EMITTED | FACTS


def test_nobody_emits_a_fact() -> None:
    """`port.emit(ToolStarted(…))` would let an effect begin before its intent is durable."""
    names = {kind.__name__ for name, kind in EVENTS.items() if name not in EMITTED}
    wrong = []
    for path in Path(midstream.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or node.func.attr != "emit":
                continue
            for argument in ast.walk(ast.Module(body=[ast.Expr(a) for a in node.args], type_ignores=[])):
                called = argument.func if isinstance(argument, ast.Call) else None
                name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", None)
                if name in names:
                    wrong.append(f"{path.name}:{node.lineno} emits {name}")
    assert wrong == []


SOON = {"expires_at": "2026-06-12T12:00:01.234Z", "expires_in_s": 1.0}
BEGINNINGS_OF_A_CALL = [
    ToolStarted(tool_call_id="c", tool="t", label="T", args_preview={}, args_digest="d", attempt=1),
    ToolRequested(tool_call_id="c", tool="t", label="T", args={}, client_id="x", **SOON),
    ApprovalRequired(
        approval_id="a", tool_call_id="c", tool="t", label="T", reason="policy", risk="low", args={}, editable=True,
        args_digest="d", decisions=["approve"], remember_scopes=[], on_expire="deny", **SOON,
    ),
    InputRequired(input_id=input_of("c"), question="?", **SOON),
]  # fmt: skip


@pytest.mark.parametrize("draft", BEGINNINGS_OF_A_CALL, ids=lambda draft: draft.TYPE)
def test_what_was_on_its_way_when_its_call_was_cancelled_does_not_begin(draft) -> None:
    state = RunState(run_id="r")
    assert plan_draft(state, draft, None)
    apply(state, 1, RunCancelling(mode="now", by="me", escalated=False, tool_call_id="other"), 0)
    assert plan_draft(state, draft, None)
    apply(state, 2, RunCancelling(mode="now", by="me", escalated=False, tool_call_id="c"), 0)
    with pytest.raises(CallCancelled):
        plan_draft(state, draft, None)
    apply(state, 3, BEGINNINGS_OF_A_CALL[0], 0)
    closing = ToolFailed(tool_call_id="c", code="cancelled", text="x", outcome="unknown", retryable=False)
    assert plan_draft(state, closing, None), "its end is still told"
