"""One run, as an application follows and steers it. Made by `Client.start` and `Client.attach`."""

import asyncio
import contextlib
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal, Protocol, TypeVar

from midstream.client.asks import Approval, Asks, Question, Scope
from midstream.client.cursor import place
from midstream.client.errors import Disconnected
from midstream.client.reader import Reader
from midstream.client.tools import Handler, LocalTools
from midstream.client.updates import Received, Update
from midstream.clock import Clock
from midstream_protocol.codes import NORMAL
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
from midstream_protocol.errors import RunEnded
from midstream_protocol.events import TERMINAL_STATUSES, CancelMode, CorrectionMode, Event
from midstream_protocol.frames import Receipt, RunAttached, RunCaughtUp, RunReset
from midstream_protocol.view import View, empty_view, fold, view_from_builtins

T = TypeVar("T")


class Line(Protocol):
    """What a run needs of its client."""

    client_id: str
    tasks: set[asyncio.Task[None]]

    async def send(self, payload: CommandPayload, *, run_id: str) -> Receipt: ...

    def reread(self, run: "Run", *, since_seq: int, epoch: str | None) -> None: ...

    def offer(self, run_id: str, client_tools: list[ClientTool]) -> None: ...

    def leave(self, run_id: str) -> None: ...

    def passed(self, run_id: str, *, epoch: str | None, seq: int) -> None: ...


class Run:
    """Iterate it for its events, each once and in order, across reconnects; it ends after the terminal event.

    Each iteration has a place of its own and begins where the run was attached; leaving it stops nothing. `view` is
    the fold of the whole log, whoever iterates, and never lags for a slow reader. Commands may be called
    concurrently; each returns its receipt (decided and durable) or raises the refusal (`midstream_protocol.errors`),
    or `Disconnected` when the connection is gone for good.
    """

    def __init__(self, run_id: str, line: Line, *, clock: Clock, since_seq: int = 0, epoch: str | None = None) -> None:
        self.run_id = run_id
        self.client_id = line.client_id
        self.view: View = empty_view(run_id)
        self.info: RunAttached | None = None
        """The newest `run.attached`: thread, epoch, what can be done, what waits."""
        self.caught_up = False
        """What comes now is live."""
        self.at = 0
        self.whole = False
        self.over = False
        self.error: Exception | None = None
        """Why nothing more will come, if that is not the run's end."""
        self._line = line
        self._start = (since_seq, epoch)
        self._asks = Asks(self, clock=clock)
        self._tools = LocalTools(self, tasks=line.tasks)
        # The first iteration may begin late and still miss nothing, without a second trip to the server. A run that
        # is followed from its middle is first seen whole, as a snapshot; its events from there are asked for then.
        self._first: Reader | None = Reader(self, seq=since_seq, epoch=epoch, due=since_seq > 0)
        self._readers: weakref.WeakSet[Reader] = weakref.WeakSet([self._first])
        self._listeners: list[Callable[[Update], object]] = []
        self._moved = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Run {self.run_id} {self.view.status}>"

    # -- following

    @property
    def ended(self) -> bool:
        return self.view.status in TERMINAL_STATUSES

    @property
    def approvals(self) -> tuple[Approval, ...]:
        """The open ones, oldest first; each is the same object for as long as it is open."""
        return self._asks.approvals

    @property
    def questions(self) -> tuple[Question, ...]:
        """The open ones, oldest first; each is the same object for as long as it is open."""
        return self._asks.questions

    async def __aiter__(self) -> AsyncIterator[Event]:
        async for update in self.updates():
            if isinstance(update, Received):
                yield update.event

    def updates(self) -> Reader:
        """Events with the text they came as, and what happened to the attachment. Raises why it ended early."""
        reader, self._first = self._first, None
        if reader is None:
            since_seq, epoch = self._start
            reader = Reader(self, seq=since_seq, epoch=epoch, due=since_seq > 0)
            self._readers.add(reader)
        reader.claimed = True
        return reader

    def on_update(self, listener: Callable[[Update], object]) -> Callable[[], None]:
        """Called with all that is new, at once and before any iteration gets it; returns what ends that. It must not
        wait, and not raise.
        """
        self._listeners.append(listener)

        def stop() -> None:
            with contextlib.suppress(ValueError):
                self._listeners.remove(listener)

        return stop

    async def until(self, check: Callable[["Run"], T]) -> T:
        """Wait for something true of this run, such as `run.until(lambda run: run.approvals)`; what `check` gave.

        It is asked now and after every update. Raises why nothing more can come, or `RunEnded`.
        """
        while not (found := check(self)):
            if self.over or self.ended:
                raise self.error or (RunEnded("the run has ended without it") if self.ended else _left())
            self._moved.clear()
            await self._moved.wait()
        return found

    async def changed(self, since: View | None = None) -> View:
        """Until the view is another one than `since` (default: than it is now), and then that. Of a run that has ended
        it comes at once. Raises why it can never come.

        A display draws what it got, and asks with that, at its own pace: many changes between are one.
        """
        before = since or self.view
        await self.until(lambda run: run.view is not before or run.ended)
        return self.view

    async def wait(self) -> View:
        """Until the run has ended; its final view. Raises why that can never be seen."""
        await self.until(lambda run: run.ended)
        return self.view

    def detach(self) -> None:
        """Follow it no longer. The run goes on."""
        if not self.over:
            self._line.leave(self.run_id)
            self.at = -1
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
        remember: Remember | Scope | None = None,
    ) -> Receipt:
        """`args` replace top-level arguments. `args_digest`: approve only what has this digest."""
        if isinstance(remember, str):
            remember = Remember(scope=remember)
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

    def register_tool(self, tool: str | ClientTool, handler: Handler) -> Callable[[], None]:
        """Run this tool here, from now on and after every reconnect; returns what ends that.

        A name is enough for a tool that the agent declares. Raises ValueError for a name that is registered.
        """
        return self._tools.register(ClientTool(name=tool) if isinstance(tool, str) else tool, handler)

    def offer(self, client_tools: list[ClientTool]) -> None:
        """Host these tools from here on, also after a reconnect, and answer their calls with `tool_result`."""
        self._line.offer(self.run_id, client_tools)

    # -- for its client and its readers

    def offered(self, client_tools: list[ClientTool]) -> None:
        self._tools.offered(client_tools)

    def put(self, update: Update) -> None:
        at, news = self.at, True
        match update:
            case Received(event=event):
                self.at = event.seq
                news = place(event, self.view.cursor.seq) == "next"
                if news:
                    self.view = fold(self.view, event, epoch=self._epoch)
            case RunAttached():
                self.info = update
                self.caught_up = False
                self._asks.attached(update)
            case RunReset():
                if update.reason == "requested" and self._start[0] == 0:
                    # The past was not wanted: no iteration begins before this.
                    self._start = (update.snapshot_seq or 0, update.epoch)
                self.at = update.snapshot_seq or 0
                self._reset(update)
            case RunCaughtUp():
                self.caught_up = self.whole = True
        for reader in list(self._readers):
            reader.put(update, at=at)
            if isinstance(update, RunCaughtUp):
                reader.wake()
        if news:
            self._tell(update)

    def end(self, error: Exception | None) -> None:
        self.over = self.whole = True
        self.error = error
        self._tools.close()
        self._wake()

    def reread(self, *, since_seq: int, epoch: str | None) -> None:
        if self.at < 0:
            raise _left()
        self._line.reread(self, since_seq=since_seq, epoch=epoch)
        self.at, self.over = since_seq, False

    def passed(self, *, seq: int, epoch: str | None) -> None:
        self._line.passed(self.run_id, epoch=epoch or self._epoch, seq=seq)

    @property
    def _epoch(self) -> str | None:
        return self.view.cursor.epoch or (self.info.epoch if self.info is not None else None)

    def _reset(self, reset: RunReset) -> None:
        if reset.snapshot is None:
            return
        seen = self.view.cursor
        # One that answers a reading again from before says nothing new, and may be older than what was seen.
        if reset.epoch != seen.epoch or reset.reason == "ahead" or (reset.snapshot_seq or 0) > seen.seq:
            self.view = view_from_builtins(reset.snapshot)

    def _tell(self, update: Update) -> None:
        self._asks.look(self.view, live=self.caught_up)
        self._tools.look(live=self.caught_up)
        for listener in list(self._listeners):
            listener(update)
        self._moved.set()

    def _wake(self) -> None:
        self._moved.set()
        for reader in list(self._readers):
            reader.wake()

    async def _send(self, payload: CommandPayload) -> Receipt:
        return await self._line.send(payload, run_id=self.run_id)


def _left() -> Disconnected:
    return Disconnected(NORMAL, "this run is not followed any more")
