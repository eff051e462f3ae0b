"""The client for programs without an event loop, and for notebooks: the same names, and each call waits.

    from midstream.client.sync import connect

    with connect("http://127.0.0.1:8484") as client:
        run = client.start(input="Please refund order 17.")
        for event in run:
            ...

One thread holds the event loop in which the async client lives, so connections are kept and tools run while this
program does something else. It also works where a loop is running already, as in a notebook.
"""

import functools
import inspect
import os
import time
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from midstream.client import asks
from midstream.client import client as aio
from midstream.client import run as aio_run
from midstream.client.actions import State
from midstream.client.credentials import GetToken
from midstream.client.display import as_html, as_markdown
from midstream.client.portal import Portal
from midstream.client.rest import Rest as AsyncRest
from midstream.client.screen import DRAW_EVERY_S, screen
from midstream.client.tools import Handler, ToolCall
from midstream.client.transports import Transport, Wanted
from midstream.client.updates import Received, Update
from midstream_protocol.commands import ClientTool
from midstream_protocol.events import Event
from midstream_protocol.frames import ConnectionReady, RunAttached
from midstream_protocol.view import View

P = ParamSpec("P")
R = TypeVar("R")

__all__ = ["Approval", "Client", "Question", "Rest", "Run", "ToolCall", "connect"]


def _waits(method: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]) -> Callable[Concatenate[Any, P], R]:
    """The method of the async object, called in its loop, and waited for."""

    @functools.wraps(method)
    def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
        portal: Portal = self._portal
        return portal.call(method(self._inner, *args, **kwargs))

    return call


def _gives_run(
    method: Callable[Concatenate[Any, P], Coroutine[Any, Any, aio_run.Run]],
) -> Callable[Concatenate["Client", P], "Run"]:
    @functools.wraps(method)
    def call(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> "Run":
        return self._run(self._portal.call(method(self._inner, *args, **kwargs)))

    return call


def connect(
    url: str,
    *,
    token: str | None = None,
    get_token: GetToken | None = None,
    client_id: str | None = None,
    transport: Wanted = "auto",
    cursors: str | os.PathLike[str] | None = None,
    on_state: Callable[[State, str], None] | None = None,
    patient: bool = False,
) -> "Client":
    """A client that is connected, and stays so until it is closed or its `with` is left.

    The options are those of `midstream.client.connect`. `get_token` and `on_state` are called in the client's own
    thread: they must not use this client. Raises `Unreachable`, `Unauthorized`, `BadAddress`.
    """
    portal = Portal("midstream client")
    opening = aio.connect(
        url,
        token=token,
        get_token=get_token,
        client_id=client_id,
        transport=transport,
        cursors=cursors,
        on_state=on_state,
        patient=patient,
    )
    try:
        inner = portal.call(opening.__aenter__())
    except BaseException:
        portal.close()
        raise
    return Client(portal, inner, opening)


class Client:
    """See `midstream.client.Client`. Its methods may be called from any thread."""

    def __init__(self, portal: Portal, inner: aio.Client, opened: AbstractAsyncContextManager[aio.Client]) -> None:
        self.rest = Rest(portal, inner.rest)
        self._portal = portal
        self._inner = inner
        self._opened = opened
        # By identity: an ended run that is attached again is another object.
        self._runs: weakref.WeakValueDictionary[int, Run] = weakref.WeakValueDictionary()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """The connection ends; runs go on. Calling it again does nothing."""
        if self._portal.alive:
            try:
                self._portal.call(_left(self._opened))
            finally:
                self._portal.close()

    @property
    def client_id(self) -> str:
        return self._inner.client_id

    @property
    def state(self) -> State:
        return self._inner.state

    @property
    def transport(self) -> Transport:
        return self._inner.transport

    @property
    def server(self) -> ConnectionReady | None:
        return self._inner.server

    @property
    def runs(self) -> "tuple[Run, ...]":
        """Those that are followed."""
        return tuple(self._run(run) for run in self._inner.runs)

    @property
    def approvals(self) -> "tuple[Approval, ...]":
        """What waits for a yes or no in them."""
        return tuple(approval for run in self.runs for approval in run.approvals)

    def reconnect(self) -> None:
        """Now, instead of waiting: the program knows that the network is another, or back."""
        self._portal.call(_made(self._inner.reconnect))

    start = _gives_run(aio.Client.start)
    attach = _gives_run(aio.Client.attach)

    def run(self, run_id: str) -> "Run":
        """The run of that id which this client follows, or which a command of it just made. Raises KeyError."""
        return self._run(self._inner.run(run_id))

    def _run(self, inner: aio_run.Run) -> "Run":
        known = self._runs.get(id(inner))
        if known is None:
            known = self._runs[id(inner)] = Run(self._portal, inner)
        return known


class Run:
    """See `midstream.client.Run`. Iterate it for its events; each `for` has a place of its own."""

    def __init__(self, portal: Portal, inner: aio_run.Run) -> None:
        self._portal = portal
        self._inner = inner
        self._approvals: dict[asks.Approval, Approval] = {}
        self._questions: dict[asks.Question, Question] = {}

    def __repr__(self) -> str:
        return repr(self._inner)

    def _repr_html_(self) -> str:
        return as_html(self.view)

    def _repr_markdown_(self) -> str:
        return as_markdown(self.view)

    @property
    def run_id(self) -> str:
        return self._inner.run_id

    @property
    def view(self) -> View:
        return self._inner.view

    @property
    def info(self) -> RunAttached | None:
        return self._inner.info

    @property
    def ended(self) -> bool:
        return self._inner.ended

    @property
    def caught_up(self) -> bool:
        return self._inner.caught_up

    @property
    def approvals(self) -> "tuple[Approval, ...]":
        """The open ones, oldest first; each is the same object for as long as it is open."""
        known = self._approvals
        self._approvals = {each: known.get(each) or Approval(self._portal, each) for each in self._inner.approvals}
        return tuple(self._approvals.values())

    @property
    def questions(self) -> "tuple[Question, ...]":
        """The open ones, oldest first; each is the same object for as long as it is open."""
        known = self._questions
        self._questions = {each: known.get(each) or Question(self._portal, each) for each in self._inner.questions}
        return tuple(self._questions.values())

    def __iter__(self) -> Iterator[Event]:
        for update in self.updates():
            if isinstance(update, Received):
                yield update.event

    def updates(self) -> Iterator[Update]:
        """Events with the text they came as, and what happened to the attachment. Raises why it ended early."""
        reader = self._portal.call(_made(self._inner.updates))
        while (update := self._portal.call(_next(reader))) is not None:
            yield update

    def show(self) -> None:
        """Draw the run as it goes on, in this notebook or terminal, until it has ended or waits for a person.

        Then answer (`run.approvals`, `run.questions`) and call it again. An interrupt ends the drawing, not the run.
        """
        with screen() as draw:
            while True:
                drawn = self.view
                draw(drawn)
                if _needs_nobody_to_watch(self._inner):
                    return
                time.sleep(DRAW_EVERY_S)
                self._portal.call(self._inner.until(lambda run: run.view is not drawn or _needs_nobody_to_watch(run)))  # noqa: B023 - it is waited for here

    wait = _waits(aio_run.Run.wait)
    until = _waits(aio_run.Run.until)
    changed = _waits(aio_run.Run.changed)
    cancel = _waits(aio_run.Run.cancel)
    correct = _waits(aio_run.Run.correct)
    revoke = _waits(aio_run.Run.revoke)
    approve = _waits(aio_run.Run.approve)
    deny = _waits(aio_run.Run.deny)
    answer = _waits(aio_run.Run.answer)
    tool_result = _waits(aio_run.Run.tool_result)
    tool_progress = _waits(aio_run.Run.tool_progress)

    def register_tool(self, tool: str | ClientTool, handler: Handler) -> Callable[[], None]:
        """See `midstream.client.Run.register_tool`: a plain function runs in a thread of its own."""
        unregister = self._portal.call(_made(self._inner.register_tool, tool, handler))
        return lambda: self._portal.call(_made(unregister))

    def detach(self) -> None:
        """Follow it no longer. The run goes on."""
        self._portal.call(_made(self._inner.detach))


def _needs_nobody_to_watch(run: aio_run.Run) -> bool:
    return run.ended or (run.caught_up and bool(run.approvals or run.questions))


class Approval:
    """See `midstream.client.Approval`."""

    def __init__(self, portal: Portal, inner: asks.Approval) -> None:
        self.id = inner.id
        self.run_id = inner.run_id
        self.call_id = inner.call_id
        self.tool = inner.tool
        self.label = inner.label
        self.reason = inner.reason
        self.risk = inner.risk
        self.args = inner.args
        self.args_schema = inner.args_schema
        self.args_digest = inner.args_digest
        self.editable = inner.editable
        self.preview = inner.preview
        self.decisions = inner.decisions
        self.remember_scopes = inner.remember_scopes
        self.on_expire = inner.on_expire
        self.expires_at: datetime = inner.expires_at
        self._portal = portal
        self._inner = inner

    def __repr__(self) -> str:
        return repr(self._inner)

    approve = _waits(asks.Approval.approve)
    edit = _waits(asks.Approval.edit)
    deny = _waits(asks.Approval.deny)


class Question:
    """See `midstream.client.Question`."""

    def __init__(self, portal: Portal, inner: asks.Question) -> None:
        self.id = inner.id
        self.run_id = inner.run_id
        self.question = inner.question
        self.schema = inner.schema
        self.choices = inner.choices
        self.expires_at: datetime = inner.expires_at
        self._portal = portal
        self._inner = inner

    def __repr__(self) -> str:
        return repr(self._inner)

    answer = _waits(asks.Question.answer)


class Rest:
    """`midstream.client.Rest`: each of its methods under the same name, waited for; what it streams is iterated."""

    def __init__(self, portal: Portal, inner: AsyncRest) -> None:
        self._portal = portal
        self._inner = inner

    def __dir__(self) -> list[str]:
        return [name for name in dir(self._inner) if not name.startswith("_") and name != "aclose"]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "aclose":
            raise AttributeError(name)
        method = getattr(self._inner, name)

        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            made = method(*args, **kwargs)
            return self._portal.call(made) if inspect.iscoroutine(made) else self._iterated(made)

        return call

    def _iterated(self, made: AsyncGenerator[Any]) -> Iterator[Any]:
        try:
            while (item := self._portal.call(_next(made))) is not None:
                yield item
        finally:
            self._portal.call(made.aclose())


async def _made(act: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Something of the async client that does not wait, done where nothing else of it runs meanwhile."""
    return act(*args, **kwargs)


async def _left(opened: AbstractAsyncContextManager[Any]) -> None:
    await opened.__aexit__(None, None, None)


async def _next(items: AsyncIterator[R]) -> R | None:
    return await anext(items, None)
