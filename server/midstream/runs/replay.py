"""Reading a run back: its events from the log, the working state and the public view folded from them.

The bytes are this server's own, so they are decoded without the checks that a stranger's get.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
from msgspec import Struct, field

from midstream.log import Loaded, Log, LogUnavailable, NoSuchRun, Reset
from midstream.runs.apply import apply, apply_journal, apply_receipt
from midstream.runs.compacting import state_of
from midstream.runs.state import RunState
from midstream_protocol.codec import parse_iso
from midstream_protocol.events import EVENTS, Event, Origin
from midstream_protocol.view import Cursor, View, fold_all

PAGE_EVENTS = 2_000
PAGE_BYTES = 4 << 20


class _Envelope(Struct, kw_only=True):
    v: int
    seq: int
    run_id: str
    type: str
    ts: str
    payload: msgspec.Raw
    step_id: str | None = None
    origin: Origin | None = None
    from_: int | None = field(default=None, name="from")


_envelopes = msgspec.json.Decoder(_Envelope)
_payloads = {name: msgspec.json.Decoder(kind) for name, kind in EVENTS.items()}
_anything: msgspec.json.Decoder[Any] = msgspec.json.Decoder()
_stored_views = msgspec.json.Decoder(View)


def own_event(data: bytes) -> Event:
    """Decode an event that this server wrote; one of a newer version keeps its payload as plain data."""
    raw = _envelopes.decode(data)
    return Event(
        v=raw.v,
        seq=raw.seq,
        run_id=raw.run_id,
        type=raw.type,
        ts=raw.ts,
        payload=_payloads.get(raw.type, _anything).decode(raw.payload),
        step_id=raw.step_id,
        origin=raw.origin,
    )


async def pages(log: Log, run: str, *, after: int, head: int) -> AsyncIterator[Sequence[bytes]]:
    """The events after `after` up to `head`, page by page. Raises `NoSuchRun`, `LogUnavailable` (not there)."""
    while after < head:
        page = await log.read(run, after=after, max_events=min(PAGE_EVENTS, head - after), max_bytes=PAGE_BYTES)
        if isinstance(page, Reset) or not page.events:
            reason = page.reason if isinstance(page, Reset) else "hole"
            if reason == "gone":
                raise NoSuchRun(run)
            raise LogUnavailable(f"the log of {run} cannot be read after {after}: {reason}")
        yield page.events
        after += len(page.events)


async def load_state(log: Log, loaded: Loaded, *, run_id: str) -> RunState:
    """The working state as it was after the last batch."""
    if loaded.header.first_seq > 1:
        return state_of(loaded, run_id=run_id)
    state = RunState(run_id=run_id)
    # The journal first: it says which calls are whose, and events need nothing from it.
    for record in loaded.journal:
        apply_journal(state, record, live=False)
    async for events in pages(log, loaded.header.run, after=0, head=loaded.header.head_seq):
        for data in events:
            event = own_event(data)
            if event.type in EVENTS:
                apply(state, event.seq, event.payload, parse_iso(event.ts), step_id=event.step_id, size=len(data))
            else:
                state.head = event.seq
                state.size += len(data)
    for receipt in loaded.receipts:
        apply_receipt(state, receipt)
    return state


class Views:
    """Views at the durable head, folded on demand and kept for the runs that were looked at last: `keep` of them at
    most, and about `size` bytes.
    """

    def __init__(self, log: Log, *, keep: int = 256, size: int = 64 << 20) -> None:
        self._log = log
        self._keep = keep
        self._max_size = size
        self._size = 0
        self._views: OrderedDict[str, tuple[View, int]] = OrderedDict()

    async def at(self, run: str, *, epoch: str, head: int) -> View:
        """The view after event `head` or a later one. Raises `LogUnavailable`."""
        view = self.known(run, epoch=epoch)
        if view is None and (view := await self._compacted(run, epoch=epoch)) is not None:
            return self._kept(run, view)
        seen = view.cursor.seq if view is not None else 0
        async for events in pages(self._log, run, after=seen, head=head):
            view = fold_all(map(own_event, events), view, epoch=epoch)
            # Folding a long log takes a while: others have their turn.
            await asyncio.sleep(0)
        assert view is not None
        return self._kept(run, view)

    def known(self, run: str, *, epoch: str) -> View | None:
        """The view that is kept, of whatever seq."""
        found = self._views.get(run)
        return found[0] if found is not None and found[0].cursor.epoch == epoch else None

    def extend(self, run: str, view: View | None, events: Sequence[bytes], *, epoch: str) -> View:
        """The view after further events that are at hand."""
        further = fold_all(map(own_event, events), view, epoch=epoch)
        assert further is not None
        return self._kept(run, further)

    def forget(self, run: str) -> None:
        if (found := self._views.pop(run, None)) is not None:
            self._size -= found[1]

    async def _compacted(self, run: str, *, epoch: str) -> View | None:
        """The view of a run whose events were replaced by it; None: they are all there."""
        page = await self._log.read(run, after=0, max_events=1)
        if not isinstance(page, Reset) or page.reason != "trimmed":
            return None
        loaded = await self._log.load(run)
        if loaded is None:
            raise NoSuchRun(run)
        if loaded.snapshot is None:
            raise LogUnavailable(f"the log of {run} has neither its events nor a snapshot")
        view = _stored_views.decode(loaded.snapshot.data)
        return msgspec.structs.replace(view, cursor=Cursor(seq=loaded.snapshot.seq, epoch=epoch))

    def _kept(self, run: str, view: View) -> View:
        before = self.known(run, epoch=view.cursor.epoch or "")
        if before is not None and before.cursor.seq > view.cursor.seq:
            self._views.move_to_end(run)
            return view
        if before is not view:
            self.forget(run)
            size = _size(view)
            self._views[run] = view, size
            self._size += size
        self._views.move_to_end(run)
        while len(self._views) > self._keep or (self._size > self._max_size and len(self._views) > 1):
            self.forget(next(iter(self._views)))
        return view


def _size(view: View) -> int:
    """About the bytes a view takes in memory: its texts, and so much for each item."""
    texts = sum(len(message.text) + len(message.reasoning or "") for message in view.messages)
    items = len(view.messages) + len(view.calls) + len(view.steps) + len(view.notices) + len(view.objects)
    return texts + 1000 * (items + 1)
