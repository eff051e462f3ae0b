"""What `midstream top` shows of what it knows: no I/O, so that every width and every hostile text can be tried."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from midstream.cli.dashboard import Dashboard
from midstream.cli.readings import read
from midstream.instruments import Counter, Histogram, LabelledCounter


class Server:
    """Metrics such as a server has."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.events = Counter(registry, "midstream_events", "")
        self.said = Counter(registry, "midstream_deltas_said", "")
        self.written = Counter(registry, "midstream_deltas_written", "")
        self.append = Histogram(registry, "midstream_append_seconds", "", (0.001, 0.002, 1.0))
        self.closes = LabelledCounter(registry, "midstream_closes", "", "code")
        self.recoveries = LabelledCounter(registry, "midstream_recoveries", "", "kind")

    def text(self) -> str:
        return generate_latest(self._registry).decode()


def shown(dashboard: Dashboard, *, width: int = 100, height: int = 40, now: float = 100.0) -> str:
    return "\n".join(line.plain for line in dashboard.lines(width=width, height=height, now=now))


def event(kind: str, run_id: str = "run_1", seq: int = 1, **payload: Any) -> dict[str, Any]:
    return {"v": 1, "type": kind, "run_id": run_id, "seq": seq, "payload": payload}


def watched() -> Dashboard:
    server, dashboard = Server(), Dashboard("http://127.0.0.1:8484")
    dashboard.reading(read(server.text(), at=90.0))
    server.events.value += 500
    server.said.value += 4000
    server.written.value += 400
    for _ in range(100):
        server.append.observe(0.0015)
    for _ in range(3):
        server.closes.add("4008")
    server.recoveries.add("overloaded")
    dashboard.reading(read(server.text(), at=100.0))
    return dashboard


def test_rates_ratios_and_quantiles():
    text = shown(watched())
    for part in (
        "events 50/s written",
        "deltas 400/s said   40/s written   10.0 joined into one",
        "append p50 1.5 ms   p99 2.0 ms",
        "closes 3× 4008",
        "recoveries 1 overloaded",
        "delivery –",
    ):
        assert part in text


def test_quiet_now_shows_what_it_was_like_before():
    server, dashboard = Server(), Dashboard("u")
    server.append.observe(0.0005)
    for at in (0.0, 5.0, 30.0):
        dashboard.reading(read(server.text(), at=at))
    assert "append p50 0.50 ms   p99 0.99 ms   since its start" in shown(dashboard)


def test_rates_look_back_for_a_while_only():
    server, dashboard = Server(), Dashboard("u")
    server.events.value = 1000
    for at in (0.0, 100.0, 105.0, 110.0):
        dashboard.reading(read(server.text(), at=at))
        server.events.value += 10
    # The thousand of long ago is not in it.
    assert "events 2.0/s written" in shown(dashboard)


def test_runs_newest_first_with_what_happened_last():
    dashboard = watched()
    dashboard.listed(
        [
            {"run_id": "run_2", "status": "waiting", "agent": "desk", "cursor": {"seq": 9}},
            {"run_id": "run_1", "status": "running", "agent": "desk", "cursor": {"seq": 5}},
        ]
    )
    dashboard.event(event("run.started", "run_3", 1, agent="writer"), at=98.0)
    dashboard.event(event("message.delta", "run_1", 7), at=40.0)
    dashboard.event(event("run.completed", "run_2", 12), at=99.0)
    rows = [line.split() for line in shown(dashboard).splitlines() if line.startswith("run_")]
    assert rows == [
        ["run_3", "running", "writer", "1", "run.started", "2", "s"],
        ["run_2", "completed", "desk", "12", "run.completed", "1", "s"],
        ["run_1", "running", "desk", "7", "message.delta", "60", "s"],
    ]


def test_a_list_that_is_older_than_the_feed_changes_nothing():
    dashboard = Dashboard("u")
    dashboard.event(event("run.started", seq=1, agent="a"), at=1.0)
    dashboard.event(event("run.completed", seq=8), at=2.0)
    dashboard.listed([{"run_id": "run_1", "status": "running", "agent": "a", "cursor": {"seq": 3}}])
    assert "completed" in shown(dashboard)
    assert "running" not in shown(dashboard)


def test_what_is_dropped_and_what_is_wrong_is_told():
    dashboard = watched()
    dashboard.event({"type": "feed.dropped", "payload": {"count": 1200}}, at=1.0)
    dashboard.trouble = "no server answers"
    dashboard.feed_trouble = "the feed is full"
    text = shown(dashboard)
    assert "1,200 events not shown here" in text
    assert "no server answers" in text
    assert "the feed is full" in text


def test_only_so_many_runs_are_remembered():
    dashboard = Dashboard("u")
    for number in range(1000):
        dashboard.event(event("run.started", f"run_{number}", agent="a"), at=1.0)
    text = shown(dashboard, height=2000)
    assert "run_999 " in text
    assert text.count("run_") <= 201


HOSTILE = st.text(st.sampled_from("a\x1b[2J]\x07\x9b\u202e\n\r\t界😀é"), max_size=60)


@given(HOSTILE, HOSTILE, HOSTILE, HOSTILE, st.integers(1, 200), st.integers(0, 50))
def test_no_text_of_a_run_leaves_its_place(run_id: str, agent: str, kind: str, label: str, width: int, height: int):
    server, dashboard = Server(), Dashboard(f"http://{agent}")
    server.recoveries.add(label)
    dashboard.reading(read(server.text(), at=1.0))
    dashboard.trouble = label
    dashboard.listed([{"run_id": run_id, "status": kind, "agent": agent, "cursor": {"seq": 1}}])
    dashboard.event(event(kind, run_id, 2, agent=agent, status=label), at=1.0)
    lines = dashboard.lines(width=width, height=height, now=2.0)
    assert len(lines) <= height
    for line in lines:
        assert line.cell_len <= max(20, width)
        assert not any(ord(character) < 32 or 0x7F <= ord(character) < 0xA0 for character in line.plain)
        assert "\u202e" not in line.plain


@pytest.mark.parametrize(
    "junk", [{}, {"payload": 5}, {"run_id": 7, "seq": "x", "payload": []}, {"type": None, "run_id": []}]
)
def test_lines_of_another_kind_of_server_break_nothing(junk: dict):
    dashboard = watched()
    dashboard.event(junk, at=1.0)
    dashboard.listed([junk])
    assert shown(dashboard)
