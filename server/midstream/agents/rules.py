"""What the run layer asks about an agent (`runs.contract.Rules`): pure answers from what was declared."""

from collections.abc import Mapping
from typing import Any

from midstream.agents.tools.definition import Tool
from midstream.agents.tools.read_result import read_result
from midstream.agents.tools.shown import hidden_in
from midstream.agents.tools.validate import BadSchema, check_arguments, check_value
from midstream_protocol.errors import FieldError


class AgentRules:
    """For one agent."""

    def __init__(self, *, tools: Mapping[str, Tool], steerable: bool) -> None:
        self._tools = tools
        self._steerable = steerable

    @property
    def steerable(self) -> bool:
        return self._steerable

    def is_server_tool(self, tool: str) -> bool:
        found = self._tools.get(tool)
        # Every agent may be offered the tool that reads results again.
        return tool == read_result.name or (found is not None and not found.client)

    def check_args(self, tool: str, args: Mapping[str, Any]) -> list[FieldError]:
        found = self._tools.get(tool)
        if found is None:
            return [FieldError(path="", code="unknown_tool", text="the agent has no such tool")]
        if sent_back := hidden_in(dict(args)):
            text = "is hidden: leave the argument out, and it stays as it is"
            return [FieldError(path=place, code="hidden", text=text) for place in sorted(sent_back)]
        return check_arguments(found.arguments, found.input_schema, args)

    def shown_args(self, tool: str, args: Mapping[str, Any]) -> dict[str, Any]:
        found = self._tools.get(tool)
        return dict(args) if found is None else found.shown_args(dict(args))

    def check_value(self, schema: Mapping[str, Any], value: object) -> list[FieldError]:
        try:
            return check_value(schema, value)
        except BadSchema:
            # Refusing every answer would hold the run until its question expires.
            return []
