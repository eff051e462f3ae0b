"""Memory of what is idle: connections, runs that are alive, runs that wait, parked ones. And slow readers."""

import time
from typing import Final

from clients.dialects import WS
from clients.holding import Held, Hold
from clients.load import Load, Seen
from clients.starts import started, status_of
from figures import Aim, Section, median, ratios, spread, table
from msgspec import Struct
from parts.plan import Plan
from processes import Beside, Server, asked, memory_mb, settled_mb

NAME: Final = "memory"
TITLE: Final = "Memory, and slow readers"
CONNECTIONS: Final = 2000
RUNS: Final = 2000
WARM: Final = 200
PARK_S: Final = 2
SETTLE_S: Final = 20.0
READERS: Final = 100
OTHERS: Final = 100
SLOW_S: Final = 6
LIMIT_S: Final = 90.0

KINDS: Final = {
    "connection": "connection attached to an idle run, memory",
    "think": "run whose model is silent, agent with a model, memory",
    "own": "run that waits, agent with a loop of its own, memory",
    "approve": "run that waits for an approval, not parked, SQLite",
    "parked": "the same, parked, SQLite",
}


class Result(Struct, kw_only=True, frozen=True):
    """KB each, by kind, a list of rounds; slow readers: p99 without and with them, what they cost, who was closed."""

    kb: dict[str, list[float]]
    p99_ms: list[tuple[float, float]]
    added_mb: list[float]
    closed: list[int]
    read: list[int]


def measure(plan: Plan) -> Result:
    kb: dict[str, list[float]] = {kind: [] for kind in KINDS}
    p99: list[tuple[float, float]] = []
    added: list[float] = []
    closed: list[int] = []
    read: list[int] = []
    runs = RUNS // 8 if plan.quick else RUNS
    for number in range(plan.rounds):
        plan.say(f"memory, round {number + 1} of {plan.rounds}: connections")
        with plan.running("memory", abrupt=True) as server:
            kb["connection"].append(_connections(server, CONNECTIONS // (8 if plan.quick else 1)))
        for kind, order, agent in (("think", "think", "bench"), ("own", "wait", "own"))[: 1 if plan.quick else None]:
            plan.say(f"memory, round {number + 1} of {plan.rounds}: {KINDS[kind]}")
            with plan.running("memory", "park_after_s=0", abrupt=True) as server:
                kb[kind].append(_runs(server, order, agent, runs))
        for kind, park in (("approve", 0), ("parked", PARK_S))[1 if plan.quick else 0 :]:
            plan.say(f"memory, round {number + 1} of {plan.rounds}: {KINDS[kind]}")
            with plan.running("sqlite", f"park_after_s={park}", abrupt=True) as server:
                kb[kind].append(_runs(server, "approve", "bench", runs, after_s=2.0 * park))
        plan.say(f"memory, round {number + 1} of {plan.rounds}: {READERS} readers at 1 B/s")
        with plan.running("memory-off", abrupt=True) as server:
            before, beside, more, held = _slow(server, SLOW_S // (2 if plan.quick else 1))
            p99.append((before, beside))
            added.append(more)
            closed.append(held.closed)
            read.append(held.read)
    return Result(kb=kb, p99_ms=p99, added_mb=added, closed=closed, read=read)


def _connections(server: Server, count: int) -> float:
    (run_id,) = started(server.port, "think", 1)
    # The first connections also pay for what all share.
    with Beside("clients/holding.py", Hold(port=server.port, runs=[run_id], connections=WARM)):
        before = settled_mb(server.pid, limit_s=SETTLE_S)
        with Beside("clients/holding.py", Hold(port=server.port, runs=[run_id], connections=count)):
            return (settled_mb(server.pid, limit_s=SETTLE_S) - before) / count * 1024


def _runs(server: Server, order: str, agent: str, count: int, *, after_s: float = 0.0) -> float:
    (*_, last) = started(server.port, order, WARM, agent=agent)
    _wait_for(server, last, order)
    time.sleep(after_s)
    before = settled_mb(server.pid, limit_s=SETTLE_S)
    (*_, last) = started(server.port, order, count, agent=agent, first=WARM)
    _wait_for(server, last, order)
    time.sleep(after_s)
    return (settled_mb(server.pid, limit_s=SETTLE_S) - before) / count * 1024


def _wait_for(server: Server, run_id: str, order: str) -> None:
    until = time.monotonic() + SETTLE_S
    while order == "approve" and status_of(server.port, run_id) != "waiting" and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.3)


def _slow(server: Server, seconds: int) -> tuple[float, float, float, Held]:
    """p99 of others without and with slow readers on a run that is quick, MB that these cost, and how they fared."""
    count = seconds * 1000 // 20
    others = Load(
        port=server.port,
        pid=server.pid,
        dialect=WS,
        runs=OTHERS,
        order=f"say {count} every 20 stamped",
        stamped=True,
    )
    # 1000 events a second, longer than all of this takes: some 250 KB a second for each of its readers.
    (run_id,) = started(server.port, "say 60000 every 1", 1)
    asked("clients/load.py", others, Seen, limit_s=LIMIT_S)
    begun = memory_mb(server.pid)
    before = asked("clients/load.py", others, Seen, limit_s=LIMIT_S)
    resident = memory_mb(server.pid)
    with Beside("clients/holding.py", Hold(port=server.port, runs=[run_id], connections=READERS, bytes_s=1)) as slow:
        beside = asked("clients/load.py", others, Seen, limit_s=LIMIT_S)
        after = memory_mb(server.pid)
        held = slow.finish(Held)
    # The logs of the others and of the quick run grow in both phases; what the first one grew is theirs.
    return before.late_ms[1], beside.late_ms[1], (after - resident) - (resident - begun), held


def section(result: Result) -> Section:
    rows = [[label, spread(result.kb[kind], ".1f")] for kind, label in KINDS.items()]
    alone, beside = [each[0] for each in result.p99_ms], [each[1] for each in result.p99_ms]
    more = ratios(beside, alone)
    slow = [
        ["others' p99, model to client, alone", f"{spread(alone, '.2f')} ms"],
        [f"the same beside {READERS} slow readers", f"{spread(beside, '.2f')} ms"],
        ["ratio", f"{spread(more, '.2f')} ×"],
        ["resident memory that came with them", f"{spread(result.added_mb, '+.1f')} MB"],
        [
            "slow readers that the server closed",
            f"{spread([float(each) for each in result.closed], '.0f')} of {READERS} in {SLOW_S} s",
        ],
    ]
    text = [
        (
            "Resident memory of the server for one more, after garbage was collected and freed memory given back; "
            f"measured over {CONNECTIONS:,} connections, {RUNS:,} runs. A connection's kernel buffers are not in it."
        ),
        table(("one", "KB"), rows),
        (
            f"{READERS} connections attached to one run of 1,000 events a second read one byte a second, from a "
            f"receive buffer of 2 KB; beside them {OTHERS} runs at 50 deltas a second, coalescing off, for {SLOW_S} s. "
            "From the memory that came in that time is taken what came in the same time without them: logs that grow."
        ),
        table(("", ""), slow),
    ]
    kb = result.kb
    aims = [
        _aim("memory per attached idle connection", kb["connection"], 30),
        _aim("memory per live idle run, agent with a model", kb["think"], 4),
        _aim("memory per live idle run, agent with a loop of its own", kb["own"], 4),
        _aim("memory per parked run", kb["parked"], 0.5, aim="≈ 0 (≤ 0.5 KB)"),
        Aim(
            figure=f"{READERS} readers at 1 B/s on one run: memory, others' p99",
            aim="≤ +20 MB, ≤ 1.10 ×",
            landed=f"{spread(result.added_mb, '+.1f')} MB, {spread(more, '.2f')} ×",
            met=median(result.added_mb) <= 20 and median(more) <= 1.1 if more else None,
        ),
    ]
    return Section(text="\n\n".join(text), aims=aims)


def _aim(figure: str, values: list[float], most: float, *, aim: str = "") -> Aim:
    return Aim(
        figure=figure,
        aim=aim or f"≤ {most:g} KB",
        landed=f"{spread(values, '.1f')} KB",
        met=median(values) <= most if values else None,
    )
