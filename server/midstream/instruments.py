"""Counters and histograms that cost a fraction of a microsecond to add to, in the form that Prometheus reads.

The library's own take a lock and look their labels up at each call, which is dearer than writing an event. These are
plain numbers of one thread, the event loop's: who counts from another one may lose counts.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector, CollectorRegistry

OTHER: Final = "other"
"""The label of what has no label of its own."""

MAX_LABELS: Final = 64
"""Different labels of a counter whose words are not all known beforehand."""


class _Shown(Collector):
    """Part of a registry from its making on. `name` is without the `_total` that a counter is shown with."""

    def __init__(self, registry: CollectorRegistry, name: str, about: str) -> None:
        self._name = name
        self._about = about
        registry.register(self)


class Counter(_Shown):
    """`value` is added to in place."""

    value: float = 0

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily(self._name, self._about, value=self.value)


class LabelledCounter(_Shown):
    """One number for each word of one label; what is too many is counted as `other`.

    `words`: all there are, each shown from the start, so that a rate sees its first increase. Without them any word,
    up to `MAX_LABELS`.
    """

    def __init__(
        self, registry: CollectorRegistry, name: str, about: str, label: str, words: Iterable[str] = ()
    ) -> None:
        super().__init__(registry, name, about)
        self._label = label
        self._values: dict[str, int] = dict.fromkeys(words, 0)
        self._most = len(self._values) or MAX_LABELS

    def add(self, word: str) -> None:
        values = self._values
        if word not in values and len(values) >= self._most:
            word = OTHER
        values[word] = values.get(word, 0) + 1

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily(self._name, self._about, labels=[self._label])
        for word, value in self._values.items():
            family.add_metric([word], value)
        yield family


class _Buckets:
    """How many values were within each of some bounds, and their sum. A value on a bound is within it."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def rising(self) -> list[tuple[str, float]]:
        """For each bound how many were not beyond it."""
        found: list[tuple[str, float]] = []
        below = 0
        for end, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            below += count
            found.append((end, below))
        return found


class Histogram(_Shown):
    """`bounds` are the upper ends of its buckets, rising; the last bucket has none."""

    def __init__(self, registry: CollectorRegistry, name: str, about: str, bounds: tuple[float, ...]) -> None:
        super().__init__(registry, name, about)
        self._buckets = _Buckets(bounds)
        self.observe: Final = self._buckets.add

    def collect(self) -> Iterator[Metric]:
        buckets = self._buckets
        yield HistogramMetricFamily(self._name, self._about, buckets=buckets.rising(), sum_value=buckets.sum)


class LabelledHistogram(_Shown):
    """A histogram for each word of one label; `words` are all there are."""

    def __init__(
        self,
        registry: CollectorRegistry,
        name: str,
        about: str,
        *,
        label: str,
        words: Iterable[str],
        bounds: tuple[float, ...],
    ) -> None:
        super().__init__(registry, name, about)
        self._label = label
        self._parts = {word: _Buckets(bounds) for word in words}

    def observe(self, word: str, value: float) -> None:
        """Raises `KeyError` for a word that was not named at the start."""
        self._parts[word].add(value)

    def collect(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(self._name, self._about, labels=[self._label])
        for word, part in self._parts.items():
            family.add_metric([word], part.rising(), part.sum)
        yield family
