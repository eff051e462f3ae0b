"""Bytes from a stranger to a tree of plain values, or `Malformed`/`TooLarge` and nothing else.

What JSON lets through and this protocol does not: duplicate keys, integers that JavaScript cannot read exactly,
depth. What decoders differ in and this one refuses: NaN, infinities and numbers that become one, lone surrogates
(raw, escaped, in keys), bad UTF-8, a byte order mark, anything after the value. MessagePack meets the same rules, and
its types that JSON has not (binary, extensions, keys that are not strings) are refused.

A float without a fraction becomes an integer: JSON has one kind of number, and `5.0` is `5` in every other language.
"""

import math
import re
import struct
from typing import Any, Final

import msgspec

from midstream_protocol.errors import Malformed, TooLarge
from midstream_protocol.limits import MAX_DEPTH, MAX_FRAME_BYTES, MAX_INTEGER

_decode_json = msgspec.json.Decoder().decode

# Only ever run over text that is known to be valid JSON: there it is linear, because every match starts at a quote
# that opens a string.
_STRING: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')


def parse_json(data: bytes | str, *, max_bytes: int = MAX_FRAME_BYTES, max_depth: int = MAX_DEPTH) -> Any:
    """The value that `data` (UTF-8 JSON) says. Raises only `Malformed` and `TooLarge`.

    A container directly in the text is at depth 1.
    """
    raw = _bounded(data, max_bytes)
    try:
        holder = [_decode_json(raw)]
        keys = _check(holder, max_depth + 1)
    except RecursionError:
        raise _too_deep(max_depth) from None
    except (msgspec.DecodeError, ValueError, OverflowError) as refused:
        raise Malformed(f"not valid JSON: {refused}; send one UTF-8 JSON text") from None
    # The decoder keeps the last of two equal keys, so a duplicate shows as fewer keys than colons outside strings.
    # Colons inside strings only raise the first, cheap count.
    if keys != raw.count(b":") and keys != _STRING.sub(b"", raw).count(b":"):
        raise Malformed("an object has the same key twice; send each key once")
    return holder[0]


def parse_msgpack(data: bytes, *, max_bytes: int = MAX_FRAME_BYTES, max_depth: int = MAX_DEPTH) -> Any:
    """The value that `data` (MessagePack) says, under the rules of `parse_json`; it raises the same."""
    raw = _bounded(data, max_bytes)
    try:
        value, end = _read(raw, 0, max_depth)
    except (IndexError, struct.error):
        raise Malformed("not valid MessagePack: the bytes end inside a value; send one whole value") from None
    except UnicodeDecodeError:
        raise Malformed("not valid MessagePack: a string is not UTF-8") from None
    except RecursionError:
        raise _too_deep(max_depth) from None
    if end != len(raw):
        raise Malformed(f"not valid MessagePack: {len(raw) - end} bytes after the value; send one value a frame")
    return value


def _bounded(data: bytes | str, max_bytes: int) -> bytes:
    try:
        raw = data.encode() if isinstance(data, str) and len(data) <= max_bytes else data
    except UnicodeEncodeError:
        raise Malformed("the text holds a lone surrogate; send valid Unicode") from None
    if isinstance(raw, str) or len(raw) > max_bytes:
        raise TooLarge(f"the frame is larger than {max_bytes} bytes; send less, or in parts")
    return bytes(raw)


def _too_deep(max_depth: int) -> Malformed:
    return Malformed(f"nested deeper than {max_depth} levels; send a flatter value")


def _number(value: float) -> float:
    """`value` as the protocol has it: integral floats as integers, integers within what JavaScript reads exactly."""
    if type(value) is float:
        if not math.isfinite(value):
            raise Malformed("NaN and infinities are not numbers here; leave the field out or send a string")
        return int(value) if -MAX_INTEGER <= value <= MAX_INTEGER and value.is_integer() else value
    if not -MAX_INTEGER <= value <= MAX_INTEGER:
        raise Malformed("an integer is beyond ±(2^53-1); send it as a string")
    return value


def _check(container: dict[str, Any] | list[Any], room: int) -> int:
    """Count the keys below `container`, refuse big integers, settle integral floats in place.

    Raises RecursionError below `room` levels, like the decoder itself: one name for "too deep".
    """
    if room == 0:
        raise RecursionError
    if type(container) is dict:
        keys = len(container)
        items: Any = container.items()
    else:
        keys = 0
        items = enumerate(container)
    for at, item in items:
        kind = type(item)
        if kind is dict or kind is list:
            keys += _check(item, room - 1)
        elif kind is int or kind is float:
            # Replacing the value of a key that exists is allowed while iterating.
            container[at] = _number(item)
    return keys


_NUMBERS: Final = {
    0xCA: struct.Struct(">f"),
    0xCB: struct.Struct(">d"),
    0xCC: struct.Struct(">B"),
    0xCD: struct.Struct(">H"),
    0xCE: struct.Struct(">I"),
    0xCF: struct.Struct(">Q"),
    0xD0: struct.Struct(">b"),
    0xD1: struct.Struct(">h"),
    0xD2: struct.Struct(">i"),
    0xD3: struct.Struct(">q"),
}
_CONSTANTS: Final[dict[int, bool | None]] = {0xC0: None, 0xC2: False, 0xC3: True}
_TEXT_SIZES: Final = {0xD9: 1, 0xDA: 2, 0xDB: 4}
_ARRAY_SIZES: Final = {0xDC: 2, 0xDD: 4}
_MAP_SIZES: Final = {0xDE: 2, 0xDF: 4}


def _read(raw: bytes, at: int, room: int) -> tuple[Any, int]:
    """The value at `at` and where it ends (https://github.com/msgpack/msgpack/blob/master/spec.md)."""
    tag = raw[at]
    at += 1
    if tag < 0x80:
        return tag, at
    if tag >= 0xE0:
        return tag - 0x100, at
    if tag < 0x90:
        return _read_map(raw, at, tag & 0x0F, room)
    if tag < 0xA0:
        return _read_array(raw, at, tag & 0x0F, room)
    if tag < 0xC0:
        return _read_text(raw, at, tag & 0x1F)
    if tag in _CONSTANTS:
        return _CONSTANTS[tag], at
    if (number := _NUMBERS.get(tag)) is not None:
        return _number(number.unpack_from(raw, at)[0]), at + number.size
    for sizes, read in ((_TEXT_SIZES, _read_text), (_ARRAY_SIZES, _read_array), (_MAP_SIZES, _read_map)):
        if (width := sizes.get(tag)) is not None:
            count = int.from_bytes(raw[at : at + width], "big")
            return read(raw, at + width, count, room)
    raise Malformed("MessagePack binary and extension types have no JSON form; send text, or base64 as text")


def _read_text(raw: bytes, at: int, count: int, _room: int = 0) -> tuple[str, int]:
    end = at + count
    if end > len(raw):
        raise IndexError
    return raw[at:end].decode(), end


def _read_array(raw: bytes, at: int, count: int, room: int) -> tuple[list[Any], int]:
    if room == 0:
        raise RecursionError
    items: list[Any] = []
    for _ in range(count):
        item, at = _read(raw, at, room - 1)
        items.append(item)
    return items, at


def _read_map(raw: bytes, at: int, count: int, room: int) -> tuple[dict[str, Any], int]:
    if room == 0:
        raise RecursionError
    found: dict[str, Any] = {}
    for _ in range(count):
        key, at = _read(raw, at, room - 1)
        if type(key) is not str:
            raise Malformed("a MessagePack key is not a string; send string keys")
        if key in found:
            raise Malformed("an object has the same key twice; send each key once")
        found[key], at = _read(raw, at, room - 1)
    return found, at
