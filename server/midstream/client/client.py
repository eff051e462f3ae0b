"""The way in: `connect`, and the client that follows any number of runs over one connection."""

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final, Literal

from midstream.client.actions import Action, Adopt, Answer, Deliver, Detached, State
from midstream.client.address import Address
from midstream.client.asks import Approval
from midstream.client.connection import Connection
from midstream.client.core import ClientCore
from midstream.client.credentials import Credentials, GetToken
from midstream.client.cursor import Replay
from midstream.client.cursors import Cursors
from midstream.client.errors import refusal
from midstream.client.rest import Rest
from midstream.client.run import Run
from midstream.client.tools import Handler
from midstream.client.transports import Transport, Wanted
from midstream.client.updates import Update
from midstream.clock import Clock, SystemClock
from midstream.tasks import stop
from midstream_protocol.commands import (
    CancelAfter,
    ClientTool,
    Command,
    CommandPayload,
    InputBlock,
    ResumeFrom,
    RunLimits,
    RunStart,
    Webhook,
)
from midstream_protocol.frames import ConnectionReady, Receipt
from midstream_protocol.ids import new_id

MAX_MADE: Final = 256
"""Runs that ended before whoever made them asked for them: kept for that long."""


@contextlib.asynccontextmanager
async def connect(
    url: str,
    *,
    token: str | None = None,
    get_token: GetToken | None = None,
    client_id: str | None = None,
    transport: Wanted = "auto",
    cursors: str | os.PathLike[str] | None = None,
    on_state: Callable[[State, str], None] | None = None,
    patient: bool = False,
    clock: Clock | None = None,
) -> AsyncIterator["Client"]:
    """A client that is connected, and stays so: it reconnects and resumes by itself until it is left.

    `get_token` is called for every attempt to connect and every request; `token` is a fixed one. `client_id` should be
    stable for what it stands for (a window, a program): it names the client in events and hosts its tools.
    `transport`: `auto` is a WebSocket, or HTTP streams and requests where WebSockets do not get through. `cursors` is
    a file: a program that is started again and attaches to a run goes on with the events it has not seen. `on_state`
    is called with each new state and why. `patient`: wait for a server that is not there yet.
    Raises `Unreachable`, `Unauthorized`, `BadAddress`.
    """
    client = Client(
        Address(url),
        credentials=Credentials(token, get_token),
        client_id=client_id or new_id("client"),
        transport=transport,
        cursors=cursors,
        on_state=on_state,
        patient=patient,
        clock=clock or SystemClock(),
    )
    try:
        await client.open()
        yield client
    finally:
        await client.aclose()


class Client:
    """One connection to a server, following any number of runs."""

    def __init__(
        self,
        address: Address,
        *,
        credentials: Credentials,
        client_id: str,
        transport: Wanted,
        cursors: str | os.PathLike[str] | None,
        on_state: Callable[[State, str], None] | None,
        patient: bool,
        clock: Clock,
    ) -> None:
        self.client_id = client_id
        self.rest = Rest(address, credentials=credentials, clock=clock)
        self.tasks: set[asyncio.Task[None]] = set()
        """Of the tools that run here."""
        self._clock = clock
        self._cursors = Cursors(cursors, clock=clock) if cursors is not None else None
        self._core = ClientCore(
            new_id=lambda: new_id("cmd"),
            fraction=random.random,
            patient=patient,
            renewable=credentials.renewable,
            transport=transport,
        )
        self._connection = Connection(
            self._core,
            address,
            client_id=client_id,
            credentials=credentials,
            clock=clock,
            on_action=self._act,
            on_state=on_state,
            on_failed=self._failed,
        )
        self._runs: dict[str, Run] = {}
        self._made: dict[str, Run] = {}
        self._receipts: dict[str, asyncio.Future[Receipt]] = {}
        self._attaching: dict[str, asyncio.Future[None]] = {}

    # -- life

    async def open(self) -> None:
        """Until the first connection is ready. Raises why there is none."""
        await self._connection.open()

    async def aclose(self) -> None:
        await self._connection.aclose()
        await stop(*self.tasks)
        await self.rest.aclose()
        if self._cursors is not None:
            self._cursors.write()

    @property
    def state(self) -> State:
        return self._core.state

    @property
    def transport(self) -> Transport:
        """Of this connection, or of the next attempt."""
        return self._core.transport

    @property
    def server(self) -> ConnectionReady | None:
        """What the server said of itself on the newest connection."""
        return self._core.server

    def reconnect(self) -> None:
        """Now, instead of waiting: the program knows that the network is another, or back."""
        self._connection.reconnect()

    # -- runs

    @property
    def runs(self) -> tuple[Run, ...]:
        """Those that are followed."""
        return tuple(self._runs.values())

    @property
    def approvals(self) -> tuple[Approval, ...]:
        """What waits for a yes or no in them."""
        return tuple(approval for run in self._runs.values() for approval in run.approvals)

    async def start(
        self,
        *,
        input: str | list[InputBlock] | None = None,  # noqa: A002 - the protocol's name
        agent: str | None = None,
        run_id: str | None = None,
        thread_id: str | None = None,
        if_busy: Literal["reject", "queue", "correct", "parallel"] | None = None,
        resume: ResumeFrom | None = None,
        tools: Mapping[str, Handler] | None = None,
        client_tools: list[ClientTool] | None = None,
        limits: RunLimits | None = None,
        on_abandon: Literal["continue", "pause"] | CancelAfter | None = None,
        on_lag: Literal["continue", "pause"] | None = None,
        webhook: Webhook | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> Run:
        """Start a run and follow it; with `resume`, go on with one that failed.

        `tools` run in this program: see `Run.register_tool`. `client_tools` says more of them than their names (a
        description and a schema for one that the agent does not declare), or of tools whose calls you answer yourself
        (`Run.tool_result`). Raises the refusal (`unknown_agent`, `busy`, …) or `Disconnected`.
        """
        offered = _offered(tools, client_tools)
        payload = RunStart(
            input=input,
            agent=agent,
            run_id=run_id,
            thread_id=thread_id,
            if_busy=if_busy,
            resume=resume,
            client_tools=offered,
            limits=limits,
            on_abandon=on_abandon,
            on_lag=on_lag,
            webhook=webhook,
            metadata=metadata,
        )
        receipt = await self.send(payload, run_id=None)
        run = self.run(receipt.run_id or "")
        _register(run, tools, offered)
        return run

    async def attach(
        self,
        run_id: str,
        *,
        since_seq: int | None = None,
        epoch: str | None = None,
        replay: Replay = "full",
        tools: Mapping[str, Handler] | None = None,
        client_tools: list[ClientTool] | None = None,
    ) -> Run:
        """Follow a run that exists; the same `Run` when it is followed already.

        Its iterations begin after `since_seq` (default: what `cursors` remembers, else the beginning). Its view is
        always of the whole run. `replay`: `merged` joins deltas of the past, `snapshot` leaves the past out of the
        iterations. Raises `NotFound`.
        """
        offered = _offered(tools, client_tools)
        if (run := self._runs.get(run_id)) is not None:
            _register(run, tools, None)
            return run
        if since_seq is None:
            known = self._cursors.get(run_id) if self._cursors is not None else None
            epoch, since_seq = known if known is not None else (epoch, 0)
        run = Run(run_id, self, clock=self._clock, since_seq=since_seq, epoch=epoch)
        self._runs[run_id] = run
        attached = self._attaching[run_id] = asyncio.get_running_loop().create_future()
        if since_seq > 0:
            replay = "snapshot"
        self._perform(self._core.attach(run_id, replay=replay, client_tools=offered))
        try:
            self._check()
            await attached
        except BaseException:
            self.leave(run_id)
            raise
        finally:
            self._attaching.pop(run_id, None)
        _register(run, tools, offered)
        return run

    def run(self, run_id: str) -> Run:
        """The run of that id which this client follows, or which a command of it just made. Raises KeyError."""
        # A short run may be over before its maker asks for it.
        return self._made.pop(run_id, None) or self._runs[run_id]

    # -- what runs need

    async def send(self, payload: CommandPayload, *, run_id: str | None) -> Receipt:
        """One command; its receipt. Sent again after a reconnect under the same id. Raises the refusal."""
        self._check()
        command = Command(type=payload.TYPE, command_id=new_id("cmd"), payload=payload, run_id=run_id)
        waiter: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        self._receipts[command.command_id] = waiter
        try:
            self._perform(self._core.command(command))
            receipt = await waiter
        finally:
            self._receipts.pop(command.command_id, None)
        if receipt.status == "rejected":
            raise refusal(receipt)
        return receipt

    def reread(self, run: Run, *, since_seq: int, epoch: str | None) -> None:
        self._check()
        self._runs[run.run_id] = run
        self._perform(self._core.reread(run.run_id, since_seq=since_seq, epoch=epoch))

    def offer(self, run_id: str, client_tools: list[ClientTool]) -> None:
        self._perform(self._core.offer(run_id, client_tools))

    def leave(self, run_id: str) -> None:
        self._runs.pop(run_id, None)
        self._perform(self._core.detach(run_id))

    def passed(self, run_id: str, *, epoch: str | None, seq: int) -> None:
        if self._cursors is None or epoch is None:
            return
        known = self._cursors.get(run_id)
        if known is None or known[0] != epoch or known[1] < seq:
            self._cursors.put(run_id, epoch=epoch, seq=seq)

    def _check(self) -> None:
        if self._connection.error is not None:
            raise self._connection.error

    # -- what the core decided

    def _perform(self, actions: list[Action]) -> None:
        self._connection.perform(actions)

    def _act(self, action: Action) -> None:
        match action:
            case Deliver(run_id, update):
                self._deliver(run_id, update)
            case Answer(command_id, receipt):
                waiter = self._receipts.get(command_id)
                if waiter is not None and not waiter.done():
                    waiter.set_result(receipt)
            case Adopt(run_id):
                run = self._runs.get(run_id) or Run(run_id, self, clock=self._clock)
                self._runs[run_id] = self._made[run_id] = run
                while len(self._made) > MAX_MADE:
                    del self._made[next(iter(self._made))]
            case Detached(run_id, error):
                self._detached(run_id, error)

    def _deliver(self, run_id: str, update: Update) -> None:
        run = self._runs.get(run_id)
        if run is None:
            return
        run.put(update)
        attached = self._attaching.get(run_id)
        if attached is not None and not attached.done():
            attached.set_result(None)

    def _detached(self, run_id: str, error: Exception | None) -> None:
        run = self._runs.pop(run_id, None)
        if run is None:
            return
        run.end(error)
        attached = self._attaching.get(run_id)
        if error is not None and attached is not None and not attached.done():
            attached.set_exception(error)

    def _failed(self, error: Exception) -> None:
        for run in self._runs.values():
            run.end(error)
        self._runs.clear()
        waiters: list[asyncio.Future[Any]] = [*self._receipts.values(), *self._attaching.values()]
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(error)
                # Its owner may have been cancelled meanwhile; then nobody is left to be surprised.
                waiter.exception()


def _offered(tools: Mapping[str, Handler] | None, client_tools: list[ClientTool] | None) -> list[ClientTool] | None:
    if not tools:
        return client_tools
    said = list(client_tools or ())
    names = {tool.name for tool in said}
    return said + [ClientTool(name=name) for name in tools if name not in names]


def _register(run: Run, tools: Mapping[str, Handler] | None, offered: list[ClientTool] | None) -> None:
    """The handlers of tools that were `offered` with the command already."""
    run.offered(offered or [])
    said = {tool.name: tool for tool in offered or ()}
    for name, handler in (tools or {}).items():
        run.register_tool(said.get(name, name), handler)
