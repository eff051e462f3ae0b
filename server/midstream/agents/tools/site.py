"""One call on its way through the runtime, and how a behaviour ends it."""

import asyncio
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from midstream.agents.outflow.secrets import scrubbed
from midstream.agents.tools.definition import Tool
from midstream.agents.tools.shown import Hide
from midstream_protocol.events import Outcome


class Site(Struct, kw_only=True, frozen=True):
    """A call that has a tool and valid arguments. `message_id` is the message that holds it (none in an own loop)."""

    call_id: str
    tool: Tool
    args: dict[str, Any]
    message_id: str | None
    step_id: str | None
    hide: Hide = scrubbed

    @property
    def label(self) -> str:
        return self.tool.label_for(self.args, hide=self.hide)


class CancelSwitch:
    """One call's cancel: thrown once, and it stays thrown. What listens later hears it at once."""

    def __init__(self) -> None:
        self.thrown = asyncio.Event()
        self._listeners: list[Callable[[], None]] = []

    def throw(self) -> None:
        self.thrown.set()
        for listener in self._listeners:
            listener()

    def then(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)
        if self.thrown.is_set():
            listener()


class CallFailed(Exception):
    """Ends a call as `tool.failed`; the model gets `text` as its answer. Also what `Run.call` raises.

    `outcome` is what became of the effect: `not_started`, `failed` or `unknown`. `text` is safe to show.
    """

    def __init__(
        self,
        code: str,
        text: str,
        *,
        outcome: Outcome = "not_started",
        retryable: bool = False,
        execution_id: str | None = None,
    ) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.outcome: Outcome = outcome
        self.retryable = retryable
        self.execution_id = execution_id
