"""What a running tool may know and do: who it works for, its stable key, and telling how far it is."""

from typing import Final

from midstream.runs.contract import Principal
from midstream.runs.port import Port
from midstream_protocol.codec import json_safe
from midstream_protocol.events import Outcome, ToolProgress
from midstream_protocol.limits import MAX_TEXT_CHARS


class ToolContext:
    """One call, as its tool sees it. A parameter of this type gets it; the model does not know of it.

    `idempotency_key` is the same for every attempt of one call, also after a crash, and no other call's: give it to
    what performs the effect, so that a second attempt changes nothing. `attempt` counts from 1.
    """

    def __init__(
        self, *, port: Port, tool_call_id: str, idempotency_key: str, attempt: int, step_id: str | None
    ) -> None:
        self._port = port
        self._step_id = step_id
        self._closed = False
        self.run_id: Final = port.start.run_id
        self.thread_id: Final = port.start.thread_id
        self.principal: Final[Principal] = port.start.principal
        self.tool_call_id: Final = tool_call_id
        self.idempotency_key: Final = idempotency_key
        self.attempt: Final = attempt

    async def progress(self, text: str | None = None, *, fraction: float | None = None) -> None:
        """Show how far it is (`fraction` of 1). Waits when the log is slow. For `async` tools: a thread cannot wait
        here.
        """
        if self._closed or (text is None and fraction is None):
            return
        shown = None if text is None else str(json_safe(text))[:MAX_TEXT_CHARS]
        part = None if fraction is None else min(1.0, max(0.0, fraction))
        await self._port.emit(
            ToolProgress(tool_call_id=self.tool_call_id, text=shown, fraction=part), step_id=self._step_id
        )

    def close(self) -> None:
        """The call has its result: what a task left behind still says about it is not shown."""
        self._closed = True


class ToolError(Exception):
    """Raise it in a tool: `text` is told to the model and shown to people, so it must be safe.

    Any other exception is shown as its class name alone. `outcome` is `unknown` when the effect may have happened all
    the same. A tool that undid or ended its work when it was cancelled raises this too, and so says `failed`.
    """

    def __init__(self, text: str, *, outcome: Outcome = "failed", retryable: bool = False) -> None:
        super().__init__(text)
        self.text = text
        self.outcome: Outcome = outcome
        self.retryable = retryable
