"""The tools of one run: what its agent has, and what clients brought along. Server tools cannot be replaced."""

from collections.abc import Mapping, Sequence
from typing import Any

from midstream.agents.providers.contract import ToolSpec
from midstream.agents.tools.client import offered_tool
from midstream.agents.tools.definition import Tool
from midstream.runs.port import Port


class Toolbox:
    """`declared` by name. What clients offer changes while the run goes on, so it is looked up each time."""

    def __init__(self, declared: Mapping[str, Tool], port: Port) -> None:
        self._declared = declared
        self._port = port

    def find(self, name: str) -> Tool | None:
        if (found := self._declared.get(name)) is not None:
            return found
        offer = self._port.client_tools.get(name)
        return offered_tool(offer) if offer is not None else None

    def specs(self) -> Sequence[ToolSpec]:
        """What the model is told of now. A client-run tool only while some client hosts it."""
        hosted = self._port.client_tools
        tools = [tool for tool in self._declared.values() if not tool.client or tool.name in hosted]
        tools += [
            tool
            for name, offer in hosted.items()
            if name not in self._declared and (tool := offered_tool(offer)) is not None
        ]
        return [ToolSpec(name=t.name, description=t.description, input_schema=_plain(t.input_schema)) for t in tools]


def _plain(schema: Mapping[str, Any]) -> dict[str, Any]:
    return dict(schema)
