"""Reading a run of 10,000 events back, on every transport, from memory and from disk, first time and again."""

from typing import Final

from clients.dialects import OURS, WS
from clients.load import Load, Seen
from clients.single import Found, Replay, Replayed, Target
from clients.starts import listed
from figures import Aim, Section, median, spread, table
from msgspec import Struct
from parts.plan import Plan
from processes import Failed, Server, asked

NAME: Final = "replay"
TITLE: Final = "Replay of 10,000 events"
EVENTS: Final = 10_000
TIMES: Final = 10
COLD: Final = 3
LIMIT_S: Final = 120.0
SETTINGS: Final = ("coalesce_ms=0",)
KINDS: Final = {"ws": "WebSocket", "sse": "SSE", "ndjson": "NDJSON"}


class Row(Struct, kw_only=True, frozen=True):
    """`first_ms`, `all_ms`: p50. `server_s`: events a second of the server's processor."""

    store: str
    transport: str
    query: str
    cold: bool
    first_ms: float
    worst_first_ms: float
    all_ms: float
    server_s: float
    events: int
    bytes: int


class Result(Struct, kw_only=True, frozen=True):
    rows: list[Row]


def measure(plan: Plan) -> Result:
    rows = []
    for number in range(plan.rounds):
        plan.say(f"replay, round {number + 1} of {plan.rounds}: memory")
        with plan.running("memory", *SETTINGS) as server:
            run_id = _made(server)
            rows += [_row(server, run_id, "memory", transport, TIMES) for transport in KINDS]
            rows += [_row(server, run_id, "memory", "ws", TIMES, query=query) for query in ("merged", "snapshot")]
        plan.say(f"replay, round {number + 1} of {plan.rounds}: SQLite")
        path = plan.file()
        with plan.running("sqlite", *SETTINGS, path=path) as server:
            run_id = _made(server)
            rows += [_row(server, run_id, "sqlite", transport, TIMES) for transport in KINDS]
            rows += [_row(server, run_id, "sqlite", "ws", TIMES, query=query) for query in ("merged", "snapshot")]
        for transport in () if plan.quick else KINDS:
            # Cold: the first thing that a server started anew is asked.
            for _ in range(COLD):
                with plan.running("sqlite", *SETTINGS, path=path) as server:
                    rows.append(_row(server, run_id, "sqlite", transport, 1, cold=True))
    return Result(rows=rows)


def _made(server: Server) -> str:
    load = Load(port=server.port, pid=server.pid, dialect=WS, runs=1, order=f"say {EVENTS}")
    asked("clients/load.py", load, Seen, limit_s=LIMIT_S)
    return listed(server.port)[0]


def _row(
    server: Server, run_id: str, store: str, transport: str, times: int, *, query: str = "", cold: bool = False
) -> Row:
    target = Target(name=store, port=server.port, pid=server.pid, dialect=OURS[transport])
    order = Replay(target=target, run_id=run_id, times=times, query=query)
    found = asked("clients/single.py", order, Found, limit_s=LIMIT_S).replayed
    assert isinstance(found, Replayed)
    if not query and found.events < EVENTS:
        raise Failed(f"the run has only {found.events} events: were its deltas joined?")
    # Of a hot one the first time is left out: it is neither cold nor warm.
    kept = slice(0 if cold else 1, None)
    return Row(
        store=store,
        transport=transport,
        query=query,
        cold=cold,
        first_ms=median(found.first_ms[kept]),
        worst_first_ms=max(found.first_ms[kept]),
        all_ms=median(found.all_ms[kept]),
        server_s=found.events / max(median(found.server_ms[kept]) / 1e3, 1e-9),
        events=found.events,
        bytes=found.bytes,
    )


def section(result: Result) -> Section:
    lines = []
    cases = sorted({(row.store, row.transport, row.query, row.cold) for row in result.rows})
    order = list(KINDS)
    for store, transport, query, cold in sorted(
        cases, key=lambda each: (each[0], each[2], each[3], order.index(each[1]))
    ):
        mine = _of(result, store, transport, query, cold=cold)
        lines.append(
            [
                (
                    f"{'SQLite' if store == 'sqlite' else 'memory'}, {KINDS[transport]}{', ' + query if query else ''}"
                    f"{', cold' if cold else ''}"
                ),
                spread([row.server_s for row in mine], ",.0f") if not query else "–",
                spread([row.events / row.all_ms * 1e3 for row in mine], ",.0f") if not query else "–",
                spread([row.first_ms for row in mine], ".1f"),
                f"{max(row.worst_first_ms for row in mine):.1f}",
                spread([row.all_ms for row in mine], ".1f"),
                f"{mine[0].bytes / 1024:,.0f}",
            ]
        )
    columns = (
        "",
        "events/s of the server's processor",
        "events/s on the client",
        "first byte p50 ms",
        "worst ms",
        "all of it ms",
        "KB",
    )
    text = [
        (
            f"An ended run of {result.rows[0].events:,} events, from seq 0, by a blocking socket. *Cold* is the first "
            "request to a server that was started on the file; the file itself is in the system's cache."
        ),
        table(columns, lines),
    ]
    aims = []
    for store, name in (("memory", "memory"), ("sqlite", "SQLite")):
        rates = [row.server_s for row in _of(result, store, "ws", "", cold=False)]
        aims.append(
            Aim(
                figure=f"replay of 10,000 events, server side: {name}, WebSocket",
                aim="≥ 500,000 events/s",
                landed=f"{spread(rates, ',.0f')}/s",
                met=median(rates) >= 500_000 if rates else None,
            )
        )
    first = {(row.store, row.transport, row.cold): max(row.first_ms, 0.0) for row in result.rows if not row.query}
    aims.append(
        Aim(
            figure="replay of 10,000 events: first byte, every transport and store, the worst median, cold too",
            aim="≤ 20 ms",
            landed=f"{max(first.values()):.1f} ms",
            met=max(first.values()) <= 20,
        )
    )
    return Section(text="\n\n".join(text), aims=aims)


def _of(result: Result, store: str, transport: str, query: str, *, cold: bool) -> list[Row]:
    key = (store, transport, query, cold)
    return [row for row in result.rows if (row.store, row.transport, row.query, row.cold) == key]
