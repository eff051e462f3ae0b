"""A run's events as lines to be read and compared: what differs from one playing to the next is named in order.

One JSON array a line: type, step, payload. Ids and digests become names by their first appearance; seconds count from the
run's start; deltas of one message that follow each other are one. Of a todo that was shown before, only its state is. Tokens
are an estimate of prompts, so they are left out.
"""

import json
import re
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from midstream_protocol.events import Event

FOLDER: Final = Path(__file__).with_name("transcripts")

_ID: Final = re.compile(r"\b((?:msg_)?[a-z]+)_(?:[A-Za-z0-9_-]{20}|[0-9a-f]{24})(?![A-Za-z0-9_-])")
_DIGEST: Final = re.compile(r"\b(?:sha256|hmac)[:-][0-9a-f]{16,}\b|\b[0-9a-f]{32,}\b")
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z")


def lines(events: Iterable[Event]) -> str:
    found = list(events)
    names: dict[str, str] = {}
    counts: dict[str, int] = {}
    began = _seconds(found[0].ts)

    def named(kind: str, whole: str) -> str:
        if whole not in names:
            counts[kind] = counts.get(kind, 0) + 1
            names[whole] = f"{kind}_{counts[kind]}"
        return names[whole]

    def plain(text: str) -> str:
        text = _ID.sub(lambda match: named(match[1], match[0]), text)
        text = _DIGEST.sub(lambda match: named("digest", match[0]), text)
        return _TIME.sub(lambda match: f"+{_seconds(match[0]) - began:.2f}s", text)

    todos: dict[str, Any] = {}

    def known(todo: dict[str, Any]) -> Any:
        fixed = {key: value for key, value in todo.items() if key != "status"}
        before = todos.get(todo["id"])
        todos[todo["id"]] = fixed
        return f"{todo['id']}: {todo['status']}" if before == fixed else todo

    out: list[list[Any]] = []
    for event in found:
        payload = without_tokens(msgspec.to_builtins(event.payload))
        if "todos" in payload:
            payload["todos"] = [known(each) for each in payload["todos"]]
        row = [event.type, event.step_id or "", payload]
        if out and joins(out[-1], row):
            out[-1] = [*row[:2], {**payload, "text": out[-1][2]["text"] + payload["text"]}]
        else:
            out.append(row)
    return "".join(plain(json.dumps(row, ensure_ascii=False)) + "\n" for row in out)


def joins(before: list[Any], row: list[Any]) -> bool:
    return before[:2] == row[:2] and row[0] == "message.delta" and before[2]["message_id"] == row[2]["message_id"]


def without_tokens(payload: Any) -> Any:
    match payload:
        case dict():
            return {key: without_tokens(value) for key, value in payload.items() if not str(key).endswith("_tokens")}
        case list():
            return [without_tokens(value) for value in payload]
    return payload


def _seconds(ts: str) -> float:
    return datetime.fromisoformat(ts).timestamp()
