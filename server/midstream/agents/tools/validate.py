"""Whether a JSON value fits a schema: every mistake with its place, and never the value itself in a text.

What a caller may have sent wrong is often what must not be shown, so `MASK` stands where a value would. Nothing is
fetched for a `$ref`, and a pattern's backtracking is bounded: schemas come from clients too.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, TypeVar

import jsonschema_rs
import msgspec
from msgspec import Struct

from midstream_protocol.errors import FieldError

S = TypeVar("S", bound=Struct)

MASK: Final = "this value"
MAX_ERRORS: Final = 20
"""Mistakes reported at once: enough to correct a call, few enough for an event."""
BACKTRACK_LIMIT: Final = 100_000
"""Steps of one pattern: some milliseconds."""
_CACHED_SCHEMAS: Final = 512


class BadSchema(ValueError):
    """Not a JSON Schema that can be checked here. The text is safe to show."""


def check_value(schema: Mapping[str, Any], value: object) -> list[FieldError]:
    """What is wrong with `value` (empty: nothing). Raises `BadSchema`."""
    validator = _validator(msgspec.json.encode(schema))
    found: list[FieldError] = []
    try:
        for error in validator.iter_errors(value):
            found.extend(_field_errors(error))
            if len(found) >= MAX_ERRORS:
                break
    except ValueError as error:
        # What JSON cannot carry (a lone surrogate, an integer beyond 64 bits): the checker itself refuses it.
        return [FieldError(path="", code="invalid", text=f"not a JSON value: {type(error).__name__}")]
    return found[:MAX_ERRORS]


def is_schema(schema: Mapping[str, Any]) -> bool:
    """Whether values can be checked against it."""
    try:
        _validator(msgspec.json.encode(schema))
    except BadSchema:
        return False
    return True


def to_arguments(kind: type[S], args: Mapping[str, Any]) -> S:
    """The typed arguments of a call that passed `check_value`. Raises `msgspec.ValidationError`.

    Strict: "5" is not 5. What an approval shows, what its digest covers and what runs must be one value, and a model
    that is told of its mistake corrects it at the price of one turn.
    """
    return msgspec.convert(dict(args), kind, strict=True)


def check_arguments(kind: type[Struct], schema: Mapping[str, Any], args: Mapping[str, Any]) -> list[FieldError]:
    """What is wrong with a call's arguments (empty: `to_arguments` will succeed)."""
    if errors := check_value(schema, args):
        return errors
    try:
        to_arguments(kind, args)
    except msgspec.ValidationError as error:
        # Rules that JSON Schema cannot say (a date's form, a struct's own __post_init__).
        text, _, place = str(error).partition(" - at `$")
        return [FieldError(path=_pointer(place.rstrip("`")), code="invalid", text=text)]
    return []


def in_words(errors: list[FieldError]) -> str:
    """For a model or a person: one mistake a line."""
    return "\n".join(f"- {error.path or 'arguments'}: {error.text}" for error in errors)


@lru_cache(maxsize=_CACHED_SCHEMAS)
def _validator(schema: bytes) -> Any:
    options = jsonschema_rs.FancyRegexOptions(backtrack_limit=BACKTRACK_LIMIT)
    try:
        return jsonschema_rs.validator_for(
            msgspec.json.decode(schema), mask=MASK, offline=True, pattern_options=options
        )
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        raise BadSchema("not a valid JSON Schema") from error


def _field_errors(error: Any) -> list[FieldError]:
    at = "".join(f"/{_escaped(str(part))}" for part in error.instance_path)
    code = str(error.kind.name)
    if code == "required":
        return [FieldError(path=f"{at}/{_escaped(error.kind.property)}", code="missing", text="is required")]
    if code == "additionalProperties":
        return [
            FieldError(path=f"{at}/{_escaped(name)}", code="unknown", text="is not an argument")
            for name in error.kind.unexpected
        ]
    return [FieldError(path=at, code=code, text=str(error.message))]


def _pointer(place: str) -> str:
    """Msgspec's `.p.children[1]` as a JSON Pointer. `[...]` (any key of a map) stays as it is."""
    return place.replace("[", "/").replace("]", "").replace(".", "/").replace("/////", "/...")


def _escaped(part: str) -> str:
    return part.replace("~", "~0").replace("/", "~1")
