"""The typed result of an agent, `Agent(output=T)`: what the model is told of the type, and reading its answer as one.

`T` is what JSON can be: a msgspec struct, dataclass, TypedDict, enum, literal, list or dict of such, or a pydantic
model (known by what it can do, so that nothing here needs pydantic).
"""

from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any, Final

import msgspec

from midstream.agents.declared import quoted
from midstream.agents.json_answer import values_in
from midstream.agents.tools.signature import BadTool
from midstream_protocol.codec import json_safe

MAX_WRONG: Final = 10
"""Mistakes of one answer that the model is told at once."""


class BadOutput(Exception):
    """An answer is no value of the type. `text` says why, in words for the model."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class Output:
    """The type of an agent's result. Raises `BadTool` for a type that JSON cannot be."""

    def __init__(self, type_: Any) -> None:
        self.type: Final = type_
        self._pydantic = _is_pydantic(type_)
        self.schema: Final = self._schema()
        """JSON Schema of the type."""

    @property
    def instructions(self) -> str:
        """What the system text says of it."""
        if self.type is str:
            return ""
        schema = msgspec.json.encode(self.schema).decode()
        return (
            "When your work is done, give your final answer as one JSON value that fits this JSON Schema, and nothing "
            f"beside it:\n{schema}"
        )

    def read(self, text: str) -> Any:
        """The first value of the type in a model's answer. Raises `BadOutput`."""
        if self.type is str:
            return text
        wrong: str | None = None
        for value in values_in(text):
            try:
                return self._typed(value)
            except BadOutput as error:
                wrong = wrong or error.text
        with suppress(BadOutput):
            # A word of a choice, written without quotes.
            return self._typed(text.strip())
        if wrong is None:
            raise BadOutput("Your answer holds no JSON value. Give one that fits the schema, and nothing beside it.")
        raise BadOutput(f"Your answer does not fit the schema:\n{wrong}")

    def plain(self, value: Any) -> Any:
        """A value of the type as JSON values."""
        if self._pydantic:
            return json_safe(value.model_dump(mode="json"))
        return json_safe(msgspec.to_builtins(value, str_keys=True, enc_hook=_dumped))

    def _schema(self) -> dict[str, Any]:
        if self._pydantic:
            return dict(self.type.model_json_schema())
        try:
            # Names of types that msgspec does not read are gathered where a reader of the schema looks for them.
            defs: dict[str, Any] = {}
            schema = msgspec.json.schema(self.type, schema_hook=partial(_pydantic_schema, defs))
        except (TypeError, ValueError) as error:
            raise BadTool(
                f"output={quoted(self.type)}: no type that JSON can be; give a dataclass, a msgspec Struct, a "
                "TypedDict, a pydantic model, an enum, a Literal, or a list or dict of such"
            ) from error
        return {**schema, "$defs": {**schema.get("$defs", {}), **defs}} if defs else schema

    def _typed(self, value: Any) -> Any:
        if self._pydantic:
            return self._model(value)
        try:
            return msgspec.convert(value, self.type, strict=True, dec_hook=_loaded)
        except msgspec.ValidationError as error:
            raise BadOutput(f"- {error}") from error

    def _model(self, value: Any) -> Any:
        try:
            return _model_of(self.type, value)
        except ValueError as error:
            raise BadOutput("\n".join(_pydantic_lines(error))) from error


def _is_pydantic(type_: Any) -> bool:
    return isinstance(type_, type) and hasattr(type_, "model_validate_json") and hasattr(type_, "model_json_schema")


def _model_of(type_: Any, value: Any) -> Any:
    # From JSON, for then a strict model still reads a date or an enum, which JSON has as text.
    return type_.model_validate_json(msgspec.json.encode(value), strict=True)


def _pydantic_schema(defs: dict[str, Any], type_: type) -> dict[str, Any]:
    """For msgspec, of a model inside another type."""
    if not _is_pydantic(type_):
        raise NotImplementedError
    schema: dict[str, Any] = type_.model_json_schema()  # type: ignore[attr-defined]
    defs |= schema.pop("$defs", {})
    return schema


def _loaded(type_: type, value: Any) -> Any:
    """For msgspec, of a model inside another type."""
    if not _is_pydantic(type_):
        raise NotImplementedError
    try:
        return _model_of(type_, value)
    except ValueError as error:
        raise ValueError("; ".join(line.removeprefix("- ") for line in _pydantic_lines(error))) from error


def _dumped(value: Any) -> Any:
    if not _is_pydantic(type(value)):
        raise NotImplementedError
    return value.model_dump(mode="json")


def _pydantic_lines(error: ValueError) -> Iterator[str]:
    errors = getattr(error, "errors", None)
    if errors is None:
        yield f"- {error}"
        return
    for wrong in errors(include_url=False, include_context=False, include_input=False)[:MAX_WRONG]:
        place = "/".join(str(part) for part in wrong["loc"])
        yield f"- {place or 'the value'}: {wrong['msg']}"
