"""Where a reader stands in one run's log, and what an event that arrives means to it. Pure.

One rule (protocol, §5): the next event is the one with `(from ?? seq) == cursor + 1`.
"""

from dataclasses import dataclass, field
from typing import Literal

from midstream_protocol.commands import ClientTool
from midstream_protocol.events import TERMINAL_STATUSES, TERMINAL_TYPES, Event
from midstream_protocol.frames import RunAttached, RunReset

Place = Literal["next", "old", "gap"]


@dataclass(slots=True)
class Cursor:
    """`attach_id` is the newest attach of this connection; what came before its `run.attached` is not this reader's."""

    run_id: str
    seq: int = 0
    epoch: str | None = None
    replay: Literal["full", "snapshot"] = "full"
    client_tools: list[ClientTool] | None = field(default=None)
    attach_id: str | None = None
    attached: bool = False
    was_attached: bool = False
    paused: bool = False
    ended: bool = False
    gaps: int = 0
    _status: str = ""

    def place(self, event: Event) -> Place:
        first = event.from_ if event.from_ is not None else event.seq
        if first == self.seq + 1:
            return "next"
        return "old" if event.seq <= self.seq else "gap"

    def advance(self, event: Event) -> None:
        self.seq = event.seq
        self.gaps = 0
        self.ended = event.type in TERMINAL_TYPES

    def attaching(self, command_id: str) -> None:
        self.attach_id = command_id
        self.attached = False

    def on_attached(self, frame: RunAttached) -> None:
        self.attached = self.was_attached = True
        self._status = frame.status
        if self.epoch is None:
            self.epoch = frame.epoch

    def on_reset(self, frame: RunReset) -> None:
        self.epoch = frame.epoch
        self.seq = frame.snapshot_seq or 0
        self.gaps = 0
        # The first answer to `replay: snapshot`: from here on it is an ordinary reader.
        self.replay = "full"
        if frame.snapshot is not None:
            self._status = str(frame.snapshot.get("status", ""))

    def on_caught_up(self) -> None:
        """A run that was over when the attach came, and of which nothing is left to send, is over for us too."""
        self.ended = self.ended or self._status in TERMINAL_STATUSES

    def disconnected(self) -> None:
        self.attach_id = None
        self.attached = False
