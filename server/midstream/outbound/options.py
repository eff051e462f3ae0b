"""What webhooks are held to, as the operator set it."""

from msgspec import Struct

from midstream.outbound.message import EVENTS


class WebhookOptions(Struct, kw_only=True, frozen=True):
    """Each is a setting of the server (`webhook_…`; see settings.py)."""

    urls: tuple[str, ...] = ()
    """Places that are told of every run; a run may bring one more of its own."""
    secret: str | None = None
    """What is sent is signed with it. None: nothing is sent, for nobody could check it."""
    events: tuple[str, ...] = EVENTS
    timeout_s: float = 10.0
    """From looking up the name to the answer's head."""
    max_age_s: float = 86_400.0
    """An event that could not be told for so long is given up."""
    allow_private: bool = False
    """Whether places may have private addresses (loopback, 10.0.0.0/8 …)."""
    in_flight: int = 32
    """Requests at once; those to one host have a quarter of them at most, so that a slow one leaves room."""
    max_waiting: int = 10_000
    """Runs that one place is behind with and that are kept in memory; more wait in the store."""

    def __repr__(self) -> str:
        # A secret in a log line is a secret lost, and URLs may hold some.
        return f"WebhookOptions({len(self.urls)} places, secret={'…' if self.secret else None})"
