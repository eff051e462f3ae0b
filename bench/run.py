"""The benchmark: `make bench`, or `python bench/run.py [--only NAME,…] [--quick] [--rounds N] [--no-report]`.

Each part keeps what it found in bench/results/, and bench/REPORT.md is written from all of that: `--render` does only
this.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import Final

import report
from parts import added, cancel, first_event, growth, layers, memory, paced, peers, planning, replay, throughput
from parts.plan import Plan
from processes import Failed

# In the order of the report; with how many rounds each has if nothing is said.
PARTS: Final[dict[ModuleType, int]] = {
    first_event: 3,
    throughput: 3,
    paced: 2,
    added: 2,
    cancel: 2,
    replay: 2,
    memory: 2,
    growth: 1,
    planning: 2,
    layers: 1,
    peers: 3,
}
OPTIONAL: Final = {peers.NAME}
"""Only when it is asked for by name: it installs what nothing else needs."""
_MET: Final = {True: "", False: "NOT MET", None: "not measured"}


def main() -> int:
    names = {part.NAME: part for part in PARTS}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="NAME,…", help=f"of {', '.join(names)}; the others keep their place")
    parser.add_argument("--rounds", type=int, help="of every part (default: by part, 1 to 3)")
    parser.add_argument("--quick", action="store_true", help="one round, less of everything; printed, not kept")
    parser.add_argument("--no-report", action="store_true", help="print only")
    parser.add_argument("--render", action="store_true", help="measure nothing, write the report anew")
    options = parser.parse_args()
    only = options.only.split(",") if options.only else [name for name in names if name not in OPTIONAL]
    if unknown := [name for name in only if name not in names]:
        parser.error(f"no part is called {', '.join(unknown)}; there are {', '.join(names)}")
    failed = [] if options.render else measured([names[name] for name in names if name in only], options)
    if options.render or not (options.no_report or options.quick):
        report.write(list(PARTS), optional=OPTIONAL)
        print(f"written to {report.REPORT}", file=sys.stderr)
    return 1 if failed else 0


def measured(parts: list[ModuleType], options: argparse.Namespace) -> list[str]:
    """The names of those that failed; the others are kept."""
    failed = []
    for part in parts:
        rounds = options.rounds or (1 if options.quick else PARTS[part])
        with tempfile.TemporaryDirectory(prefix="midstream-bench-") as folder:
            plan = Plan(rounds=rounds, quick=options.quick, folder=Path(folder))
            load, begun = os.getloadavg()[0], time.monotonic()
            try:
                found = part.measure(plan)
            except (Failed, OSError) as error:
                # The other parts are worth having.
                failed.append(part.NAME)
                print("\n".join([f"{part.NAME} failed: {error}", *getattr(error, "__notes__", [])]), file=sys.stderr)
                continue
            plan.say(f"{part.NAME}: done in {time.monotonic() - begun:.0f} s")
        section = part.section(found)
        print(f"\n## {part.TITLE}\n\n{section.text}\n", flush=True)
        for aim in section.aims:
            print(f"{aim.figure}: {aim.landed} (aim {aim.aim}) {_MET[aim.met]}", flush=True)
        if not (options.no_report or options.quick):
            report.keep(part, found, rounds=rounds, quick=options.quick, load=load)
    return failed


if __name__ == "__main__":
    sys.exit(main())
