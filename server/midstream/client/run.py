"""One run, as an application follows and steers it. Made by `Client.start` and `Client.attach`."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Final, Literal, Protocol

from midstream.client.updates import Received, Update
from midstream_protocol.commands import (
    ApprovalRespond,
    ClientTool,
    CommandPayload,
    CorrectionRevoke,
    InputRespond,
    Remember,
    RunCancel,
    RunCorrect,
    ToolError,
    ToolProgressReport,
    ToolResult,
)
from midstream_protocol.events import CancelMode, CorrectionMode, Event
from midstream_protocol.frames import Receipt, RunAttached, RunReset
from midstream_protocol.view import View, fold, view_from_builtins

MAX_UNREAD: Final = 4096
"""Updates kept for a slow reader; beyond it the server is asked to wait, and sends the rest from the log later."""

_RESUME_BELOW: Final = MAX_UNREAD // 4


class Line(Protocol):
    """What a run needs of its connection."""

    async def send(self, payload: CommandPayload, *, run_id: str) -> Receipt: ...

    def pause(self, run_id: str) -> None: ...

    def resume(self, run_id: str) -> None: ...

    def offer(self, run_id: str, client_tools: list[ClientTool]) -> None: ...

    def leave(self, run_id: str) -> None: ...


class Run:
    """Iterate it for its events, each once and in order, across reconnects; it ends after the terminal event.

    One reader at a time. `view` is the fold of what that reader was given (of the whole run when attached from its
    beginning or from a snapshot). Commands may be called concurrently; each returns its receipt (decided and durable)
    or raises the refusal (`midstream_protocol.errors`), or `Disconnected` when the connection is gone for good.
    """

    def __init__(self, run_id: str, line: Line, *, epoch: str | None = None) -> None:
        self.run_id = run_id
        self.view: View | None = None
        self.info: RunAttached | None = None
        """The newest `run.attached`: thread, epoch, what can be done, what waits."""
        self._line = line
        self._epoch = epoch
        self._unread: deque[Update] = deque()
        self._news = asyncio.Event()
        self._over = False
        self._error: Exception | None = None
        self._paused = False
        self._reading = False

    # -- following

    async def __aiter__(self) -> AsyncIterator[Event]:
        async for update in self.updates():
            if isinstance(update, Received):
                yield update.event

    async def updates(self) -> AsyncIterator[Update]:
        """Events with the text they came as, and what happened to the attachment. Raises why it ended early."""
        if self._reading:
            raise RuntimeError(f"run {self.run_id} has a reader already")
        self._reading = True
        try:
            while True:
                while self._unread:
                    yield self._take()
                if self._over:
                    break
                self._news.clear()
                await self._news.wait()
        finally:
            self._reading = False
        if self._error is not None:
            raise self._error

    async def wait(self) -> View | None:
        """Read to the end of the run; the view then."""
        async for _ in self.updates():
            pass
        return self.view

    def detach(self) -> None:
        """Follow it no longer. The run goes on."""
        if not self._over:
            self._line.leave(self.run_id)
            self.end(None)

    # -- steering

    async def cancel(
        self, *, mode: CancelMode = "now", tool_call_id: str | None = None, reason: str | None = None
    ) -> Receipt:
        """Stop the run, or one call of it. Again: escalates."""
        return await self._send(RunCancel(mode=mode, tool_call_id=tool_call_id, reason=reason))

    async def correct(
        self,
        text: str,
        *,
        mode: CorrectionMode = "next_step",
        step_id: str | None = None,
        replan: bool | None = None,
        if_ended: Literal["reject", "start"] | None = None,
    ) -> Receipt:
        """Change the run's course. The receipt's `command_id` is the correction's id.

        With `if_ended="start"` and a receipt `as_ == "started"`, `Client.run` has the new run.
        """
        return await self._send(RunCorrect(text=text, mode=mode, step_id=step_id, replan=replan, if_ended=if_ended))

    async def revoke(self, correction_id: str) -> Receipt:
        return await self._send(CorrectionRevoke(correction_id=correction_id))

    async def approve(
        self,
        approval_id: str,
        *,
        args: dict[str, Any] | None = None,
        args_digest: str | None = None,
        remember: Remember | None = None,
    ) -> Receipt:
        """`args` replace top-level arguments. `args_digest`: approve only what has this digest."""
        return await self._send(
            ApprovalRespond(
                approval_id=approval_id, decision="approve", args=args, args_digest=args_digest, remember=remember
            )
        )

    async def deny(self, approval_id: str, *, reason: str | None = None) -> Receipt:
        return await self._send(ApprovalRespond(approval_id=approval_id, decision="deny", reason=reason))

    async def answer(self, input_id: str, answer: Any) -> Receipt:
        return await self._send(InputRespond(input_id=input_id, answer=answer))

    async def tool_result(self, tool_call_id: str, *, result: Any = None, error: ToolError | None = None) -> Receipt:
        """The outcome of a call that this client runs: a result, or an error."""
        return await self._send(ToolResult(tool_call_id=tool_call_id, ok=error is None, result=result, error=error))

    async def tool_progress(
        self, tool_call_id: str, *, text: str | None = None, fraction: float | None = None
    ) -> Receipt:
        """A sign of work: the call stays open."""
        progress = ToolProgressReport(text=text, fraction=fraction)
        return await self._send(ToolResult(tool_call_id=tool_call_id, progress=progress))

    def offer(self, client_tools: list[ClientTool]) -> None:
        """Host these tools from here on, also after a reconnect."""
        self._line.offer(self.run_id, client_tools)

    # -- for the connection alone

    def put(self, update: Update) -> None:
        self._unread.append(update)
        self._news.set()
        if len(self._unread) >= MAX_UNREAD and not self._paused:
            self._paused = True
            self._line.pause(self.run_id)

    def end(self, error: Exception | None) -> None:
        self._over = True
        self._error = error
        self._news.set()

    def _take(self) -> Update:
        update = self._unread.popleft()
        if self._paused and len(self._unread) < _RESUME_BELOW:
            self._paused = False
            self._line.resume(self.run_id)
        match update:
            case Received(event=event):
                self.view = fold(self.view, event, epoch=self._epoch)
            case RunAttached():
                self.info = update
                self._epoch = self._epoch or update.epoch
            case RunReset():
                self._epoch = update.epoch
                self.view = view_from_builtins(update.snapshot) if update.snapshot is not None else None
        return update

    async def _send(self, payload: CommandPayload) -> Receipt:
        return await self._line.send(payload, run_id=self.run_id)
