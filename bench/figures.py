"""Numbers as the report has them: medians with their spread, ratios within a round, tables, aims."""

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct


class Aim(Struct, kw_only=True, frozen=True):
    """One line of the table of aims. `met` None: it cannot be said here."""

    figure: str
    aim: str
    landed: str
    met: bool | None


class Section(Struct, kw_only=True, frozen=True):
    """A part's place in the report: Markdown without its heading."""

    text: str
    aims: Sequence[Aim] = ()


class Lines(Struct, kw_only=True, frozen=True):
    """A plot: for each name, points (x, y) and at each point the spread (low, high) of its rounds."""

    name: str
    title: str
    x: str
    y: str
    lines: dict[str, list[tuple[float, float, float, float]]]
    log_x: bool = True
    level: float | None = None
    """A horizontal line: what is aimed for."""


def percentile(values: Sequence[float], of_100: float) -> float:
    """Nearest rank; 0 of nothing."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, math.ceil(of_100 / 100 * len(ordered)) - 1))]


def median(values: Iterable[float]) -> float:
    found = list(values)
    return statistics.median(found) if found else 0.0


def spread(values: Sequence[float], form: str) -> str:
    if not values:
        return "–"
    if len(values) == 1:
        return f"{values[0]:{form}}"
    return f"{statistics.median(values):{form}} [{min(values):{form}}–{max(values):{form}}]"


def ratios(mine: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Of rounds, one by one; those that have no other side are left out."""
    return [ours / other for ours, other in zip(mine, theirs, strict=False) if other]


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    lines += [f"| {' | '.join(str(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines)


def point(x: float, values: Sequence[float]) -> tuple[float, float, float, float]:
    return (x, statistics.median(values), min(values), max(values))
