"""Where the server's time goes under load: samples of its stacks by py-spy, sorted by layer."""

import contextlib
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from clients.dialects import WS
from clients.load import Load, Seen
from figures import Section, table
from msgspec import Struct
from parts.plan import VARIANTS, Plan
from processes import CLIENT_CORE, HERE, Server, asked, ended, environment, pinned

NAME: Final = "layers"
TITLE: Final = "What the remaining time is made of"
CHECKED: Final = ("memory-off", "sqlite-off", "memory")
RUNS: Final = 200
RATE: Final = 500
SECONDS: Final = 6
WAVES: Final = 400
LIMIT_S: Final = 60.0

_LAYERS: Final = (
    # The innermost frame that one of these is found in decides.
    (
        "the system call of writing to sockets",
        r"_send_many|put_frames|transport\.write|\bwrite \(.*(uvicorn_ws|flusher)",
    ),
    ("SQLite and its thread", r"log/sqlite"),
    ("the log in memory", r"log/(memory|standing|contract)"),
    ("encoding and order", r"midstream_protocol/"),
    ("the model of the benchmark", r"bench/servers/|asyncio/tasks\.py"),
    ("the agent: turn, speech, way out", r"midstream/agents/"),
    ("the run's writer: mailbox, beat, publishing", r"midstream/runs/(?!subscription|attachment|merging|replay)"),
    ("reading: subscriptions", r"midstream/runs/(subscription|attachment|merging|replay)"),
    ("connections", r"midstream/gateway/|uvicorn/|websockets/|starlette/"),
    ("counting", r"telemetry|prometheus"),
    ("the event loop itself", r"."),
)


class Sampled(Struct, kw_only=True, frozen=True):
    """`layers`: share of samples in which the server's loop thread was busy; `top`: function → share by itself."""

    layers: dict[str, float]
    top: dict[str, float]
    samples: int
    cpu_us: float


class Result(Struct, kw_only=True, frozen=True):
    """By variant. Empty: py-spy is not there or may not look."""

    sampled: dict[str, Sampled]


def measure(plan: Plan) -> Result:
    program = Path(sys.executable).with_name("py-spy")
    found = str(program) if program.exists() else shutil.which("py-spy")
    if found is None:
        plan.say("layers: py-spy is not installed (pip install --group bench); left out")
        return Result(sampled={})
    sampled = {}
    for variant in CHECKED[:1] if plan.quick else CHECKED:
        plan.say(f"layers: {VARIANTS[variant].label}")
        with plan.running(variant, abrupt=True) as server:
            one = _sampled(plan, found, server)
        if one is not None:
            sampled[variant] = one
    return Result(sampled=sampled)


def _sampled(plan: Plan, py_spy: str, server: Server) -> Sampled | None:
    load = Load(port=server.port, pid=server.pid, dialect=WS, runs=RUNS, order="say 200", waves=1)
    # Without a sampler, for the time that the shares are shares of.
    alone = asked("clients/load.py", load, Seen, limit_s=LIMIT_S)
    order = Load(port=server.port, pid=server.pid, dialect=WS, runs=RUNS, order="say 200", waves=WAVES)
    command = pinned([str(HERE / "clients/load.py"), _json(order)], CLIENT_CORE)
    busy = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment())
    out = plan.folder / f"{server.pid}.stacks"
    try:
        seconds = "2" if plan.quick else str(SECONDS)
        subprocess.run(
            [
                py_spy,
                "record",
                "-p",
                str(server.pid),
                "-d",
                seconds,
                "-r",
                str(RATE),
                "-f",
                "raw",
                "-F",
                "-o",
                str(out),
            ],
            capture_output=True,
            check=True,
            timeout=LIMIT_S,
        )
        lines = out.read_text(encoding="utf-8").splitlines()
    except (subprocess.SubprocessError, OSError) as error:
        plan.say(f"layers: py-spy may not look at the server ({error}); left out")
        return None
    finally:
        ended(busy, abrupt=True)
    layers, top = sorted_out(lines)
    samples = sum(layers.values())
    if not samples:
        return None
    return Sampled(
        layers={name: count / samples for name, count in layers.most_common()},
        top={name: count / samples for name, count in top.most_common(12)},
        samples=samples,
        cpu_us=alone.server_s / (alone.runs * 200) * 1e6,
    )


def _json(order: Load) -> str:
    import msgspec  # noqa: PLC0415 - only here

    return msgspec.json.encode(order).decode()


def sorted_out(lines: Iterable[str]) -> tuple[Counter[str], Counter[str]]:
    """Collapsed stacks (`frame;frame;frame count`) by layer, and by their innermost function."""
    layers: Counter[str] = Counter()
    top: Counter[str] = Counter()
    patterns = [(name, re.compile(pattern)) for name, pattern in _LAYERS]
    for line in lines:
        stack, _, count = line.rpartition(" ")
        frames = [each for each in stack.split(";") if each]
        with contextlib.suppress(ValueError):
            layers[_layer(frames, patterns)] += int(count)
            top[frames[-1] if frames else "?"] += int(count)
    return layers, top


def _layer(frames: list[str], patterns: list[tuple[str, re.Pattern[str]]]) -> str:
    for frame in reversed(frames):
        for name, pattern in patterns[:-1]:
            if pattern.search(frame):
                return name
    return patterns[-1][0]


def section(result: Result) -> Section:
    if not result.sampled:
        return Section(text="Not measured: py-spy was not there, or may not look at processes here.")
    names = list(dict.fromkeys(name for one in result.sampled.values() for name in one.layers))
    columns = ["", *(VARIANTS[variant].label for variant in result.sampled)]
    rows = [
        [
            name,
            *(
                f"{one.layers.get(name, 0.0):.0%} ({one.layers.get(name, 0.0) * one.cpu_us:.1f} µs)"
                for one in result.sampled.values()
            ),
        ]
        for name in names
    ]
    rows.append(["all of it, without a sampler", *(f"{one.cpu_us:.1f} µs" for one in result.sampled.values())])
    tops = [[f"`{name}`", f"{share:.1%}"] for name, share in next(iter(result.sampled.values())).top.items()]
    text = [
        (
            f"{RUNS} runs at once over WebSockets, as fast as possible: the server's processor time of a delta, by the "
            "layer of the innermost function that belongs to one. Samples of Python stacks: what a C function does "
            "counts for the Python function that called it."
        ),
        table(columns, rows),
        f"The functions that most samples ended in ({next(iter(columns[1:]))}):",
        table(("function", "share"), tops),
    ]
    return Section(text="\n\n".join(text))
