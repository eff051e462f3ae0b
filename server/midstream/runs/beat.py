"""One beat of a run: everything that waited, decided one after the other, as one batch to write. Pure but for ids
and time, which come in.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from midstream.log import Batch, JournalRecord, StoredReceipt
from midstream.runs.coalesce import coalesce
from midstream.runs.commands import Door
from midstream.runs.contract import BadDraft, Stopping
from midstream.runs.decide import AGAIN, decide
from midstream.runs.drafts import may_begin
from midstream.runs.inputs import Decision, Drafted, Input
from midstream.runs.mailbox import Posted
from midstream.runs.state import RunState, apply, apply_journal, apply_receipt
from midstream_protocol.codec import event_bytes, iso_ms
from midstream_protocol.events import Origin, Payload

Reply = tuple["asyncio.Future[Any]", Any, Exception | None]


@dataclass(slots=True)
class Beat:
    """What one beat decided. `replies` are given after the write, and only then."""

    prev_seq: int
    events: list[bytes] = field(default_factory=list)
    payloads: list[tuple[int, Payload]] = field(default_factory=list)
    journal: list[JournalRecord] = field(default_factory=list)
    receipts: list[StoredReceipt] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    wrong: list[BadDraft] = field(default_factory=list)
    """Refusals that nobody waits for."""

    @property
    def empty(self) -> bool:
        return not (self.events or self.journal or self.receipts)

    def batch(self, *, batch_id: str, state: RunState, wake_at: int | None) -> Batch:
        return Batch(
            batch_id=batch_id,
            status=state.log_status(),
            events=tuple(self.events),
            journal=tuple(self.journal),
            receipts=tuple(self.receipts),
            wake_at=wake_at,
        )


def run_beat(door: Door, posted: Sequence[Posted]) -> Beat:
    """Decide and apply each input in turn. `door.state` has moved over all of it afterwards."""
    beat = Beat(prev_seq=door.state.head)
    for item in coalesce(posted):
        answer, refused = _one(door, item.item, beat)
        if item.reply is not None:
            beat.replies.append((item.reply, answer, refused))
        elif isinstance(refused, BadDraft):
            beat.wrong.append(refused)
    return beat


def _one(door: Door, item: Input, beat: Beat) -> tuple[Any, Exception | None]:
    if isinstance(item, Drafted) and len(item.payloads) > 1:
        if not may_begin(door.state, item.payloads):
            return None, Stopping()
        # One at a time: each is judged by the state after the one before.
        *first, last = item.payloads
        for payload in first:
            decision = decide(door, Drafted(payloads=(payload,), step_id=item.step_id))
            if decision.refused is not None:
                return None, decision.refused
            _take(door, decision, beat)
        item = Drafted(payloads=(last,), journal=item.journal, step_id=item.step_id)
    while True:
        decision = decide(door, item)
        if decision.refused is not None:
            return None, decision.refused
        _take(door, decision, beat)
        if decision.reply is not AGAIN:
            break
    if decision.receipt is not None:
        return decision.receipt, None
    return (door.state.head if isinstance(item, Drafted) else decision.reply), None


def _take(door: Door, decision: Decision, beat: Beat) -> None:
    state, now_ms = door.state, door.now_ms
    ts = iso_ms(now_ms)
    for planned in decision.events:
        seq = state.head + 1
        origin = None
        if planned.command_id is not None:
            origin = Origin(client_id=planned.client_id, command_id=planned.command_id)
        beat.events.append(
            event_bytes(
                seq=seq, run_id=state.run_id, ts=ts, payload=planned.payload, step_id=planned.step_id, origin=origin
            )
        )
        beat.payloads.append((seq, planned.payload))
        apply(state, seq, planned.payload, now_ms)
    for record in decision.journal:
        beat.journal.append(record)
        apply_journal(state, record, live=True)
    if decision.receipt is not None and decision.remember is not None:
        stored = StoredReceipt(
            command_id=decision.receipt.command_id,
            fingerprint=decision.remember,
            data=msgspec.json.encode(decision.receipt),
        )
        beat.receipts.append(stored)
        apply_receipt(state, stored)
