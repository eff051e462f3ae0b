"""What a server's `/metrics` said, and what two such readings say together: rates, quantiles, ratios. Pure."""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from math import inf
from typing import Final

from msgspec import Struct
from prometheus_client.parser import text_string_to_metric_families

_NAMES: Final = ("midstream_", "process_")

Labels = tuple[tuple[str, str], ...]


class NoMetrics(Exception):
    """The text is no metrics of a Midstream server."""


class Reading(Struct, frozen=True):
    """All samples of one moment, by name and labels. `at` is a clock's time in seconds."""

    at: float
    samples: dict[str, dict[Labels, float]]

    def by(self, name: str, label: str) -> dict[str, float]:
        """The values of one metric, by one of its labels; zeros left out."""
        found: dict[str, float] = {}
        for labels, value in self.samples.get(name, {}).items():
            word = dict(labels).get(label)
            if word is not None and value:
                found[word] = found.get(word, 0.0) + value
        return found

    def value(self, name: str) -> float:
        """The sum over all labels; 0 for what is not there."""
        return sum(self.samples.get(name, {}).values())


def read(text: str, *, at: float) -> Reading:
    """Raises `NoMetrics`."""
    samples: dict[str, dict[Labels, float]] = {}
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name.startswith(_NAMES):
                    samples.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = float(sample.value)
    except (ValueError, KeyError, IndexError, TypeError) as wrong:
        raise NoMetrics(f"its /metrics cannot be read: {wrong}") from wrong
    if not any(name.startswith("midstream_") for name in samples):
        raise NoMetrics("its /metrics has nothing of a Midstream server")
    return Reading(at, samples)


def grown(before: Reading, after: Reading, name: str) -> float:
    """By how much a counter has grown. A server that was started again counts from 0."""
    was, value = before.value(name), after.value(name)
    return value - was if value >= was else value


def rate(before: Reading, after: Reading, name: str) -> float | None:
    """A counter's growth a second; None: no time has passed."""
    seconds = after.at - before.at
    return grown(before, after, name) / seconds if seconds > 0 else None


def quantile(before: Reading | None, after: Reading, name: str, share: float) -> float | None:
    """The value that so large a share of what a histogram saw between two readings did not exceed, reckoned within its
    bucket as Prometheus does. None: it saw nothing. Infinite: it is beyond the last bound. `before` None: since the
    server's start.
    """
    buckets = _buckets(after, name)
    earlier = dict(_buckets(before, name)) if before is not None else {}
    if buckets and earlier.get(inf, 0.0) > buckets[-1][1]:
        # The server was started again in between.
        earlier = {}
    counts = [(bound, below - earlier.get(bound, 0.0)) for bound, below in buckets]
    total = counts[-1][1] if counts else 0.0
    if total <= 0:
        return None
    rank = share * total
    for (low, below), (high, upto) in pairwise([(0.0, 0.0), *counts]):
        if upto >= rank and upto > below:
            return high if high == inf else low + (high - low) * (rank - below) / (upto - below)
    return inf


def _buckets(reading: Reading, name: str) -> list[tuple[float, float]]:
    """How many were not beyond each bound, over all labels, rising."""
    found: dict[float, float] = {}
    for bound, count in _bounded(reading.samples.get(f"{name}_bucket", {}).items()):
        found[bound] = found.get(bound, 0.0) + count
    return sorted(found.items())


def _bounded(samples: Iterable[tuple[Labels, float]]) -> Iterator[tuple[float, float]]:
    for labels, count in samples:
        try:
            yield float(dict(labels)["le"]), count
        except (KeyError, ValueError):
            continue
