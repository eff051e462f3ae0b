"""What two readings of a server's metrics say together."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from midstream.cli.readings import NoMetrics, Reading, grown, quantile, rate, read
from midstream.instruments import Counter, Histogram, LabelledCounter
from midstream.telemetry import exposed

BOUNDS = (0.001, 0.01, 0.1, 1.0)


def seen(*values: float) -> Reading:
    registry = CollectorRegistry()
    histogram = Histogram(registry, "midstream_x_seconds", "x", BOUNDS)
    for value in values:
        histogram.observe(value)
    return read(generate_latest(registry).decode(), at=0.0)


def counted(value: float, *, at: float) -> Reading:
    registry = CollectorRegistry()
    Counter(registry, "midstream_n", "n").value = value
    return read(generate_latest(registry).decode(), at=at)


def test_the_server_s_own_metrics_can_be_read():
    reading = read(exposed().decode(), at=1.0)
    assert reading.value("midstream_events_total") >= 0
    assert reading.value("process_resident_memory_bytes") > 0
    assert reading.value("no_such_metric") == 0


@pytest.mark.parametrize("text", ["", "<html>", "# HELP x y\n", 'x{y="z" 1\n', "other_total 1\n", "midstream_x one\n"])
def test_what_is_no_metrics_is_told(text: str):
    with pytest.raises(NoMetrics):
        read(text, at=0.0)


def test_rates_and_a_server_that_was_started_again():
    name = "midstream_n_total"
    assert rate(counted(10, at=1.0), counted(30, at=5.0), name) == 5.0
    assert rate(counted(10, at=1.0), counted(30, at=1.0), name) is None
    assert grown(counted(100, at=1.0), counted(4, at=2.0), name) == 4


def test_values_by_a_label():
    registry = CollectorRegistry()
    counter = LabelledCounter(registry, "midstream_n", "n", "kind", ("a", "b", "c"))
    for kind in "aab":
        counter.add(kind)
    reading = read(generate_latest(registry).decode(), at=0.0)
    assert reading.by("midstream_n_total", "kind") == {"a": 2, "b": 1}
    assert reading.value("midstream_n_total") == 3


def test_quantiles_are_of_what_was_seen_in_between():
    name = "midstream_x_seconds"
    assert quantile(None, seen(), name, 0.5) is None
    before = seen(*[0.5] * 10)
    assert quantile(before, before, name, 0.5) is None
    after = seen(*[0.5] * 10, *[0.005] * 90, *[0.05] * 10)
    median = quantile(before, after, name, 0.5)
    assert median is not None
    assert 0.001 < median < 0.01
    assert quantile(before, after, name, 0.99) > 0.01
    # Started again: fewer than before, so all of them are new.
    assert quantile(after, seen(0.05), name, 0.5) > 0.01
    assert quantile(None, seen(5.0), name, 0.99) == inf


@given(st.lists(st.floats(0.0, 0.999), min_size=1, max_size=200), st.floats(0.01, 1.0))
def test_a_quantile_is_within_the_bucket_of_the_true_one(values: list[float], share: float):
    found = quantile(None, seen(*values), "midstream_x_seconds", share)
    true = sorted(values)[max(0, -int(-share * len(values) // 1) - 1)]
    low = max((bound for bound in (0.0, *BOUNDS) if bound < true), default=0.0)
    high = next(bound for bound in BOUNDS if bound >= true)
    assert found is not None
    assert low <= found <= high + 1e-12
