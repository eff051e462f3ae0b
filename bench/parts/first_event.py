"""Time to the first event: one start at a time beside the raw stack's echo, and 200 at once beside a loop by hand."""

from typing import Final

from clients.dialects import SSE, WS
from clients.load import Load, Seen
from clients.single import First, Found, Target
from figures import Aim, Section, median, percentile, ratios, spread, table
from msgspec import Struct
from parts.plan import VARIANTS, Plan
from processes import asked

NAME: Final = "first"
TITLE: Final = "Time to the first event"
TIMES: Final = 200
PAUSE_S: Final = 0.003
BURST: Final = 200
BURST_WAVES: Final = 2
BURST_VARIANTS: Final = ("json", "memory", "sqlite", "full")
LIMIT_S: Final = 120.0

ECHO: Final = "echo"
POST: Final = "post"
SINGLE: Final = {
    ECHO: "raw stack, echo over a WebSocket",
    "memory": "Midstream, memory, WebSocket",
    "sqlite": "Midstream, SQLite NORMAL, WebSocket",
    "full": "Midstream, SQLite FULL, WebSocket",
    POST: "raw stack, one POST answered",
    "memory-sse": "Midstream, memory, POST and then SSE",
    "sqlite-sse": "Midstream, SQLite NORMAL, POST and then SSE",
}


class Result(Struct, kw_only=True, frozen=True):
    """Milliseconds. `single`: name → rounds → (p50, p99). `burst`: variant → rounds → (median of runs, worst)."""

    single: dict[str, list[tuple[float, float]]]
    burst: dict[str, list[tuple[float, float]]]


def measure(plan: Plan) -> Result:
    single: dict[str, list[tuple[float, float]]] = {name: [] for name in SINGLE}
    burst: dict[str, list[tuple[float, float]]] = {name: [] for name in BURST_VARIANTS}
    for number in range(plan.rounds):
        plan.say(f"first event, round {number + 1} of {plan.rounds}: one at a time")
        with (
            plan.running("raw") as raw,
            plan.running("memory") as memory,
            plan.running("sqlite") as sqlite,
            plan.running("full") as full,
        ):
            targets = [
                Target(name=ECHO, port=raw.port),
                Target(name="memory", port=memory.port, dialect=WS),
                Target(name="sqlite", port=sqlite.port, dialect=WS),
                Target(name="full", port=full.port, dialect=WS),
                Target(name=POST, port=raw.port, echo="http"),
                Target(name="memory-sse", port=memory.port, dialect=SSE),
                Target(name="sqlite-sse", port=sqlite.port, dialect=SSE),
            ]
            times = TIMES // 4 if plan.quick else TIMES
            asked("clients/single.py", First(targets=targets, times=20, pause_s=0.001), Found, limit_s=LIMIT_S)
            order = First(targets=targets, times=times, pause_s=PAUSE_S)
            for name, took in asked("clients/single.py", order, Found, limit_s=LIMIT_S).ms.items():
                single[name].append((median(took), percentile(took, 99)))
        for variant in BURST_VARIANTS[:3] if plan.quick else BURST_VARIANTS:
            plan.say(f"first event, round {number + 1} of {plan.rounds}: {BURST} at once, {VARIANTS[variant].label}")
            with plan.running(variant, abrupt=True) as server:
                load = Load(
                    port=server.port,
                    pid=server.pid,
                    dialect=WS,
                    runs=BURST,
                    order="say 200",
                    waves=1 if plan.quick else BURST_WAVES,
                    pause_s=0.2,
                )
                seen = asked("clients/load.py", load, Seen, limit_s=LIMIT_S)
                burst[variant].append(seen.first_ms)
    return Result(single=single, burst=burst)


def _ratios(found: dict[str, list[tuple[float, float]]], name: str, base: str, at: int = 0) -> list[float]:
    return ratios([each[at] for each in found[name]], [each[at] for each in found[base]])


def section(result: Result) -> Section:
    rows = []
    for name, label in SINGLE.items():
        base = POST if name in (POST, "memory-sse", "sqlite-sse") else ECHO
        rows.append(
            [
                label,
                spread(_ratios(result.single, name, base), ".2f"),
                spread([each[0] for each in result.single[name]], ".3f"),
                spread([each[1] for each in result.single[name]], ".2f"),
            ]
        )
    bursts = [
        [
            VARIANTS[name].label,
            spread(_ratios(result.burst, name, "json"), ".2f"),
            spread(_ratios(result.burst, name, "json", 1), ".2f"),
            spread([each[0] for each in result.burst[name]], ".1f"),
            spread([each[1] for each in result.burst[name]], ".1f"),
        ]
        for name in BURST_VARIANTS
        if result.burst[name]
    ]
    text = [
        (
            "One start at a time on an idle machine, by a blocking socket, each server in turn; from asking to the "
            "first byte of `run.started`. The echo sends the same bytes back."
        ),
        table(("", "÷ echo of the same kind", "p50 ms", "p99 ms"), rows),
        (
            f"{BURST} starts in the same moment, connections open before, each run then saying 200 deltas as fast as "
            "possible: when each has had its first event."
        ),
        table(("", "median ÷ by hand", "worst ÷ by hand", "median ms", "worst ms"), bursts),
    ]
    aims = []
    for name, most in (("memory", 1.5), ("sqlite", 3.0)):
        found = _ratios(result.single, name, ECHO)
        aims.append(
            Aim(
                figure=f"first event, one start, idle: {VARIANTS[name].short} ÷ echo of the raw stack",
                aim=f"≤ {most} ×",
                landed=f"{spread(found, '.2f')} ×",
                met=median(found) <= most if found else None,
            )
        )
    for name in ("memory", "sqlite"):
        found = _ratios(result.burst, name, "json")
        aims.append(
            Aim(
                figure=f"first event in a burst of {BURST} starts: {VARIANTS[name].short} ÷ the "
                "WebSocket loop written by hand",
                aim="≤ 2 ×",
                landed=f"{spread(found, '.2f')} ×",
                met=median(found) <= 2 if found else None,
            )
        )
    return Section(text="\n\n".join(text), aims=aims)
