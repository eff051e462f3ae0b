"""The second phase: what catalogues say of a tool - its name, its description, its icon. I/O, so cached, bounded in
time, and done without when it fails. Never for deltas.
"""

import asyncio
from collections import OrderedDict
from inspect import isawaitable
from typing import Any, Final

import msgspec
from msgspec import Struct

from midstream.agents.outflow.contract import Enrich, Outflow, ToolInfo
from midstream.clock import Clock, SystemClock
from midstream.logs import Logger
from midstream.tasks import spawn
from midstream_protocol.events import Payload, ToolPreparing, ToolRequested, ToolStarted

MAX_KEPT: Final = 1_000
"""Tools whose information is remembered."""

FAILED_KEEP_S: Final = 30.0
"""Seconds before a catalogue that failed for a tool is asked about it again."""

MAX_CHARS: Final = {"label": 200, "description": 500, "icon": 500}
"""Characters of what a catalogue may say."""

_log = Logger("midstream.agents")


class Kept(Struct, kw_only=True, frozen=True):
    info: ToolInfo
    until: float


class Enrichment:
    """An app's catalogues and what they said. Made once for a process, shared by its runs."""

    def __init__(self, outflow: Outflow, *, clock: Clock | None = None) -> None:
        self._catalogues = outflow.enrich
        self._timeout_s = outflow.enrich_timeout_s
        self._keep_s = outflow.enrich_keep_s
        self._clock = clock if clock is not None else SystemClock()
        self._known: OrderedDict[str, Kept] = OrderedDict()
        self._asking: dict[str, asyncio.Task[ToolInfo]] = {}

    async def enriched(self, payload: Payload) -> Payload:
        """The payload with what is known of its tool; waits `enrich_timeout_s` at most for what is not."""
        if not self._catalogues or not isinstance(payload, ToolPreparing | ToolStarted | ToolRequested):
            return payload
        info = self._kept(payload.tool)
        if info is None:
            asking = self._asking.get(payload.tool)
            if asking is None:
                asking = self._asking[payload.tool] = spawn(self._ask(payload.tool), name=f"enrich:{payload.tool}")
            # Several calls wait for one answer: the first to be cancelled must not take it from the others.
            info = await asyncio.shield(asking)
        return _with(payload, info)

    def enriched_now(self, payload: Payload) -> Payload:
        """With what is known already."""
        if not isinstance(payload, ToolPreparing | ToolStarted | ToolRequested):
            return payload
        info = self._kept(payload.tool)
        return payload if info is None else _with(payload, info)

    def _kept(self, tool: str) -> ToolInfo | None:
        found = self._known.get(tool)
        if found is None or found.until <= self._clock.monotonic():
            return None
        self._known.move_to_end(tool)
        return found.info

    async def _ask(self, tool: str) -> ToolInfo:
        # The first catalogue that knows a field says it.
        said: dict[str, Any] = {}
        failed = False
        asking = [spawn(_caught(catalogue, tool), name=f"enrich:{tool}/one") for catalogue in self._catalogues]
        late = self._clock.call_later(self._timeout_s, lambda: [each.cancel() for each in asking])
        try:
            await asyncio.wait(asking)
        finally:
            late()
        for catalogue, task in zip(self._catalogues, asking, strict=True):
            info = None if task.cancelled() else task.result()
            if not isinstance(info, ToolInfo):
                _log.warning("enrich: done without", tool=tool, catalogue=_name(catalogue), why=_why(info))
                failed = True
                continue
            for name, limit in MAX_CHARS.items():
                if isinstance(text := getattr(info, name), str) and text:
                    said.setdefault(name, text[:limit])
        info = ToolInfo(**said)
        keep_s = min(self._keep_s, FAILED_KEEP_S) if failed else self._keep_s
        self._known[tool] = Kept(info=info, until=self._clock.monotonic() + keep_s)
        while len(self._known) > MAX_KEPT:
            self._known.popitem(last=False)
        del self._asking[tool]
        return info


async def _caught(catalogue: Enrich, tool: str) -> Any:
    try:
        info: Any = catalogue(tool)
        return (await info if isawaitable(info) else info) or ToolInfo()
    except Exception as error:  # noqa: BLE001 - the app's function may raise anything
        return error


def _with(payload: Payload, info: ToolInfo) -> Payload:
    said = {name: value for name in MAX_CHARS if (value := getattr(info, name)) is not None and hasattr(payload, name)}
    return msgspec.structs.replace(payload, **said) if said else payload


def _name(fn: object) -> str:
    return getattr(fn, "__qualname__", type(fn).__name__)


def _why(outcome: object) -> str:
    return "late" if outcome is None else repr(outcome) if isinstance(outcome, Exception) else type(outcome).__name__
