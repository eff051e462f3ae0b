"""What goes into `decide`, and what comes out. Ids and time come in with the inputs: nothing here makes its own."""

from dataclasses import dataclass, field
from typing import Any, Final, final

from msgspec import Struct

from midstream.log import JournalRecord, RecordWrite
from midstream.runs.contract import Principal
from midstream_protocol.commands import ClientTool, Command
from midstream_protocol.events import Payload
from midstream_protocol.frames import Receipt

# -- what goes in


class Drafted(Struct, kw_only=True, frozen=True):
    """Events that agent code proposes, with the journal that belongs to them.

    A drafted `UsageUpdated` is what was used since the one before; the run adds it up.
    """

    payloads: tuple[Payload, ...]
    journal: tuple[JournalRecord, ...] = ()
    step_id: str | None = None


@final
class Said:
    """Text deltas of one message and step that stand next to each other: what a program says most, kept small while it
    waits. Grows until it is taken. `size`: bytes of all its texts.
    """

    __slots__ = ("message_id", "size", "step_id", "texts")

    reply: Final = None
    """Nobody waits for it."""

    def __init__(self, message_id: str, step_id: str | None, text: str, size: int) -> None:
        self.message_id = message_id
        self.step_id = step_id
        self.texts = [text]
        self.size = size


class TakeCorrections(Struct, kw_only=True, frozen=True):
    """The loop is at a safe point and takes what is due: of the corrections that it has seen (`only`; None: all), those
    in `replan` change the plan.
    """

    step_id: str
    ending: bool
    only: frozenset[str] | None = None
    replan: frozenset[str] = frozenset()


class End(Struct, kw_only=True, frozen=True):
    """The program is done. `return_corrections`: it cannot use any that are pending, so give them back."""

    result: Any
    return_corrections: bool = False


class Asked(Struct, kw_only=True, frozen=True):
    """A client's command, at the run's door."""

    command: Command
    principal: Principal
    client_id: str | None
    fingerprint: str


class Offer(Struct, kw_only=True, frozen=True):
    """A client takes over hosting of these tools for future calls."""

    client_id: str
    tools: tuple[ClientTool, ...]


class ProgramEnded(Struct, kw_only=True, frozen=True):
    """The program's task is over (or given up, `abandoned`), without `End`. `code` None: it was cancelled."""

    code: str | None = None
    text: str = ""
    retryable: bool = False
    error_id: str = ""
    resume: Any = None
    abandoned: bool = False


class Recovered(Struct, kw_only=True, frozen=True):
    """A new actor took the run over. `gone`: no program can continue it, and why. `in_order`: the one before handed it
    over, and nothing was lost. `error_id` is what its failure is called, if the run is given up.
    """

    gone: str | None = None
    in_order: bool = False
    error_id: str = ""


class HandedOver(Struct, kw_only=True, frozen=True):
    """The actor leaves the run to the next one, and its program has returned: nothing is to be written any more."""


class Dequeued(Struct, kw_only=True, frozen=True):
    """The thread is free: a queued run may begin."""


class Abandoned(Struct, kw_only=True, frozen=True):
    """Nobody has been attached for as long as the run's starter allows (`on_abandon`)."""


class Outgrown(Struct, kw_only=True, frozen=True):
    """The log is as long as a run's may be."""


class Tick(Struct, kw_only=True, frozen=True):
    """Time has passed; every deadline is looked at."""


Input = (
    Drafted
    | TakeCorrections
    | End
    | Asked
    | Offer
    | ProgramEnded
    | Recovered
    | HandedOver
    | Dequeued
    | Abandoned
    | Outgrown
    | Tick
)


# -- what comes out


class Planned(Struct, kw_only=True, frozen=True):
    """One event that was decided and has no seq yet."""

    payload: Payload
    step_id: str | None = None
    client_id: str | None = None
    command_id: str | None = None


@dataclass(slots=True)
class Decision:
    """What follows from one input. `reply` goes to whoever asked, after the write; so does `refused`."""

    events: list[Planned] = field(default_factory=list)
    journal: list[JournalRecord] = field(default_factory=list)
    records: list[RecordWrite] = field(default_factory=list)
    """What is written beside the run in the same step."""
    receipt: Receipt | None = None
    remember: str | None = None
    """The fingerprint to remember the receipt under; None: it is not remembered."""
    reply: Any = None
    refused: Exception | None = None
