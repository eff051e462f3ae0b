"""The whole path beside the raw stack, in the same run, and then planning: `make bench`, or
`python bench/run.py [--rounds N] [--only stack|planning]`.

Every round starts each server anew and measures it at each number of runs; rounds interleave the servers, so that a
machine that drifts drifts for all of them. Ratios are taken within a round. The report goes to bench/REPORT.md.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Final

import msgspec
import planning
from load import Seen
from processes import CLIENT_CORE, HERE, machine, pinned, serving, spread
from servers import DELTAS

REPORT: Final = HERE / "REPORT.md"
PLANNING_BEGINS: Final = planning.HEAD

VARIANTS: Final = {
    "raw": "raw stack, frames encoded beforehand",
    "msgspec": "raw stack, encoding each frame",
    "memory": "Midstream, memory",
    "sqlite": "Midstream, SQLite",
}
BASELINE: Final = "raw"
LOADS: Final = ((1, 20), (50, 2), (200, 1))
"""Runs at once, and how often one after the other: a measurement should take longer than its noise."""
ROUNDS: Final = 5
COLUMNS: Final = (
    "",
    "events/s ÷ raw",
    "deltas/s ÷ raw",
    "events/s",
    "deltas/s",
    "first event ms (worst)",
    "first text ms",
    "server µs/delta",
    "peak MB",
)
CLIENT_LIMIT_S: Final = 120.0


class Measured(msgspec.Struct, kw_only=True, frozen=True):
    """Rates a second; milliseconds; microseconds of the server's processor a delta; its peak memory in MB."""

    deltas_s: float
    events_s: float
    frame_bytes: float
    first_ms: float
    first_worst_ms: float
    text_ms: float
    cpu_us: float
    peak_mb: float
    client_busy: float


def ask(port: int, runs: int, waves: int) -> Seen:
    command = pinned([str(HERE / "load.py"), str(port), str(runs), str(waves)], CLIENT_CORE)
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=CLIENT_LIMIT_S)
    return msgspec.json.decode(done.stdout, type=Seen)


def processor_s(pid: int) -> float:
    """User and system time of a process so far; 0 where the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), 0.0)


def measure(variant: str, folder: Path, number: int) -> dict[int, Measured]:
    found = {}
    with serving("servers.py", variant, str(folder / f"{number}.db")) as (pid, port):
        ask(port, 5, 1)  # imports and first-time work are not what is measured
        for runs, waves in LOADS:
            before = processor_s(pid)
            seen = ask(port, runs, waves)
            deltas = seen.runs * DELTAS
            found[runs] = Measured(
                deltas_s=deltas / seen.seconds,
                events_s=seen.events / seen.seconds,
                frame_bytes=seen.bytes / seen.events,
                first_ms=seen.first_ms[0],
                first_worst_ms=seen.first_ms[1],
                text_ms=seen.text_ms[0],
                cpu_us=(processor_s(pid) - before) / deltas * 1e6,
                peak_mb=peak_mb(pid),
                client_busy=seen.client_busy,
            )
    return found


def table(results: dict[tuple[str, int], list[Measured]], runs: int) -> str:
    """One number of runs: ratios to the raw stack first, then what they were made from."""
    rows = [
        f"| {' | '.join(COLUMNS)} |",
        f"|{'---|' * len(COLUMNS)}",
    ]
    base = results[BASELINE, runs]
    for variant, name in VARIANTS.items():
        rounds = results[variant, runs]
        events = [mine.events_s / theirs.events_s for mine, theirs in zip(rounds, base, strict=True)]
        deltas = [mine.deltas_s / theirs.deltas_s for mine, theirs in zip(rounds, base, strict=True)]
        rows.append(
            f"| {name} | {spread(events, '.2f')} | {spread(deltas, '.2f')} "
            f"| {spread([each.events_s for each in rounds], ',.0f')} "
            f"| {spread([each.deltas_s for each in rounds], ',.0f')} "
            f"| {statistics.median(each.first_ms for each in rounds):.2f} "
            f"({statistics.median(each.first_worst_ms for each in rounds):.1f}) "
            f"| {statistics.median(each.text_ms for each in rounds):.2f} "
            f"| {statistics.median(each.cpu_us for each in rounds):.1f} "
            f"| {statistics.median(each.peak_mb for each in rounds):.0f} |"
        )
    return "\n".join(rows)


def report(results: dict[tuple[str, int], list[Measured]], *, rounds: int) -> str:
    busiest = max(each.client_busy for measured in results.values() for each in measured)
    most = LOADS[-1][0]
    bytes_ = {name: statistics.median(each.frame_bytes for each in results[name, most]) for name in VARIANTS}
    parts = [
        "# Midstream beside the raw stack",
        f"Written by `make bench`; `bench/README.md` says what is measured, and what that does not say. "  # noqa: ISC004
        f"{rounds} interleaved rounds, medians [lowest–highest], ratios taken within a round.",
        machine(),
        "The client was busy at most "
        f"{busiest:.0%} of the time. Bytes an event at {most} runs: "
        + "; ".join(f"{VARIANTS[name]}: {size:.0f}" for name, size in bytes_.items())
        + ".",
    ]
    for runs, waves in LOADS:
        at_once = f"{runs} run{'s' if runs > 1 else ''} at once"
        parts += [f"## {at_once}{f', {waves} times' if waves > 1 else ''}", table(results, runs)]
    return "\n\n".join(parts) + "\n"


def stack(rounds: int) -> str:
    results: defaultdict[tuple[str, int], list[Measured]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="midstream-bench-") as folder:
        for number in range(rounds):
            for variant in VARIANTS:
                print(f"round {number + 1} of {rounds}: {VARIANTS[variant]}", file=sys.stderr, flush=True)
                for runs, measured in measure(variant, Path(folder), number).items():
                    results[variant, runs].append(measured)
    return report(results, rounds=rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--no-report", action="store_true", help="print only")
    parser.add_argument("--only", choices=["stack", "planning"], help="measure this, and keep the rest of the report")
    options = parser.parse_args()
    before, _, after = (REPORT.read_text(encoding="utf-8") if REPORT.exists() else "").partition(PLANNING_BEGINS)
    if options.only != "planning":
        before = stack(options.rounds)
        print(before)
    if options.only != "stack":
        after = planning.section(planning.measure(rounds=options.rounds), rounds=options.rounds)
        print(after)
        after = after.removeprefix(PLANNING_BEGINS)
    if not options.no_report:
        whole = [before.rstrip(), *([PLANNING_BEGINS + after.rstrip()] if after else [])]
        REPORT.write_text("\n\n".join(whole) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
