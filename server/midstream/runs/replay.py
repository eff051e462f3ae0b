"""Reading a run back: its events from the log, the working state and the public view folded from them.

The bytes are this server's own, so they are decoded without the checks that a stranger's get.
"""

from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
from msgspec import Struct, field

from midstream.log import Loaded, Log, LogUnavailable, Reset
from midstream.runs.apply import apply, apply_journal, apply_receipt
from midstream.runs.state import RunState
from midstream_protocol.codec import parse_iso
from midstream_protocol.events import EVENTS, Event, Origin
from midstream_protocol.view import View, fold_all

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
    """The events after `after` up to `head`, page by page. Raises `LogUnavailable` if they are not there."""
    while after < head:
        page = await log.read(run, after=after, max_events=min(PAGE_EVENTS, head - after), max_bytes=PAGE_BYTES)
        if isinstance(page, Reset) or not page.events:
            reason = page.reason if isinstance(page, Reset) else "hole"
            raise LogUnavailable(f"the log of {run} cannot be read after {after}: {reason}")
        yield page.events
        after += len(page.events)


async def load_state(log: Log, loaded: Loaded, *, run_id: str) -> RunState:
    """The working state as it was after the last batch."""
    state = RunState(run_id=run_id)
    # The journal first: it says which calls are whose, and events need nothing from it.
    for record in loaded.journal:
        apply_journal(state, record, live=False)
    async for events in pages(log, loaded.header.run, after=0, head=loaded.header.head_seq):
        for data in events:
            event = own_event(data)
            if event.type in EVENTS:
                apply(state, event.seq, event.payload, parse_iso(event.ts), step_id=event.step_id)
            else:
                state.head = event.seq
    for receipt in loaded.receipts:
        apply_receipt(state, receipt)
    return state


class Views:
    """Views at the durable head, folded on demand and kept for the runs that were looked at last."""

    def __init__(self, log: Log, *, keep: int = 256) -> None:
        self._log = log
        self._keep = keep
        self._views: OrderedDict[str, View] = OrderedDict()

    async def at(self, run: str, *, epoch: str, head: int) -> View:
        """The view after event `head` or a later one."""
        view = self._views.get(run)
        if view is not None and view.cursor.epoch != epoch:
            view = None
        seen = view.cursor.seq if view is not None else 0
        async for events in pages(self._log, run, after=seen, head=head):
            view = fold_all(map(own_event, events), view, epoch=epoch)
        assert view is not None
        return self.keep(run, view)

    def extend(self, run: str, view: View, events: Sequence[bytes], *, epoch: str) -> View:
        """The view after further events that are at hand."""
        further = fold_all(map(own_event, events), view, epoch=epoch)
        return self.keep(run, further if further is not None else view)

    def keep(self, run: str, view: View) -> View:
        before = self._views.get(run)
        if before is None or before.cursor.epoch != view.cursor.epoch or before.cursor.seq <= view.cursor.seq:
            self._views[run] = view
        self._views.move_to_end(run)
        while len(self._views) > self._keep:
            self._views.popitem(last=False)
        return view

    def forget(self, run: str) -> None:
        self._views.pop(run, None)
