"""What an event costs as runs get more, and as a log gets long."""

from itertools import pairwise
from typing import Final

import msgspec
from clients.steady import Cost, Crowd, Long
from figures import Aim, Lines, Section, median, point, spread, table
from msgspec import Struct
from parts.plan import VARIANTS, Plan
from processes import Server, asked

NAME: Final = "growth"
TITLE: Final = "Growth"
RUNS: Final = (10, 100, 1000, 10_000)
CONNECTIONS: Final = 100
EVENTS_S: Final = 5000
WINDOW_S: Final = 4.0
REACHES: Final = (100, 1000, 10_000, 100_000, 1_000_000)
SHORT: Final = (2, 100, 1000)
"""Runs of these lengths: what the longer costs over the shorter is what its further events cost."""
SHORT_TIMES: Final = 60
LIMIT_S: Final = 300.0
STORES: Final = ("memory-off", "sqlite-off")
SETTINGS: Final = ("gather_ms=0", "max_live_runs=20000", "max_connections=20000")
LONG_SETTINGS: Final = ("max_run_events=3000000", "max_run_bytes=2000000000")


class Result(Struct, kw_only=True, frozen=True):
    """Store → at → rounds, microseconds of the server's processor an event."""

    runs: dict[str, dict[str, list[float]]]
    reaches: dict[str, dict[str, list[float]]]


def measure(plan: Plan) -> Result:
    result = Result(runs={}, reaches={})
    for number in range(plan.rounds):
        for store in STORES[:1] if plan.quick else STORES:
            for runs in (10, 1000) if plan.quick else RUNS:
                plan.say(f"growth, round {number + 1} of {plan.rounds}: {runs} runs, {VARIANTS[store].label}")
                with plan.running(store, *SETTINGS, abrupt=True) as server:
                    every_ms = runs * 1000 // EVENTS_S
                    order = Crowd(
                        port=server.port,
                        pid=server.pid,
                        runs=runs,
                        connections=CONNECTIONS,
                        order=f"say 1000000 every {every_ms} spread",
                        window_s=1.5 if plan.quick else WINDOW_S,
                    )
                    (cost,) = asked("clients/steady.py", order, list[Cost], limit_s=LIMIT_S)
                    _add(result.runs, store, cost)
            reaches = REACHES[:-2] if plan.quick else REACHES
            plan.say(
                f"growth, round {number + 1} of {plan.rounds}: logs up to {reaches[-1]:,}, {VARIANTS[store].label}"
            )
            with plan.running(store, *LONG_SETTINGS, abrupt=True) as server:
                for at, cost in zip(SHORT[1:], _short(server), strict=True):
                    _add(result.reaches, store, msgspec.structs.replace(cost, at=at))
                further = [reach for reach in reaches if reach > SHORT[-1]]
                for cost in _long(server, further[-1], 1, further)[1:]:
                    _add(result.reaches, store, cost)
    return result


def _long(server: Server, deltas: int, times: int, reaches: list[int]) -> list[Cost]:
    order = Long(port=server.port, pid=server.pid, order=f"talk {deltas}", times=times, reaches=reaches)
    return asked("clients/steady.py", order, list[Cost], limit_s=LIMIT_S)


def _short(server: Server) -> list[Cost]:
    """What runs of each length cost over runs of the length before."""
    _long(server, SHORT[-1], 5, [])
    whole = [_long(server, deltas, SHORT_TIMES, [])[0] for deltas in SHORT]
    return [
        Cost(
            at=0,
            events=longer.events - shorter.events,
            server_s=longer.server_s - shorter.server_s,
            seconds=longer.seconds - shorter.seconds,
        )
        for shorter, longer in pairwise(whole)
    ]


def _add(to: dict[str, dict[str, list[float]]], store: str, cost: Cost) -> None:
    if cost.events:
        to.setdefault(store, {}).setdefault(str(cost.at), []).append(cost.server_s / cost.events * 1e6)


def section(result: Result) -> Section:
    runs = [
        [
            VARIANTS[store].label,
            *(spread(each, ".1f") for each in result.runs[store].values()),
        ]
        for store in result.runs
    ]
    reaches = [
        [VARIANTS[store].label, *(spread(each, ".1f") for each in result.reaches[store].values())]
        for store in result.reaches
    ]
    text = [
        (
            f"{EVENTS_S:,} events a second in all, however many runs share them, over {CONNECTIONS} connections: µs of "
            "the server's processor an event. What an idle run costs is in it. Each delta is written by itself."
        ),
        table(("runs", *(f"{int(each):,}" for each in result.runs[STORES[0]])), runs),
        (
            "One run of an agent with a loop of its own, as fast as possible, in messages of 1,000 deltas: µs an "
            "event, in the second half of the way to that event; up to 1,000 what runs of that length cost over "
            f"shorter ones, {SHORT_TIMES} of each."
        ),
        table(("events in the log", *(f"{int(each):,}" for each in result.reaches[STORES[0]])), reaches),
    ]
    aims = []
    for store in result.runs:
        name = VARIANTS[store].short
        for figure, costs, least in (
            ("cost per event, {} ÷ {} runs", result.runs[store], "10"),
            ("cost per event in a log of {} ÷ {}", result.reaches[store], "100"),
        ):
            at = list(costs)
            if least not in costs:
                continue
            grown = [last / first for first, last in zip(costs[least], costs[at[-1]], strict=False)]
            aims.append(
                Aim(
                    figure=f"growth, {name}: " + figure.format(f"{int(at[-1]):,}", f"{int(least):,}"),
                    aim="flat (≤ 1.25)",
                    landed=f"{spread(grown, '.2f')} ×",
                    met=median(grown) <= 1.25 if grown else None,
                )
            )
    return Section(text="\n\n".join(text), aims=aims)


def plots(result: Result) -> list[Lines]:
    made = []
    for name, title, x, found in (
        ("growth-runs", "Cost of an event by runs at once", "runs", result.runs),
        ("growth-log", "Cost of an event by the length of its log", "events in the log", result.reaches),
    ):
        lines = {
            VARIANTS[store].label: [point(int(at), values) for at, values in costs.items()]
            for store, costs in found.items()
        }
        made.append(Lines(name=name, title=title, x=x, y="µs of the server's processor", lines=lines))
    return made
