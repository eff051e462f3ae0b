"""The I/O around `core`: one task keeps one WebSocket to the server, and makes a new one whenever that ends.

The library's own reconnecting is not used: when to come back, and with what, is the core's to decide.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, Literal

import structlog
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from midstream.client.actions import (
    Action,
    Adopt,
    Answer,
    Changed,
    Deliver,
    Detached,
    Drop,
    Failed,
    Reconnect,
    Send,
    State,
    Warned,
)
from midstream.client.address import Address
from midstream.client.core import ClientCore
from midstream.client.errors import Unreachable, refusal
from midstream.client.opening import CLOSE_TIMEOUT_S, open_socket
from midstream.client.rest import Rest
from midstream.client.run import Run
from midstream.clock import Clock, SystemClock
from midstream.tasks import spawn, stop
from midstream_protocol.commands import (
    CancelAfter,
    ClientTool,
    Command,
    CommandPayload,
    InputBlock,
    ResumeFrom,
    RunLimits,
    RunStart,
)
from midstream_protocol.frames import ConnectionReady, Receipt
from midstream_protocol.ids import new_id

_LOST: Final = 1006

_log = structlog.get_logger("midstream.client")


@contextlib.asynccontextmanager
async def connect(
    url: str,
    *,
    token: str | None = None,
    client_id: str | None = None,
    on_state: Callable[[State, str], None] | None = None,
    patient: bool = False,
    clock: Clock | None = None,
) -> AsyncIterator["Client"]:
    """A client that is connected, and stays so: it reconnects and resumes by itself until it is left.

    `client_id` should be stable for what it stands for (a window, a program): it names the client in events and hosts
    its tools. `on_state` is called with each new state and why. `patient`: wait for a server that is not there yet.
    Raises `Unreachable`, `Unauthorized`, `BadAddress`.
    """
    client = Client(
        Address(url),
        token=token,
        client_id=client_id or new_id("client"),
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
        token: str | None,
        client_id: str,
        on_state: Callable[[State, str], None] | None,
        patient: bool,
        clock: Clock,
    ) -> None:
        self.client_id = client_id
        self.rest = Rest(address, token=token, clock=clock)
        self._address = address
        self._token = token
        self._on_state = on_state
        self._clock = clock
        self._core = ClientCore(new_id=lambda: new_id("cmd"), fraction=random.random, patient=patient)
        self._runs: dict[str, Run] = {}
        self._made: dict[str, Run] = {}
        self._receipts: dict[str, asyncio.Future[Receipt]] = {}
        self._attaching: dict[str, asyncio.Future[None]] = {}
        self._usable = asyncio.Event()
        self._error: Exception | None = None
        self._outbox: asyncio.Queue[bytes] = asyncio.Queue()
        self._dropped = asyncio.Event()
        self._drop_code = _LOST
        self._delay_s = 0.0
        self._disarm: Callable[[], None] | None = None
        self._task: asyncio.Task[None] | None = None

    # -- life

    async def open(self) -> None:
        """Until the first connection is ready. Raises why there is none."""
        self._task = spawn(self._keep(), name=f"client:{self.client_id}/connection")
        await self._usable.wait()
        if self._error is not None:
            raise self._error

    async def aclose(self) -> None:
        connected = self.state == "ready"
        self._perform(self._core.close())
        if self._task is not None and connected:
            await asyncio.wait([self._task], timeout=CLOSE_TIMEOUT_S)
        await stop(self._task)
        await self.rest.aclose()

    @property
    def state(self) -> State:
        return self._core.state

    @property
    def server(self) -> ConnectionReady | None:
        """What the server said of itself on the newest connection."""
        return self._core.server

    # -- runs

    async def start(
        self,
        *,
        input: str | list[InputBlock] | None = None,  # noqa: A002 - the protocol's name
        agent: str | None = None,
        run_id: str | None = None,
        thread_id: str | None = None,
        if_busy: Literal["reject", "queue", "correct", "parallel"] | None = None,
        resume: ResumeFrom | None = None,
        client_tools: list[ClientTool] | None = None,
        limits: RunLimits | None = None,
        on_abandon: Literal["continue", "pause"] | CancelAfter | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> Run:
        """Start a run and follow it; with `resume`, go on with one that failed.

        Raises the refusal (`unknown_agent`, `busy`, …) or `Disconnected`.
        """
        payload = RunStart(
            input=input,
            agent=agent,
            run_id=run_id,
            thread_id=thread_id,
            if_busy=if_busy,
            resume=resume,
            client_tools=client_tools,
            limits=limits,
            on_abandon=on_abandon,
            metadata=metadata,
        )
        receipt = await self.send(payload, run_id=None)
        return self.run(receipt.run_id or "")

    async def attach(
        self,
        run_id: str,
        *,
        since_seq: int = 0,
        epoch: str | None = None,
        replay: Literal["full", "snapshot"] = "full",
        client_tools: list[ClientTool] | None = None,
    ) -> Run:
        """Follow a run that exists, from event `since_seq` + 1 on. Raises `NotFound`; ValueError if it is followed."""
        if run_id in self._runs:
            raise ValueError(f"run {run_id} is followed already; use the Run that start or attach returned")
        run = self._runs[run_id] = Run(run_id, self, epoch=epoch)
        attached = self._attaching[run_id] = asyncio.get_running_loop().create_future()
        self._perform(
            self._core.attach(run_id, since_seq=since_seq, epoch=epoch, replay=replay, client_tools=client_tools)
        )
        try:
            self._check()
            await attached
        except BaseException:
            self.leave(run_id)
            raise
        finally:
            self._attaching.pop(run_id, None)
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

    def pause(self, run_id: str) -> None:
        self._perform(self._core.pause(run_id))

    def resume(self, run_id: str) -> None:
        self._perform(self._core.resume(run_id))

    def offer(self, run_id: str, client_tools: list[ClientTool]) -> None:
        self._perform(self._core.offer(run_id, client_tools))

    def leave(self, run_id: str) -> None:
        self._runs.pop(run_id, None)
        self._perform(self._core.detach(run_id))

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    # -- what the core decided

    def _perform(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Send(data):
                    self._outbox.put_nowait(data)
                case Drop(code):
                    self._drop_code = code
                    self._dropped.set()
                case Deliver(run_id, update):
                    self._deliver(run_id, update)
                case Answer(command_id, receipt):
                    waiter = self._receipts.get(command_id)
                    if waiter is not None and not waiter.done():
                        waiter.set_result(receipt)
                case Adopt(run_id):
                    run = self._runs.get(run_id) or Run(run_id, self)
                    self._runs[run_id] = self._made[run_id] = run
                case Detached(run_id, error):
                    self._detached(run_id, error)
                case Changed(state, reason):
                    self._changed(state, reason)
                case Reconnect(delay_s):
                    self._delay_s = delay_s
                case Warned(text):
                    _log.warning("refused by the server", text=text)
                case Failed(error):
                    self._failed(error)

    def _deliver(self, run_id: str, update: Any) -> None:
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

    def _changed(self, state: State, reason: str) -> None:
        if state == "ready":
            self._usable.set()
        if self._on_state is not None:
            self._on_state(state, reason)

    def _failed(self, error: Exception) -> None:
        self._error = error
        self._usable.set()
        for run in self._runs.values():
            run.end(error)
        self._runs.clear()
        waiters: list[asyncio.Future[Any]] = [*self._receipts.values(), *self._attaching.values()]
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(error)
                # Its owner may have been cancelled meanwhile; then nobody is left to be surprised.
                waiter.exception()

    # -- the socket

    async def _keep(self) -> None:
        try:
            while True:
                await self._connection()
                if self.state == "closed":
                    return
                await self._clock.sleep(self._delay_s)
        except Exception as defect:
            # Ours, or of `on_state`: nobody may wait for a connection that nobody keeps.
            self._failed(defect)
            raise

    async def _connection(self) -> None:
        """One connection, from the upgrade to its end."""
        self._outbox = asyncio.Queue()
        self._dropped.clear()
        try:
            socket = await open_socket(self._address, client_id=self.client_id, token=self._token)
        except Unreachable as error:
            self._perform(self._core.unreachable(error))
            return
        self._perform(self._core.opened(now=self._clock.monotonic()))
        self._arm()
        reader = spawn(self._read(socket), name=f"client:{self.client_id}/reader")
        writer = spawn(self._write(socket), name=f"client:{self.client_id}/writer")
        dropped = spawn(self._dropped.wait(), name=f"client:{self.client_id}/drop")
        try:
            await asyncio.wait([reader, dropped], return_when=asyncio.FIRST_COMPLETED)
            code, reason = reader.result() if reader.done() else (self._drop_code, "")
        finally:
            if self._disarm is not None:
                self._disarm()
                self._disarm = None
            await stop(reader, writer, dropped)
            await self._end(socket)
        self._perform(self._core.closed(code, reason, now=self._clock.monotonic()))

    async def _read(self, socket: ClientConnection) -> tuple[int, str]:
        """Feed the core until the socket ends; its close code and reason."""
        try:
            while True:
                data = await socket.recv()
                self._perform(self._core.received(data, now=self._clock.monotonic()))
                self._arm()
        except ConnectionClosed:
            return socket.close_code or _LOST, socket.close_reason or ""

    async def _write(self, socket: ClientConnection) -> None:
        with contextlib.suppress(ConnectionClosed):  # the reader reports it
            while True:
                await socket.send(await self._outbox.get(), text=True)

    async def _end(self, socket: ClientConnection) -> None:
        """A closing handshake if that was our wish, else the plain end: the other side does not answer any more."""
        if self.state == "closed" and self._drop_code != _LOST:
            await socket.close(self._drop_code)
        else:
            socket.transport.abort()

    def _arm(self) -> None:
        """One timer, set anew only when it rings: frames come far more often than silence."""
        if self._disarm is not None or (due := self._core.wake_at) is None:
            return
        self._disarm = self._clock.call_later(due - self._clock.monotonic(), self._ring)

    def _ring(self) -> None:
        self._disarm = None
        self._perform(self._core.tick(now=self._clock.monotonic()))
        self._arm()
