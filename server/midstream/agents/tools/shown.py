"""What leaves a call: to people bounded and without what is hidden, to the model bounded, to the journal whole."""

import re
from collections.abc import Callable, Collection
from itertools import islice
from typing import Any, Final

import msgspec
from msgspec import Struct

from midstream.agents.outflow.exact import HIDDEN
from midstream.agents.outflow.secrets import scrubbed, secret_item
from midstream.runs.contract import ResultRecord
from midstream_protocol.codec import json_safe
from midstream_protocol.limits import MAX_PREVIEW_CHARS, MAX_TOOL_RESULT_BYTES

REDACTED: Final = HIDDEN
"""Stands for a hidden value. It is refused as a value: a form that sends everything back must not set it."""

Hide = Callable[[Any], Any]
"""A JSON value without what must not leave: `scrubbed`, or what a run's `Secrets` make of it."""

MAX_ARG_CHARS: Final = 500
"""Characters of one text in a call's preview; an approval shows its arguments whole."""

MAX_ARG_ITEMS: Final = 50
"""Items of one list or object in a call's preview."""

MAX_RESULT_CHARS: Final = 30_000
"""Characters of one result that the model is given: some 8,000 tokens, a long file's worth."""

MAX_WHOLE_CHARS: Final = 32_000
"""Characters of a result that is searched for secrets as a whole; of a longer one, only the ends that are shown."""

_MAX_LABEL_CHARS: Final = 200
_MAX_LABEL_VALUE: Final = 80


class Kept(Struct, kw_only=True, frozen=True):
    """A result as it is recorded, and as it is shown."""

    record: ResultRecord
    preview: str
    truncated: bool


def keep(value: Any, *, redact: Collection[str] = (), hide: Hide = scrubbed) -> Kept:
    """Make any value of a tool a result. One over `MAX_TOOL_RESULT_BYTES` is kept as its text, cut in the middle."""
    safe = json_safe(value)
    too_large = len(msgspec.json.encode(safe)) > MAX_TOOL_RESULT_BYTES
    if too_large:
        # Characters, where the limit is bytes: a quarter of it is safe for any text.
        safe = bounded(in_text(safe), MAX_TOOL_RESULT_BYTES // 4)
    preview, cut = _preview(redacted(safe, redact), hide)
    return Kept(record=ResultRecord(ok=True, value=safe), preview=preview, truncated=too_large or cut)


def _preview(value: Any, hide: Hide) -> tuple[str, bool]:
    """What people see of it, and whether that is not all. Hidden first, cut then: half a secret is found by nobody."""
    whole = in_text(value)
    if len(whole) <= MAX_WHOLE_CHARS:
        shown = in_text(hide(value))
        return bounded(shown, MAX_PREVIEW_CHARS), len(shown) > MAX_PREVIEW_CHARS
    # Of JSON's escapes the letter would be read as a part of the word behind it.
    plain = whole if isinstance(value, str) else re.sub(r"\\[nrt]", " ", whole)
    head = hide(_CUT_END.sub("", plain[: 4 * MAX_PREVIEW_CHARS]))
    tail = hide(_CUT_BEGIN.sub("", plain[-4 * MAX_PREVIEW_CHARS :]))
    note = f"\n… [{len(whole) - MAX_PREVIEW_CHARS:,} characters left out] …\n"
    room = MAX_PREVIEW_CHARS - len(note)
    return f"{head[: room * 2 // 3]}{note}{tail[-(room // 3) :]}", True


_CUT_END: Final = re.compile(r"[^\s\"',]*\Z")
_CUT_BEGIN: Final = re.compile(r"\A[^\s\"',]*")


def in_text(value: Any) -> str:
    """A JSON value as a model reads it: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def bounded(text: str, limit: int) -> str:
    """At most `limit` characters: the beginning and the end, where the news of an output is."""
    if len(text) <= limit:
        return text
    note = f"\n… [{len(text) - limit:,} characters left out] …\n"
    room = max(0, limit - len(note))
    head = room * 2 // 3
    tail = room - head
    return f"{text[:head]}{note}{text[len(text) - tail :] if tail else ''}"[:limit]


def redacted(value: Any, names: Collection[str]) -> Any:
    """The same JSON value with `REDACTED` under every key of these names, and of names that mean a secret, however
    deep.
    """
    if isinstance(value, dict):
        return {
            key: REDACTED if key in names or secret_item(key, item) else redacted(item, names)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [redacted(item, names) for item in value]
    return value


def hidden_in(value: Any, *, at: str = "") -> list[str]:
    """The places (JSON Pointers) where something hidden stands in a value that somebody sent back."""
    if isinstance(value, str):
        return [at] if REDACTED in value else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, item in items for place in hidden_in(item, at=f"{at}/{key}")]


def shortened(value: Any) -> Any:
    """The same JSON value with long texts, lists and objects cut."""
    if isinstance(value, str):
        return bounded(value, MAX_ARG_CHARS)
    if isinstance(value, dict):
        kept = {bounded(key, MAX_ARG_CHARS): shortened(item) for key, item in islice(value.items(), MAX_ARG_ITEMS)}
        return kept if len(value) <= MAX_ARG_ITEMS else {**kept, "…": f"{len(value) - MAX_ARG_ITEMS:,} more"}
    if isinstance(value, list):
        cut = [shortened(item) for item in value[:MAX_ARG_ITEMS]]
        return cut if len(value) <= MAX_ARG_ITEMS else [*cut, f"… {len(value) - MAX_ARG_ITEMS:,} more"]
    return value


def fill_label(parts: tuple[str, ...], shown: dict[str, Any]) -> str:
    """A label's template, split at its arguments (every second part is a name), with the arguments shown."""
    filled = [
        part if index % 2 == 0 else bounded(in_text(shown.get(part, "…")), _MAX_LABEL_VALUE).replace("\n", " ")
        for index, part in enumerate(parts)
    ]
    return "".join(filled)[:_MAX_LABEL_CHARS]
