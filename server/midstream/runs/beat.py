"""One beat of a run: everything that waited, decided one after the other, as one batch to write. Pure but for ids
and time, which come in.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from midstream.log import Batch, JournalRecord, StoredReceipt
from midstream.runs.apply import apply, apply_journal, apply_receipt
from midstream.runs.coalesce import coalesce
from midstream.runs.commands import Door, refused
from midstream.runs.contract import BadDraft, Stopping
from midstream.runs.decide import AGAIN, decide
from midstream.runs.drafts import may_begin
from midstream.runs.inputs import Asked, Decision, Drafted, End, Input
from midstream.runs.mailbox import Posted
from midstream.runs.state import RunState
from midstream_protocol.codec import event_bytes, iso_ms
from midstream_protocol.errors import ProtocolError
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
    defects: list[Exception] = field(default_factory=list)
    """What was raised that nobody foresaw: it was refused, and the run goes on."""

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
        answer, refusal = _one(door, item.item, beat)
        if item.reply is not None:
            beat.replies.append((item.reply, answer, refusal))
        elif isinstance(refusal, BadDraft):
            beat.wrong.append(refusal)
    return beat


def _one(door: Door, item: Input, beat: Beat) -> tuple[Any, Exception | None]:
    if isinstance(item, Drafted) and len(item.payloads) > 1:
        if not may_begin(door.state, item.payloads):
            return None, Stopping()
        # One at a time: each is judged by the state after the one before.
        *first, last = item.payloads
        for payload in first:
            decision, encoded = _decided(door, Drafted(payloads=(payload,), step_id=item.step_id), beat)
            if decision.refused is not None:
                return None, decision.refused
            _take(door, decision, encoded, beat)
        item = Drafted(payloads=(last,), journal=item.journal, step_id=item.step_id)
    while True:
        decision, encoded = _decided(door, item, beat)
        if decision.refused is not None:
            return None, decision.refused
        _take(door, decision, encoded, beat)
        if decision.reply is not AGAIN:
            break
    if decision.receipt is not None:
        return decision.receipt, None
    return (door.state.head if isinstance(item, Drafted) else decision.reply), None


def _decided(door: Door, item: Input, beat: Beat) -> tuple[Decision, list[bytes]]:
    """The decision and the bytes of its events. Nothing has changed yet, so whatever an app's rules, a client's schema
    or an agent's values make it raise costs that one input and not the run.
    """
    try:
        decision = decide(door, item)
        return decision, _encoded(door, decision)
    except Exception as error:
        if isinstance(item, Asked):
            beat.defects.append(error)
            refusal = ProtocolError("this command cannot be carried out: the server's operator finds the reason logged")
            return Decision(receipt=refused(item.command, refusal, run_id=door.state.run_id)), []
        if isinstance(item, Drafted | End):
            # Its type alone: an error about a value quotes the value.
            wrong = BadDraft(f"it cannot be written: {type(error).__name__}")
            wrong.__cause__ = error
            return Decision(refused=wrong), []
        raise


def _encoded(door: Door, decision: Decision) -> list[bytes]:
    ts = iso_ms(door.now_ms)
    encoded = []
    for seq, planned in enumerate(decision.events, door.state.head + 1):
        origin = None
        if planned.command_id is not None:
            origin = Origin(client_id=planned.client_id, command_id=planned.command_id)
        encoded.append(
            event_bytes(
                seq=seq,
                run_id=door.state.run_id,
                ts=ts,
                payload=planned.payload,
                step_id=planned.step_id,
                origin=origin,
            )
        )
    return encoded


def _take(door: Door, decision: Decision, encoded: list[bytes], beat: Beat) -> None:
    state = door.state
    beat.events += encoded
    for planned in decision.events:
        seq = state.head + 1
        beat.payloads.append((seq, planned.payload))
        apply(state, seq, planned.payload, door.now_ms, step_id=planned.step_id)
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
