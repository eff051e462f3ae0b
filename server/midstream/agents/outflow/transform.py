"""The first phase: what may be shown of an event at all, whoever looks. Pure.

One table says which fields of each event people read (`SHOWN`). Only these may be changed on the way out, and these are
what is left out when they may not be shown: ids, states and order stay true whatever an app's functions do.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import msgspec

from midstream.agents.outflow.exact import HIDDEN
from midstream.agents.outflow.known import Secrets
from midstream_protocol.codec import json_safe
from midstream_protocol.events import (
    ApprovalRequired,
    GuardrailTriggered,
    InputRequired,
    MessageDelta,
    Notice,
    ObjectCreated,
    Payload,
    PlanCreated,
    PlanUpdated,
    ReasoningDelta,
    RunStatusChanged,
    RunStep,
    ThreadTitled,
    Todo,
    ToolCompleted,
    ToolFailed,
    ToolPreparing,
    ToolProgress,
    ToolRequested,
    ToolStarted,
)

P = TypeVar("P", bound=Payload)

SHOWN: Final[Mapping[type[Payload], tuple[str, ...]]] = {
    RunStatusChanged: ("text",),
    RunStep: ("title",),
    ThreadTitled: ("title",),
    PlanCreated: ("todos", "reason"),
    PlanUpdated: ("todos", "reason"),
    GuardrailTriggered: ("reason",),
    MessageDelta: ("text",),
    ReasoningDelta: ("text",),
    ToolPreparing: ("tool", "label", "description", "icon"),
    ToolStarted: ("tool", "label", "description", "icon", "args_preview"),
    # Its client runs the tool by this name and with these arguments.
    ToolRequested: ("label", "description", "icon"),
    ToolProgress: ("text", "fraction", "chunk"),
    ToolCompleted: ("preview", "truncated"),
    ToolFailed: ("text",),
    # Its arguments are what a person approves: what they do not show is said by `redact`.
    ApprovalRequired: ("label", "preview"),
    InputRequired: ("question",),
    ObjectCreated: ("kind", "data"),
    Notice: ("level", "code", "text"),
}
"""What people read of each event. Of the others nothing is changed."""

DROPPED: Final = (MessageDelta, ReasoningDelta, ToolProgress, RunStatusChanged, Notice)
"""What nothing rests on: these need not be shown."""

HIDDEN_TOOL: Final = "tool"
HIDDEN_LABEL: Final = "A step of the agent"

_BLANK: Final[Mapping[str, Any]] = {
    "tool": HIDDEN_TOOL,
    "label": HIDDEN_LABEL,
    "args_preview": {},
    "preview": HIDDEN,
    "data": {},
    "level": "info",
    "code": "hidden",
    "kind": "hidden",
    "text": HIDDEN,
    "title": HIDDEN,
    "question": HIDDEN,
}


def clean(payload: Payload, secrets: Secrets) -> Payload:
    """The payload without secrets. A delta without the known ones only: what looks like one was decided while the text
    streamed, by `leakage`.
    """
    match payload:
        case MessageDelta() | ReasoningDelta():
            return changed(payload, secrets.told, ("text",))
        case ApprovalRequired():
            # What a person decides about is shown as it is, but for what the app itself calls secret.
            return changed(changed(payload, secrets.hide, ("label",)), secrets.told, ("args", "preview"))
        case InputRequired():
            return changed(payload, secrets.told, ("question", "choices"))
        case ToolRequested():
            return changed(payload, secrets.hide, ("label",))
        case _:
            names = (name for name in SHOWN.get(type(payload), ()) if name != "tool")
            return changed(payload, secrets.hide, tuple(names))


def changed(payload: P, make: Callable[[Any], Any], names: tuple[str, ...]) -> P:
    """The payload with `make` of each of these fields, as far as they are there."""
    new = {}
    for name in names:
        value = getattr(payload, name, None)
        if value is not None:
            made = _made(value, make)
            if made != value:
                new[name] = made
    return msgspec.structs.replace(payload, **new) if new else payload


def _made(value: Any, make: Callable[[Any], Any]) -> Any:
    if isinstance(value, list) and value and isinstance(value[0], Todo):
        return [msgspec.structs.replace(todo, title=make(todo.title)) for todo in value]
    if isinstance(value, msgspec.Struct):
        # A preview, a chunk: JSON in a struct.
        return msgspec.convert(make(msgspec.to_builtins(value)), type(value), strict=False)
    return make(value)


def masked(payload: Payload) -> Payload:
    """The payload with nothing for people in it. Of an approval, what a person must see to decide stays."""
    fields = {name: None for name in SHOWN.get(type(payload), ()) if hasattr(payload, name)}
    fields.pop("todos", None)
    new: dict[str, Any] = {name: _BLANK.get(name) for name in fields}
    match payload:
        case PlanCreated() | PlanUpdated():
            new["todos"] = [msgspec.structs.replace(todo, title=HIDDEN) for todo in payload.todos]
        case ApprovalRequired() | ToolRequested():
            new |= {"label": payload.tool}
            if isinstance(payload, ApprovalRequired):
                new["preview"] = None
        case ToolCompleted():
            new["preview"] = ""
        case ToolProgress():
            new |= {"text": None, "fraction": payload.fraction}
        case ToolFailed():
            new["text"] = "The step failed."
        case GuardrailTriggered():
            new["reason"] = HIDDEN
    return msgspec.structs.replace(payload, **new) if new else payload


def kept(before: Payload, after: Payload) -> tuple[Payload, bool]:
    """`after` with everything from `before` that may not change, and whether anything of it had been changed. What JSON
    cannot carry is replaced.

    Raises TypeError for a payload of another type, `msgspec.ValidationError` for fields of one.
    """
    if after is before:
        return before, False
    if type(after) is not type(before):
        wanted = type(before).__name__
        raise TypeError(f"of a {before.TYPE} a function returns a {wanted} or None, and not a {type(after).__name__}")
    # A wrong value would be in the log for ever, and nobody could read it back.
    after = msgspec.convert(json_safe(msgspec.to_builtins(after)), type(before))
    free = SHOWN.get(type(before), ())
    fixed = {name: getattr(before, name) for name in before.__struct_fields__ if name not in free}
    new = {name: value for name, value in fixed.items() if getattr(after, name) != value}
    if "todos" in free and (todos := _todos(before, after)) is not None:
        new["todos"] = todos
    return (msgspec.structs.replace(after, **new), True) if new else (after, False)


def _todos(before: Any, after: Any) -> list[Todo] | None:
    """The same todos with the new titles, if anything else was changed."""
    if len(before.todos) != len(after.todos):
        return list(before.todos)
    same = [msgspec.structs.replace(old, title=new.title) for old, new in zip(before.todos, after.todos, strict=True)]
    return same if same != after.todos else None
