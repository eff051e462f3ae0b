"""What an app declares, checked where it is declared: each mistake is a sentence that says what to give. Pure.

All raise `BadDeclaration`; `where` begins the sentence.
"""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, get_args, get_origin

_MAX_QUOTED = 80


class BadDeclaration(ValueError):
    """A part of a declaration that cannot be. A defect of the app's code; the text says the fix."""


def check_number(where: str, name: str, value: object, *, whole: bool = False, least: int | None = None) -> None:
    """A number, `whole` or not; above 0, or from `least` on."""
    kind = "a whole number" if whole else "a number"
    wanted = "above 0" if least is None else f"from {least} on"
    right = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    # The comparison is false for NaN, too.
    if not right or not (value > 0 if least is None else value >= least):  # type: ignore[operator]
        raise BadDeclaration(f"{where}: {name} is {quoted(value)}; give {kind} {wanted}")


def check_choice(where: str, name: str, value: object, literal: Any) -> None:
    """One of a Literal's values."""
    choices = get_args(literal)
    if not isinstance(value, str) or value not in choices:
        raise BadDeclaration(f"{where}: {name} is {quoted(value)}; give {' or '.join(map(repr, choices))}")


def check_kind(where: str, name: str, value: object, kind: type, example: str) -> None:
    """An instance of `kind`."""
    if not isinstance(value, kind):
        raise BadDeclaration(f"{where}: {name} is {quoted(value)}; give {example}")


def check_function(where: str, name: str, value: object, takes: str, *, plain: bool = False, also: str = "") -> None:
    """A function that can be called with `takes`, such as `request, revision`. `plain`: what it returns is not waited
    for. `also` says what else may be given.
    """
    wanted = f"{also}{'a plain function' if plain else 'a function'} of ({takes})"
    if not callable(value):
        raise BadDeclaration(f"{where}: {name} is {quoted(value)}; give {wanted}")
    if not _takes(value, len(takes.split(", "))):
        raise BadDeclaration(f"{where}: {name} {quoted(value)} cannot be called with ({takes}); give {wanted}")
    if plain and inspect.iscoroutinefunction(value):
        raise BadDeclaration(f"{where}: {name} {quoted(value)} is async; give {wanted}")


def listed(where: str, name: str, value: object) -> tuple[Any, ...]:
    """The items of a list (or tuple, or set) as a tuple."""
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise BadDeclaration(f"{where}: {name} is {quoted(value)}; give a list, such as {name}=[…]")
    return tuple(value)


def quoted(value: object) -> str:
    """A value inside a sentence: a function or a class by its name, short, and never what memory it stands in."""
    if inspect.isroutine(value) or isinstance(value, type):
        name: Any = getattr(value, "__qualname__", None)
        return str(name or type(value).__name__)
    plain = value is None or isinstance(value, str | int | float | list | tuple | dict | set) or get_origin(value)
    text = repr(value) if plain else f"of type {type(value).__name__}"
    return text if len(text) <= _MAX_QUOTED else f"{text[: _MAX_QUOTED - 1]}…"


def _takes(fn: Any, count: int) -> bool:
    """Whether it can be called with so many arguments; true where Python does not know."""
    try:
        inspect.signature(fn).bind(*range(count))
    except TypeError:
        return False
    except ValueError:
        return True
    return True
