"""What may come in from a model as JSON, and what is done with what JSON on the wire cannot carry. Pure."""

from typing import Any, Final

import msgspec

from midstream.agents.providers.contract import ModelFailed

# Levels of nesting in a call's arguments; a frame may have 32, and the arguments travel inside one.
ARGS_DEPTH: Final = 24
SAFE_INTEGER: Final = 2**53 - 1


def parsed_args(raw: str) -> dict[str, Any] | None:
    """The JSON object that `raw` is; None if it is none, or holds what a frame cannot carry."""
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return None
    return value if isinstance(value, dict) and _travels(value, ARGS_DEPTH) else None


def well_formed(text: str) -> str:
    """The text with lone surrogates replaced by U+FFFD: JSON cannot carry them."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def stored(value: object) -> str:
    """JSON text. Raises `ModelFailed` for what the journal could not keep."""
    try:
        return msgspec.json.encode(value).decode()
    except (UnicodeEncodeError, OverflowError, RecursionError) as error:
        raise ModelFailed("The model's answer makes no sense: a block is not JSON.") from error


def _travels(value: object, depth: int) -> bool:
    if isinstance(value, dict):
        return depth > 0 and all(_travels(item, depth - 1) for item in value.values())
    if isinstance(value, list):
        return depth > 0 and all(_travels(item, depth - 1) for item in value)
    return not isinstance(value, int) or -SAFE_INTEGER <= value <= SAFE_INTEGER
