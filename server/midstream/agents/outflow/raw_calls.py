"""Calls that a model wrote into its answer as JSON, instead of making them. Pure.

`{"name": "search", "arguments": {"q": "…"}}`, `[{"tool": "search", "args": {}}]`, `{"tool_calls": […]}`, …
"""

import json
import re
from collections.abc import Callable
from typing import Any, Final, Literal

MAX_HELD_CHARS: Final = 16_384
"""Characters of an object that may be a call and is held until it is known. A longer one is judged by its beginning."""

MAX_DEPTH: Final = 24

KnownTool = Callable[[str], bool]

_NAMES: Final = ("name", "tool", "tool_name", "function", "recipient_name", "action")
_ARGS: Final = frozenset(
    {"arguments", "args", "parameters", "params", "input", "tool_input", "action_input", "tool_args", "kwargs"}
)
_WRAPPERS: Final = frozenset({"tool_calls", "tool_call", "function_call", "function_calls", "tool_use", "tool_uses"})
_TYPES: Final = frozenset({"function", "tool_use", "tool_call", "function_call", "tool_result", "server_tool_use"})
_IDS: Final = ("call_", "toolu_", "fc_", "chatcmpl-tool-", "functions.")
_FIRST: Final = frozenset({*_NAMES, *_ARGS, *_WRAPPERS, "type", "id", "tool_use_id", "tool_call_id"})
_BEFORE: Final = frozenset({"thought", "thoughts", "thinking", "reasoning", "reason", "rationale", "explanation"})
"""Keys of a text that a model may write before the call's own."""
FIRST_KEYS: Final = _FIRST | _BEFORE
"""What an object may begin with that is a call."""
_FIRST_SO_FAR: Final = frozenset(key[:length] for key in FIRST_KEYS for length in range(len(key) + 1))

_OPENING: Final = re.compile(r"(?:\[\s{0,64})?\{\s{0,64}([\"'])")
_OPENING_SO_FAR: Final = re.compile(r"\[\s{0,64}(?:\{\s{0,64})?|\{\s{0,64}")
_KEY: Final = re.compile(r"[A-Za-z_]{0,24}")
_FIRST_TEXT: Final = re.compile(r"\s{0,64}:\s{0,64}([\"'])((?:(?!\1)[^\\\n]){0,128})(\1?)")
_TEXT_BEFORE: Final = re.compile(
    r"""\s{0,64}:\s{0,64}(?:"(?:[^"\\]|\\.){0,4000}"|'(?:[^'\\]|\\.){0,4000}')\s{0,64},\s{0,64}(["'])""", re.DOTALL
)
_TEXT_BEFORE_SO_FAR: Final = re.compile(
    r"""\s{0,64}(?::\s{0,64}(?:"(?:[^"\\]|\\.){0,4000}(?:\\|"\s{0,64}(?:,\s{0,64})?)?"""
    r"""|'(?:[^'\\]|\\.){0,4000}(?:\\|'\s{0,64}(?:,\s{0,64})?)?)?)?""",
    re.DOTALL,
)
_FIRST_SO_FAR_TEXT: Final = re.compile(r"\s{0,64}(?::\s{0,64})?")

Opening = Literal["no", "more", "maybe"]


def opening(text: str, at: int, known: KnownTool | None) -> Opening:
    """Whether the object or list that begins at `at` may be a call: said as early as its first key and value allow."""
    found = _OPENING.match(text, at)
    if found is None:
        so_far = _OPENING_SO_FAR.match(text, at)
        return "more" if so_far is not None and so_far.end() == len(text) else "no"
    while True:
        key = _KEY.match(text, found.end())
        assert key is not None
        if key.end() == len(text):
            return "more" if key[0] in _FIRST_SO_FAR else "no"
        if text[key.end()] != found[1]:
            return "no"
        if key[0] in _FIRST:
            return _by_first_value(key[0], text, key.end() + 1, known)
        if key[0] not in _BEFORE:
            return "no"
        if found.end() - at > MAX_HELD_CHARS:
            # Text before a call without an end: judged like any object that is too long.
            return "maybe"
        begin = key.end() + 1
        found = _TEXT_BEFORE.match(text, begin)
        if found is None:
            so_far = _TEXT_BEFORE_SO_FAR.fullmatch(text, begin)
            return "more" if so_far is not None else "no"


def _by_first_value(key: str, text: str, at: int, known: KnownTool | None) -> Opening:
    found = _FIRST_TEXT.match(text, at)
    if found is None:
        so_far = _FIRST_SO_FAR_TEXT.match(text, at)
        # An object or a list as its first value: looked at when it is whole.
        return "more" if so_far is not None and so_far.end() == len(text) else "maybe"
    value, closed = found[2], bool(found[3])
    if not closed and found.end() == len(text):
        return "more"
    if key in _NAMES and known is not None:
        return "maybe" if closed and known(value) else "no"
    if key == "type":
        return "maybe" if value in _TYPES else "no"
    if key == "id":
        return "maybe" if value.startswith(_IDS) else "no"
    return "maybe"


_SIGN: Final = re.compile(r"[\"'{}\[\]]")
_IN_QUOTES: Final = {quote: re.compile(rf"[{quote}\\]") for quote in "\"'"}


class Span:
    """Where an object or list ends. Fed more text, it goes on where it stopped. `too_deep`: nobody nests a call so."""

    def __init__(self) -> None:
        self.too_deep = False
        self._depth = 0
        self._quote = ""
        self._skip = 0

    def end(self, text: str, at: int, limit: int) -> int | None:
        """The place after it, None: not before `limit`. `at`: where the new text begins."""
        at += self._skip
        self._skip = 0
        while (found := (_IN_QUOTES[self._quote] if self._quote else _SIGN).search(text, at, limit)) is not None:
            char, at = found[0], found.end()
            if self._quote:
                if char == self._quote:
                    self._quote = ""
                else:
                    at += 1
            elif char in _IN_QUOTES:
                self._quote = char
            else:
                self._depth += 1 if char in "{[" else -1
                self.too_deep = self._depth > MAX_DEPTH
                if self._depth <= 0 or self.too_deep:
                    return at
        # An escape at the very end covers a character that has not come.
        self._skip = max(0, at - limit)
        return None


def is_call(text: str, known: KnownTool | None) -> bool:
    """Whether this text, JSON or the beginning of it, is a call of a tool (`known` None: of any)."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return seems_call(text, known)
    return _is_call(value, known)


def _is_call(value: Any, known: KnownTool | None) -> bool:
    if isinstance(value, list):
        return bool(value) and _is_call(value[0], known)
    if not isinstance(value, dict):
        return False
    kind = value.get("type")
    if kind in _TYPES and ("name" in value or "function" in value or "tool_use_id" in value):
        return True
    if any(isinstance(value.get(key), dict | list) for key in _WRAPPERS):
        return True
    if "tool_use_id" in value or "tool_call_id" in value:
        return True
    if isinstance(function := value.get("function"), dict):
        return _is_call(function, known)
    names = [value[key] for key in _NAMES if isinstance(value.get(key), str)]
    if not any(known is None or known(name) for name in names):
        return False
    return bool(_ARGS & value.keys()) or (known is not None and "name" not in value)


_SEEMS: Final = re.compile(
    rf"[\"'](?:{'|'.join(_NAMES)})[\"']\s*:\s*[\"']([A-Za-z0-9_.-]{{1,128}})[\"']|[\"'](?:{'|'.join(_WRAPPERS)})[\"']\s*:"
)


def seems_call(text: str, known: KnownTool | None) -> bool:
    """The same of what is no JSON: cut off, or in another language's quotes."""
    return any(not found[1] or known is None or known(found[1]) for found in _SEEMS.finditer(text[:MAX_HELD_CHARS]))
