"""What a reader of a run is told, in the order of its log."""

from msgspec import Struct

from midstream_protocol.events import Event
from midstream_protocol.frames import RunAttached, RunCaughtUp, RunReset


class Received(Struct, kw_only=True, frozen=True):
    """One event, and the text it came as: the bytes of the log."""

    event: Event
    text: str


Update = Received | RunAttached | RunReset | RunCaughtUp
"""`RunAttached`: this connection follows the run from here (again, after every reconnect); its `pending` is fresh.

`RunReset`: forget what you had, the snapshot stands for it. `RunCaughtUp`: what comes now is live.
"""
