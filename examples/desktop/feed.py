"""The client, in a thread of its own, so that the window never waits for a network.

The window reads `shown`, the newest state of everything, as often as it draws: many changes between two looks are one.
What it asks for is done there; what is refused comes back through `refused`, with the text that was typed.
"""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from midstream.client import Approval, BadAddress, Client, Disconnected, Question, Run, State, connect
from midstream_protocol import ProtocolError
from midstream_protocol.errors import AlreadyResolved
from midstream_protocol.view import View

LOOK_EVERY_S: Final = 0.03
"""How often the state is made anew while text streams: a screen shows no more."""

CLOSE_TIMEOUT_S: Final = 3.0
"""For saying good-bye to the server when the window closes."""


class Shown(Struct, frozen=True, eq=False):
    """Made anew whenever anything changes, and never changed itself: both threads may hold it."""

    state: State = "connecting"
    why: str = ""
    view: View | None = None
    approvals: tuple[Approval, ...] = ()
    questions: tuple[Question, ...] = ()

    @property
    def running(self) -> bool:
        return self.view is not None and self.view.status in ("queued", "running", "waiting")


class Refused(Struct, frozen=True):
    why: str
    text: str = ""
    """What was typed, to be typed no second time."""


class Feed:
    """Follows one run at a time. Its methods return at once and may be called from any thread."""

    def __init__(self, url: str, *, token: str | None = None, run_id: str | None = None) -> None:
        self.shown = Shown()
        self.refused: queue.SimpleQueue[Refused] = queue.SimpleQueue()
        self._url = url
        self._token = token
        self._run_id = run_id
        self._client: Client | None = None
        self._run: Run | None = None
        self._following: Future[None] | None = None
        self._loop = asyncio.new_event_loop()
        self._life = self._loop.create_task(self._live())
        self._thread = threading.Thread(target=self._work, name="midstream feed", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """The connection ends. The run goes on at the server."""
        if self._thread.is_alive():
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._life.cancel)
            self._thread.join(CLOSE_TIMEOUT_S)

    # -- what a person does

    def say(self, text: str) -> None:
        """A correction while a run goes on; else a new run, in the same thread."""
        self._do(lambda client: self._say(client, text), text)

    def stop(self) -> None:
        self._do(lambda _: self._current().cancel(mode="now"))

    def answer(self, question: Question, text: str) -> None:
        self._do(lambda _: question.answer(_value(question, text)), text)

    def approve(self, approval: Approval) -> None:
        self._do(lambda _: approval.approve())

    def deny(self, approval: Approval, reason: str) -> None:
        self._do(lambda _: approval.deny(reason or None))

    # -- in the thread

    def _work(self) -> None:
        asyncio.set_event_loop(self._loop)
        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._life)
        self._loop.close()

    async def _live(self) -> None:
        try:
            async with connect(self._url, token=self._token, patient=True, on_state=self._on_state) as client:
                self._client = client
                if self._run_id is not None:
                    run_id = self._run_id
                    self._do(lambda client: self._attach(client, run_id))
                # Until it is cancelled.
                await self._loop.create_future()
        except (ProtocolError, Disconnected, BadAddress) as error:
            self._show(state="closed", why=str(error))
            self.refused.put(Refused(why=str(error)))
        finally:
            self._client = None
            left = asyncio.all_tasks() - {asyncio.current_task()}
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    def _on_state(self, state: State, why: str) -> None:
        self._show(state=state, why=why)

    def _show(self, **changes: Any) -> None:
        self.shown = replace(self.shown, **changes)

    def _do(self, act: Callable[[Client], Coroutine[Any, Any, object]], text: str = "") -> None:
        async def done() -> None:
            try:
                await act(self._connected())
            except AlreadyResolved as error:
                first = error.resolution or {}
                self.refused.put(Refused(why=f"Answered already: {first.get('decision')} by {first.get('by')}."))
            except (ProtocolError, Disconnected) as error:
                self.refused.put(Refused(why=str(error), text=text))

        work = done()
        try:
            asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:
            # The connection was refused for good, and its thread has ended.
            work.close()
            self.refused.put(Refused(why=self.shown.why or "The connection is closed.", text=text))

    async def _say(self, client: Client, text: str) -> None:
        if self._run is not None and not self._run.ended:
            await self._run.correct(text)
            return
        thread_id = self._run.view.thread_id if self._run is not None else None
        self._follow(await client.start(input=text, thread_id=thread_id or None))

    async def _attach(self, client: Client, run_id: str) -> None:
        self._follow(await client.attach(run_id))

    def _connected(self) -> Client:
        if self._client is None:
            raise Disconnected(1006, "There is no connection yet")
        return self._client

    def _current(self) -> Run:
        if self._run is None:
            raise Disconnected(1000, "There is no run to stop")
        return self._run

    def _follow(self, run: Run) -> None:
        self._run = run
        if self._following is not None:
            self._following.cancel()
        self._following = asyncio.run_coroutine_threadsafe(self._watch(run), self._loop)

    async def _watch(self, run: Run) -> None:
        view = run.view
        while True:
            self._show(view=view, approvals=run.approvals, questions=run.questions)
            if run.ended:
                return
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                view = await run.changed(view)
            except (ProtocolError, Disconnected) as error:
                self.refused.put(Refused(why=str(error)))
                return


def _value(question: Question, text: str) -> Any:
    """A text, or the JSON value that a schema may ask for."""
    if question.schema is None:
        return text
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
