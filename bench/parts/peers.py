"""What people would use instead: `make bench-peers`. Each server does the least that gives the same 200 deltas."""

import subprocess
import sys
from collections.abc import Sequence
from typing import Final

from clients.dialects import WS, Dialect
from clients.load import Load, Seen
from figures import Section, median, ratios, spread, table
from msgspec import Struct
from parts.plan import Plan
from processes import HERE, Failed, Server, asked, memory_mb, serving

NAME: Final = "peers"
TITLE: Final = "Peers"
DELTAS: Final = 200
RUNS: Final = {1: 10, 50: 2, 200: 1}
QUICK: Final = {1: 2, 50: 1}
ENVIRONMENT: Final = HERE / ".peers"
REQUIREMENTS: Final = HERE / "peers" / "requirements.txt"
INSTALL_LIMIT_S: Final = 900.0
LIMIT_S: Final = 150.0

_AG_UI: Final = (
    '{"threadId":"{id}","runId":"{id}","state":null,"tools":[],"context":[],"forwardedProps":null,'
    '"messages":[{"id":"{id}","role":"user","content":"go"}]}'
)


class Peer(Struct, kw_only=True, frozen=True):
    """`program` None: one of ours, the variant of that name. `work`: what it does for a run."""

    label: str
    work: str
    dialect: Dialect
    package: str | None = None
    program: str | None = None


PEERS: Final = {
    "raw": Peer(
        label="raw loop, frames encoded beforehand",
        work="sends bytes that were there already over a WebSocket",
        dialect=WS,
    ),
    "memory-off": Peer(
        label="Midstream, memory, coalescing off",
        work="agent loop, order, a log to resume from, receipts, cancel, metrics; a WebSocket",
        dialect=WS,
    ),
    "sqlite-off": Peer(
        label="Midstream, SQLite NORMAL, coalescing off",
        work="the same, each event on disk before it is sent",
        dialect=WS,
    ),
    "socketio": Peer(
        label="python-socketio",
        work="a loop that emits to one client: no agent, no log, no resuming; Socket.IO's packets on a WebSocket",
        package="python-socketio",
        program="peers/socketio_server.py",
        dialect=Dialect(
            kind="ws",
            path="/socket.io/?EIO=4&transport=websocket",
            opening=("40",),
            ready='40{"sid"',
            ask='42["go",{"id":"{id}"}]',
            event='42["delta"',
            text='42["delta"',
            end='42["end"',
            failed=("44{",),
            seqs=False,
        ),
    ),
    "pydantic-ai": Peer(
        label="pydantic-ai, AG-UI",
        work="its agent loop and validation, AG-UI's events over SSE: no log, no resuming; the connection is the run",
        package="pydantic-ai-slim",
        program="peers/pydantic_ai_server.py",
        dialect=Dialect(
            kind="http",
            path="/",
            ask=_AG_UI,
            accept="text/event-stream",
            event='"type":"TEXT_MESSAGE_CONTENT"',
            text='"type":"TEXT_MESSAGE_CONTENT"',
            end='"type":"RUN_FINISHED"',
            failed=('"type":"RUN_ERROR"', "HTTP/1.1 4", "HTTP/1.1 5"),
            seqs=False,
        ),
    ),
    "langgraph": Peer(
        label="LangGraph development server, in memory",
        work="a graph of one node, a run record, a queue that is polled, checkpoints, resumable SSE; its licensed "
        "runtime was not measured",
        package="langgraph-api",
        program="peers/langgraph_server.py",
        dialect=Dialect(
            kind="http",
            path="/runs/stream",
            ask='{"assistant_id":"talk","input":{"said":0},"stream_mode":"custom"}',
            accept="text/event-stream",
            event='"text":"',
            text='"text":"',
            end='"over":',
            failed=("event: error", "HTTP/1.1 4", "HTTP/1.1 5"),
            seqs=False,
        ),
    ),
}


class Row(Struct, kw_only=True, frozen=True):
    peer: str
    runs: int
    deltas_s: float
    cpu_us: float
    first_ms: float
    peak_mb: float


class Result(Struct, kw_only=True, frozen=True):
    """`versions`: of the packages; `missing`: peers that could not be installed or did not play, and why."""

    rows: list[Row]
    versions: dict[str, str]
    missing: dict[str, str]


def prepared(plan: Plan) -> str:
    """The Python of the peers' own environment. Raises `Failed`."""
    python = ENVIRONMENT / "bin" / "python"
    stamp = ENVIRONMENT / ".installed"
    wanted = REQUIREMENTS.read_text(encoding="utf-8")
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return str(python)
    plan.say(f"peers: making {ENVIRONMENT} (a minute or two, once)")
    try:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(ENVIRONMENT)], check=True, timeout=INSTALL_LIMIT_S)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
        whole = subprocess.run([*pip, "-r", str(REQUIREMENTS)], check=False, timeout=INSTALL_LIMIT_S)
        if whole.returncode:
            plan.say("peers: not everything can be installed; each is tried by itself")
            lines = [line for line in wanted.splitlines() if line and not line.startswith("#")]
            for line in lines:
                subprocess.run([*pip, line], check=False, timeout=INSTALL_LIMIT_S)
            return str(python)
    except (subprocess.SubprocessError, OSError) as error:
        raise Failed(f"the peers' environment cannot be made: {error}") from error
    stamp.write_text(wanted, encoding="utf-8")
    return str(python)


def version_of(python: str, package: str) -> str | None:
    program = f"from importlib.metadata import version; print(version({package!r}))"
    done = subprocess.run([python, "-c", program], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def measure(plan: Plan) -> Result:
    python = prepared(plan)
    versions: dict[str, str] = {}
    missing: dict[str, str] = {}
    rows: list[Row] = []
    for name, peer in PEERS.items():
        if peer.package is None:
            continue
        if (version := version_of(python, peer.package)) is None:
            missing[name] = f"{peer.package} cannot be installed here"
            plan.say(f"peers: {missing[name]}")
        else:
            versions[name] = version
    for number in range(plan.rounds):
        for name, peer in PEERS.items():
            if name in missing:
                continue
            plan.say(f"peers, round {number + 1} of {plan.rounds}: {peer.label}")
            try:
                if peer.program is None:
                    with plan.running(name, abrupt=True) as server:
                        rows += _rows(plan, name, peer, server)
                else:
                    with serving(peer.program, str(plan.folder), python=python, abrupt=True) as server:
                        rows += _rows(plan, name, peer, server)
            except Failed as error:
                missing[name] = str(error).splitlines()[-1][:200]
                plan.say(f"peers: {peer.label} did not play: {error}")
    return Result(rows=rows, versions=versions, missing=missing)


def _rows(plan: Plan, name: str, peer: Peer, server: Server) -> list[Row]:
    rows = []
    for runs, waves in (QUICK if plan.quick else RUNS).items():
        load = Load(
            port=server.port, pid=server.pid, dialect=peer.dialect, runs=runs, order=f"say {DELTAS}", waves=waves
        )
        seen = asked("clients/load.py", load, Seen, limit_s=LIMIT_S)
        deltas = seen.runs * DELTAS
        if seen.events < deltas:
            raise Failed(f"{peer.label} sent {seen.events} of {deltas} deltas")
        rows.append(
            Row(
                peer=name,
                runs=runs,
                deltas_s=deltas / seen.seconds,
                cpu_us=seen.server_s / deltas * 1e6,
                first_ms=seen.first_ms[0],
                peak_mb=memory_mb(server.pid, "VmHWM"),
            )
        )
    return rows


def section(result: Result) -> Section:
    text = [
        (
            "The work is not the same, which is why it is written beside each. Each serves runs of 200 deltas from a "
            "model in the same process, as fast as possible, in its own dialect; deltas arrive one by one in all of "
            "them."
        ),
        table(
            ("", "version", "what it does for a run"),
            [[peer.label, result.versions.get(name, "–"), peer.work] for name, peer in PEERS.items()],
        ),
    ]
    for runs in sorted({row.runs for row in result.rows}):
        base = _of(result.rows, "raw", runs)
        lines = []
        for name, peer in PEERS.items():
            if mine := _of(result.rows, name, runs):
                lines.append(
                    [
                        peer.label,
                        spread(ratios([row.deltas_s for row in mine], [row.deltas_s for row in base]), ".2f"),
                        spread([row.deltas_s for row in mine], ",.0f"),
                        f"{median(row.cpu_us for row in mine):.1f}",
                        f"{median(row.first_ms for row in mine):.2f}",
                        f"{median(row.peak_mb for row in mine):.0f}",
                    ]
                )
        columns = ("", "deltas/s ÷ raw", "deltas/s", "server µs/delta", "first event ms", "peak MB")
        text += [f"### {runs} run{'s' if runs > 1 else ''} at once", table(columns, lines)]
    if result.missing:
        text.append(
            "Left out: " + "; ".join(f"{PEERS[name].label} ({why})" for name, why in result.missing.items()) + "."
        )
    return Section(text="\n\n".join(text))


def _of(rows: Sequence[Row], peer: str, runs: int) -> list[Row]:
    return [row for row in rows if (row.peer, row.runs) == (peer, runs)]
