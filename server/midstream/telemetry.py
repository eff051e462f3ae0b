"""What operators count: the one registry of this process, and the functions that add to it. `GET /metrics` shows it.

Labels are words of ours, never a user's or a provider's: their number is bounded.
"""

from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest

from midstream_protocol.codes import Close

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


_FIRST_EVENT: Final = Histogram(
    "midstream_first_event_seconds", "From a start to its run.started being durable.", registry=REGISTRY
)
_APPEND: Final = Histogram("midstream_append_seconds", "Writing one batch to the log.", registry=REGISTRY)
_EVENTS: Final = Counter("midstream_events", "Events written to logs.", registry=REGISTRY)
_EVENT_BYTES: Final = Counter("midstream_event_bytes", "Bytes of events written to logs.", registry=REGISTRY)
_SAID: Final = Counter("midstream_deltas_said", "Text deltas that agents said.", registry=REGISTRY)
_WRITTEN: Final = Counter("midstream_deltas_written", "Events that text deltas became.", registry=REGISTRY)
_DELIVERY: Final = Histogram("midstream_delivery_seconds", "From durable to a client's socket.", registry=REGISTRY)
_ATTACHES: Final = Counter("midstream_attaches", "Attaches to runs.", ["transport"], registry=REGISTRY)
_RESUMES: Final = Counter("midstream_resumes", "Attaches that went on from a cursor.", ["transport"], registry=REGISTRY)
_RESETS: Final = Counter(
    "midstream_resets", "Clients that were given a snapshot, by reason.", ["reason"], registry=REGISTRY
)
_ABANDONED: Final = Counter(
    "midstream_abandoned_streams", "Clients that left before their run's end.", ["transport"], registry=REGISTRY
)
_CLOSES: Final = Counter("midstream_closes", "WebSockets closed, by code.", ["code"], registry=REGISTRY)
_ENDS: Final = Counter("midstream_runs_ended", "Runs ended, by status.", ["status"], registry=REGISTRY)
_FIRST_TOKEN: Final = Histogram("midstream_model_first_token_seconds", "A model's first answer.", registry=REGISTRY)
_STAGES: Final = Histogram("midstream_stage_seconds", "Attempts of stages.", ["outcome"], registry=REGISTRY)
_KNOWN_CODES: Final = frozenset({1000, 1001, 1005, 1006, 1009, 1011, 1012, *map(int, Close)})


def count_recovery(kind: str) -> None:
    """`kind` as in `recovery.started`."""
    _RECOVERIES.labels(kind=kind).inc()


def count_model_call(outcome: str) -> None:
    """`outcome`: `answered`, `interrupted`, `cancelled`, or the code of a `ModelError`."""
    _MODEL_CALLS.labels(outcome=outcome).inc()


def count_guardrail_trip() -> None:
    _TRIPS.inc()


# -- delivery


def observe_first_event(seconds: float) -> None:
    """From a start's arrival to its `run.started` being durable."""
    _FIRST_EVENT.observe(seconds)


def observe_append(seconds: float, events: int, size: int) -> None:
    """One batch written: how long it took, its events and their bytes."""
    _APPEND.observe(seconds)
    _EVENTS.inc(events)
    _EVENT_BYTES.inc(size)


def count_deltas(said: int, written: int) -> None:
    """Text deltas that agents said, and the events they became."""
    _SAID.inc(said)
    _WRITTEN.inc(written)


def observe_delivery(seconds: float) -> None:
    """From an event being durable to its being handed to a client's socket: the oldest event of one write."""
    _DELIVERY.observe(seconds)


def count_attach(transport: str, *, resumed: bool) -> None:
    """`transport`: `ws`, `sse`, `ndjson`. `resumed`: from a cursor, not from the beginning."""
    _ATTACHES.labels(transport=transport).inc()
    if resumed:
        _RESUMES.labels(transport=transport).inc()


def count_reset(reason: str) -> None:
    """`reason` as in `run.reset`."""
    _RESETS.labels(reason=reason).inc()


def count_abandoned(transport: str) -> None:
    """A client left a run that had not ended for it."""
    _ABANDONED.labels(transport=transport).inc()


def count_close(code: int) -> None:
    """A WebSocket closed, by the server or the client, with this code."""
    _CLOSES.labels(code=str(code) if code in _KNOWN_CODES else "other").inc()


# -- runs


def count_run_end(status: str) -> None:
    """`status`: `completed`, `failed`, `cancelled`."""
    _ENDS.labels(status=status).inc()


def observe_first_token(seconds: float) -> None:
    """From asking a model to the first thing of its answer."""
    _FIRST_TOKEN.observe(seconds)


def observe_stage(seconds: float, *, ok: bool) -> None:
    """One attempt of a stage, from its beginning to its end."""
    _STAGES.labels(outcome="completed" if ok else "failed").observe(seconds)


def exposed() -> bytes:
    """All of it, in the text format of Prometheus."""
    return generate_latest(REGISTRY)
