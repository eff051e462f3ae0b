"""Webhooks: what happens in runs, told by HTTP to places that their operator or their client named.

At least once and in a run's order, across the death of this process: a record is written in the step that makes the
run, moved on after each answer and deleted at the end. A tap says what is new; what the record does not know to be told
when the server starts is read from the log. Places do not wait for each other, nor does any run for them.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec
import structlog

from midstream.clock import Clock
from midstream.log import LogError, Record, RecordWrite, Reset, Store, VersionConflict
from midstream.outbound.address import Resolve, resolve
from midstream.outbound.cursor import KIND, Behind, Cursor, Found, Line, Place, first_cursor
from midstream.outbound.endpoint import origin, wrong_with
from midstream.outbound.message import body, is_told, kind_of, read_told
from midstream.outbound.options import WebhookOptions
from midstream.outbound.post import Answer, Sender
from midstream.outbound.retrying import Verdict, delay_s, told_s, verdict
from midstream.outbound.signing import key_of, signed
from midstream.outbound.turns import Turns
from midstream.runs.contract import StartRecord
from midstream.runs.taps import Taps
from midstream.tasks import spawn, stop
from midstream.telemetry import count_webhook
from midstream_protocol.commands import Webhook
from midstream_protocol.errors import FieldError, InvalidArgs
from midstream_protocol.events import TERMINAL_STATUSES

CLOSE_GRACE_S: Final = 1.0
"""How long requests under way may go on when the server stops. What they did not tell is told by the next one."""

_PAGE_EVENTS: Final = 2_000
_PAGE_RECORDS: Final = 200
_STORE_RETRY_S: Final = 1.0

_log = structlog.get_logger("midstream.webhooks")


class Webhooks:
    """All methods on one event loop. `begun` from the start on, `open` once the store is open. `fraction` is random in
    [0, 1). Raises ValueError for options that cannot be used.
    """

    def __init__(
        self,
        options: WebhookOptions,
        *,
        store: Store,
        clock: Clock,
        resolve: Resolve = resolve,
        sender: Sender | None = None,
        fraction: Callable[[], float] = random.random,
    ) -> None:
        self._options = options
        self._key = key_of(options.secret) if options.secret else None
        everywhere = [self._place(url, options.events) for url in options.urls]
        self._everywhere: Mapping[str, Place] = {place.url: place for place in everywhere}
        self._store = store
        self._clock = clock
        self._fraction = fraction
        self._sender = sender or Sender(
            timeout_s=options.timeout_s, allow_private=options.allow_private, resolve=resolve
        )
        self._taps: Taps | None = None
        self._own: set[str] = set()
        """Runs with a place of their own, where no other place is told of every run."""
        self._news: dict[str, list[tuple[int, str]] | None] = {}
        """Runs that something new happened in; None: look in the log."""
        self._news_came = asyncio.Event()
        self._behind: dict[str, Behind] = {}
        self._admitting = asyncio.Lock()
        self._waiting: Counter[str] = Counter()
        """Lines of each place."""
        self._left_over: set[str] = set()
        """Places that are behind with more runs than are kept here."""
        self._caught_up = False
        self._look_again = asyncio.Event()
        self._turns: Turns[Line] = Turns(together=options.in_flight, each=max(1, options.in_flight // 4))
        self._timers: dict[Line, Callable[[], None]] = {}
        self._tries: set[asyncio.Task[None]] = set()
        self._readers: list[asyncio.Task[None]] = []
        self._closing = False

    # -- life

    async def open(self, taps: Taps) -> None:
        """Tell what is still to be told, and what happens from now on. Raises `LogUnavailable`."""
        if self._key is None:
            if await self._store.records.list(KIND, limit=1):
                _log.warning("webhooks wait to be sent: set MIDSTREAM_WEBHOOK_SECRET to go on")
            return
        self._taps = taps
        if self._everywhere or self._own:
            taps.add(self, self._published)
        self._readers = [
            spawn(self._catch_up(), name="webhooks/catch-up"),
            spawn(self._take_in(), name="webhooks/news"),
        ]

    async def aclose(self) -> None:
        """Tell nothing more. May be called twice."""
        self._closing = True
        if self._taps is not None:
            self._taps.remove(self)
        await stop(*self._readers)
        for cancel in self._timers.values():
            cancel()
        if self._tries:
            await asyncio.wait(self._tries, timeout=CLOSE_GRACE_S)
            await stop(*self._tries)

    # -- what is new

    def begun(self, run: str, start: StartRecord) -> Sequence[RecordWrite]:
        """What is written with a run (store key) that is being made. Raises `InvalidArgs` for a webhook that it cannot
        have; then the run must not be made.
        """
        if start.webhook is not None:
            self._check(start.webhook)
        elif not self._everywhere:
            return ()
        if not self._everywhere:
            self._own.add(run)
            if self._taps is not None:
                self._taps.add(self, self._published)
        cursor = first_cursor(run, start)
        return (RecordWrite(kind=KIND, id=run, data=msgspec.json.encode(cursor), expect_version=None),)

    def _check(self, webhook: Webhook) -> None:
        wrong = None
        if self._key is None:
            wrong = "this server sends no webhooks: nobody could check them before MIDSTREAM_WEBHOOK_SECRET is set"
        elif (why := wrong_with(webhook.url, allow_private=self._options.allow_private)) is not None:
            wrong = f"webhook.url: {why}"
        if wrong is not None:
            raise InvalidArgs(wrong, errors=(FieldError(path="/webhook/url", code="webhook", text=wrong),))

    def _published(self, run: str, run_id: str, events: Sequence[bytes]) -> None:
        del run_id
        if not self._everywhere and run not in self._own:
            return
        found = [kind_of(event) for event in events if is_told(event)]
        if events and not found:
            return
        behind = self._behind.get(run)
        if behind is not None and events:
            self._extend(behind, found, grow=behind.whole)
            return
        known = self._news.setdefault(run, [])
        if known is None or not events:
            # It became durable without being shown here.
            self._news[run] = None
        else:
            known.extend(found)
        self._news_came.set()

    async def _take_in(self) -> None:
        while True:
            await self._news_came.wait()
            self._news_came.clear()
            while self._news:
                run, found = next(iter(self._news.items()))
                del self._news[run]
                if not self._caught_up:
                    # What came before may not have been seen yet.
                    found = None
                if not await self._admitted(run, found):
                    self._news[run] = None
                    await self._clock.sleep(_STORE_RETRY_S)

    async def _catch_up(self) -> None:
        """Look through all records: at the start, and again when a place that was too far behind has room."""
        while True:
            self._left_over.clear()
            after: str | None = None
            while True:
                try:
                    page = await self._store.records.list(KIND, after=after, limit=_PAGE_RECORDS)
                except LogError as error:
                    _log.warning("cannot look for webhooks that wait", error=str(error))
                    await self._clock.sleep(_STORE_RETRY_S)
                    continue
                for record in page:
                    if not self._everywhere:
                        self._own.add(record.id)
                        assert self._taps is not None
                        self._taps.add(self, self._published)
                    while not await self._admitted(record.id, None):
                        await self._clock.sleep(_STORE_RETRY_S)
                    after = record.id
                if len(page) < _PAGE_RECORDS:
                    break
            self._caught_up = not self._left_over
            self._look_again.clear()
            await self._look_again.wait()

    # -- who is behind

    async def _admitted(self, run: str, found: Found | None) -> bool:
        """See to it that whoever is behind with this run has a line. `found` None: look in the log. False: the store
        fails, try again.
        """
        async with self._admitting:
            try:
                while not await self._admit(run, found):
                    pass
            except LogError as error:
                _log.warning("cannot read what is to be told", run=run, error=str(error))
                return False
            except Exception:  # noqa: BLE001 - the edge: whatever is wrong with a run is its own trouble
                _log.exception("a run's webhooks cannot be read", run=run)
        return True

    async def _admit(self, run: str, found: Found | None) -> bool:
        """False: it moved meanwhile, look at it anew."""
        behind = self._behind.get(run)
        if behind is None:
            record = await self._store.records.get(KIND, run)
            if record is None:
                self._own.discard(run)
                return True
            behind = _behind(record)
            known = False
        else:
            known = True
        places = self._places(behind.cursor)
        if found is None or not behind.whole:
            after = min((behind.cursor.told.get(url, 0) for url in places), default=0)
            looked = await self._look(run, after=after) if places else []
            if known and self._behind.get(run) is not behind:
                return False
            behind.whole = True
            behind.ended |= looked is None or not places
            found = looked or []
        if not known:
            self._behind[run] = behind
        self._extend(behind, found, grow=True)
        if not behind.lines:
            if behind.over:
                behind.dirty = True
                await self._write(behind)
            self._drop(behind)
        return True

    async def _look(self, run: str, *, after: int) -> Found | None:
        """What can be told after seq `after`; None: nothing ever. Raises `LogError`."""
        found: list[tuple[int, str]] = []
        while True:
            page = await self._store.log.read(run, after=after, max_events=_PAGE_EVENTS)
            if isinstance(page, Reset):
                if page.header is None:
                    return None
                if page.reason != "trimmed":
                    return found
                after = page.header.first_seq - 1
                continue
            found += [kind_of(event) for event in page.events if is_told(event)]
            after += len(page.events)
            if after >= page.header.head_seq or not page.events:
                over = page.header.status in TERMINAL_STATUSES
                return None if over and not found else found
            await asyncio.sleep(0)

    def _extend(self, behind: Behind, found: Found, *, grow: bool) -> None:
        places = self._places(behind.cursor)
        full = [url for url in places if self._waiting[url] >= self._options.max_waiting]
        was_whole = behind.whole
        for line in behind.add(found, places, full=full, grow=grow):
            self._waiting[line.place.url] += 1
            self._turns.wait(line.place.lane, line)
        if was_whole and not behind.whole:
            self._left_over.update(full)
            self._caught_up = False
        self._begin()

    def _places(self, cursor: Cursor) -> dict[str, Place]:
        places = dict(self._everywhere)
        if cursor.own is not None and cursor.own.url not in places:
            places[cursor.own.url] = self._place(cursor.own.url, cursor.own.events or self._options.events)
        return {url: place for url, place in places.items() if url not in cursor.gone}

    @staticmethod
    def _place(url: str, events: Sequence[str]) -> Place:
        return Place(url=url, lane=origin(url), events=frozenset(events))

    # -- telling

    def _begin(self) -> None:
        while not self._closing and (taken := self._turns.take()) is not None:
            lane, line = taken
            task = spawn(self._try(line), name=f"webhooks/{line.behind.cursor.run_id}")
            self._tries.add(task)

            def done(task: asyncio.Task[None], lane: object = lane) -> None:
                self._tries.discard(task)
                self._turns.done(lane)
                self._begin()

            task.add_done_callback(done)

    async def _try(self, line: Line) -> None:
        """One event to one place; then it is the turn of another."""
        delay: float | None
        try:
            delay = await self._tell(line)
        except LogError as error:
            line.failures += 1
            delay = delay_s(line.failures, slow=False, told=None, fraction=self._fraction())
            _log.warning("a webhook waits for the store", run=line.behind.run, error=str(error))
        except Exception:  # noqa: BLE001 - the edge: whatever is wrong with a run is its own trouble
            line.failures += 1
            delay = delay_s(line.failures, slow=True, told=None, fraction=self._fraction())
            _log.exception("a webhook cannot be sent", run=line.behind.run)
        if delay is not None:
            self._timers[line] = self._clock.call_later(delay, lambda: self._again(line))
        elif line.wanted:
            self._turns.wait(line.place.lane, line)
        else:
            self._let_go(line)

    def _again(self, line: Line) -> None:
        self._timers.pop(line, None)
        self._turns.wait(line.place.lane, line)
        self._begin()

    async def _tell(self, line: Line) -> float | None:
        """Seconds until it is tried again; None: go on. Raises `LogError`."""
        behind, url = line.behind, line.place.url
        await self._write(behind)
        if not line.wanted:
            return None
        seq = line.wanted[0]
        page = await self._store.log.read(behind.run, after=seq - 1, max_events=1)
        if isinstance(page, Reset) or not page.events:
            # Erased: the run, or all but its end.
            header = None if isinstance(page, Reset) and page.header is None else page.header
            first = header.first_seq if header is not None else None
            line.wanted[:] = [each for each in line.wanted[1:] if first is not None and each >= first]
            behind.ended |= header is None
            behind.dirty = True
            await self._write(behind)
            return None
        told = read_told(page.events[0])
        answer = await self._send(behind.cursor, url, told.seq, body(told, **_about(behind.cursor)))
        meant = verdict(answer.status) if answer.failure is None else Verdict.LATER
        if meant is Verdict.TAKEN:
            count_webhook("delivered")
            line.failures = 0
            await self._moved(line, seq)
            return None
        line.failures += 1
        why = answer.failure or f"status {answer.status}"
        about = {"run": behind.run, "seq": seq, "place": line.place.lane, "why": why, "tries": line.failures}
        if meant is Verdict.GONE:
            count_webhook("given_up")
            _log.warning("a place wants no more webhooks of this run", **about)
            line.wanted.clear()
            behind.cursor = msgspec.structs.replace(behind.cursor, gone=(*behind.cursor.gone, url))
            await self._moved(line, seq)
            return None
        count_webhook("failed")
        if line.failures == 1:
            _log.warning("a webhook was not taken and is tried again", **about)
        if self._clock.now_ms() - told.at_ms >= self._options.max_age_s * 1000:
            count_webhook("given_up")
            _log.warning("a webhook is given up", type=told.type, **about)
            await self._moved(line, seq)
            return None
        return delay_s(
            line.failures,
            slow=answer.refused or meant is Verdict.REFUSED,
            told=told_s(answer.headers, now_ms=self._clock.now_ms()),
            fraction=self._fraction(),
        )

    async def _send(self, cursor: Cursor, url: str, seq: int, content: bytes) -> Answer:
        assert self._key is not None
        message_id = cursor.message_id(seq)
        headers = {
            "content-type": "application/json",
            "user-agent": "midstream-webhooks/1",
            **signed(self._key, message_id=message_id, at_s=self._clock.now_ms() // 1000, body=content),
        }
        return await self._sender.post(url, headers=headers, body=content)

    async def _moved(self, line: Line, seq: int) -> None:
        """That event is told, or given up. Raises `LogError` if that could not be written down yet."""
        behind = line.behind
        behind.cursor.told[line.place.url] = seq
        behind.dirty = True
        if line.wanted and line.wanted[0] == seq:
            del line.wanted[0]
        await self._write(behind)

    async def _write(self, behind: Behind) -> None:
        """Write down what was told. Raises `LogError`."""
        async with behind.writing:
            while behind.dirty:
                behind.dirty = False
                try:
                    await self._write_once(behind)
                except VersionConflict:
                    # Erased with its run; or our own write, whose reply was lost.
                    record = await self._store.records.get(KIND, behind.run)
                    if record is None:
                        for line in behind.lines.values():
                            line.wanted.clear()
                        return
                    behind.version = record.version
                    behind.dirty = True
                except BaseException:
                    behind.dirty = True
                    raise

    async def _write_once(self, behind: Behind) -> None:
        if behind.over:
            await self._store.records.delete(KIND, behind.run, expect_version=behind.version)
            self._own.discard(behind.run)
            return
        data = msgspec.json.encode(behind.cursor)
        written = await self._store.records.put(KIND, behind.run, data, expect_version=behind.version)
        behind.version = written.version

    # -- letting go

    def _let_go(self, line: Line) -> None:
        behind, url = line.behind, line.place.url
        del behind.lines[url]
        self._waiting[url] -= 1
        if not behind.lines:
            self._drop(behind)
        if url in self._left_over and self._waiting[url] <= self._options.max_waiting // 2:
            self._look_again.set()

    def _drop(self, behind: Behind) -> None:
        if self._behind.get(behind.run) is behind:
            del self._behind[behind.run]


def _behind(record: Record) -> Behind:
    return Behind(record.id, msgspec.json.decode(record.data, type=Cursor), record.version)


def _about(cursor: Cursor) -> dict[str, str]:
    return {"run_id": cursor.run_id, "thread_id": cursor.thread_id, "user": cursor.user}
