"""What a running tool may know and do: who it works for, its stable key, and telling how far it is."""

import hashlib
from typing import Any, Final

import msgspec

from midstream.agents.outflow.secrets import scrubbed
from midstream.agents.tools.shown import Hide
from midstream.runs.contract import Principal
from midstream.runs.port import Port
from midstream_protocol.codec import json_safe
from midstream_protocol.events import ObjectCreated, Outcome, ToolProgress
from midstream_protocol.ids import is_id
from midstream_protocol.limits import MAX_TEXT_CHARS

MAX_OBJECT_BYTES: Final = 128 * 1024
"""Bytes of one object's data: every reader is sent it, and every snapshot has it."""

MAX_KIND_CHARS: Final = 64


class ToolContext:
    """One call, as its tool sees it. A parameter of this type gets it; the model does not know of it.

    `idempotency_key` is the same for every attempt of one call, also after a crash, and no other call's: give it to
    what performs the effect, so that a second attempt changes nothing. `attempt` counts from 1.
    """

    def __init__(
        self,
        *,
        port: Port,
        tool_call_id: str,
        idempotency_key: str,
        attempt: int,
        step_id: str | None,
        hide: Hide = scrubbed,
    ) -> None:
        self._port = port
        self._step_id = step_id
        self._hide = hide
        self._objects = 0
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
        shown = None if text is None else str(self._hide(json_safe(text)))[:MAX_TEXT_CHARS]
        part = None if fraction is None else min(1.0, max(0.0, fraction))
        await self._port.emit(
            ToolProgress(tool_call_id=self.tool_call_id, text=shown, fraction=part), step_id=self._step_id
        )

    async def object(self, kind: str, data: Any, *, object_id: str | None = None) -> str:
        """Show something structured: a table, a chart, a citation. `kind` says to clients what `data` (JSON) is.

        Returns its id once it is durable. The same `object_id` again replaces it; without one, the call's first object
        has the same id in every attempt, and so on. Raises `ToolError` for what cannot be an object. For `async` tools.
        """
        safe = checked_object(kind, data, object_id)
        self._objects += 1
        if object_id is None:
            counted = hashlib.sha256(f"{self.tool_call_id}:{self._objects}".encode()).hexdigest()
            object_id = f"obj_{counted[:24]}"
        if not self._closed:
            created = ObjectCreated(
                object_id=object_id, kind=kind, data=self._hide(safe), tool_call_id=self.tool_call_id
            )
            await self._port.record(created, step_id=self._step_id)
        return object_id

    def close(self) -> None:
        """The call has its result: what a task left behind still says about it is not shown."""
        self._closed = True


def checked_object(kind: str, data: Any, object_id: str | None) -> Any:
    """An object's data as JSON values. Raises `ToolError` for what cannot be an object."""
    if not isinstance(kind, str) or not 0 < len(kind) <= MAX_KIND_CHARS:
        raise ToolError(f"An object's kind is a text of 1 to {MAX_KIND_CHARS} characters.")
    if object_id is not None and not is_id(object_id):
        raise ToolError("An object_id is 1 to 64 letters, digits, `_` or `-`.")
    safe = json_safe(data)
    if (size := len(msgspec.json.encode(safe))) > MAX_OBJECT_BYTES:
        raise ToolError(f"An object may have {MAX_OBJECT_BYTES:,} bytes; this one ({kind}) has {size:,}.")
    return safe


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
