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

from midstream.clock import Clock
from midstream.log import LogError, Record, RecordWrite, Reset, Store
from midstream.logs import Logger
from midstream.outbound.address import Resolve, resolve
from midstream.outbound.cursor import KIND, Behind, Cursor, Found, Line, Place, first_cursor
from midstream.outbound.endpoint import origin, wrong_with
from midstream.outbound.message import is_told, kind_of
from midstream.outbound.options import WebhookOptions
from midstream.outbound.post import Sender
from midstream.outbound.signing import key_of
from midstream.outbound.telling import Teller
from midstream.runs.contract import StartRecord
from midstream.runs.taps import Taps
from midstream.tasks import spawn, stop
from midstream_protocol.commands import Webhook
from midstream_protocol.errors import FieldError, InvalidArgs
from midstream_protocol.events import TERMINAL_STATUSES

_PAGE_EVENTS: Final = 2_000
_PAGE_RECORDS: Final = 200
_STORE_RETRY_S: Final = 1.0

_log = Logger("midstream.webhooks")


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
        self._readers: list[asyncio.Task[None]] = []
        self._teller = Teller(
            options,
            key=self._key or b"",
            store=store,
            clock=clock,
            sender=sender or Sender(timeout_s=options.timeout_s, allow_private=options.allow_private, resolve=resolve),
            fraction=fraction,
            let_go=self._let_go,
        )

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
        if self._taps is not None:
            self._taps.remove(self)
        await stop(*self._readers)
        await self._teller.aclose()

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
                await self._teller.write(behind)
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
            self._teller.tell(line)
        if was_whole and not behind.whole:
            self._left_over.update(full)
            self._caught_up = False

    def _places(self, cursor: Cursor) -> dict[str, Place]:
        places = dict(self._everywhere)
        if cursor.own is not None and cursor.own.url not in places:
            places[cursor.own.url] = self._place(cursor.own.url, cursor.own.events or self._options.events)
        return {url: place for url, place in places.items() if url not in cursor.gone}

    @staticmethod
    def _place(url: str, events: Sequence[str]) -> Place:
        return Place(url=url, lane=origin(url), events=frozenset(events))

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
        if behind.over:
            self._own.discard(behind.run)
        if self._behind.get(behind.run) is behind:
            del self._behind[behind.run]


def _behind(record: Record) -> Behind:
    return Behind(record.id, msgspec.json.decode(record.data, type=Cursor), record.version)
