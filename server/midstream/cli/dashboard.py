"""What `midstream top` shows. Pure: readings, lists of runs and events go in, lines of text come out."""

from collections import deque
from collections.abc import Iterable, Mapping
from math import inf
from textwrap import wrap
from typing import Any, Final

from msgspec import Struct
from rich.text import Text

from midstream.cli.readings import Reading, grown, quantile, rate
from midstream.client.safe_text import safe_line

WINDOW_S: Final = 10.0
"""How far back rates and quantiles look."""

MAX_RUNS: Final = 200
"""Runs remembered."""

MIN_WIDTH: Final = 20

_STYLES: Final = {
    "running": "green",
    "waiting": "bold yellow",
    "queued": "cyan",
    "completed": "dim",
    "failed": "red",
    "cancelled": "dim",
}
_ENDS: Final = {"run.completed": "completed", "run.failed": "failed", "run.cancelled": "cancelled"}

_PREFIX: Final = "midstream_"
_LABEL_WIDTH: Final = 11
_GAP: Final = "   "

_ID_WIDTH: Final = 24
"""Of ids that servers make. A longer one is cut before a column is given up for it."""

# Name, width, and how wide the terminal must be for it.
_COLUMNS: Final = (
    ("STATUS", 9, 0),
    ("AGENT", 14, 88),
    ("EVENTS", 7, 72),
    ("LAST EVENT", 18, 62),
    ("AGE", 6, 44),
)


class _Row(Struct):
    run_id: str
    status: str = ""
    agent: str = ""
    seq: int = 0
    last: str = ""
    seen_at: float | None = None


class Dashboard:
    """All that is known of one server. Times are Unix seconds."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._readings: deque[Reading] = deque()
        self._rows: dict[str, _Row] = {}
        """Newest last."""
        self._dropped = 0
        self.trouble = ""
        """Why nothing new comes, in words; empty: it does."""
        self.feed_trouble = ""

    # -- in

    def reading(self, reading: Reading) -> None:
        readings = self._readings
        readings.append(reading)
        while len(readings) > 2 and readings[1].at <= reading.at - WINDOW_S:
            readings.popleft()

    def listed(self, items: Iterable[Mapping[str, Any]]) -> None:
        """Runs as `GET /v1/runs` has them, newest first."""
        for item in reversed(list(items)):
            row = self._row(str(item.get("run_id")))
            seq = _number(_map(item.get("cursor")).get("seq"))
            if seq >= row.seq:
                row.status = str(item.get("status") or "")
                row.agent = str(item.get("agent") or "")
                row.seq = seq

    def event(self, event: Mapping[str, Any], *, at: float) -> None:
        """A line of the feed."""
        kind, payload = str(event.get("type")), _map(event.get("payload"))
        if kind == "feed.dropped":
            self._dropped += _number(payload.get("count"))
        if "run_id" not in event:
            return
        row = self._row(str(event["run_id"]))
        row.seq = max(row.seq, _number(event.get("seq")))
        row.last, row.seen_at = kind, at
        if kind == "run.started":
            row.agent = str(payload.get("agent") or "")
            row.status = row.status or "running"
        elif kind == "run.status":
            row.status = str(payload.get("status") or row.status)
        else:
            row.status = _ENDS.get(kind, row.status)

    def _row(self, run_id: str) -> _Row:
        row = self._rows.get(run_id)
        if row is None:
            row = self._rows[run_id] = _Row(run_id)
            while len(self._rows) > MAX_RUNS:
                del self._rows[next(iter(self._rows))]
        return row

    # -- out

    def lines(self, *, width: int, height: int, now: float) -> list[Text]:
        """At most `height` lines, none wider than `width`."""
        width = max(MIN_WIDTH, width)
        shown = [self._head(), *self._trouble(width)]
        if self._readings:
            for label, parts in self._figures():
                shown += _flowed(label, [part for part in parts if part], width)
        shown.append(Text())
        shown += self._runs(width, max(0, height - len(shown)), now)
        for line in shown:
            line.truncate(width, overflow="ellipsis")
        return shown[:height]

    def _head(self) -> Text:
        head = Text.assemble(("midstream top", "bold"), f" · {safe_line(self._url)}")
        if self._readings and (start := self._readings[-1].value("process_start_time_seconds")):
            head.append(f" · started {_age(self._readings[-1].at - start)} ago", style="dim")
        return head

    def _trouble(self, width: int) -> list[Text]:
        said = [(self.trouble, "bold red"), (self.feed_trouble, "yellow")]
        return [Text(line, style=style) for text, style in said for line in wrap(safe_line(text), width)]

    def _figures(self) -> list[tuple[str, list[str]]]:
        return [*self._flow(), *self._there(), *self._so_far()]

    def _flow(self) -> list[tuple[str, list[str]]]:
        """What goes through it, lately."""
        said, written = self._grown("deltas_said_total"), self._grown("deltas_written_total")
        joined = f"{said / written:.1f} joined into one" if written else ""
        return [
            ("events", [f"{self._rate('events_total')} written", f"{_bytes(self._speed('event_bytes_total'))}/s"]),
            (
                "deltas",
                [f"{self._rate('deltas_said_total')} said", f"{self._rate('deltas_written_total')} written", joined],
            ),
            ("append", self._quantiles("append_seconds")),
            ("delivery", self._quantiles("delivery_seconds")),
            ("1st event", self._quantiles("first_event_seconds")),
            ("1st token", self._quantiles("model_first_token_seconds")),
        ]

    def _there(self) -> list[tuple[str, list[str]]]:
        """What there is at the moment."""
        slowest = f"{self._count('reader_lag_events_max')} events, {self._size('reader_lag_bytes_max')}"
        process = self._readings[-1]
        return [
            ("runs", _each(self._by("runs", "status")) or ["none in memory"]),
            (
                "clients",
                [*(_each(self._by("connections", "transport")) or ["none"]), f"{self._count('readers')} attached"],
            ),
            (
                "lag",
                [f"{self._count('reader_lag_events')} events", self._size("reader_lag_bytes"), f"slowest {slowest}"],
            ),
            (
                "process",
                [
                    f"{100 * (rate(self._readings[0], process, 'process_cpu_seconds_total') or 0.0):.0f} % of a core",
                    _bytes(process.value("process_resident_memory_bytes")),
                    f"{process.value('process_open_fds'):,.0f} open files",
                ],
            ),
        ]

    def _so_far(self) -> list[tuple[str, list[str]]]:
        """Since the server's start."""
        return [
            (
                "ended",
                [f"{self._rate('runs_ended_total')}", *_each(self._by("runs_ended_total", "status"))],
            ),
            (
                "readers",
                [
                    f"{self._count('attaches_total')} attaches",
                    f"{self._count('resumes_total')} resumes",
                    f"{self._count('abandoned_streams_total')} left early",
                    f"{self._count('resets_total')} resets",
                    *_each(self._by("resets_total", "reason")),
                ],
            ),
            ("recoveries", _each(self._by("recoveries_total", "kind")) or ["none"]),
            ("closes", _each(self._by("closes_total", "code"), by="×") or ["none"]),
            *([("feed", [f"{self._dropped:,} events not shown here"])] if self._dropped else []),
        ]

    def _grown(self, name: str) -> float:
        return grown(self._readings[0], self._readings[-1], _PREFIX + name)

    def _speed(self, name: str) -> float | None:
        return rate(self._readings[0], self._readings[-1], _PREFIX + name)

    def _rate(self, name: str) -> str:
        value = self._speed(name)
        if value is None:
            return "–/s"
        return f"{value:.1f}/s" if 0 < value < 10 else f"{value:,.0f}/s"

    def _count(self, name: str) -> str:
        return f"{self._readings[-1].value(_PREFIX + name):,.0f}"

    def _size(self, name: str) -> str:
        return _bytes(self._readings[-1].value(_PREFIX + name))

    def _by(self, name: str, label: str) -> dict[str, float]:
        return self._readings[-1].by(_PREFIX + name, label)

    def _quantiles(self, metric: str) -> list[str]:
        now, before = self._readings[-1], self._readings[0]
        metric = _PREFIX + metric
        found = [quantile(before, now, metric, share) for share in (0.5, 0.99)]
        note = ""
        if found[0] is None:
            # Nothing lately: what it was like before.
            found = [quantile(None, now, metric, share) for share in (0.5, 0.99)]
            note = "since its start"
        if found[0] is None:
            return ["–"]
        return [f"p50 {_seconds(found[0])}", f"p99 {_seconds(found[1])}", note]

    def _runs(self, width: int, height: int, now: float) -> list[Text]:
        columns = [column for column in _COLUMNS if width >= column[2]]
        fixed = sum(size + 1 for _, size, _ in columns)
        longest = max((len(run_id) for run_id in self._rows), default=0)
        first = min(max(_ID_WIDTH, longest), max(8, width - fixed - 1))
        found = [_cells(["RUN", *(name for name, _, _ in columns)], first, columns, "bold")]
        for row in reversed(self._rows.values()):
            if len(found) >= height:
                break
            cells = {
                "STATUS": row.status,
                "AGENT": row.agent,
                "EVENTS": str(row.seq),
                "LAST EVENT": row.last,
                "AGE": _age(now - row.seen_at) if row.seen_at is not None else "",
            }
            texts = [row.run_id, *(cells[name] for name, _, _ in columns)]
            found.append(_cells(texts, first, columns, _STYLES.get(row.status, "")))
        return found[:height]


def _cells(texts: list[str], first: int, columns: list[tuple[str, int, int]], style: str) -> Text:
    line = Text(style=style)
    for text, size in zip(texts, (first, *(size for _, size, _ in columns)), strict=True):
        cell = Text(safe_line(text))
        cell.truncate(size, overflow="ellipsis", pad=True)
        line.append_text(cell).append(" ")
    line.rstrip()
    return line


def _flowed(label: str, parts: list[str], width: int) -> list[Text]:
    """The parts side by side behind their label, on as many lines as that takes."""
    lines: list[Text] = []
    room = max(1, width - _LABEL_WIDTH - 1)
    texts: list[str] = []
    for part in map(safe_line, parts):
        if texts and len(_GAP.join([*texts, part])) > room:
            lines.append(_labelled(label if not lines else "", texts))
            texts = []
        texts.append(part)
    return [*lines, _labelled(label if not lines else "", texts)]


def _labelled(label: str, texts: list[str]) -> Text:
    return Text.assemble((label.rjust(_LABEL_WIDTH), "dim"), " ", _GAP.join(texts))


def _each(counts: Mapping[str, float], *, by: str = "") -> list[str]:
    return [f"{value:,.0f}{by} {word}" for word, value in sorted(counts.items())]


def _bytes(value: float | None) -> str:
    if value is None:
        return "–"
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}"
        value /= 1000
    return f"{value:,.1f} GB"


def _seconds(value: float | None) -> str:
    """A duration, as short as it can be told."""
    if value is None:
        return "–"
    if value == inf:
        return "beyond all buckets"
    if value < 0.001:
        return f"{value * 1000:.2f} ms"
    if value < 1:
        return f"{value * 1000:.1f} ms" if value < 0.1 else f"{value * 1000:.0f} ms"
    return f"{value:.1f} s"


def _age(seconds: float) -> str:
    seconds = max(0.0, seconds)
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0
