"""One client's connection, without its socket: what may come in, and in which order what goes out.

In: `receive` turns one frame into a `Ticket` (work to do, to be answered exactly once) or refuses it itself.
Out: `control` frames first, in the order they were made; then events, run by run in turn. That alone gives the order
the protocol promises, because `open` queues a receipt and its `run.attached` together and only then lets the run's
events flow: receipt, run.attached, the replay or one run.reset, run.caught_up, live.

Bounded: a client has at most `commands_in_flight` tickets whose receipts it has not been sent; refusals and pongs
that it does not read end the connection.
"""

from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Struct

from midstream.gateway.errors import refusal_receipt
from midstream.gateway.wire import Wire
from midstream.runs import Attachment, Subscription
from midstream_protocol.codes import Close
from midstream_protocol.commands import Command, Ping, RunAttach, RunStart
from midstream_protocol.errors import Malformed, ProtocolError, QuotaExceeded, RateLimited, UnknownCommand
from midstream_protocol.frames import (
    ConnectionLimits,
    ErrorFrame,
    FramePayload,
    Heartbeat,
    Pong,
    Receipt,
    RunCaughtUp,
    RunReset,
)

MAX_UNREAD_BYTES: Final = 256 * 1024
"""Refusals and pongs that wait to be written: over this the client sends and does not read."""

CONTROL_BATCH_BYTES: Final = 64 * 1024
"""Control frames written in one go before others have their turn."""


class Ticket(Struct, kw_only=True, frozen=True, eq=False):
    """One accepted command, to be answered once. `holds_place`: it may become one more attached run."""

    command: Command
    holds_place: bool = False


class Closing(Struct, kw_only=True, frozen=True):
    code: int
    reason: str


class _Waiting(Struct, kw_only=True, frozen=True):
    """A control frame not yet written. `answer`: it ends a ticket. `unasked`: it counts as unread."""

    frame: bytes
    answer: bool
    unasked: bool


class Slot:
    """One attachment of one run. A new attachment of the same run is a new slot; what the old one had is dropped."""

    __slots__ = ("caught_up", "paged", "ready", "run_id", "subscription", "target")

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.subscription: Subscription | None = None
        self.target = 0
        """The head at the attach: from there on it is caught up."""
        self.caught_up = False
        self.ready = False
        self.paged = False
        """Its events are being read from the log: whoever reads them wakes it afterwards."""


class Connection:
    """`notify` is called when there is something to write."""

    __slots__ = (
        "_control",
        "_errors",
        "_in_flight",
        "_limits",
        "_max_errors",
        "_notify",
        "_places",
        "_ready",
        "_shut",
        "_slots",
        "_unread",
        "closing",
        "overflowed",
        "wire",
    )

    def __init__(self, *, wire: Wire, limits: ConnectionLimits, max_errors: int, notify: Callable[[], None]) -> None:
        self.wire = wire
        self.closing: Closing | None = None
        """Set once: write the control frames that wait, then close with this."""
        self.overflowed = False
        """It is being closed because it does not read: nothing that waits can be written either."""
        self._limits = limits
        self._max_errors = max_errors
        self._notify = notify
        self._errors = 0
        self._in_flight = 0
        self._places = 0
        # Lists, not deques: an empty deque takes 600 bytes, and these are empty most of the time.
        self._control: list[_Waiting] = []
        self._unread = 0
        self._slots: dict[str, Slot] = {}
        self._ready: list[Slot] = []
        self._shut = False

    # -- in

    def receive(self, data: str | bytes) -> Ticket | None:
        """One frame from the client. A ticket must be answered by `answer` or `open`, whatever becomes of it."""
        if self.closing is not None:
            return None
        try:
            command = self.wire.command(data, self._limits)
        except ProtocolError as error:
            self._malformed(error)
            return None
        self._errors = 0
        if isinstance(command.payload, Ping):
            self._queue_unasked(Pong(t=command.payload.t))
            return None
        try:
            return self._admit(command)
        except ProtocolError as error:
            self._queue_unasked(refusal_receipt(error, command_id=command.command_id, run_id=command.run_id))
            return None

    def _admit(self, command: Command) -> Ticket:
        if self._in_flight >= self._limits.commands_in_flight:
            raise RateLimited(
                f"{self._in_flight} commands of this connection are unanswered: wait for receipts, then send it again"
            )
        attaches = isinstance(command.payload, RunStart) or (
            isinstance(command.payload, RunAttach) and command.run_id not in self._slots
        )
        if attaches and len(self._slots) + self._places >= self._limits.max_runs:
            raise QuotaExceeded(
                f"this connection is attached to {self._limits.max_runs} runs: detach one, or open another connection"
            )
        self._in_flight += 1
        self._places += attaches
        return Ticket(command=command, holds_place=attaches)

    def _malformed(self, error: ProtocolError) -> None:
        self._errors += isinstance(error, Malformed | UnknownCommand)
        if error.command_id:
            self._queue_unasked(refusal_receipt(error, command_id=error.command_id))
        else:
            self._queue_unasked(ErrorFrame(code=error.code, text=error.text))
        if self._errors >= self._max_errors:
            self.close(Close.TOO_MANY_ERRORS, f"{self._errors} frames in a row were not commands")

    # -- what became of a ticket

    def answer(self, ticket: Ticket, receipt: Receipt) -> None:
        """The ticket's receipt."""
        self._places -= ticket.holds_place
        self._queue(receipt, answer=True)

    def open(self, ticket: Ticket, receipt: Receipt, slot: Slot, attachment: Attachment) -> None:
        """The ticket's receipt, and the run it attached. An older attachment of that run ends here."""
        self.answer(ticket, receipt)
        if self._shut:
            attachment.subscription.close()
            return
        self.detach(slot.run_id)
        frame = attachment.frame(ticket.command.command_id)
        self._queue(frame)
        if attachment.reset is not None:
            self._queue(attachment.reset)
        slot.subscription = attachment.subscription
        slot.target = frame.head_seq
        self._slots[slot.run_id] = slot
        self.wake(slot)

    def detach(self, run_id: str) -> None:
        """Nothing of the run is written after this; detaching what is not attached is fine."""
        slot = self._slots.pop(run_id, None)
        if slot is not None and slot.subscription is not None:
            slot.subscription.close()

    # -- out

    def send(self, payload: FramePayload) -> None:
        """Queue a frame of the server's own."""
        self._queue(payload)

    def close(self, code: int, reason: str) -> None:
        """Close when what waits has been written. The first reason counts."""
        if self.closing is None:
            self.closing = Closing(code=code, reason=reason)
            self._notify()

    def wake(self, slot: Slot) -> None:
        """There may be more of this slot's run. Cheap and idempotent; ignored unless the slot is open."""
        if not (slot.ready or slot.paged) and self._slots.get(slot.run_id) is slot:
            slot.ready = True
            self._ready.append(slot)
            self._notify()

    @property
    def waiting(self) -> bool:
        """There is something to write."""
        return bool(self._ready or self._control or self.closing is not None)

    @property
    def control_waits(self) -> bool:
        return bool(self._control)

    def control(self) -> list[bytes]:
        """The next control frames to write; with them their tickets are answered."""
        if not self._control:
            return []
        frames: list[bytes] = []
        size = 0
        for waiting in self._control:
            if size >= CONTROL_BATCH_BYTES:
                break
            size += len(waiting.frame)
            self._in_flight -= waiting.answer
            self._unread -= len(waiting.frame) if waiting.unasked else 0
            frames.append(waiting.frame)
        del self._control[: len(frames)]
        return frames

    def heartbeat(self, now: str) -> bytes:
        """Made at the moment of writing: the seqs are those of the events written before it."""
        runs = {slot.run_id: slot.subscription.cursor for slot in self._slots.values() if slot.subscription is not None}
        return self.wire.frame(Heartbeat(now=now, runs=runs))

    def next_ready(self) -> tuple[Slot, Subscription] | None:
        """The run whose turn it is. Its turn is over with `events` or `lost`.

        None while control frames wait: a run may have been attached while another was read from the log, and its
        `run.attached` goes before its events.
        """
        while self._ready and not self._control:
            slot = self._ready.pop(0)
            # Cleared before the pull: what arrives while it waits for the log must wake the slot again.
            slot.ready = False
            if slot.subscription is not None and self._slots.get(slot.run_id) is slot:
                return slot, slot.subscription
        return None

    def events(self, slot: Slot, pulled: Sequence[bytes]) -> list[bytes]:
        """What was pulled for a slot, as frames; nothing if the slot was replaced while it was pulled."""
        subscription = slot.subscription
        if subscription is None or self._slots.get(slot.run_id) is not slot:
            return []
        frames = [self.wire.event(event) for event in pulled]
        if not slot.caught_up and (subscription.cursor >= slot.target or subscription.at_head):
            slot.caught_up = True
            frames.append(self.wire.frame(RunCaughtUp(run_id=slot.run_id, seq=subscription.cursor)))
        if subscription.ended:
            self.detach(slot.run_id)
        elif not subscription.at_head:
            self.wake(slot)
        return frames

    def lost(self, slot: Slot, reset: RunReset) -> list[bytes]:
        """The slot's subscription cannot go on from its cursor: the client starts again from the snapshot."""
        if self._slots.get(slot.run_id) is not slot:
            return []
        if reset.snapshot_seq is None:
            self.detach(slot.run_id)
        else:
            slot.caught_up = False
            slot.target = reset.snapshot_seq
            self.wake(slot)
        return [self.wire.frame(reset)]

    def shut(self) -> int:
        """The socket is gone: give everything back. How many runs it was still attached to."""
        self._shut = True
        # The two refer to each other, and should not wait for the garbage collector.
        self._notify = _nothing
        attached = list(self._slots)
        for run_id in attached:
            self.detach(run_id)
        return len(attached)

    def _queue(self, payload: FramePayload, *, answer: bool = False, unasked: bool = False) -> None:
        if self._shut:
            return
        waiting = _Waiting(frame=self.wire.frame(payload), answer=answer, unasked=unasked)
        self._control.append(waiting)
        self._notify()
        if unasked:
            self._unread += len(waiting.frame)
            if self._unread > MAX_UNREAD_BYTES:
                self.overflowed = True
                self.close(Close.TOO_SLOW, "answers are not read; reconnect and resume from your cursors")

    def _queue_unasked(self, payload: FramePayload) -> None:
        """A frame that the client causes without holding a ticket."""
        self._queue(payload, unasked=True)


def _nothing() -> None:
    """Nobody is to be told any more."""
