"""REPORT.md, written from what was measured: results/NAME.json of each part, one section a part, the aims first."""

import os
import platform
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import msgspec
import plots
from figures import Aim, Section, table

HERE: Final = Path(__file__).parent
REPORT: Final = HERE / "REPORT.md"
RESULTS: Final = HERE / "results"
PACKAGES: Final = ("uvicorn", "uvloop", "httptools", "starlette", "websockets", "msgspec")


class Kept(msgspec.Struct, kw_only=True, frozen=True):
    """What is kept of one part. `load`: how busy the machine was before (1 minute); `machine` as words."""

    rounds: int
    quick: bool
    when: str
    load: float
    machine: str
    found: msgspec.Raw


def machine() -> str:
    model = ""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    except OSError:
        model = platform.processor()
    packages = []
    for name in PACKAGES:
        try:
            packages.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            packages.append(f"no {name}")
    return (
        f"{os.cpu_count()} cores ({model or platform.machine()}), {platform.system()}, "
        f"Python {platform.python_version()}, {', '.join(packages)}"
    )


def keep(part: ModuleType, found: Any, *, rounds: int, quick: bool, load: float) -> None:
    RESULTS.mkdir(exist_ok=True)
    kept = Kept(
        rounds=rounds,
        quick=quick,
        when=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        load=load,
        machine=machine(),
        found=msgspec.Raw(msgspec.json.encode(found)),
    )
    text = msgspec.json.format(msgspec.json.encode(kept), indent=1)
    (RESULTS / f"{part.NAME}.json").write_bytes(text + b"\n")


def kept(part: ModuleType) -> tuple[Kept, Any] | None:
    """None: it was not measured yet, or is of another form than it has now."""
    path = RESULTS / f"{part.NAME}.json"
    if not path.exists():
        return None
    try:
        whole = msgspec.json.decode(path.read_bytes(), type=Kept)
        return whole, msgspec.json.decode(whole.found, type=part.Result)
    except msgspec.DecodeError:
        return None


def write(parts: Sequence[ModuleType], *, optional: Collection[str] = ()) -> None:
    """REPORT.md anew, from all that is kept, with its plots where they can be drawn."""
    found = [(part, one) for part in parts if (one := kept(part)) is not None]
    aims: list[Aim] = []
    bodies: list[str] = []
    for part, (whole, result) in found:
        section: Section = part.section(result)
        aims += section.aims
        bodies += [f"## {part.TITLE}", section.text, *_drawn(part, result), _how(whole)]
    machines = list(dict.fromkeys(whole.machine for _, (whole, _) in found))
    quick = "" if not any(whole.quick for _, (whole, _) in found) else _QUICK
    head = [
        "# What Midstream costs, and what it is beside the raw stack",
        (
            f"Written by `make bench`; [README.md](README.md) says what each part measures, and what it does not. "
            f"{_HOW}{quick}"
        ),
        "; and ".join(machines) + "; loopback, server and client each on a core.",
        "## Aims",
        table(("figure", "aim", "where it lands", "met"), [_aim(aim) for aim in aims]),
    ]
    there = {part.NAME for part, _ in found} | set(optional)
    missing = [part.TITLE for part in parts if part.NAME not in there]
    if missing:
        head.append(f"Not measured yet: {', '.join(missing)}.")
    REPORT.write_text("\n\n".join([*head, *bodies]) + "\n", encoding="utf-8")


_HOW: Final = (
    "Rounds interleave what is compared, each with servers started anew; figures are medians of rounds "
    "[lowest–highest], ratios are taken within a round. Read differences under a fifth as ties: a machine's speed "
    "drifts."
)
_QUICK: Final = " **Some parts were measured with `--quick`: less of everything, for trying out.**"


def _aim(aim: Aim) -> list[str]:
    return [aim.figure, aim.aim, aim.landed, "–" if aim.met is None else "yes" if aim.met else "**no**"]


def _how(whole: Kept) -> str:
    rounds = f"{whole.rounds} round{'s' if whole.rounds > 1 else ''}"
    return f"*{rounds}{', quick' if whole.quick else ''}, {whole.when}; load of the machine before: {whole.load:.2f}.*"


def _drawn(part: ModuleType, result: Any) -> list[str]:
    made = []
    for lines in part.plots(result) if hasattr(part, "plots") else []:
        path = plots.FOLDER / f"{lines.name}.svg"
        if plots.can_draw():
            plots.drawn(lines)
        if path.exists():
            made.append(f"![{lines.title}](plots/{path.name})")
    return made
