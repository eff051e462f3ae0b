"""Tools that run in this program: a call that the run hands out is taken, run once, and answered."""

import asyncio
import contextlib
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

import msgspec

from midstream.client.errors import Disconnected
from midstream.logs import Logger
from midstream.tasks import spawn
from midstream.threads import in_thread
from midstream_protocol.commands import ClientTool, ToolError
from midstream_protocol.errors import Malformed, ProtocolError
from midstream_protocol.events import ToolRequested
from midstream_protocol.frames import Receipt
from midstream_protocol.limits import MAX_TEXT_CHARS
from midstream_protocol.view import View

Handler = Callable[[dict[str, Any], "ToolCall"], Any]
"""Gets the arguments and the call; its result is a JSON value, or awaitable. An exception is the call's failure, and
its text is told to the model. A plain function runs in a thread of its own, so it may block.
"""

_log = Logger("midstream.client")


class ToolSite(Protocol):
    """The run whose tools these are."""

    run_id: str
    view: View
    client_id: str
    caught_up: bool

    async def tool_result(
        self, tool_call_id: str, *, result: Any = None, error: ToolError | None = None
    ) -> Receipt: ...

    async def tool_progress(
        self, tool_call_id: str, *, text: str | None = None, fraction: float | None = None
    ) -> Receipt: ...

    def offer(self, client_tools: list[ClientTool]) -> None: ...


class ToolCall:
    """One call, to its handler."""

    def __init__(self, said: ToolRequested, run_id: str, report: Callable[[str | None, float | None], object]) -> None:
        self.tool_call_id: Final = said.tool_call_id
        self.tool: Final = said.tool
        self.label: Final = said.label
        self.run_id: Final = run_id
        self.ended = False
        """It is over without this handler: cancelled, expired, or the run has ended. An awaiting handler is cancelled
        then; one in a thread should look now and then.
        """
        self._report = report

    def progress(self, *, text: str | None = None, fraction: float | None = None) -> None:
        """A sign of work, shown with the call; `fraction` of 0 to 1. From any thread; it does not wait."""
        self._report(text, fraction)


class _Running:
    def __init__(self, call: ToolCall) -> None:
        self.call = call
        self.task: asyncio.Task[None] | None = None
        self.reporting = False
        self.newest: tuple[str | None, float | None] | None = None


class LocalTools:
    """Those of one run. `tasks` are whoever's ends them with the client."""

    def __init__(self, site: ToolSite, *, tasks: set[asyncio.Task[None]]) -> None:
        self._site = site
        self._tasks = tasks
        self._handlers: dict[str, tuple[ClientTool, Handler]] = {}
        self._offered: set[str] = set()
        self._taken: set[str] = set()
        """Every call that was begun here: a call comes again after a reconnect, and is never run twice."""
        self._running: dict[str, _Running] = {}

    def offered(self, client_tools: list[ClientTool]) -> None:
        """These were offered with the start or the attach."""
        self._offered = {tool.name for tool in client_tools}

    def register(self, tool: ClientTool, handler: Handler) -> Callable[[], None]:
        """Raises ValueError for a name that is registered."""
        if tool.name in self._handlers:
            raise ValueError(f"the tool {tool.name} is registered already; unregister it first")
        self._handlers[tool.name] = (tool, handler)
        if tool.name not in self._offered:
            self._offer()
        # One that was offered before may have been called already.
        self.look(live=self._site.caught_up)

        def unregister() -> None:
            if self._handlers.get(tool.name) == (tool, handler):
                del self._handlers[tool.name]
                self._offer()

        return unregister

    def look(self, *, live: bool) -> None:
        """After a change of the view. Until it is `live` again, what seems open may have been answered long ago."""
        if not (self._handlers or self._running):
            return
        requested = {item["tool_call_id"]: item for item in self._site.view.pending if item.get("kind") == "tool"}
        for call_id in self._running.keys() - requested.keys():
            self._end(call_id)
        if not live:
            return
        for call_id, item in requested.items():
            mine = item.get("client_id") == self._site.client_id and item.get("tool") in self._handlers
            if mine and call_id not in self._taken:
                self._begin(msgspec.convert(item, ToolRequested))

    def close(self) -> None:
        for call_id in list(self._running):
            self._end(call_id)

    def _offer(self) -> None:
        tools = [tool for tool, _ in self._handlers.values()]
        self._offered = {tool.name for tool in tools}
        self._site.offer(tools)

    def _begin(self, said: ToolRequested) -> None:
        self._taken.add(said.tool_call_id)
        _, handler = self._handlers[said.tool]
        loop = asyncio.get_running_loop()

        def report(text: str | None, fraction: float | None) -> None:
            # The loop may be gone when a thread that nobody could stop speaks for the last time.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._progress, running, text, fraction)

        running = _Running(ToolCall(said, self._site.run_id, report))
        self._running[said.tool_call_id] = running
        running.task = self._task(self._run(running, handler, said), f"client:tool/{said.tool_call_id}")

    def _task(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = spawn(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _end(self, call_id: str) -> None:
        running = self._running.pop(call_id)
        running.call.ended = True
        if running.task is not None:
            running.task.cancel()

    async def _run(self, running: _Running, handler: Handler, said: ToolRequested) -> None:
        call_id = said.tool_call_id
        try:
            result, error = await _outcome(handler, said.args, running.call)
            if not running.call.ended:
                await self._answer(call_id, result, error)
        except (ProtocolError, Disconnected) as refused:
            # Somebody else ended the call, or nobody is there to be told.
            _log.info("a tool's result was not taken", tool=said.tool, error=str(refused))
        finally:
            self._running.pop(call_id, None)

    async def _answer(self, call_id: str, result: Any, error: ToolError | None) -> None:
        try:
            await self._site.tool_result(call_id, result=result, error=error)
        except Malformed as refused:
            # Too large, too deep: the call is still open, and its run would wait until it expires.
            said = ToolError(code=refused.code, text=_short(f"The result cannot be sent: {refused.text}"))
            await self._site.tool_result(call_id, error=said)

    def _progress(self, running: _Running, text: str | None, fraction: float | None) -> None:
        running.newest = (text, fraction)
        if not (running.reporting or running.call.ended):
            running.reporting = True
            self._task(self._tell(running), f"client:tool/{running.call.tool_call_id}/progress")

    async def _tell(self, running: _Running) -> None:
        """One report at a time, and always the newest: a tool may say more than the network takes."""
        try:
            while running.newest is not None and not running.call.ended:
                (text, fraction), running.newest = running.newest, None
                await self._site.tool_progress(running.call.tool_call_id, text=text, fraction=fraction)
        except (ProtocolError, Disconnected) as refused:
            _log.info("a tool's progress was not taken", tool=running.call.tool, error=str(refused))
        finally:
            running.reporting = False


async def _outcome(handler: Handler, args: dict[str, Any], call: ToolCall) -> tuple[Any, ToolError | None]:
    try:
        if inspect.iscoroutinefunction(handler):
            result = await handler(args, call)
        else:
            result = await in_thread(lambda: handler(args, call), name=f"client:tool/{call.tool_call_id}")
            if inspect.isawaitable(result):
                result = await result
        # Whether it can be sent is part of whether it went well.
        msgspec.json.encode(result)
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        # Of something that the handler waited for: nobody cancelled the call, and its run waits.
        return None, _failed(call, error)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a handler raises is the outcome of its call
        return None, _failed(call, error)
    return result, None


def _failed(call: ToolCall, error: BaseException) -> ToolError:
    _log.warning("a tool of this program failed", tool=call.tool, exc_info=error)
    return ToolError(code="tool_error", text=_short(str(error) or type(error).__name__))


def _short(text: str) -> str:
    return text if len(text) <= MAX_TEXT_CHARS else f"{text[: MAX_TEXT_CHARS - 1]}…"
