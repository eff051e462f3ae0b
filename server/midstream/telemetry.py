"""What operators count: the one registry of this process, and the functions that add to it. `GET /metrics` shows it.

Labels are words of ours, never a user's or a provider's: their number is bounded.
"""

from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, generate_latest

METRICS_TYPE: Final = CONTENT_TYPE_LATEST
"""The media type of `exposed`."""

# Not the library's global one: what is imported beside us adds to that as it likes.
REGISTRY: Final = CollectorRegistry()

_RECOVERIES: Final = Counter(
    "midstream_recoveries", "Failures that a run recovered from, by kind.", ["kind"], registry=REGISTRY
)
_MODEL_CALLS: Final = Counter(
    "midstream_model_calls", "Tries of model calls, by what became of them.", ["outcome"], registry=REGISTRY
)
_TRIPS: Final = Counter("midstream_guardrail_trips", "Requests that a guardrail stopped.", registry=REGISTRY)


def count_recovery(kind: str) -> None:
    """`kind` as in `recovery.started`."""
    _RECOVERIES.labels(kind=kind).inc()


def count_model_call(outcome: str) -> None:
    """`outcome`: `answered`, `interrupted`, `cancelled`, or the code of a `ModelError`."""
    _MODEL_CALLS.labels(outcome=outcome).inc()


def count_guardrail_trip() -> None:
    _TRIPS.inc()


def exposed() -> bytes:
    """All of it, in the text format of Prometheus."""
    return generate_latest(REGISTRY)
