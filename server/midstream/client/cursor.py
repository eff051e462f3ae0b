"""Where a reader stands in one run's log, and what an event that arrives means to it. Pure.

One rule (protocol, §5): the next event is the one with `(from ?? seq) == cursor + 1`.
"""

from dataclasses import dataclass, field
from typing import Literal

from midstream_protocol.commands import ClientTool
from midstream_protocol.events import TERMINAL_STATUSES, TERMINAL_TYPES, Event
from midstream_protocol.frames import RunAttached, RunReset

Place = Literal["next", "old", "gap"]
Replay = Literal["full", "merged", "snapshot"]


def place(event: Event, seq: int) -> Place:
    """What `event` is to a reader that has everything up to `seq`."""
    first = event.from_ if event.from_ is not None else event.seq
    if first == seq + 1:
        return "next"
    return "old" if event.seq <= seq else "gap"


@dataclass(slots=True)
class Cursor:
    """`attach_id` is the newest attach of this connection; what came before its `run.attached` is not this reader's."""

    run_id: str
    seq: int = 0
    epoch: str | None = None
    replay: Replay = "full"
    client_tools: list[ClientTool] | None = field(default=None)
    attach_id: str | None = None
    attached: bool = False
    was_attached: bool = False
    ended: bool = False
    gaps: int = 0
    caught_up: bool = False
    foreign: bool = False
    """The run has another history than the cursor is of: a reset comes before anything else."""
    _head: int = 0
    _status: str = ""
    _beats: int = 0
    _last_reset: RunReset | None = None

    def place(self, event: Event) -> Place:
        return "gap" if self.foreign else place(event, self.seq)

    def advance(self, event: Event) -> None:
        self.seq = event.seq
        self.gaps = 0
        self.ended = event.type in TERMINAL_TYPES

    def attaching(self, command_id: str) -> None:
        self.attach_id = command_id
        self.attached = False
        self._beats = 0

    def on_attached(self, frame: RunAttached) -> None:
        if not self.attached:
            self._last_reset = None
            self.foreign = self.epoch not in (None, frame.epoch)
            self.caught_up = False
        self._head = frame.head_seq
        self.attached = self.was_attached = True
        self._status = frame.status
        if self.epoch is None:
            self.epoch = frame.epoch

    def on_reset(self, frame: RunReset) -> bool:
        """Whether it counts: the same reset again, from a network that repeats, would take the cursor back."""
        if frame == self._last_reset:
            return False
        self._last_reset = frame
        self.foreign = self.caught_up = False
        self._head = frame.snapshot_seq or 0
        self.epoch = frame.epoch
        self.seq = frame.snapshot_seq or 0
        self.gaps = 0
        if self.replay == "snapshot":
            # The first answer to it: from here on it is an ordinary reader.
            self.replay = "full"
        if frame.snapshot is not None:
            self._status = str(frame.snapshot.get("status", ""))
        return True

    def beat(self, seq: int | None) -> bool:
        """A heartbeat says that `seq` of this run was sent (None: it says nothing of it). Whether something is lost."""
        if self.attached:
            return seq is None or seq > self.seq or self.foreign
        self._beats += self.attach_id is not None
        return self._beats > 1

    @property
    def has_all(self) -> bool:
        """It has caught up, whether or not anybody said so."""
        return self.attached and self.seq >= self._head

    def on_caught_up(self) -> None:
        """A run that was over when the attach came, and of which nothing is left to send, is over for us too."""
        self.caught_up = True
        self.gaps = 0
        self.ended = self.ended or self._status in TERMINAL_STATUSES

    def disconnected(self) -> None:
        self.attach_id = None
        self.attached = False
