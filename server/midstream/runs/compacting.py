"""An ended run without its events: what is kept of it is the view they fold to, and what late commands are judged by.

Journal and receipts stay, so threads go on and commands happen once; the last event stays as it is.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Struct

from midstream.log import Loaded, LogUnavailable
from midstream.runs.apply import apply, apply_journal, apply_receipt
from midstream.runs.state import Answer, CallState, CorrectionState, RunState
from midstream_protocol.codec import parse_iso
from midstream_protocol.events import EVENTS, ApprovalRequired, Event, InputRequired, ToolRequested
from midstream_protocol.view import View, fold_all

_ASKED: Final[dict[str, type[ApprovalRequired | InputRequired | ToolRequested]]] = {
    kind.TYPE: kind for kind in (ApprovalRequired, InputRequired, ToolRequested)
}


class _Answered(Struct, kw_only=True, frozen=True):
    """An answer with its kind as a word."""

    kind: str
    key: str
    seq: int
    decision: str
    by: str


class Judged(Struct, kw_only=True, frozen=True):
    """What late commands are judged by; it holds seqs, which no view does."""

    created_ms: int
    calls: tuple[CallState, ...]
    answers: tuple[_Answered, ...]
    corrections: tuple[CorrectionState, ...]


class Remains(View, kw_only=True, omit_defaults=True, frozen=True):
    """The snapshot of a compacted run (JSON): its view, and one field more."""

    judged: Judged


class Folding:
    """View and working state of a run out of its events, page by page."""

    def __init__(self, loaded: Loaded, *, run_id: str) -> None:
        self._epoch = loaded.header.epoch
        self._view: View | None = None
        self._state = RunState(run_id=run_id)
        for record in loaded.journal:
            apply_journal(self._state, record, live=False)

    def take(self, events: Sequence[Event]) -> None:
        self._view = fold_all(events, self._view, epoch=self._epoch)
        for event in events:
            if event.type in EVENTS:
                apply(self._state, event.seq, event.payload, parse_iso(event.ts), step_id=event.step_id)

    def remains(self) -> bytes:
        view, state = self._view, self._state
        assert view is not None
        judged = Judged(
            created_ms=state.created_ms,
            calls=tuple(state.calls.values()),
            answers=tuple(
                _Answered(kind=a.kind.TYPE, key=a.key, seq=a.seq, decision=a.decision, by=a.by)
                for a in state.answers.values()
            ),
            corrections=tuple(state.corrections.values()),
        )
        return msgspec.json.encode(Remains(**msgspec.structs.asdict(view), judged=judged))


def state_of(loaded: Loaded, *, run_id: str) -> RunState:
    """The working state of a compacted run, as far as an ended run is asked for it. Raises `LogUnavailable`."""
    if loaded.snapshot is None:
        raise LogUnavailable(f"{loaded.header.run} was compacted, and its snapshot is not there")
    kept = msgspec.json.decode(loaded.snapshot.data, type=Remains)
    judged = kept.judged
    state = RunState(
        run_id=run_id,
        created_ms=judged.created_ms,
        head=loaded.header.head_seq,
        agent=kept.agent,
        thread_id=kept.thread_id,
        status=kept.status,
        ended=True,
        calls={call.tool_call_id: call for call in judged.calls},
        answers={
            a.key: Answer(kind=_ASKED[a.kind], key=a.key, seq=a.seq, decision=a.decision, by=a.by)
            for a in judged.answers
        },
        corrections={c.correction_id: c for c in judged.corrections},
    )
    for record in loaded.journal:
        apply_journal(state, record, live=False)
    for receipt in loaded.receipts:
        apply_receipt(state, receipt)
    return state
