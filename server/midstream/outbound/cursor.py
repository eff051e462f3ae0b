"""How far the places of a run's webhooks were told: the record that outlives the process, and what is kept beside it in
memory while a place is behind.
"""

import asyncio
import hashlib
from bisect import insort
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from msgspec import Struct, field

from midstream.outbound.message import ENDS
from midstream.runs.contract import StartRecord
from midstream_protocol.commands import Webhook

KIND: Final = "webhook"
"""Record kind; its id is the run's store key. Written with the run, deleted when all was told."""


class Cursor(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """`told`: the last seq that a place (URL) was told of, or that was given up. `gone`: places that want no more of
    this run. `own`: the place that the run brought. `tag` tells this run from another of the same id.
    """

    run_id: str
    thread_id: str
    user: str
    tag: str
    own: Webhook | None = None
    told: dict[str, int] = field(default_factory=dict)
    gone: tuple[str, ...] = ()

    def message_id(self, seq: int) -> str:
        """The same however often it is sent, and no other message's."""
        return f"{self.run_id}.{seq}.{self.tag}"


def first_cursor(run: str, start: StartRecord) -> Cursor:
    """Of a run that is being made."""
    return Cursor(
        run_id=start.run_id,
        thread_id=start.thread_id,
        user=start.principal.id,
        # Run ids are a principal's own, and one that was deleted can be used again.
        tag=hashlib.sha256(f"{run}.{start.created_ms}".encode()).hexdigest()[:8],
        own=start.webhook,
    )


class Place(Struct, kw_only=True, frozen=True):
    """Where something is sent, and of which events. `lane` is the part of its URL that may be logged."""

    url: str
    lane: str
    events: frozenset[str]


Found = Sequence[tuple[int, str]]
"""Events of a run that can be told of: seq and type, in order."""


class Line:
    """What one place is still to be told of one run: seqs in order. Alive, it is at work, queued or at a timer."""

    def __init__(self, behind: "Behind", place: Place) -> None:
        self.behind: Final = behind
        self.place: Final = place
        self.wanted: Final[list[int]] = []
        self.failures = 0


class Behind:
    """A run that some place is behind with. `dirty`: the record does not know yet what was told."""

    def __init__(self, run: str, cursor: Cursor, version: int) -> None:
        self.run: Final = run
        self.cursor = cursor
        self.version = version
        self.lines: Final[dict[str, Line]] = {}
        self.ended = False
        self.whole = True
        """Every place that is behind with it has its line here."""
        self.dirty = False
        self.writing: Final = asyncio.Lock()

    @property
    def over(self) -> bool:
        """All was told that there will ever be."""
        return self.ended and self.whole and not any(line.wanted for line in self.lines.values())

    def add(self, found: Found, places: Mapping[str, Place], *, full: Iterable[str] = (), grow: bool) -> list[Line]:
        """Note what was found; returns the lines that are new. `full`: places that get no new line now; `grow` False:
        none does, because what was found is not all that it would have to begin with.
        """
        if not self.ended and any(kind in ENDS for _, kind in found):
            # Whoever is about to write down that all so far was told, writes again.
            self.ended = self.dirty = True
        new: list[Line] = []
        for url, place in places.items():
            told = self.cursor.told.get(url, 0)
            line = self.lines.get(url)
            fresh = [
                seq
                for seq, kind in found
                if kind in place.events and seq > told and (line is None or seq not in line.wanted)
            ]
            if not fresh:
                continue
            if line is None:
                if not grow or url in full:
                    self.whole = False
                    continue
                line = self.lines[url] = Line(self, place)
                new.append(line)
            for seq in fresh:
                insort(line.wanted, seq)
        return new
