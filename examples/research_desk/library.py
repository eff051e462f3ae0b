"""The documents that ship with the example, and the tools over them. Reading is all they do."""

import ast
import math
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from midstream import ToolContext, ToolError, tool

FOLDER: Final = Path(__file__).with_name("documents")
MAX_HITS: Final = 12
MAX_EXPRESSION_CHARS: Final = 200


class Library:
    """Documents by name, in memory."""

    def __init__(self, texts: dict[str, str]) -> None:
        self._texts = texts

    @classmethod
    def shipped(cls) -> "Library":
        return cls({path.stem: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.md"))})

    @property
    def names(self) -> list[str]:
        return list(self._texts)

    def text(self, name: str) -> str:
        if name not in self._texts:
            raise ToolError(f"There is no document {name!r}; there are: {', '.join(self.names)}.")
        return self._texts[name]

    def title(self, name: str) -> str:
        return self.text(name).partition("\n")[0].lstrip("# ")


class Listed(Struct, frozen=True):
    name: str
    title: str


class Hit(Struct, frozen=True):
    name: str
    line: int
    text: str


@tool(idempotent=True, label="List the documents")
async def list_documents(library: Library) -> list[Listed]:
    """List the documents, each with its title."""
    return [Listed(name, library.title(name)) for name in library.names]


@tool(idempotent=True, label="Search for “{words}”")
async def search_documents(words: str, library: Library) -> list[Hit]:
    """Find the lines of all documents that hold every one of these words, in upper or lower case.

    Args:
        words: one or a few words, separated by spaces
    """
    wanted = words.casefold().split()
    if not wanted:
        raise ToolError("Say at least one word.")
    hits = [
        Hit(name, number, line)
        for name in library.names
        for number, line in enumerate(library.text(name).splitlines(), start=1)
        if all(word in line.casefold() for word in wanted)
    ]
    return hits[:MAX_HITS]


@tool(idempotent=True, label="Read {name}")
async def read_document(name: str, library: Library, context: ToolContext) -> str:
    """Read one document whole.

    Args:
        name: as list_documents gives it
    """
    text = library.text(name)
    await context.object("document", {"name": name, "title": library.title(name)})
    return text


@tool(idempotent=True, label="Calculate {expression}")
async def calculate(expression: str) -> float:
    """Calculate with numbers: + - * / and brackets.

    Args:
        expression: such as (29400000 + 8000000) / 1200000
    """
    if len(expression) > MAX_EXPRESSION_CHARS:
        raise ToolError(f"Shorter, please: at most {MAX_EXPRESSION_CHARS} characters.")
    try:
        value = _value(ast.parse(expression.replace(",", ""), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise ToolError("Only numbers, + - * / and brackets can be calculated.") from error
    except ArithmeticError as error:
        raise ToolError("This has no value: a division by zero, or a number too large.") from error
    if not math.isfinite(value):
        raise ToolError("This has no value: a number is too large.")
    return round(value, 4)


_OPERATIONS: Final[dict[type, Callable[[Any, Any], Any]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def _value(node: ast.AST) -> float:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return float(number)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATIONS:
            return float(_OPERATIONS[type(op)](_value(left), _value(right)))
    raise ValueError("no arithmetic")
