"""From a function's signature to what the model is told of it, and to the type its arguments become.

Each parameter is one of three: an argument (its type can be JSON), the `ToolContext`, or an app's resource - any other
class, or a type marked `Annotated[T, Resource]`. Only arguments are part of the schema. Everything that cannot work is
said when the tool is declared, not when the model calls it.
"""

import inspect
from collections.abc import Callable
from typing import Annotated, Any, Final, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Struct

from midstream.agents.tools.context import ToolContext
from midstream.agents.tools.docstring import parse_docstring


class Resource:
    """Marks a parameter whose type could also be JSON as one of the app's resources: `Annotated[Config, Resource]`."""


class Signature(Struct, kw_only=True, frozen=True, eq=False):
    """`injected` maps a parameter to the type of the resource it wants; `context` are those that get the context."""

    arguments: type[Struct]
    input_schema: dict[str, Any]
    description: str
    injected: dict[str, type]
    context: tuple[str, ...]


class BadTool(TypeError):
    """A tool or agent that cannot work as it is declared. A defect of the app's code; the text says the fix."""


_UNSET: Final = inspect.Parameter.empty
_BY_NAME: Final = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def read_signature(fn: Callable[..., Any], *, name: str, description: str | None) -> Signature:
    """Raises `BadTool`."""
    described = parse_docstring(fn.__doc__)
    fields: list[tuple[str, Any, Any]] = []
    injected: dict[str, type] = {}
    context: list[str] = []
    hints = _hints(fn, name)
    for parameter in inspect.signature(fn).parameters.values():
        where = f"tool {name}: parameter {parameter.name!r}"
        if parameter.kind not in _BY_NAME:
            raise BadTool(f"{where} must be an ordinary one: the model names its arguments")
        if parameter.name.startswith("__"):
            raise BadTool(f"{where} cannot begin with two underscores: give it another name")
        if parameter.name not in hints:
            raise BadTool(f"{where} has no type; annotate it, the model's arguments are checked against it")
        hint = hints[parameter.name]
        if hint is ToolContext:
            context.append(parameter.name)
        elif (resource := _resource_type(hint, where)) is not None:
            if parameter.default is not _UNSET:
                raise BadTool(f"{where} is a resource and cannot have a default")
            injected[parameter.name] = resource
        else:
            fields.append((parameter.name, hint, _default(parameter.default, hint, where)))
    if unknown := sorted(described.args.keys() - {field[0] for field in fields} - injected.keys() - set(context)):
        raise BadTool(f"tool {name}: its docstring describes {', '.join(unknown)}, which it does not have")
    arguments = _struct(name, fields)
    return Signature(
        arguments=arguments,
        input_schema=_schema(arguments, described.args),
        description=description if description is not None else described.text,
        injected=injected,
        context=tuple(context),
    )


def _hints(fn: Callable[..., Any], name: str) -> dict[str, Any]:
    try:
        return get_type_hints(fn, include_extras=True)
    except NameError as error:
        raise BadTool(f"tool {name}: {error}; types of a tool must be importable names of its module") from error


def _resource_type(hint: Any, where: str) -> type | None:
    if get_origin(hint) is Annotated:
        base, *extras = get_args(hint)
        if any(extra is Resource or isinstance(extra, Resource) for extra in extras):
            return base  # type: ignore[no-any-return]
    try:
        msgspec.json.schema(hint)
    except (TypeError, ValueError) as error:
        # A plain class that JSON does not know is a resource. Anything else (a container of one, a Callable) is a
        # mistake: nobody could give it.
        if isinstance(hint, type) and get_origin(hint) is None and hint is not object:
            return hint
        raise BadTool(f"{where} has the type {hint!r}, which JSON cannot carry: {_first_line(error)}") from error
    return None


def _default(value: Any, hint: Any, where: str) -> Any:
    if value is _UNSET:
        return msgspec.NODEFAULT
    try:
        msgspec.convert(msgspec.to_builtins(value), hint)
    except (msgspec.ValidationError, TypeError) as error:
        raise BadTool(f"{where} has the default {value!r}, which its type does not allow: {error}") from error
    if isinstance(value, list | dict | set | bytearray) and value:
        raise BadTool(f"{where} has a default that calls would share; use None or an empty one")
    return value


def _struct(name: str, fields: list[tuple[str, Any, Any]]) -> type[Struct]:
    required: list[Any] = [(field, hint) for field, hint, default in fields if default is msgspec.NODEFAULT]
    optional: list[Any] = [field for field in fields if field[2] is not msgspec.NODEFAULT]
    return msgspec.defstruct(
        f"{name}_arguments", [*required, *optional], kw_only=True, frozen=True, forbid_unknown_fields=True
    )


def _schema(arguments: type[Struct], descriptions: dict[str, str]) -> dict[str, Any]:
    """The schema of an object, without a reference at its top: models and form builders do not follow one."""
    whole = msgspec.json.schema(arguments)
    parts = dict(whole.get("$defs", {}))
    top = dict(parts.pop(whole["$ref"].rsplit("/", 1)[1]))
    properties = {key: dict(value) for key, value in top["properties"].items()}
    for key, value in properties.items():
        if descriptions.get(key):
            value.setdefault("description", descriptions[key])
    schema = {
        "type": "object",
        "properties": properties,
        "required": top.get("required", []),
        "additionalProperties": False,
    }
    return {**schema, "$defs": parts} if parts else schema


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0]
