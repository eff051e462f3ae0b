"""From a signature to what the model is told, and every mistake said when the tool is declared."""

import enum
from typing import Annotated, Any, Literal

import msgspec
import pytest

from midstream import BadTool, Resource, ToolContext, ask_when, client_tool, tool


class Colour(enum.Enum):
    red = "red"
    blue = "blue"


class Point(msgspec.Struct):
    """A place."""

    x: int
    y: int = 0


class Database:
    """Something that JSON cannot carry."""


class Config(msgspec.Struct):
    """Something that it could."""

    name: str


async def empty() -> None: ...


async def plain(a: int, b: float, c: str, d: bool) -> None: ...


async def defaults(a: int = 1, b: str | None = None, c: list[str] = []) -> None: ...  # noqa: B006


async def choices(a: Literal["x", "y"], b: Colour = Colour.red) -> None: ...


async def bounds(a: Annotated[int, msgspec.Meta(ge=1, le=9, description="one to nine")]) -> None: ...


async def nested(p: Point, more: list[Point]) -> None: ...


async def injected(a: int, ctx: ToolContext, db: Database, cfg: Annotated[Config, Resource]) -> None: ...


async def anything(a: Any, b: dict[str, Any]) -> None: ...


def prop(**properties):
    return properties


INT, NUM, STR, BOOL = ({"type": t} for t in ("integer", "number", "string", "boolean"))


@pytest.mark.parametrize(
    ("fn", "required", "properties"),
    [
        (empty, [], {}),
        (plain, ["a", "b", "c", "d"], {"a": INT, "b": NUM, "c": STR, "d": BOOL}),
        (
            defaults,
            [],
            {
                "a": {**INT, "default": 1},
                "b": {"anyOf": [STR, {"type": "null"}], "default": None},
                "c": {"type": "array", "items": STR, "default": []},
            },
        ),
        (choices, ["a"], {"a": {"enum": ["x", "y"]}, "b": {"$ref": "#/$defs/Colour", "default": "red"}}),
        (bounds, ["a"], {"a": {**INT, "minimum": 1, "maximum": 9, "description": "one to nine"}}),
        (
            nested,
            ["p", "more"],
            {"p": {"$ref": "#/$defs/Point"}, "more": {"type": "array", "items": {"$ref": "#/$defs/Point"}}},
        ),
        (injected, ["a"], {"a": INT}),
        (anything, ["a", "b"], {"a": {}, "b": {"type": "object"}}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_signature_is_a_schema(fn, required, properties):
    schema = tool(fn).input_schema
    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False
    assert schema["required"] == required
    assert schema["properties"] == properties
    assert "$ref" not in schema


def test_what_is_injected_is_no_argument():
    made = tool(injected)
    assert made.context == ("ctx",)
    assert made.injected == {"db": Database, "cfg": Config}


def test_the_docstring_describes():
    @tool
    async def find(query: str, limit: int = 10) -> str:
        """Find things.

        Looks everywhere.

        Args:
            query: What to look for,
                word for word.
            limit (int): How many: at most.

        Returns:
            What was found.
        """
        return query + str(limit)

    assert find.description == "Find things.\n\nLooks everywhere."
    assert find.input_schema["properties"]["query"]["description"] == "What to look for, word for word."
    assert find.input_schema["properties"]["limit"]["description"] == "How many: at most."
    assert find.input_schema["properties"]["limit"]["default"] == 10


def test_options_are_kept():
    made = tool(name="other", description="D.", idempotent=True, redact="a", label="{a}!")(bounds)
    assert (made.name, made.description, made.on_unknown) == ("other", "D.", "retry")
    assert made.label_for({"a": "secret"}) == "[hidden]!"
    assert tool(bounds).label_for({}) == "Bounds"
    assert tool(label="Do {a}")(bounds).label_for({}) == "Do …"
    assert tool(label="Do {a}")(bounds).label_for({"a": "x\n" * 500}).count("\n") == 0


@pytest.mark.asyncio
async def test_a_tool_is_still_its_function():
    @tool
    async def double(n: int) -> int:
        return 2 * n

    assert await double(4) == 8


async def untyped(a) -> None: ...
async def hidden(__a: int) -> None: ...  # noqa: PYI063
async def star(*a: int) -> None: ...
async def keywords(**a: int) -> None: ...
async def container(a: list[Database]) -> None: ...
async def wrong_default(a: int = None) -> None: ...  # noqa: RUF013
async def shared_default(a: list[int] = [1]) -> None: ...  # noqa: B006
async def resource_default(a: Database = None) -> None: ...
async def unknown_type(a: "Nowhere") -> None: ...  # noqa: F821


async def described(a: int) -> None:
    """D.

    Args:
        b: Not there.
    """


@pytest.mark.parametrize(
    ("declare", "says"),
    [
        (lambda: tool(untyped), "has no type"),
        (lambda: tool(hidden), "cannot begin with two underscores"),
        (lambda: tool(star), "ordinary"),
        (lambda: tool(keywords), "ordinary"),
        (lambda: tool(container), "JSON cannot carry"),
        (lambda: tool(wrong_default), "its type does not allow"),
        (lambda: tool(shared_default), "calls would share"),
        (lambda: tool(resource_default), "cannot have a default"),
        (lambda: tool(unknown_type), "importable"),
        (lambda: tool(described), "docstring describes b"),
        (lambda: tool(name="not good")(empty), "cannot be called"),
        (lambda: tool(label="{nope}")(empty), "its label names nope"),
        (lambda: tool(timeout=0)(empty), "more than 0"),
        (lambda: tool(approval="maybe")(empty), "approval is"),
        (lambda: tool(on_unknown="perhaps")(empty), "on_unknown is"),
        (lambda: tool(idempotent=True, on_unknown="tell")(empty), "idempotent means"),
        (lambda: client_tool()(injected), "neither a context nor resources"),
        (lambda: tool(lambda a: a), "cannot be called"),
    ],
)
def test_a_mistake_is_said_at_once(declare, says):
    with pytest.raises(BadTool, match=says):
        declare()


def test_ask_when_keeps_its_reason():
    policy = ask_when(lambda a: a.n > 1, risk="high", reason="big")
    assert (policy.risk, policy.reason) == ("high", "big")
