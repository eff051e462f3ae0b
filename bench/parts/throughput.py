"""Runs of 200 deltas as fast as possible: events and deltas a second beside the raw loop, on every transport."""

from collections.abc import Sequence
from typing import Final

from clients.dialects import BY_HAND, OURS
from clients.load import Load, Seen
from figures import Aim, Lines, Section, median, point, ratios, spread, table
from msgspec import Struct
from parts.plan import VARIANTS, Plan
from processes import Server, asked, memory_mb

NAME: Final = "throughput"
TITLE: Final = "As fast as possible"
DELTAS: Final = 200
WAVES: Final = {1: 30, 50: 3, 200: 2, 500: 1, 1000: 1}
"""Runs at once, and how often one after the other: a measurement should take longer than its noise."""
QUICK: Final = {1: 10, 200: 1}
AT: Final = 200
"""What the aims are of, and measured in every round; the others in the first half of them."""
WEBSOCKET: Final = ("raw", "msgspec", "json", "memory-off", "memory", "sqlite-off", "sqlite", "full-off", "plain-off")
FEW: Final = ("msgspec", "plain-off")
"""Not measured with more runs than `AT`."""
STREAMS: Final = ("raw", "json", "memory-off", "sqlite-off")
LIMIT_S: Final = 150.0


class Row(Struct, kw_only=True, frozen=True):
    """One measurement. Rates a second, microseconds of the server's processor a delta, MB at most so far."""

    variant: str
    transport: str
    runs: int
    round: int
    events_s: float
    deltas_s: float
    cpu_us: float
    first_ms: float
    worst_ms: float
    text_ms: float
    peak_mb: float
    busy: float
    event_bytes: float


class Result(Struct, kw_only=True, frozen=True):
    rows: list[Row]


def measure(plan: Plan) -> Result:
    rows = []
    loads = QUICK if plan.quick else WAVES
    variants = ("raw", "json", "memory-off", "sqlite-off") if plan.quick else WEBSOCKET
    for number in range(plan.rounds):
        for variant in variants:
            plan.say(f"throughput, round {number + 1} of {plan.rounds}: {VARIANTS[variant].label}")
            with plan.running(variant, abrupt=True) as server:
                for runs, waves in loads.items():
                    if runs != AT and (number > plan.rounds // 2 or (runs > AT and variant in FEW)):
                        continue
                    rows.append(_row(server, variant, "ws", runs, number, waves=waves))
        for variant in ("raw", "memory-off") if plan.quick else STREAMS:
            plan.say(f"throughput, round {number + 1} of {plan.rounds}: {VARIANTS[variant].label}, SSE and NDJSON")
            with plan.running(variant, abrupt=True) as server:
                rows += [_row(server, variant, each, AT, number, waves=1) for each in ("sse", "ndjson")]
    return Result(rows=rows)


def _row(server: Server, variant: str, transport: str, runs: int, number: int, *, waves: int) -> Row:
    dialect = (BY_HAND if VARIANTS[variant].by_hand else OURS)[transport]
    load = Load(port=server.port, pid=server.pid, dialect=dialect, runs=runs, order=f"say {DELTAS}", waves=waves)
    seen = asked("clients/load.py", load, Seen, limit_s=LIMIT_S)
    deltas = seen.runs * DELTAS
    return Row(
        variant=variant,
        transport=transport,
        runs=runs,
        round=number,
        events_s=seen.events / seen.seconds,
        deltas_s=deltas / seen.seconds,
        cpu_us=seen.server_s / deltas * 1e6,
        first_ms=seen.first_ms[0],
        worst_ms=seen.first_ms[1],
        text_ms=seen.text_ms[0],
        peak_mb=memory_mb(server.pid, "VmHWM"),
        busy=seen.client_busy,
        event_bytes=seen.bytes / seen.events,
    )


def _of(rows: Sequence[Row], variant: str, runs: int, transport: str = "ws") -> list[Row]:
    return [row for row in rows if (row.variant, row.runs, row.transport) == (variant, runs, transport)]


COLUMNS: Final = (
    "",
    "events/s ÷ raw",
    "deltas/s ÷ raw",
    "events/s",
    "deltas/s",
    "server µs/delta",
    "first event ms (worst)",
    "first text ms",
    "peak MB",
    "client busy",
)


def _line(label: str, mine: Sequence[Row], base: Sequence[Row]) -> list[str]:
    return [
        label,
        spread(ratios([row.events_s for row in mine], [row.events_s for row in base]), ".2f"),
        spread(ratios([row.deltas_s for row in mine], [row.deltas_s for row in base]), ".2f"),
        spread([row.events_s for row in mine], ",.0f"),
        spread([row.deltas_s for row in mine], ",.0f"),
        f"{median(row.cpu_us for row in mine):.1f}",
        f"{median(row.first_ms for row in mine):.2f} ({median(row.worst_ms for row in mine):.1f})",
        f"{median(row.text_ms for row in mine):.2f}",
        f"{median(row.peak_mb for row in mine):.0f}",
        f"{median(row.busy for row in mine):.0%}",
    ]


def section(result: Result) -> Section:
    rows = result.rows
    text = [
        (
            f"{DELTAS} deltas a run. Ratios are of one round, to the raw loop of the same transport. With coalescing "
            "off an event is a delta; with it on, deltas that come within 40 ms are one event. The busiest client was "
            f"busy {max(row.busy for row in rows):.0%} of the time."
        )
    ]
    for runs in sorted({row.runs for row in rows if row.transport == "ws"}):
        base = _of(rows, "raw", runs)
        lines = [_line(VARIANTS[each].label, mine, base) for each in WEBSOCKET if (mine := _of(rows, each, runs))]
        text += [f"### WebSocket, {runs} run{'s' if runs > 1 else ''} at once", table(COLUMNS, lines)]
    for transport, name in (("sse", "Server-sent events"), ("ndjson", "NDJSON")):
        base = _of(rows, "raw", AT, transport)
        lines = [
            _line(VARIANTS[each].label, mine, base) for each in STREAMS if (mine := _of(rows, each, AT, transport))
        ]
        text += [f"### {name}, {AT} runs at once", table(COLUMNS, lines)]
    return Section(text="\n\n".join(text), aims=_aims(rows))


def _aims(rows: Sequence[Row]) -> list[Aim]:
    asked_for = (
        ("memory-off", "raw", 1.0, "memory"),
        ("sqlite-off", "raw", 0.85, "SQLite NORMAL, acknowledged before sent"),
        ("sqlite-off", "json", 1.5, "SQLite NORMAL, against the loop written by hand that keeps nothing"),
        ("plain-off", "raw", 0.5, "plain ASGI, memory"),
    )
    aims = []
    for variant, base, least, label in asked_for:
        found = ratios([row.events_s for row in _of(rows, variant, AT)], [row.events_s for row in _of(rows, base, AT)])
        against = " ÷ the raw loop's" if base == "raw" else ""
        aims.append(
            Aim(
                figure=f"events/s at N = {AT}{against}: {label}",
                aim=f"≥ {least} ×",
                landed=f"{spread(found, '.2f')} ×",
                met=median(found) >= least if found else None,
            )
        )
    return aims


def plots(result: Result) -> list[Lines]:
    shown = ("json", "memory-off", "sqlite-off", "full-off", "plain-off")
    made = []
    for name, field, title, variants in (
        ("events", "events_s", "Events a second ÷ the raw loop's, WebSocket, coalescing off", shown),
        (
            "deltas",
            "deltas_s",
            "Deltas a second ÷ the raw loop's, WebSocket",
            ("json", "memory", "sqlite", *shown[1:3]),
        ),
    ):
        lines = {}
        for variant in variants:
            points = []
            for runs in sorted({row.runs for row in result.rows if row.transport == "ws"}):
                base = [getattr(row, field) for row in _of(result.rows, "raw", runs)]
                found = ratios([getattr(row, field) for row in _of(result.rows, variant, runs)], base)
                points += [point(runs, found)] if found else []
            if points:
                lines[VARIANTS[variant].label] = points
        made.append(Lines(name=name, title=title, x="runs at once", y="÷ raw", lines=lines, level=1.0))
    return made
