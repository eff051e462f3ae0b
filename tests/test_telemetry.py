"""Counters and histograms as Prometheus reads them, and the gauges that are asked for."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client import Histogram as TheirHistogram
from prometheus_client.parser import text_string_to_metric_families

from midstream import telemetry
from midstream.instruments import MAX_LABELS, OTHER, Counter, Histogram, LabelledCounter, LabelledHistogram
from midstream.telemetry import Census, exposed, watch

BOUNDS = (0.0001, 0.001, 0.5, 1.0, 10.0)


def samples(text: str) -> dict[str, float]:
    """By name and, behind a space, the words of its labels."""
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def shown(registry: CollectorRegistry) -> dict[str, float]:
    return samples(generate_latest(registry).decode())


@given(st.lists(st.floats(0, 20) | st.sampled_from(BOUNDS), max_size=50))
def test_a_histogram_is_what_the_library_s_own_would_be(values: list[float]):
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    mine = Histogram(ours, "x_seconds", "about", BOUNDS)
    other = TheirHistogram("x_seconds", "about", buckets=BOUNDS, registry=theirs)
    for value in values:
        mine.observe(value)
        other.observe(value)
    found = shown(ours)
    assert found == pytest.approx(shown(theirs))
    # Nothing was seen twice: the last bucket is the count.
    assert found["x_seconds_bucket +Inf"] == found["x_seconds_count"] == len(values)


def test_counters_and_labels():
    registry = CollectorRegistry()
    Counter(registry, "n", "about").value += 2
    counter = LabelledCounter(registry, "m", "about", "word", ("a", "b"))
    for word in ("a", "a", "c", "d"):
        counter.add(word)
    histogram = LabelledHistogram(registry, "h", "about", label="word", words=("a", "b"), bounds=(1.0,))
    histogram.observe("a", 0.5)
    found = shown(registry)
    assert found["n_total"] == 2
    # A word that is known is there from the start; one that is not is none of its own.
    assert {name: value for name, value in found.items() if name.startswith("m_")} == {
        "m_total a": 2,
        "m_total b": 0,
        f"m_total {OTHER}": 2,
    }
    assert (found["h_count a"], found["h_count b"], found["h_bucket 1.0 a"]) == (1, 0, 1)
    with pytest.raises(KeyError):
        histogram.observe("c", 1.0)


def test_the_number_of_labels_is_bounded_whatever_is_counted():
    registry = CollectorRegistry()
    counter = LabelledCounter(registry, "m", "about", "word")
    for number in range(1000):
        counter.add(f'{number}"\n\\')
    found = shown(registry)
    assert len(found) == MAX_LABELS + 1
    assert sum(found.values()) == 1000


def test_every_metric_says_what_it_is():
    families = list(text_string_to_metric_families(exposed().decode()))
    ours = [family for family in families if family.name.startswith("midstream_")]
    assert len(ours) > 25
    for family in ours:
        assert family.documentation.endswith("."), family.name
        assert family.type in {"counter", "histogram", "gauge"}
        if family.type == "histogram":
            assert family.name.endswith("_seconds")


def test_labels_of_what_is_counted_are_known_words():
    before = samples(exposed().decode())
    telemetry.count_attach("ws", resumed=True)
    telemetry.count_attach("carrier pigeon", resumed=False)
    telemetry.count_reset("too_far")
    telemetry.count_abandoned("ndjson")
    telemetry.count_run_end("completed")
    for code in (1000, 4008, 4999, 70_000):
        telemetry.count_close(code)
    telemetry.observe_append(0.002, 3, 700)
    telemetry.count_deltas(5, 2)
    telemetry.observe_stage(90.0, ok=False)
    after = samples(exposed().decode())
    grown = {
        name.removeprefix("midstream_"): value - before.get(name, 0)
        for name, value in after.items()
        if name.startswith("midstream_") and value != before.get(name, 0) and "_bucket" not in name
    }
    assert grown == pytest.approx(
        {
            "attaches_total ws": 1,
            "attaches_total other": 1,
            "resumes_total ws": 1,
            "resets_total too_far": 1,
            "abandoned_streams_total ndjson": 1,
            "runs_ended_total completed": 1,
            "closes_total 1000": 1,
            "closes_total 4008": 1,
            "closes_total other": 2,
            "append_seconds_count": 1,
            "append_seconds_sum": 0.002,
            "events_total": 3,
            "event_bytes_total": 700,
            "deltas_said_total": 5,
            "deltas_written_total": 2,
            "stage_seconds_count failed": 1,
            "stage_seconds_sum failed": 90.0,
        }
    )


@pytest.fixture
def ends() -> Iterator[list]:
    """What ends the watching of a test."""
    found: list = []
    yield found
    for end in found:
        end()


def test_the_gauges_are_of_all_that_is_watched(ends: list):
    ends.append(watch(lambda: Census(runs={"running": 2}, readers=3, lag_events=10, lag_events_max=7)))
    ends.append(watch(lambda: Census(runs={"running": 1, "waiting": 5}, lag_events=4, lag_events_max=4)))
    found = samples(exposed().decode())
    assert found["midstream_runs running"] == 3
    assert found["midstream_runs waiting"] == 5
    assert found["midstream_readers"] == 3
    assert (found["midstream_reader_lag_events"], found["midstream_reader_lag_events_max"]) == (14, 7)
    ends.pop()()
    found = samples(exposed().decode())
    assert (found["midstream_runs running"], found["midstream_runs waiting"]) == (2, 0)


def test_a_server_that_cannot_say_how_it_stands_hides_no_counter(ends: list):
    def broken() -> Census:
        raise RuntimeError("no")

    ends += [watch(broken), watch(lambda: Census(readers=1))]
    found = samples(exposed().decode())
    assert found["midstream_readers"] == 1
    assert "midstream_events_total" in found
