"""A model's script, as a test writes it down."""

from collections.abc import Mapping, Sequence
from typing import Any


def call(tool: str, /, **args: Any) -> dict[str, Any]:
    """A scripted turn that calls one tool."""
    return {"steps": [{"call": {"tool": tool, "args": args}}]}


def calls(*each: tuple[str, dict[str, Any]], text: str | None = None) -> dict[str, Any]:
    """A scripted turn that says `text` and calls several tools in one message."""
    said: list[dict[str, Any]] = [] if text is None else [{"text": text}]
    return {"steps": [*said, *({"call": {"tool": tool, "args": args}} for tool, args in each)]}


def answer(**fields: Any) -> dict[str, Any]:
    """A scripted turn that answers with this JSON object: what planners, titles and guardrails are asked for."""
    return {"steps": [{"answer": fields}]}


ScriptTurn = str | Mapping[str, Any] | Sequence[Mapping[str, Any]]
"""A text, a turn as in a script file, or its steps."""


def written(script: Sequence[ScriptTurn] | Mapping[str, Any]) -> dict[str, Any]:
    """The script as a script file holds it. In a mapping, `turns` and those of each of `agents` may be written as
    here; an agent of `agents` may be its list of turns alone.
    """
    if not isinstance(script, Mapping):
        # An agent with a loop of its own asks no model; one that does finds no turn.
        return {"turns": _turns(script) or [{"steps": [{"error": "model_bad_request"}]}]}
    out = dict(script)
    if isinstance(out.get("turns"), Sequence):
        out["turns"] = _turns(out["turns"])
    if isinstance(out.get("agents"), Mapping):
        out["agents"] = {name: _own(own) for name, own in out["agents"].items()}
    return out


def _own(own: Any) -> Any:
    if isinstance(own, Mapping):
        return {**own, "turns": _turns(own["turns"])} if isinstance(own.get("turns"), Sequence) else own
    return {"turns": _turns(own)}


def _turns(turns: Sequence[ScriptTurn]) -> list[dict[str, Any]]:
    return [_turn(turn) for turn in turns]


def _turn(turn: ScriptTurn) -> dict[str, Any]:
    if isinstance(turn, str):
        return {"steps": [{"text": turn}]}
    return dict(turn) if isinstance(turn, Mapping) else {"steps": list(turn)}
