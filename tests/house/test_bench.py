"""The benchmark measures what it says: every asked run is played to its end, all its text arrives, and the report is
made of what was measured."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from websockets.sync.client import connect

from tests.house.checkout import ROOT

BENCH = ROOT / "bench"
# As its programs do, which are started in that folder.
sys.path.append(str(BENCH))

import figures  # noqa: E402
import processes  # noqa: E402
import report  # noqa: E402
from parts import layers, planning, replay, throughput  # noqa: E402
from parts.plan import Plan  # noqa: E402
from servers.orders import PIECE  # noqa: E402

from clients import cancel, dialects, holding, load, single, starts, steady  # noqa: E402

LIMIT_S = 60.0
VARIANTS = ["raw", "msgspec", "json", "memory", "memory-off", "plain-off", "sqlite", "full-off"]


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return Plan(rounds=1, quick=True, folder=tmp_path)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One server of ours in memory, each delta an event."""
    plan = Plan(rounds=1, quick=True, folder=tmp_path_factory.mktemp("bench"))
    with plan.running("memory-off", abrupt=True) as server:
        yield server


def order_of(server: Any, transport: str = "ws", *, by_hand: bool = False, **more: Any) -> Any:
    table = dialects.BY_HAND if by_hand else dialects.OURS
    fields = {"order": "say 200", "runs": 3, "waves": 2, **more}
    return load.Load(port=server.port, pid=server.pid, dialect=table[transport], **fields)


def played(order: Any) -> Any:
    return processes.asked("clients/load.py", order, load.Seen, limit_s=LIMIT_S)


# -- the servers do what they are asked, and the load client sees it


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_all_text_of_a_run_arrives(plan: Plan, variant: str):
    said = ""
    with plan.running(variant, abrupt=True) as server:
        with connect(f"ws://127.0.0.1:{server.port}/v1/ws?client_id=a", proxy=None) as socket:
            payload = {"input": "say 120"}
            socket.send(json.dumps({"v": 1, "type": "run.start", "command_id": "c", "payload": payload}))
            frame: dict[str, Any] = {}
            while frame.get("type") != "run.completed":
                frame = json.loads(socket.recv(timeout=LIMIT_S))
                if frame["type"] == "message.delta":
                    said += frame["payload"]["text"]
        assert said == PIECE * 120
        seen = played(order_of(server, by_hand=variant in ("raw", "msgspec", "json")))
    assert seen.runs == 6
    assert 0 < seen.first_ms[0] <= seen.text_ms[0]
    assert seen.server_s > 0
    if variant in ("raw", "msgspec", "json"):
        assert seen.events == 6 * 201
    elif variant.endswith("-off"):
        assert seen.events > 6 * 200
    else:
        assert seen.events < 6 * 200


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["sse", "ndjson"])
def test_streams_are_counted_like_frames(plan: Plan, ours: Any, transport: str):
    assert played(order_of(ours, transport)).events == played(order_of(ours)).events
    with plan.running("raw", abrupt=True) as server:
        assert played(order_of(server, transport, by_hand=True)).events == 6 * 201


@pytest.mark.slow
def test_stamps_say_how_late_each_delta_is(ours: Any):
    seen = played(order_of(ours, order="say 20 every 10 stamped", stamped=True, waves=1))
    assert seen.stamps == 3 * 20
    assert 0 < seen.late_ms[0] <= seen.late_ms[1] <= seen.late_ms[2] < 5000
    assert seen.own_ms[0] >= 190


@pytest.mark.slow
def test_a_refused_run_is_no_measurement(ours: Any):
    order = msgspec.structs.replace(order_of(ours), order="nonsense of many words")
    with pytest.raises(processes.Failed, match=r"run\.failed"):
        played(order)


@pytest.mark.slow
def test_one_at_a_time(ours: Any):
    target = single.Target(name="ours", port=ours.port, pid=ours.pid, dialect=dialects.WS)
    stream = single.Target(name="stream", port=ours.port, dialect=dialects.SSE)

    def asked(order: Any) -> Any:
        return processes.asked("clients/single.py", order, single.Found, limit_s=LIMIT_S)

    first = asked(single.First(targets=[target, stream], times=3, pause_s=0)).ms
    assert {name: len(took) for name, took in first.items()} == {"ours": 3, "stream": 3}
    assert all(each > 0 for took in first.values() for each in took)
    late = asked(single.Late(targets=[target], order="say 10 every 5 stamped")).ms
    assert len(late["ours"]) == 10
    run_id = starts.listed(ours.port)[0]
    back = asked(single.Replay(target=target, run_id=run_id, times=2)).replayed
    assert back.events > 10
    assert all(0 < first <= whole for first, whole in zip(back.first_ms, back.all_ms, strict=True))


@pytest.mark.slow
def test_a_cancel_closes_the_providers_connection_and_is_written_first(plan: Plan):
    path = plan.file()
    with (
        processes.Beside("clients/cancel.py", cancel.Order(times=3)) as client,
        plan.running("raw", abrupt=True) as raw,
        plan.running("sqlite", f"model={client.said}", path=path, abrupt=True) as server,
    ):
        client.tell(cancel.Whom(port=server.port, echo_port=raw.port, path=path))
        found = client.finish(cancel.Cancelled)
    assert len(found.close_ms) == len(found.echo_ms) == found.durable == 3


@pytest.mark.slow
def test_connections_are_held_until_told(ours: Any):
    (run_id,) = starts.started(ours.port, "think", 1)
    idle = holding.Hold(port=ours.port, runs=[run_id], connections=5)
    with processes.Beside("clients/holding.py", idle) as held:
        assert held.finish(holding.Held) == holding.Held(closed=0, read=0)
    slow = holding.Hold(port=ours.port, runs=[run_id], connections=2, bytes_s=1)
    with processes.Beside("clients/holding.py", slow) as held:
        assert held.finish(holding.Held).closed == 0


@pytest.mark.slow
def test_what_an_event_costs_is_asked_of_many_runs_and_of_a_long_log(ours: Any):
    many = steady.Crowd(
        port=ours.port, pid=ours.pid, runs=20, connections=4, order="say 100000 every 20 spread", window_s=0.5
    )
    (cost,) = processes.asked("clients/steady.py", many, list[steady.Cost], limit_s=LIMIT_S)
    assert cost.at == 20
    assert cost.events > 20 * 25 * 0.3
    assert cost.server_s > 0
    long = steady.Long(port=ours.port, pid=ours.pid, order="talk 3000", times=2, reaches=[100, 2000])
    costs = processes.asked("clients/steady.py", long, list[steady.Cost], limit_s=LIMIT_S)
    assert [each.at for each in costs] == [0, 100, 2000]
    assert costs[0].events > 2 * 3000
    assert costs[2].events >= 2 * 500


@pytest.mark.slow
def test_planning_is_measured_beside_one_call(plan: Plan):
    found = planning.measure(plan, runs=3)
    ratios = [float(aim.landed) for aim in planning.section(found).aims]
    assert len(ratios) == 2
    # Not how fast it is, which a busy machine cannot say (nor that it is slower than the one call beside it, made at
    # another moment): that three calls, one after the other, would have taken longer.
    assert all(0 < ratio < 3.0 for ratio in ratios)


# -- the figures, and the report that is made of them


def test_figures():
    assert figures.percentile([3.0, 1.0, 2.0], 99) == 3.0
    assert figures.percentile(range(1, 101), 99) == 99
    assert figures.percentile([], 50) == 0
    assert figures.spread([1.0, 3.0, 2.0], ".1f") == "2.0 [1.0–3.0]"
    assert figures.spread([1.0], ".1f") == "1.0"
    assert figures.ratios([2.0, 3.0], [4.0, 0.0]) == [0.5]


def row(variant: str, events_s: float, *, number: int = 0, transport: str = "ws") -> Any:
    rest = dict.fromkeys(
        ("deltas_s", "cpu_us", "first_ms", "worst_ms", "text_ms", "peak_mb", "busy", "event_bytes"), 1.0
    )
    return throughput.Row(variant=variant, transport=transport, runs=200, round=number, events_s=events_s, **rest)


def test_an_aim_is_met_by_the_median_of_the_rounds_ratios():
    rows = [row("raw", 100.0), row("raw", 200.0, number=1), row("memory-off", 90.0), row("memory-off", 240.0, number=1)]
    rows += [row("plain-off", 40.0), row("plain-off", 90.0, number=1)]
    aims = throughput.section(throughput.Result(rows=rows)).aims
    # 0.9 and 1.2: the machine was twice as fast in the second round, and both are compared with their own.
    assert aims[0].landed == "1.05 [0.90–1.20] ×"
    assert [aim.met for aim in aims] == [True, None, None, False]


def test_samples_are_sorted_by_their_innermost_layer():
    stacks = [
        "Runner.run (asyncio/runners.py:1);Actor.run (midstream/runs/actor.py:9);append (midstream/log/memory.py:3) 5",
        "Runner.run (asyncio/runners.py:1);Turn.run (midstream/agents/turn.py:9);len (builtins.py:1) 3",
        "Runner.run (asyncio/runners.py:1) 2",
        "not a sample",
    ]
    found, top = layers.sorted_out(stacks)
    assert found == {"the log in memory": 5, "the agent: turn, speech, way out": 3, "the event loop itself": 2}
    assert top["append (midstream/log/memory.py:3)"] == 5


@pytest.fixture
def kept_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(report, "REPORT", tmp_path / "REPORT.md")
    monkeypatch.setattr(report.plots, "FOLDER", tmp_path / "plots")
    return tmp_path / "REPORT.md"


def test_each_part_keeps_its_place_in_the_report(kept_elsewhere: Path):
    first = throughput.Result(rows=[row("raw", 100.0), row("memory-off", 110.0)])
    report.keep(throughput, first, rounds=1, quick=False, load=0.1)
    report.write([throughput, replay], optional=[])
    text = kept_elsewhere.read_text(encoding="utf-8")
    assert "| 1.10 × | yes |" in text
    assert f"Not measured yet: {replay.TITLE}." in text
    one = replay.Row(
        store="memory",
        transport="ws",
        query="",
        cold=False,
        first_ms=30.0,
        worst_first_ms=31.0,
        all_ms=50.0,
        server_s=600_000.0,
        events=10_000,
        bytes=1,
    )
    report.keep(replay, replay.Result(rows=[one]), rounds=1, quick=False, load=0.1)
    report.write([throughput, replay], optional=[])
    text = kept_elsewhere.read_text(encoding="utf-8")
    assert "| 1.10 × | yes |" in text
    assert "| ≤ 20 ms | 30.0 ms | **no** |" in text
    assert text.index(f"## {throughput.TITLE}") < text.index(f"## {replay.TITLE}")


def test_what_was_kept_in_another_form_is_left_out(kept_elsewhere: Path):
    report.keep(throughput, {"other": 1}, rounds=1, quick=False, load=0.1)
    report.write([throughput], optional=[])
    assert f"Not measured yet: {throughput.TITLE}." in kept_elsewhere.read_text(encoding="utf-8")


def test_the_report_does_without_plots(kept_elsewhere: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(report.plots, "can_draw", lambda: False)
    report.keep(throughput, throughput.Result(rows=[row("raw", 1.0)]), rounds=1, quick=False, load=0.1)
    report.write([throughput], optional=[])
    assert "](plots/" not in kept_elsewhere.read_text(encoding="utf-8")


def test_a_server_that_does_not_start_says_why():
    with pytest.raises(processes.Failed) as caught, processes.serving("servers/by_hand.py", "nonsense"):
        pass
    assert any("nonsense" in note for note in caught.value.__notes__)
