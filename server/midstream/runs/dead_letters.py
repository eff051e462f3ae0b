"""Dead letters: what was tried and given up, for a person to look at: tool calls that failed or whose outcome nobody
knows, and webhooks that no place took.

A letter is a record; a call's is written in the step that ends the call. Its id begins with the time, so a run's
letters lie between its start and its end. A mark per principal is written with each letter: whoever drops the oldest
looks only where it has moved.
"""

import hashlib
from collections.abc import AsyncIterator, Iterable
from typing import Final

import msgspec
from msgspec import Struct

from midstream.clock import Clock
from midstream.log import LogError, Record, Records, RecordWrite, VersionConflict
from midstream.logs import Logger
from midstream.runs.contract import Limits
from midstream.runs.state import RunState
from midstream_protocol.codec import iso_ms
from midstream_protocol.errors import NotFound
from midstream_protocol.events import Outcome, Payload, ToolFailed

_MARK: Final = "dead"
"""Record kind: a principal has letters. Its version grows with each of them."""

_PAGE: Final = 200

_REFUSED: Final = frozenset({"cancelled", "denied", "approval_expired", "invalid_args"})
"""Codes of calls that somebody did not want, or that were wrong: nothing was tried and given up."""

_NEVER_MS: Final = 1 << 62
"""Later than any time (Unix ms)."""

_log = Logger("midstream.runs")


class Letter(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """As `GET /v1/dead-letters` shows it. `what`: the tool, or where a webhook was to go. `at`: when the call ended, or
    when that happened which nobody could be told. All text is what people may see of it.
    """

    id: str
    kind: str
    run_id: str
    thread_id: str
    at: str
    what: str
    code: str
    text: str
    attempts: int
    agent: str | None = None
    label: str | None = None
    outcome: Outcome | None = None
    tool_call_id: str | None = None
    event: str | None = None
    seq: int | None = None


def letter_id(at_ms: int, run: str, about: str) -> str:
    """Of a letter about one thing of a run (store key): the same however often it is written."""
    return f"{_from(at_ms)}_{hashlib.sha256(f'{run} {about}'.encode()).hexdigest()[:20]}"


def letter_writes(space: str, letters: Iterable[Letter]) -> list[RecordWrite]:
    """What is written of letters of one principal, in one step."""
    writes = [RecordWrite(kind=_kind(space), id=letter.id, data=msgspec.json.encode(letter)) for letter in letters]
    return [*writes, RecordWrite(kind=_MARK, id=space, data=b"{}")] if writes else []


def given_up(run: str, state: RunState, payloads: Iterable[tuple[int, Payload]], now_ms: int) -> list[Letter]:
    """Letters for the calls that ended in these events (seq, payload) of a run (store key), and will not be tried
    again. `state` has moved over them.
    """
    letters = []
    for _, payload in payloads:
        if type(payload) is not ToolFailed or not _is_lost(payload):
            continue
        call = state.calls[payload.tool_call_id]
        letters.append(
            Letter(
                id=letter_id(now_ms, run, payload.tool_call_id),
                kind="tool",
                run_id=state.run_id,
                thread_id=state.thread_id,
                at=iso_ms(now_ms),
                what=call.tool,
                code=payload.code,
                text=payload.text,
                attempts=max(1, call.attempt),
                agent=state.agent,
                label=call.label,
                outcome=payload.outcome,
                tool_call_id=payload.tool_call_id,
            )
        )
    return letters


def _is_lost(failed: ToolFailed) -> bool:
    return failed.outcome in ("failed", "unknown") and failed.code not in _REFUSED


class DeadLetters:
    """The letters of every principal, each in its own namespace (`space`). Raises `LogError`."""

    def __init__(self, *, records: Records, limits: Limits, clock: Clock) -> None:
        self._records = records
        self._limits = limits
        self._clock = clock
        self._seen: dict[str, tuple[int, int]] = {}
        """Of each principal with letters: the version of its mark, and when its oldest letter is due (Unix ms)."""

    async def page(
        self, space: str, *, kind: str | None, after: str | None, limit: int
    ) -> tuple[list[Letter], str | None]:
        """Newest first, of one kind or all, and where the next page begins."""
        found: list[Letter] = []
        async for record in self._newest(space, after=after):
            letter = msgspec.json.decode(record.data, type=Letter)
            if kind is not None and letter.kind != kind:
                continue
            if len(found) == limit:
                return found, found[-1].id
            found.append(letter)
        return found, None

    async def dismiss(self, space: str, letter: str) -> None:
        """Drop one, by its id. Raises `NotFound`."""
        if not await self._records.delete(_kind(space), letter):
            raise NotFound("there is no such dead letter, or it is not yours")

    async def dismiss_all(self, space: str, *, kind: str | None) -> None:
        """Drop those that are there now, of one kind or all."""
        async for record in self._newest(space, after=None):
            if kind is None or msgspec.json.decode(record.data, type=Letter).kind == kind:
                await self._records.delete(_kind(space), record.id)

    async def forget_run(self, space: str, run_id: str, *, created_ms: int, ended_ms: int) -> None:
        """The run is erased."""
        after, end = _from(created_ms), _from(ended_ms + 1)
        while page := await self._records.list(_kind(space), after=after, limit=_PAGE):
            for record in page:
                if record.id >= end:
                    return
                if msgspec.json.decode(record.data, type=Letter).run_id == run_id:
                    await self._records.delete(_kind(space), record.id)
                after = record.id

    async def keep_looking(self) -> None:
        """Drop what is too old or too many, until it is cancelled."""
        while True:
            await self._clock.sleep(self._limits.retention_interval_s)
            try:
                await self.sweep()
            except LogError as error:
                _log.warning("cannot look for dead letters to drop", error=str(error))

    async def sweep(self) -> None:
        """Drop what is too old or too many now."""
        after: str | None = None
        while page := await self._records.list(_MARK, after=after, limit=_PAGE):
            for mark in page:
                after = mark.id
                version, due_ms = self._seen.get(mark.id, (0, 0))
                if version != mark.version or self._clock.now_ms() >= due_ms:
                    await self._trim(mark)

    async def _trim(self, mark: Record) -> None:
        space, ttl_s = mark.id, self._limits.dead_letter_ttl_s
        now_ms = self._clock.now_ms()
        kept, oldest_ms = 0, now_ms
        async for record in self._newest(space, after=None, expired=True):
            if kept < self._limits.max_dead_letters and record.id >= self._floor():
                kept, oldest_ms = kept + 1, _time_of(record.id)
            else:
                await self._records.delete(_kind(space), record.id)
        self._seen.pop(space, None)
        if kept:
            # Without an end of their time, only a new letter is a reason to look again.
            due_ms = oldest_ms + round(ttl_s * 1000) + 1 if ttl_s else _NEVER_MS
            self._seen[space] = (mark.version, due_ms)
            return
        try:
            await self._records.delete(_MARK, space, expect_version=mark.version)
        except VersionConflict:
            # A letter came meanwhile: the next look finds it.
            return

    async def _newest(self, space: str, *, after: str | None, expired: bool = False) -> AsyncIterator[Record]:
        """From the newest on; those that are past their time only if they are asked for."""
        floor = "" if expired else self._floor()
        while page := await self._records.list(_kind(space), after=after, limit=_PAGE, descending=True):
            for record in page:
                if record.id < floor:
                    return
                after = record.id
                yield record

    def _floor(self) -> str:
        """Ids below are past their time."""
        ttl_s = self._limits.dead_letter_ttl_s
        return _from(self._clock.now_ms() - round(ttl_s * 1000)) if ttl_s else ""


def _from(at_ms: int) -> str:
    """All ids of that time and later come after this."""
    return f"dl_{max(0, at_ms):013d}"


def _time_of(letter: str) -> int:
    return int(letter.split("_")[1])


def _kind(space: str) -> str:
    return f"dead.{space}"
