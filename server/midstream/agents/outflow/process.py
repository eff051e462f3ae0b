"""The third phase, for the user who looks: tools that they see only as a step. Pure but for the calls it remembers."""

from collections.abc import Iterable

from midstream.agents.outflow.contract import Audience, Outflow
from midstream.agents.outflow.transform import masked
from midstream.logs import Logger
from midstream_protocol.events import (
    ApprovalRequired,
    ObjectCreated,
    Payload,
    ToolCompleted,
    ToolFailed,
    ToolPreparing,
    ToolProgress,
    ToolRequested,
    ToolStarted,
)

_log = Logger("midstream.agents")

_OF_CALLS = (ToolProgress, ToolCompleted, ToolFailed, ObjectCreated)


class HiddenTools:
    """Which tools the audience does not see, and which calls are theirs. `calls` are (id, tool) of the run so far.

    A `hidden_tools` that raises hides all of them.
    """

    def __init__(self, outflow: Outflow, audience: Audience, *, calls: Iterable[tuple[str, str]] = ()) -> None:
        self._names: frozenset[str] | None = frozenset()
        if outflow.hidden_tools is not None:
            try:
                self._names = frozenset(outflow.hidden_tools(audience))
            except Exception:  # noqa: BLE001 - the app's function may raise anything
                _log.exception("outflow: hidden_tools failed, all tools are hidden", run=audience.run_id)
                self._names = None
        self._calls = {call_id for call_id, tool in calls if self._hides(tool)}

    def passed(self, payload: Payload) -> Payload:
        """The payload, masked if it is a hidden tool's. What a person must answer is never hidden, and no more is what
        their own client runs.
        """
        match payload:
            case ToolPreparing() | ToolStarted() if self._hides(payload.tool):
                self._calls.add(payload.tool_call_id)
                return masked(payload)
            case ToolRequested() | ApprovalRequired():
                return payload
            case ToolProgress() | ToolCompleted() | ToolFailed() | ObjectCreated():
                return masked(payload) if payload.tool_call_id in self._calls else payload
            case _:
                return payload

    def _hides(self, tool: str) -> bool:
        return self._names is None or tool in self._names
