"""What the core wants done. `connection` does it, in this order, at once."""

from typing import Literal

from msgspec import Struct

from midstream.client.updates import Update
from midstream_protocol.frames import Receipt

State = Literal["connecting", "ready", "reconnecting", "closed"]


class Send(Struct, frozen=True):
    """Write this text frame."""

    data: bytes


class Drop(Struct, frozen=True):
    """End the socket now, then report `closed`."""

    code: int
    reason: str


class Deliver(Struct, frozen=True):
    run_id: str
    update: Update


class Answer(Struct, frozen=True):
    """The receipt of a remembered command."""

    command_id: str
    receipt: Receipt


class Adopt(Struct, frozen=True):
    """A command made (or found) a run, and this connection is attached to it."""

    run_id: str


class Detached(Struct, frozen=True):
    """Nothing more of this run will come: it is over (`error` None), or why not."""

    run_id: str
    error: Exception | None


class Changed(Struct, frozen=True):
    state: State
    reason: str


class Reconnect(Struct, frozen=True):
    """Connect again after `delay_s`."""

    delay_s: float


class Renew(Struct, frozen=True):
    """The token is about to expire: get a new one, then report it to `refresh`."""


class Warned(Struct, frozen=True):
    """The server did not understand something of this client: a defect of either."""

    text: str


class Failed(Struct, frozen=True):
    """The end: every waiter gets `error`."""

    error: Exception


Action = Send | Drop | Deliver | Answer | Adopt | Detached | Changed | Reconnect | Renew | Warned | Failed
