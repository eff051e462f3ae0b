"""Make any value of agent code fit the wire: what JSON, or JavaScript's reading of it, cannot carry is replaced."""

import math
from typing import Any, Final

import msgspec

from midstream_protocol.limits import MAX_INTEGER, MAX_VALUE_DEPTH, MAX_VALUE_ITEMS

_CUT: Final = "…"
_MAX_FALLBACK_CHARS: Final = 1_000


def json_safe(value: Any, *, max_depth: int = MAX_VALUE_DEPTH, max_items: int = MAX_VALUE_ITEMS) -> Any:
    """`value` as plain JSON values that every decoder of this protocol accepts. Never raises.

    NaN and infinities become the strings `NaN`, `Infinity`, `-Infinity`; integers beyond ±(2^53-1) become strings;
    lone surrogates become U+FFFD; keys become strings (of two that become equal, the later wins); bytes become base64,
    times, UUIDs, decimals, enums, dataclasses and structs what msgspec makes of them; pydantic models what they dump;
    anything else its `str()`.
    What is deeper than `max_depth`, beyond `max_items` items, or contains itself, is cut to "…".
    """
    return _Cleaner(max_items).clean(value, max_depth)


class _Cleaner:
    def __init__(self, max_items: int) -> None:
        self._items_left = max_items
        self._open: set[int] = set()

    def clean(self, value: Any, room: int) -> Any:
        kind = type(value)
        if kind is str:
            return _text(value)
        if value is None or kind is bool:
            return value
        if kind is int:
            return _integer(value)
        if kind is float:
            return _float(value)
        # One object that contains itself several times would unfold for ever before the depth ends it.
        if room == 0 or self._items_left <= 0 or id(value) in self._open:
            return _CUT
        self._open.add(id(value))
        try:
            return self._container(value, room)
        except Exception:  # noqa: BLE001 - the value is not ours: its iteration, keys or str() may raise anything
            return f"<{kind.__name__}>"
        finally:
            self._open.discard(id(value))

    def _container(self, value: Any, room: int) -> Any:
        if isinstance(value, dict):
            cleaned: dict[str, Any] = {}
            for key, item in value.items():
                if self._spent():
                    cleaned[_CUT] = _CUT
                    break
                cleaned[_key(key)] = self.clean(item, room - 1)
            return cleaned
        if isinstance(value, list | tuple | set | frozenset):
            items: list[Any] = []
            for item in value:
                if self._spent():
                    items.append(_CUT)
                    break
                items.append(self.clean(item, room - 1))
            return items
        return self._other(value, room)

    def _spent(self) -> bool:
        self._items_left -= 1
        return self._items_left < 0

    def _other(self, value: Any, room: int) -> Any:
        # Subclasses of the plain types (an IntEnum, a str of a web framework) lose only their class.
        for plain in (str, int, float):
            if isinstance(value, plain):
                return self.clean(plain(value), room)
        try:
            built = msgspec.to_builtins(value, str_keys=True)
        except Exception:  # noqa: BLE001 - not a type msgspec knows, or one whose own hooks raise
            if callable(dump := getattr(type(value), "model_dump", None)):
                return self.clean(dump(value, mode="json"), room)
            return _text(str(value)[:_MAX_FALLBACK_CHARS])
        return self.clean(built, room) if built is not value else _text(str(value)[:_MAX_FALLBACK_CHARS])


def _text(value: str) -> str:
    if value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError:
        # Two halves of a pair that arrived apart are joined; a half alone is replaced.
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return value


def _integer(value: int) -> int | str:
    if -MAX_INTEGER <= value <= MAX_INTEGER:
        return value
    try:
        return str(value)
    except ValueError:  # more digits than the interpreter converts
        return hex(value)


def _float(value: float) -> float | str:
    if math.isfinite(value):
        return value
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def _key(key: Any) -> str:
    if isinstance(key, str):
        return _text(str(key))
    if key is None:
        return "null"
    if isinstance(key, bool):
        return "true" if key else "false"
    return _text(str(key)[:_MAX_FALLBACK_CHARS])
