"""Small programs and rules for tests of the run layer alone: no model, no tools."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from midstream.runs import Port, Principal, StartRecord
from midstream_protocol.commands import Command, RunStart
from midstream_protocol.errors import FieldError
from midstream_protocol.ids import new_id

ME = Principal(id="local", name="local")


class Script:
    """A program from an async function."""

    def __init__(self, body: Callable[[Port], Awaitable[None]]) -> None:
        self._body = body

    async def run(self, port: Port) -> None:
        await self._body(port)


class OpenRules:
    """Every integer argument `n` below 0 is wrong; everything else is right."""

    def __init__(self, *, steerable: bool = True) -> None:
        self.steerable = steerable

    def is_server_tool(self, tool: str) -> bool:
        return tool.startswith("srv")

    def check_args(self, tool: str, args: Mapping[str, Any]) -> list[FieldError]:
        if isinstance(args.get("n"), int) and args["n"] < 0:
            return [FieldError(path="/n", code="too_small", text="at least 0")]
        return []

    def shown_args(self, tool: str, args: Mapping[str, Any]) -> dict[str, Any]:
        return {k: ("***" if k == "secret" else v) for k, v in args.items()}

    def check_value(self, schema: Mapping[str, Any], value: object) -> list[FieldError]:
        if schema.get("type") == "string" and not isinstance(value, str):
            return [FieldError(path="", code="type", text="a string")]
        return []


class OneAgent:
    """The agents of a test: one, named `a`."""

    def __init__(self, body: Callable[[Port], Awaitable[None]], *, steerable: bool = True) -> None:
        self.body = body
        self._rules = OpenRules(steerable=steerable)
        self.default = "a"

    def names(self) -> list[str]:
        return ["a"]

    def program(self, start: StartRecord) -> Script | None:
        return Script(self.body) if start.agent == "a" else None

    def rules(self, agent: str) -> OpenRules | None:
        return self._rules if agent == "a" else None


def start(text: str = "hello", *, command_id: str | None = None, **fields: Any) -> Command:
    return Command(type="run.start", command_id=command_id or new_id("c"), payload=RunStart(input=text, **fields))
