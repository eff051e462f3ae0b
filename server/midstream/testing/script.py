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


ScriptTurn = str | Mapping[str, Any] | Sequence[Mapping[str, Any]]
"""A text, a turn as in a script file, or its steps."""


def written(script: Sequence[ScriptTurn] | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(script, Mapping):
        return dict(script)
    # An agent with a loop of its own asks no model; one that does finds no turn.
    turns = [_turn(turn) for turn in script]
    return {"turns": turns or [{"steps": [{"error": "model_bad_request"}]}]}


def _turn(turn: ScriptTurn) -> dict[str, Any]:
    if isinstance(turn, str):
        return {"steps": [{"text": turn}]}
    return dict(turn) if isinstance(turn, Mapping) else {"steps": list(turn)}
