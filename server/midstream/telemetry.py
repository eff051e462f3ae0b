"""What operators count: the one registry of this process, and the functions that add to it. `GET /metrics` shows it,
docs/metrics.md says what each is good for.

Called where things happen, on the event loop: each costs a fraction of a microsecond. Labels are words of ours, never
a user's or a provider's: their number is bounded. What there is at the moment (runs, connections, readers) is not
counted but asked for when somebody looks (`watch`).
"""

from collections.abc import Callable, Iterator, Mapping
from operator import attrgetter
from typing import Final, get_args

from msgspec import Struct, field
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from midstream.instruments import Counter, Histogram, LabelledCounter, LabelledHistogram
from midstream.logs import Logger
from midstream_protocol.codes import Close
from midstream_protocol.events import TERMINAL_STATUSES, RunStatus
from midstream_protocol.frames import RunReset

METRICS_TYPE: Final = CONTENT_TYPE_LATEST
"""The media type of `exposed`."""

TRANSPORTS: Final = ("ws", "sse", "ndjson")

_SHORT_S: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
"""From one turn of an event loop to the longest that anybody waits."""
_MODEL_S: Final = (0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 20.0, 30.0, 60.0)
_LONG_S: Final = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)

_LIVE_STATUSES: Final = tuple(status for status in get_args(RunStatus) if status not in TERMINAL_STATUSES)
_KNOWN_CODES: Final = frozenset({1000, 1001, 1005, 1006, 1009, 1011, 1012, *map(int, Close)})
_RESET_REASONS: Final[tuple[str, ...]] = get_args(RunReset.__annotations__["reason"])

_log = Logger("midstream.telemetry")

# Not the library's global one: what is imported beside us adds to that as it likes.
REGISTRY: Final = CollectorRegistry()
# What the operating system says of this process: memory, processor time, open files.
ProcessCollector(registry=REGISTRY)

_RECOVERIES: Final = LabelledCounter(
    REGISTRY, "midstream_recoveries", "Failures that a run recovered from, by kind.", "kind"
)
_MODEL_CALLS: Final = LabelledCounter(
    REGISTRY, "midstream_model_calls", "Tries of model calls, by what became of them.", "outcome"
)
_TRIPS: Final = Counter(REGISTRY, "midstream_guardrail_trips", "Requests that a guardrail stopped.")
_FIRST_EVENT: Final = Histogram(
    REGISTRY, "midstream_first_event_seconds", "From a start's arrival to its run.started being durable.", _SHORT_S
)
_APPEND: Final = Histogram(REGISTRY, "midstream_append_seconds", "Writing one batch to the log.", _SHORT_S)
_EVENTS: Final = Counter(REGISTRY, "midstream_events", "Events written to logs.")
_EVENT_BYTES: Final = Counter(REGISTRY, "midstream_event_bytes", "Bytes of events written to logs.")
_SAID: Final = Counter(REGISTRY, "midstream_deltas_said", "Text deltas that agents said.")
_WRITTEN: Final = Counter(REGISTRY, "midstream_deltas_written", "Events that text deltas became.")
_DELIVERY: Final = Histogram(
    REGISTRY,
    "midstream_delivery_seconds",
    "From an event being durable to its being handed to a client's socket: the oldest event of each write.",
    _SHORT_S,
)
_ATTACHES: Final = LabelledCounter(REGISTRY, "midstream_attaches", "Attaches to runs.", "transport", TRANSPORTS)
_RESUMES: Final = LabelledCounter(
    REGISTRY, "midstream_resumes", "Attaches that went on from a cursor.", "transport", TRANSPORTS
)
_RESETS: Final = LabelledCounter(
    REGISTRY, "midstream_resets", "Clients that were given a snapshot, by reason.", "reason", _RESET_REASONS
)
_ABANDONED: Final = LabelledCounter(
    REGISTRY, "midstream_abandoned_streams", "Clients that left a run before its end.", "transport", TRANSPORTS
)
_CLOSES: Final = LabelledCounter(
    REGISTRY, "midstream_closes", "WebSockets closed, by code.", "code", map(str, sorted(_KNOWN_CODES))
)
_FEED_EVENTS: Final = Counter(REGISTRY, "midstream_feed_events", "Events given to readers of the feed.")
_FEED_DROPPED: Final = Counter(
    REGISTRY, "midstream_feed_dropped", "Events that readers of the feed wanted and were not given."
)
_WEBHOOKS: Final = LabelledCounter(
    REGISTRY,
    "midstream_webhooks",
    "Webhooks: events that were delivered or given up, and tries that failed.",
    "outcome",
    ("delivered", "failed", "given_up"),
)
_ENDS: Final = LabelledCounter(
    REGISTRY, "midstream_runs_ended", "Runs ended, by status.", "status", sorted(TERMINAL_STATUSES)
)
_PARKED: Final = Counter(REGISTRY, "midstream_runs_parked", "Waiting runs that left the memory.")
_WOKEN: Final = Counter(REGISTRY, "midstream_runs_woken", "Runs taken up again that had been left in order.")
_FIRST_TOKEN: Final = Histogram(
    REGISTRY, "midstream_model_first_token_seconds", "From asking a model to the first thing of its answer.", _MODEL_S
)
_STAGES: Final = LabelledHistogram(
    REGISTRY,
    "midstream_stage_seconds",
    "Attempts of stages, from beginning to end, by outcome.",
    label="outcome",
    words=("completed", "failed"),
    bounds=_LONG_S,
)


def count_recovery(kind: str) -> None:
    """`kind` as in `recovery.started`."""
    _RECOVERIES.add(kind)


def count_model_call(outcome: str) -> None:
    """`outcome`: `answered`, `interrupted`, `cancelled`, or the code of a `ModelError`."""
    _MODEL_CALLS.add(outcome)


def count_guardrail_trip() -> None:
    _TRIPS.value += 1


# -- delivery


def observe_first_event(seconds: float) -> None:
    """From a start's arrival to its `run.started` being durable."""
    _FIRST_EVENT.observe(seconds)


def observe_append(seconds: float, events: int, size: int) -> None:
    """One batch written: how long it took, its events and their bytes."""
    _APPEND.observe(seconds)
    _EVENTS.value += events
    _EVENT_BYTES.value += size


def count_events(events: int, size: int) -> None:
    """Events that were written otherwise than by a run's batch: those of its start."""
    _EVENTS.value += events
    _EVENT_BYTES.value += size


def mean_event_bytes() -> float:
    """Of all events written so far; 0: none were."""
    return _EVENT_BYTES.value / _EVENTS.value if _EVENTS.value else 0.0


def count_deltas(said: int, written: int) -> None:
    """Text deltas that agents said, and the events they became."""
    _SAID.value += said
    _WRITTEN.value += written


def observe_delivery(seconds: float) -> None:
    """From an event being durable to its being handed to a client's socket: the oldest event of one write."""
    _DELIVERY.observe(seconds)


def count_attach(transport: str, *, resumed: bool) -> None:
    """`transport`: `ws`, `sse`, `ndjson`. `resumed`: from a cursor, not from the beginning."""
    _ATTACHES.add(transport)
    if resumed:
        _RESUMES.add(transport)


def count_reset(reason: str) -> None:
    """`reason` as in `run.reset`."""
    _RESETS.add(reason)


def count_abandoned(transport: str) -> None:
    """A client left a run that had not ended for it."""
    _ABANDONED.add(transport)


def count_close(code: int) -> None:
    """A WebSocket closed, by the server or the client, with this code."""
    _CLOSES.add(str(code))


def count_feed(given: int, dropped: int) -> None:
    """Events that one reader of the feed was given, and that it was not given although it wanted them."""
    _FEED_EVENTS.value += given
    _FEED_DROPPED.value += dropped


def count_webhook(outcome: str) -> None:
    """`outcome`: `delivered` or `given_up` for an event at a place, `failed` for each try that it did not take."""
    _WEBHOOKS.add(outcome)


# -- runs


def count_run_end(status: str) -> None:
    """`status`: `completed`, `failed`, `cancelled`."""
    _ENDS.add(status)


def count_parked() -> None:
    """A waiting run has left the memory."""
    _PARKED.value += 1


def count_woken() -> None:
    """A run was taken up again that had been left in order: parked, or handed over when its server stopped."""
    _WOKEN.value += 1


def observe_first_token(seconds: float) -> None:
    """From asking a model to the first thing of its answer."""
    _FIRST_TOKEN.observe(seconds)


def observe_stage(seconds: float, *, ok: bool) -> None:
    """One attempt of a stage, from its beginning to its end."""
    _STAGES.observe("completed" if ok else "failed", seconds)


# -- what there is now


class Census(Struct, kw_only=True, frozen=True):
    """What one server holds at the moment.

    `runs` in memory by status, `connections` by transport. `readers` are attached to runs; their lag is what is durable
    and was not taken for their connection yet, of all together and of the one that is furthest behind.
    """

    runs: Mapping[str, int] = field(default_factory=dict)
    connections: Mapping[str, int] = field(default_factory=dict)
    readers: int = 0
    lag_events: int = 0
    lag_events_max: int = 0
    lag_bytes: int = 0
    lag_bytes_max: int = 0


Source = Callable[[], Census]


class _Watched(Collector):
    """The gauges, of all sources together."""

    def __init__(self) -> None:
        self.sources: dict[object, Source] = {}

    def collect(self) -> Iterator[Metric]:
        found = [census for source in tuple(self.sources.values()) if (census := _asked(source)) is not None]
        for name, about, label, words, of in (
            ("runs", "Runs in memory, by status.", "status", _LIVE_STATUSES, attrgetter("runs")),
            (
                "connections",
                "Open now, by transport.",
                "transport",
                (*TRANSPORTS, "feed", "wait"),
                attrgetter("connections"),
            ),
        ):
            family = GaugeMetricFamily(f"midstream_{name}", about, labels=[label])
            for word in words:
                family.add_metric([word], sum(of(each).get(word, 0) for each in found))
            yield family
        for name, about, of, joined in (
            ("readers", "Attached to runs.", attrgetter("readers"), sum),
            ("reader_lag_events", "Durable and not handed on yet, all readers.", attrgetter("lag_events"), sum),
            ("reader_lag_events_max", "The same of the slowest reader.", attrgetter("lag_events_max"), max),
            ("reader_lag_bytes", "Durable and not handed on yet, all readers.", attrgetter("lag_bytes"), sum),
            ("reader_lag_bytes_max", "The same of the slowest reader.", attrgetter("lag_bytes_max"), max),
        ):
            yield GaugeMetricFamily(f"midstream_{name}", about, value=joined([0, *map(of, found)]))


def _asked(source: Source) -> Census | None:
    try:
        return source()
    except Exception:  # noqa: BLE001 - the edge: what was counted is shown all the same
        _log.exception("a server cannot say how it stands")
        return None


_WATCHED: Final = _Watched()
REGISTRY.register(_WATCHED)


def watch(source: Source) -> Callable[[], None]:
    """Ask `source` whenever somebody looks; returns what ends that."""
    key = object()
    _WATCHED.sources[key] = source

    def end() -> None:
        _WATCHED.sources.pop(key, None)

    return end


def exposed() -> bytes:
    """All of it, in the text format of Prometheus."""
    return generate_latest(REGISTRY)
