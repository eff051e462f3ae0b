"""Who may write which event: shown (`emit`), a fact (`record`), or the run's own."""

import ast
from pathlib import Path

import midstream
from midstream.runs.drafts import BEGINNINGS, OWN
from midstream.runs.port import EMITTED
from midstream_protocol.events import EVENTS, TERMINAL_TYPES

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
