"""Runs at the pace of a real model, 50 deltas a second each: do they end in time, at what cost, how late is a delta?"""

from collections.abc import Sequence
from typing import Final

from clients.dialects import WS
from clients.load import Load, Seen
from figures import Aim, Lines, Section, median, point, spread, table
from msgspec import Struct
from parts.plan import VARIANTS, Plan
from processes import asked

NAME: Final = "paced"
TITLE: Final = "50 deltas a second a run"
DELTAS: Final = 200
EVERY_MS: Final = 20
IDEAL_MS: Final = (DELTAS - 1) * EVERY_MS
RUNS: Final = (200, 500, 1000)
CHECKED: Final = ("raw", "memory", "memory-off", "sqlite", "sqlite-off")
LIMIT_S: Final = 120.0


class Row(Struct, kw_only=True, frozen=True):
    """`last_ms`: from asking all at once to the last end; `own_ms`: the slowest run from its first event to its end.

    `late_ms`: p50, p99 and worst from the model's saying it to the client's having it. `cores`: of the server.
    """

    variant: str
    runs: int
    round: int
    last_ms: float
    own_ms: float
    cores: float
    cpu_us: float
    late_ms: tuple[float, float, float]
    busy: float
    events: float


class Result(Struct, kw_only=True, frozen=True):
    rows: list[Row]


def measure(plan: Plan) -> Result:
    rows = []
    for number in range(plan.rounds):
        for variant in ("raw", "sqlite") if plan.quick else CHECKED:
            with plan.running(variant, abrupt=True) as server:
                for runs in (500,) if plan.quick else RUNS:
                    plan.say(f"paced, round {number + 1} of {plan.rounds}: {runs} × {VARIANTS[variant].label}")
                    load = Load(
                        port=server.port,
                        pid=server.pid,
                        dialect=WS,
                        runs=runs,
                        order=f"say {DELTAS} every {EVERY_MS} stamped",
                        stamped=True,
                    )
                    seen = asked("clients/load.py", load, Seen, limit_s=LIMIT_S)
                    rows.append(_row(variant, runs, number, seen))
    return Result(rows=rows)


def _row(variant: str, runs: int, number: int, seen: Seen) -> Row:
    return Row(
        variant=variant,
        runs=runs,
        round=number,
        last_ms=seen.last_ms[0],
        own_ms=seen.own_ms[1],
        cores=seen.server_s / seen.seconds,
        cpu_us=seen.server_s / (runs * DELTAS) * 1e6,
        late_ms=seen.late_ms,
        busy=seen.client_busy,
        events=seen.events / runs,
    )


def _of(rows: Sequence[Row], variant: str, runs: int) -> list[Row]:
    return [row for row in rows if (row.variant, row.runs) == (variant, runs)]


def section(result: Result) -> Section:
    rows = result.rows
    text = [
        (
            f"{DELTAS} deltas a run, one each {EVERY_MS} ms by a clock that does not wait for a late one: ideally over "
            f"after {IDEAL_MS} ms. *Late* is from the model's saying a delta to the client's having it, both on the "
            "machine's one clock, the first delta of an event; with coalescing on its window of 40 ms is part of that."
        )
    ]
    columns = (
        "",
        "all asked at once ÷ ideal",
        "slowest run by itself ÷ ideal",
        "cores",
        "server µs/delta",
        "late p50 / p99 / worst ms",
        "events a run",
        "client busy",
    )
    for runs in sorted({row.runs for row in rows}):
        lines = []
        for variant in CHECKED:
            mine = _of(rows, variant, runs)
            if not mine:
                continue
            late = [median(row.late_ms[at] for row in mine) for at in range(3)]
            lines.append(
                [
                    VARIANTS[variant].label,
                    spread([row.last_ms / IDEAL_MS for row in mine], ".3f"),
                    spread([row.own_ms / IDEAL_MS for row in mine], ".3f"),
                    spread([row.cores for row in mine], ".2f"),
                    f"{median(row.cpu_us for row in mine):.1f}",
                    " / ".join(f"{each:.1f}" for each in late),
                    f"{median(row.events for row in mine):.0f}",
                    f"{median(row.busy for row in mine):.0%}",
                ]
            )
        text += [f"### {runs} runs", table(columns, lines)]
    return Section(text="\n\n".join(text), aims=_aims(rows))


def _aims(rows: Sequence[Row]) -> list[Aim]:
    most, half = _of(rows, "sqlite", 1000), _of(rows, "sqlite", 500)
    over = [row.last_ms / IDEAL_MS for row in most]
    own = [row.own_ms / IDEAL_MS for row in most]
    late = [row.late_ms[1] for row in most]
    cores = [row.cores for row in half]
    where = "1000 runs × 50 deltas/s, SQLite"
    return [
        Aim(
            figure=f"{where}: the slowest run, from its first event to its end ÷ ideal",
            aim="≤ 1.03",
            landed=spread(own, ".3f"),
            met=median(own) <= 1.03 if own else None,
        ),
        Aim(
            figure=f"{where}: from asking for all in the same moment to the last end ÷ ideal",
            aim="≤ 1.03",
            landed=spread(over, ".3f"),
            met=median(over) <= 1.03 if over else None,
        ),
        Aim(
            figure=f"{where}: model to client p99, coalescing on",
            aim="≤ 60 ms",
            landed=f"{spread(late, '.1f')} ms",
            met=median(late) <= 60 if late else None,
        ),
        Aim(
            figure="500 runs × 50 deltas/s, SQLite: cores of the server",
            aim="≤ 0.6",
            landed=spread(cores, ".2f"),
            met=median(cores) <= 0.6 if cores else None,
        ),
    ]


def plots(result: Result) -> list[Lines]:
    made = []
    for name, title, y, level in (
        ("cores", "Cores of the server at 50 deltas a second a run", "cores", None),
        ("late", "From the model to the client, p99", "ms", 60.0),
    ):
        lines = {}
        for variant in CHECKED:
            points = []
            for runs in sorted({row.runs for row in result.rows}):
                mine = _of(result.rows, variant, runs)
                values = [row.cores if name == "cores" else row.late_ms[1] for row in mine]
                points += [point(runs, values)] if values else []
            if points:
                lines[VARIANTS[variant].label] = points
        made.append(Lines(name=name, title=title, x="runs", y=y, lines=lines, log_x=False, level=level))
    return made
