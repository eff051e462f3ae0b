"""One beat of a run: everything that waited, decided one after the other, as one batch to write. Pure but for ids
and time, which come in.
"""

import asyncio
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import msgspec

from midstream.log import Batch, JournalRecord, RecordWrite, StoredReceipt
from midstream.runs.apply import apply, apply_deltas, apply_journal, apply_receipt
from midstream.runs.commands import Door, refused
from midstream.runs.contract import BadDraft, Stopping
from midstream.runs.decide import AGAIN, decide
from midstream.runs.drafts import may_begin, may_say
from midstream.runs.inputs import Asked, Decision, Drafted, End, Input, Outgrown, Said
from midstream.runs.mailbox import Posted, Taken
from midstream.runs.state import RunState
from midstream_protocol.codec import event_bytes, iso_ms
from midstream_protocol.errors import ProtocolError
from midstream_protocol.events import MessageDelta, Origin, Payload

Reply = tuple["asyncio.Future[Any]", Any, Exception | None]


class Beat:
    """What one beat decided. `replies` are given after the write, and only then."""

    __slots__ = (
        "defects",
        "deltas_said",
        "deltas_written",
        "events",
        "journal",
        "payloads",
        "prev_seq",
        "receipts",
        "records",
        "replies",
        "size",
        "wrong",
    )

    def __init__(self, prev_seq: int) -> None:
        self.prev_seq = prev_seq
        self.events: list[bytes] = []
        self.size = 0
        """Bytes of the events."""
        self.payloads: list[tuple[int, Payload]] = []
        """Of all events but text deltas that were gathered: nothing follows from those."""
        self.journal: list[JournalRecord] = []
        self.receipts: list[StoredReceipt] = []
        self.records: list[RecordWrite] = []
        """What is written beside the run in the same step."""
        self.replies: list[Reply] = []
        self.wrong: list[BadDraft] = []
        """Refusals that nobody waits for."""
        self.defects: list[Exception] = []
        """What was raised that nobody foresaw: it was refused, and the run goes on."""
        self.deltas_said = 0
        self.deltas_written = 0
        """Text deltas that the program said, and the events they became."""

    @property
    def empty(self) -> bool:
        return not (self.events or self.journal or self.receipts)

    def batch(
        self, *, batch_id: str, state: RunState, wake_at: int | None, records: tuple[RecordWrite, ...] = ()
    ) -> Batch:
        return Batch(
            batch_id=batch_id,
            status=state.log_status(),
            events=tuple(self.events),
            journal=tuple(self.journal),
            receipts=tuple(self.receipts),
            wake_at=wake_at,
            # Of one that was written twice in this beat, the last counts.
            records=tuple({(write.kind, write.id): write for write in (*self.records, *records)}.values()),
        )


def run_beat(door: Door, posted: Sequence[Taken]) -> Beat:
    """Decide and apply each input in turn. `door.state` has moved over all of it afterwards.

    A run that has come to one of its bounds ends there; what was posted behind is decided of an ended run.
    """
    beat = Beat(door.state.head)
    for item in posted:
        if type(item) is Said:
            _say(door, item, beat)
        else:
            _settle(door, item, beat)
        if door.full:
            _take(door, *_decided(door, Outgrown(), beat), beat)
    return beat


def _settle(door: Door, posted: Posted, beat: Beat) -> None:
    answer, refusal = _one(door, posted.item, beat)
    if posted.reply is not None:
        beat.replies.append((posted.reply, answer, refusal))
    elif isinstance(refusal, BadDraft):
        beat.wrong.append(refusal)


def _say(door: Door, said: Said, beat: Beat) -> None:
    """Text deltas, as their drafts would be decided one by one; but all at once, because they are so many."""
    state, texts = door.state, said.texts
    if not may_say(state, said.message_id, said.step_id):
        for text in texts:
            delta = MessageDelta(message_id=said.message_id, text=text)
            _settle(door, Posted(Drafted(payloads=(delta,), step_id=said.step_id), None), beat)
        return
    if door.joins and len(texts) > 1:
        texts = ["".join(texts)]
    events = _encoded_deltas(door, said, texts)
    size = sum(map(len, events))
    if state.head + len(events) > door.limits.max_run_events or state.size + size > door.limits.max_run_bytes:
        events = _within(door, events)
        size = sum(map(len, events))
    apply_deltas(state, said.message_id, texts[: len(events)], size)
    beat.events += events
    beat.size += size
    beat.deltas_said += len(said.texts)
    beat.deltas_written += len(events)


def _encoded_deltas(door: Door, said: Said, texts: Sequence[str]) -> list[bytes]:
    run_id, ts = door.state.run_id, iso_ms(door.now_ms)
    message_id, step_id = said.message_id, said.step_id
    return [
        event_bytes(
            seq=seq,
            run_id=run_id,
            ts=ts,
            payload=MessageDelta(message_id=message_id, text=text),
            step_id=step_id,
        )
        for seq, text in enumerate(texts, door.state.head + 1)
    ]


def _within(door: Door, events: list[bytes]) -> list[bytes]:
    """As many as it takes to come to a bound of the run."""
    state, limits = door.state, door.limits
    events = events[: max(0, limits.max_run_events - state.head)]
    sizes = accumulate(map(len, events), initial=state.size)
    return [data for data, before in zip(events, sizes, strict=False) if before < limits.max_run_bytes]


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
    for planned, data in zip(decision.events, encoded, strict=True):
        seq, payload, size = state.head + 1, planned.payload, len(data)
        beat.size += size
        beat.payloads.append((seq, payload))
        if type(payload) is MessageDelta:
            beat.deltas_said += 1
            beat.deltas_written += 1
        apply(state, seq, payload, door.now_ms, step_id=planned.step_id, size=size)
    for record in decision.journal:
        beat.journal.append(record)
        apply_journal(state, record, live=True)
    beat.records += decision.records
    if decision.receipt is not None and decision.remember is not None:
        stored = StoredReceipt(
            command_id=decision.receipt.command_id,
            fingerprint=decision.remember,
            data=msgspec.json.encode(decision.receipt),
        )
        beat.receipts.append(stored)
        apply_receipt(state, stored)
