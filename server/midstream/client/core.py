"""One connection to many runs, without I/O: what arrives goes in with the time, what is to be done comes out.

Rules a reviewer can reject on:

1. Nothing is sent before `connection.ready`, and never more unanswered commands than the server allows.
2. An event is delivered once, in order: the one after the cursor. Older ones are dropped; a hole means attach again.
3. Between an attach and its `run.attached` nothing of that run counts: it belongs to the attachment before.
4. A remembered command is sent on every connection, and again on this one, until its receipt has come, always under
   the same id.
5. A connection's own commands (attach, detach, offer) are made anew for the next connection, never sent again.
6. Silence for 2.5 heartbeats is a dead connection.
7. A heartbeat tells what was lost on a living one: what it counts beyond the cursor, a run that it leaves out, and any
   answer that has not come from one beat to the next.
8. A run may be read again from before: that is an attach like any other, and replaces the one before it.
"""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from msgspec import Struct

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
    Renew,
    Send,
    State,
    Warned,
)
from midstream.client.backoff import Backoff, told_in
from midstream.client.cursor import Cursor, Replay
from midstream.client.errors import Disconnected, Unreachable, closing, refusal
from midstream.client.transports import Transport, Transports, Wanted
from midstream.client.updates import Received
from midstream_protocol.codec import decode_frame, encode_command
from midstream_protocol.codes import NORMAL, Close, may_retry
from midstream_protocol.commands import (
    CONNECTION_COMMANDS,
    AuthRefresh,
    ClientTool,
    Command,
    CommandPayload,
    RunAttach,
    RunDetach,
    RunStart,
    ToolsOffer,
)
from midstream_protocol.errors import Draining, NotFound, ProtocolError, TooLarge
from midstream_protocol.events import Event
from midstream_protocol.frames import (
    AuthExpiring,
    ConnectionDraining,
    ConnectionReady,
    ErrorFrame,
    Frame,
    Heartbeat,
    Receipt,
    RunAttached,
    RunCaughtUp,
    RunReset,
)
from midstream_protocol.limits import COMMANDS_IN_FLIGHT, MAX_FRAME_BYTES

DEAD_AFTER_HEARTBEATS: Final = 2.5
READY_TIMEOUT_S: Final = 10.0
"""From the open socket to `connection.ready`."""
MAX_GAPS: Final = 3
"""Attaches in a row that bring a hole instead of the next event, before the connection itself is given up."""
MAX_UNREADABLE: Final = 5
"""Connections in a row that ended with bytes nobody can read. One is an accident of the network; these are a server
that speaks something else.
"""

_LOST: Final = 1006
_BROKEN: Final = 1002
# An upgrade refused with one of these may succeed later; another 4xx says that this is no such server, or not for us.
_RETRY_STATUS: Final = frozenset({408, 425, 429})
_SERVER_FAULT: Final = 500


class _Outgoing(Struct, eq=False):
    command: Command
    data: bytes
    beats: int = 0
    """Heartbeats since it was sent."""
    before: list[ClientTool] | None = None
    """What was offered before it, if it is an offer."""

    @property
    def remembered(self) -> bool:
        return self.command.type not in CONNECTION_COMMANDS


class ClientCore:
    """`patient` False: a first connection that cannot be made is the end, because nothing was there to come back to.

    `renewable`: another token can be had when one is not taken any more. `new_id` makes command ids, `fraction`
    random numbers in [0, 1). Times are monotonic seconds.
    """

    def __init__(
        self,
        *,
        new_id: Callable[[], str],
        fraction: Callable[[], float],
        patient: bool = False,
        renewable: bool = False,
        transport: Wanted = "websocket",
    ) -> None:
        self.state: State = "connecting"
        self.server: ConnectionReady | None = None
        self.runs: dict[str, Cursor] = {}
        self._new_id = new_id
        self._fraction = fraction
        self._patient = patient
        self._renewable = renewable
        self._renewed = False
        """The token that was refused was asked for because another had been."""
        self._transports = Transports(transport)
        self._refused: tuple[Unreachable, bool] | None = None
        """Why the newest WebSocket was never ready, and whether that may pass."""
        self._unreadable = 0
        self._backoff = Backoff()
        self._news = False
        self._waiting: deque[_Outgoing] = deque()
        self._unanswered: dict[str, _Outgoing] = {}
        self._next_connection: list[_Outgoing] = []
        self._told_s: float | None = None
        self._ready_at: float | None = None
        self._heard_at: float | None = None
        self._stray: str | None = None
        """The command of a `run.attached` that nobody waited for."""
        self._dropped = False
        """What still comes of this connection does not count."""

    # -- what the application wants

    def command(self, command: Command) -> list[Action]:
        """Send it now or as soon as possible; its receipt comes as `Answer`. Raises `Malformed`, `TooLarge`."""
        return self._queue(command)

    def _queue(self, command: Command, *, before: list[ClientTool] | None = None) -> list[Action]:
        data = encode_command(command)
        most = self.server.limits.max_frame_bytes if self.server is not None else MAX_FRAME_BYTES
        if len(data) > most:
            # A server closes the connection for one that is much too large, and that close is final.
            raise TooLarge(f"this {command.type} has {len(data)} bytes; the server takes {most}")
        self._waiting.append(_Outgoing(command, data, before=before))
        return self._flush()

    def attach(
        self,
        run_id: str,
        *,
        since_seq: int = 0,
        epoch: str | None = None,
        replay: Replay = "full",
        client_tools: list[ClientTool] | None = None,
    ) -> list[Action]:
        """Follow a run, on this connection and every later one."""
        cursor = Cursor(run_id, seq=since_seq, epoch=epoch, replay=replay, client_tools=client_tools)
        self.runs[run_id] = cursor
        return self._attach(cursor) if self.state == "ready" else []

    def reread(self, run_id: str, *, since_seq: int, epoch: str | None) -> list[Action]:
        """Deliver the events after `since_seq` again, and go on from there; also of a run that has ended."""
        before = self.runs.get(run_id)
        tools = before.client_tools if before is not None else None
        # Never merged: an event that spans a place where somebody stands could not be told in halves.
        actions = self.attach(run_id, since_seq=since_seq, epoch=epoch, client_tools=tools)
        self.runs[run_id].was_attached = True
        return actions

    def detach(self, run_id: str) -> list[Action]:
        """Follow it no longer."""
        cursor = self.runs.pop(run_id, None)
        return self._detach(cursor) if cursor is not None and self.state == "ready" else []

    def offer(self, run_id: str, client_tools: list[ClientTool]) -> list[Action]:
        """Host these tools of the run from here on, also after a reconnect. Nothing if it is not followed."""
        cursor = self.runs.get(run_id)
        if cursor is None:
            return []
        before, cursor.client_tools = cursor.client_tools, client_tools
        if self.state != "ready" or not client_tools:
            return []
        command = self._own(ToolsOffer(run_id=run_id, client_tools=client_tools), run_id=run_id)
        return self._queue(command, before=before)

    def refresh(self, token: str) -> list[Action]:
        """A new token for this connection (see `Renew`); the next one brings its own."""
        if self.state != "ready":
            return []
        payload = AuthRefresh(token=token)
        return self.command(Command(type=payload.TYPE, command_id=self._new_id(), payload=payload, run_id=None))

    def close(self) -> list[Action]:
        """The application is done. What was accepted happens; what was not sent does not."""
        if self.state == "closed":
            return []
        return [*self._fail(Disconnected(NORMAL, "closed by this client")), Drop(NORMAL, "")]

    # -- what the socket says

    def opened(self, *, now: float) -> list[Action]:
        self._heard_at = now
        self._dropped = False
        return []

    @property
    def transport(self) -> Transport:
        """Of this attempt, or of the next one."""
        return self._transports.current

    def unreachable(self, error: Unreachable) -> list[Action]:
        """No connection: there was no server, or it refused the upgrade."""
        if self.state == "closed":
            return []
        status = error.status
        passing = status is None or status >= _SERVER_FAULT or status in _RETRY_STATUS
        return self._never_ready(error, passing=passing)

    def received(self, data: bytes | str, *, now: float) -> list[Action]:
        if self.state == "closed" or self._dropped:
            return []
        self._heard_at = now
        try:
            frame = decode_frame(data)
        except ProtocolError as wrong:
            return self._on_unreadable(wrong)
        if isinstance(frame, Event):
            text = data if isinstance(data, str) else data.decode()
            return self._on_event(frame, text)
        return self._on_frame(frame, now)

    def closed(self, code: int, reason: str, *, now: float) -> list[Action]:
        """The connection has ended (1006: without a close frame)."""
        if self.state == "closed":
            return []
        if code == Close.BAD_CREDENTIALS and self._renewable and not self._renewed:
            self._renewed = True
            return self._reconnect("the token is not valid any more", at_once=True)
        if not may_retry(code):
            return self._fail(closing(code, reason))
        if self._ready_at is None:
            said = f"it closed before it was ready ({code}) {reason}".strip()
            return self._never_ready(Unreachable(said), passing=True)
        self._backoff.connection_ended(ready_for_s=now - self._ready_at)
        if (told_s := told_in(reason)) is not None:
            self._told_s = told_s
            reason = "the server is going down"
        return self._reconnect(reason or f"close code {code}", at_once=code == Close.TOKEN_EXPIRED)

    def _never_ready(self, error: Unreachable, *, passing: bool) -> list[Action]:
        transports = self._transports
        if transports.falls_back and self.transport == "websocket":
            self._refused = error, passing
            other = transports.never_ready(refused=not passing)
            return self._reconnect(str(error), at_once=other or self._expected)
        if transports.falls_back and self._refused is not None:
            # Why the WebSocket failed is what counts: HTTP was only a way round it.
            error, passing = self._refused
        transports.never_ready()
        if not passing or self._expected:
            return self._fail(error)
        return self._reconnect(str(error))

    @property
    def _expected(self) -> bool:
        """Somebody waits to hear whether there is a server at all."""
        return self.server is None and not self._patient

    # -- time

    @property
    def wake_at(self) -> float | None:
        """When `tick` wants to be called."""
        if self._heard_at is None or self.state == "closed":
            return None
        if self._ready_at is None or self.server is None:
            return self._heard_at + READY_TIMEOUT_S
        dead_at = self._heard_at + DEAD_AFTER_HEARTBEATS * self.server.heartbeat_s
        again_at = self._transports.again_at
        return dead_at if again_at is None else min(dead_at, again_at)

    def tick(self, *, now: float) -> list[Action]:
        due = self.wake_at
        if due is None or now < due:
            return []
        self._heard_at = None
        if self._transports.again_at is not None and now >= self._transports.again_at:
            self._transports.try_websocket()
            return self._drop(_LOST, "trying a WebSocket again")
        return self._drop(_LOST, "the server fell silent")

    # -- frames

    def _on_frame(self, frame: Frame, now: float) -> list[Action]:
        match frame.payload:
            case ConnectionReady() as ready:
                return self._on_ready(ready, now)
            case Receipt() as receipt:
                return self._on_receipt(receipt)
            case RunAttached() as attached:
                return self._on_attached(attached)
            case RunReset() as reset:
                return self._on_reset(reset)
            case RunCaughtUp() as caught_up:
                return self._on_caught_up(caught_up)
            case Heartbeat() as heartbeat:
                return self._on_heartbeat(heartbeat)
            case ConnectionDraining() as draining:
                self._told_s = draining.reconnect_in_s
            case AuthExpiring() if self._renewable:
                return [Renew()]
            case ErrorFrame() as error:
                return [Warned(f"{error.code}: {error.text}")]
        return []

    def _on_unreadable(self, wrong: ProtocolError) -> list[Action]:
        """Come back with the cursor: whatever it was comes again, and whole if only the way was bad."""
        self._unreadable += 1
        if self._unreadable < MAX_UNREADABLE:
            return self._drop(_BROKEN, "unreadable frame")
        reason = f"the server sent what this client cannot read: {wrong}"
        return [*self._fail(Disconnected(_BROKEN, reason)), *self._drop(_BROKEN, "unreadable frame")]

    def _on_ready(self, ready: ConnectionReady, now: float) -> list[Action]:
        if self.state == "ready":
            return []
        self.server = ready
        self._ready_at = now
        self._told_s = None
        self._renewed = False
        self._refused = None
        self._transports.ready(now=now)
        self.state = "ready"
        actions: list[Action] = [Changed("ready", "")]
        # Before what waits: who made a command should be following when its effect comes.
        attaches = [self._attaching(cursor) for cursor in self.runs.values()]
        self._waiting.extendleft(reversed(attaches))
        return actions + self._flush()

    def _on_receipt(self, receipt: Receipt) -> list[Action]:
        sent = self._unanswered.pop(receipt.command_id, None)
        if sent is None:
            return []
        if not sent.remembered:
            return self._on_own_receipt(sent, receipt) + self._flush()
        if receipt.code == Draining.code:
            # Not remembered by the server, and true only for this connection: the next one takes it.
            self._next_connection.append(sent)
            return self._flush()
        self._news = True
        adopted = list(self._adopted(sent.command, receipt))
        return [*adopted, Answer(receipt.command_id, receipt), *self._flush()]

    def _on_own_receipt(self, sent: _Outgoing, receipt: Receipt) -> list[Action]:
        command = sent.command
        if receipt.status == "accepted":
            return []
        if command.type == AuthRefresh.TYPE:
            return [Warned(f"the new token was not taken: {receipt.text or receipt.code}")]
        cursor = self.runs.get(command.run_id or "")
        if cursor is None:
            return []
        if isinstance(command.payload, ToolsOffer):
            if receipt.code == Draining.code:
                return []
            if cursor.client_tools is command.payload.client_tools:
                # It must not come again with the next attach, which would be refused for it.
                cursor.client_tools = sent.before
            return [Warned(f"the tools were not taken: {receipt.text or receipt.code}")]
        if command.command_id != cursor.attach_id or receipt.code == Draining.code:
            # A draining server closes this connection; the next one is asked anew.
            return []
        if receipt.retryable and cursor.was_attached:
            return self._drop(_LOST, f"attach refused for now: {receipt.text or receipt.code}")
        del self.runs[cursor.run_id]
        return [Detached(cursor.run_id, refusal(receipt))]

    def _adopted(self, command: Command, receipt: Receipt) -> Iterable[Action]:
        """A command that made or found another run than the one it named attaches us: its `run.attached` comes next."""
        if receipt.status != "accepted" or receipt.run_id is None or receipt.run_id == command.run_id:
            return
        cursor = self.runs.setdefault(receipt.run_id, Cursor(receipt.run_id))
        if isinstance(command.payload, RunStart):
            cursor.client_tools = command.payload.client_tools
        cursor.attaching(command.command_id)
        yield Adopt(receipt.run_id)
        if self._stray == command.command_id:
            # It came before its receipt, when nobody knew what it was for.
            self._waiting.append(self._attaching(cursor))

    def _on_attached(self, frame: RunAttached) -> list[Action]:
        cursor = self.runs.get(frame.run_id)
        if cursor is None or cursor.attach_id != frame.command_id:
            self._stray = frame.command_id
            return []
        cursor.on_attached(frame)
        return [Deliver(frame.run_id, frame)]

    def _on_reset(self, frame: RunReset) -> list[Action]:
        cursor = self.runs.get(frame.run_id)
        if cursor is None or not cursor.attached:
            return []
        if frame.reason == "gone":
            del self.runs[frame.run_id]
            return [Detached(frame.run_id, NotFound("the server keeps this run no longer"))]
        if not cursor.on_reset(frame):
            return []
        return [Deliver(frame.run_id, frame)]

    def _on_caught_up(self, frame: RunCaughtUp) -> list[Action]:
        cursor = self.runs.get(frame.run_id)
        if cursor is None or not cursor.attached:
            return []
        if cursor.foreign or frame.seq > cursor.seq:
            return self._on_gap(cursor)
        return self._caught_up(cursor, frame)

    def _caught_up(self, cursor: Cursor, frame: RunCaughtUp) -> list[Action]:
        cursor.on_caught_up()
        return [Deliver(frame.run_id, frame), *self._ended(cursor)]

    def _on_event(self, event: Event, text: str) -> list[Action]:
        cursor = self.runs.get(event.run_id)
        if cursor is None or not cursor.attached:
            return []
        match cursor.place(event):
            case "old":
                return []
            case "gap":
                return self._on_gap(cursor)
            case "next":
                cursor.advance(event)
                self._unreadable = 0
                self._news = True
                return [Deliver(event.run_id, Received(event=event, text=text)), *self._ended(cursor)]

    def _on_heartbeat(self, heartbeat: Heartbeat) -> list[Action]:
        """It is ordered with the frames of the runs: what it counts beyond the cursor was lost, and so was a run it
        leaves out, and any answer that has not come from one beat to the next.
        """
        actions: list[Action] = []
        for cursor in list(self.runs.values()):
            if cursor.beat(heartbeat.runs.get(cursor.run_id)):
                actions += self._on_gap(cursor)
            elif cursor.has_all and not cursor.caught_up:
                actions += self._caught_up(cursor, RunCaughtUp(run_id=cursor.run_id, seq=cursor.seq))
            if self._dropped:
                return actions
        for sent in list(self._unanswered.values()):
            sent.beats += 1
            if sent.beats <= 1:
                continue
            sent.beats = 0
            if self._asks_again(sent.command):
                actions.append(Send(sent.data))
            else:
                del self._unanswered[sent.command.command_id]
        return actions + self._flush()

    def _asks_again(self, command: Command) -> bool:
        """Of an attach or a detach what follows, or does not, has told; of an offer only the newest counts."""
        match command.payload:
            case RunAttach() | RunDetach():
                return False
            case ToolsOffer(run_id=run_id, client_tools=tools):
                cursor = self.runs.get(run_id)
                return cursor is not None and cursor.client_tools is tools
        return True

    def _on_gap(self, cursor: Cursor) -> list[Action]:
        cursor.gaps += 1
        if cursor.gaps > MAX_GAPS:
            cursor.gaps = 0
            return self._drop(_LOST, f"run {cursor.run_id} came with holes")
        return self._attach(cursor)

    def _ended(self, cursor: Cursor) -> list[Action]:
        if not cursor.ended:
            return []
        self.runs.pop(cursor.run_id, None)
        return [Detached(cursor.run_id, None)]

    # -- sending

    def _own(self, payload: CommandPayload, *, run_id: str) -> Command:
        return Command(type=payload.TYPE, command_id=self._new_id(), payload=payload, run_id=run_id)

    def _attach(self, cursor: Cursor) -> list[Action]:
        self._waiting.append(self._attaching(cursor))
        return self._flush()

    def _attaching(self, cursor: Cursor) -> _Outgoing:
        payload = RunAttach(
            since_seq=cursor.seq,
            epoch=cursor.epoch,
            replay=cursor.replay if cursor.replay != "full" else None,
            client_tools=cursor.client_tools,
        )
        command = self._own(payload, run_id=cursor.run_id)
        cursor.attaching(command.command_id)
        return _Outgoing(command, encode_command(command))

    def _detach(self, cursor: Cursor) -> list[Action]:
        return self.command(self._own(RunDetach(), run_id=cursor.run_id))

    def _flush(self) -> list[Action]:
        if self.state != "ready":
            return []
        server = self.server
        room = min(COMMANDS_IN_FLIGHT, server.limits.commands_in_flight) if server is not None else COMMANDS_IN_FLIGHT
        actions: list[Action] = []
        while self._waiting and len(self._unanswered) < room:
            outgoing = self._waiting.popleft()
            outgoing.beats = 0
            self._unanswered[outgoing.command.command_id] = outgoing
            actions.append(Send(outgoing.data))
        return actions

    # -- ends

    def _drop(self, code: int, reason: str) -> list[Action]:
        self._dropped = True
        return [Drop(code, reason)]

    def _reconnect(self, reason: str, *, at_once: bool = False) -> list[Action]:
        self._ready_at = self._heard_at = None
        again = [*self._next_connection, *self._unanswered.values(), *self._waiting]
        self._waiting = deque(outgoing for outgoing in again if outgoing.remembered)
        self._unanswered.clear()
        self._next_connection.clear()
        for cursor in self.runs.values():
            cursor.disconnected()
        if self._news:
            self._backoff.brought_news()
        self._news = False
        delay_s = self._backoff.delay_s(told_s=self._told_s, fraction=self._fraction(), at_once=at_once)
        self._told_s = None
        if self._expected or self.state == "reconnecting":
            return [Reconnect(delay_s)]
        self.state = "reconnecting"
        return [Changed("reconnecting", reason), Reconnect(delay_s)]

    def _fail(self, error: Exception) -> list[Action]:
        self.state = "closed"
        return [Changed("closed", str(error)), Failed(error)]
