"""A run without an actor: what goes into its beats, what came out, and what must be true of it at any time."""

from collections.abc import Coroutine
from typing import Any, Final

import msgspec

from midstream.clock import SystemClock
from midstream.log import Batch, MemoryStore, StoredReceipt
from midstream.runs.apply import apply, apply_receipt
from midstream.runs.beat import Beat, run_beat
from midstream.runs.commands import Door
from midstream.runs.contract import (
    BadDraft,
    CallCancelled,
    CorrectionRecord,
    CorrectionsPending,
    Limits,
    Stopping,
)
from midstream.runs.inputs import Asked, Drafted, End, ProgramEnded, Said, TakeCorrections
from midstream.runs.mailbox import Posted, Taken
from midstream.runs.replay import load_state, own_event
from midstream.runs.state import RunState
from midstream_protocol import commands as cmd
from midstream_protocol import events as ev
from midstream_protocol.codec import event_bytes, iso_ms
from midstream_protocol.digest import args_digest
from midstream_protocol.errors import ERRORS
from midstream_protocol.events import TERMINAL_TYPES, Event, Payload
from midstream_protocol.frames import Receipt
from midstream_protocol.order import verify
from midstream_protocol.view import View, fold_all
from tests.runs.simple import OpenRules

SECRET: Final = b"s" * 32
START_MS: Final = 1_767_225_600_000
LIMITS: Final = Limits(max_pending_corrections=3, max_recoveries=2, run_deadline_s=900, max_input_bytes=64)
CLIENTS: Final = ("north", "south", None)
RUN: Final = "ns.run_1"
EFFECTS: Final = {
    cmd.RunCancel: {"run.cancelling"},
    cmd.RunCorrect: {"correction.accepted"},
    cmd.CorrectionRevoke: {"correction.revoked"},
    cmd.ApprovalRespond: {"approval.resolved"},
    cmd.InputRespond: {"input.resolved"},
    cmd.ToolResult: {"tool.completed", "tool.failed", "tool.progress"},
}
BEGINNINGS: Final = {"message.started", "tool.started", "tool.requested", "approval.required", "input.required"}


def drive(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run what never really waits (the memory store does not)."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waited")


class Slot:
    """Somebody who waits for a reply."""

    def __init__(self, asked: Asked | None = None) -> None:
        self.asked = asked


class World:
    def __init__(self, limits: Limits = LIMITS) -> None:
        self.now_ms = START_MS
        self.limits = limits
        self.rules = OpenRules()
        self.store = MemoryStore(clock=SystemClock())
        self.control: list[Posted] = []
        self.output: list[Taken] = []
        self.sent: list[Asked] = []
        self.receipts: dict[str, list[tuple[str, Receipt]]] = {}
        self.waiting: set[Slot] = set()
        self.count = 0
        self.wrong: list[str] = []
        self.takes: list[TakeCorrections] = []
        self.done: dict[str, tuple[int, type[cmd.CommandPayload]]] = {}
        drive(self.store.open())
        self._create()

    # -- the run and its log

    def _create(self) -> None:
        payloads: list[Payload] = [
            ev.RunStarted(agent="a", thread_id="thread_1"),
            ev.MessageCompleted(message_id="msg_in", role="user", text="go", state="complete"),
        ]
        ts = iso_ms(self.now_ms)
        events = [event_bytes(seq=n, run_id="run_1", ts=ts, payload=p) for n, p in enumerate(payloads, 1)]
        stored = StoredReceipt(
            command_id="c_start",
            fingerprint="f",
            data=msgspec.json.encode(Receipt(command_id="c_start", status="accepted", run_id="run_1", at_seq=1)),
        )
        batch = Batch(batch_id="b0", status="running", events=tuple(events), receipts=(stored,))
        created = drive(self.store.log.create(RUN, fingerprint="f", batch=batch, owner="me", lease_ms=10**9))
        self.fence = created.lease.fence
        self.state = RunState(run_id="run_1")
        for n, (payload, data) in enumerate(zip(payloads, events, strict=True), 1):
            apply(self.state, n, payload, self.now_ms, size=len(data))
        apply_receipt(self.state, stored)
        self._new_door()

    def _new_door(self) -> None:
        self.door = Door(state=self.state, rules=self.rules, limits=self.limits, now_ms=self.now_ms, secret=SECRET)

    def events(self) -> list[Event]:
        page = drive(self.store.log.read(RUN, after=0, max_events=100_000, max_bytes=1 << 30))
        return [own_event(data) for data in page.events]

    def replayed(self) -> RunState:
        loaded = drive(self.store.log.load(RUN))
        state: RunState = drive(load_state(self.store.log, loaded, run_id="run_1"))
        return state

    # -- posting

    def post(self, item: Any, *, wait: bool) -> None:
        slot = Slot(item if isinstance(item, Asked) else None) if wait else None
        if slot is not None:
            self.waiting.add(slot)
        control = not isinstance(item, Drafted | TakeCorrections | End | ProgramEnded)
        (self.control if control else self.output).append(Posted(item, slot))  # type: ignore[arg-type]

    def say(self, message_id: str, texts: list[str], step_id: str | None) -> None:
        """Text deltas as `emit` puts them, which are written faster than others."""
        said = Said(message_id, step_id, texts[0], 0)
        said.texts += texts[1:]
        self.output.append(said)

    def beat(self) -> Beat | None:
        """Everything that waits, control first, as the actor does it. A run that has ended has no actor."""
        posted, self.control, self.output = [*self.control, *self.output], [], []
        if self.state.ended:
            self._close(posted)
            return None
        self.door.now_ms = self.now_ms
        before = self.state.head
        beat = run_beat(self.door, posted)
        assert len(beat.events) == self.state.head - before
        if not beat.empty:
            self.count += 1
            batch = beat.batch(batch_id=f"b{self.count}", state=self.state, wake_at=self.state.wake_at())
            head = drive(self.store.log.append(RUN, fence=self.fence, prev_seq=beat.prev_seq, batch=batch))
            assert head == self.state.head
        self._replies(posted, beat)
        return beat

    def _close(self, posted: list[Taken]) -> None:
        for item in posted:
            self.waiting.discard(item.reply)

    def _replies(self, posted: list[Taken], beat: Beat) -> None:
        asked = [item.reply for item in posted if item.reply is not None]
        assert [reply for reply, _, _ in beat.replies] == asked, "everybody who waits is answered, once, in order"
        for reply, value, refused in beat.replies:
            slot: Any = reply
            self.waiting.discard(slot)
            if slot.asked is not None:
                assert refused is None
                assert isinstance(value, Receipt)
                self._receipt(slot.asked, value)
            else:
                assert refused is None or isinstance(
                    refused, Stopping | CallCancelled | BadDraft | CorrectionsPending
                ), refused

    def _receipt(self, asked: Asked, receipt: Receipt) -> None:
        command = asked.command
        assert receipt.command_id == command.command_id
        remembered = receipt.status == "accepted" or ERRORS[receipt.code or ""].remembered
        before = self.receipts.setdefault(command.command_id, [])
        kept = [(print_, known) for print_, known in before if known.status == "accepted" or _kept(known)]
        if kept:
            print_, known = kept[0]
            if print_ == asked.fingerprint:
                assert receipt == known, "the same command gets the same receipt"
            else:
                assert receipt.code == "conflict"
        elif remembered:
            assert receipt.run_id == "run_1"
        if receipt.status == "accepted" and receipt.code is None and not kept:
            assert receipt.at_seq is not None
            assert receipt.at_seq <= self.state.head
            self.done[command.command_id] = receipt.at_seq, type(command.payload)
        before.append((asked.fingerprint, receipt))

    # -- crash

    def crash(self) -> None:
        """The process dies: what was not written is gone. The state is made anew from the log."""
        self.control, self.output = [], []
        self.waiting.clear()
        self.agree()
        self.state = self.replayed()
        self._new_door()
        self.fence = drive(self.store.leases.claim(RUN, owner="me", now_ms=self.now_ms, lease_ms=10**9)).fence

    # -- what must be true

    def agree(self) -> None:
        """The live state is the fold of what is in the log. `tool_values` is not: it is what the program that runs
        now has not read yet, and a program that begins again reads its journal."""
        replayed = self.replayed()
        for name in RunState.__slots__:
            if name != "tool_values":
                assert getattr(replayed, name) == getattr(self.state, name), name

    def check(self) -> None:
        events = self.events()
        assert [event.seq for event in events] == list(range(1, self.state.head + 1))
        assert verify(events, ended=False) == []
        self._nothing_begins_after_a_cancel(events)
        self._what_was_approved_is_what_runs(events)
        self._effects_of_commands(events)
        self._corrections(events)
        view = fold_all(events)
        assert view is not None
        self._view(view)
        if self.state.ended:
            self._ended(events)

    def _ended(self, events: list[Event]) -> None:
        state = self.state
        assert verify(events) == []
        assert [event.type in TERMINAL_TYPES for event in events].count(True) == 1
        assert events[-1].type in TERMINAL_TYPES
        assert not state.message
        assert not state.questions
        assert not state.steps
        assert not state.open_calls()
        assert not state.pending_corrections()
        assert all(todo.status in ("completed", "failed", "skipped") for todo in state.plan or ())
        opened = {e.payload.approval_id for e in events if isinstance(e.payload, ev.ApprovalRequired)}
        opened |= {e.payload.input_id for e in events if isinstance(e.payload, ev.InputRequired)}
        opened |= {e.payload.tool_call_id for e in events if isinstance(e.payload, ev.ToolRequested)}
        assert opened <= state.answers.keys(), "whoever waits at the port finds an answer"
        accepted = {e.payload.correction_id for e in events if isinstance(e.payload, ev.CorrectionAccepted)}
        settled = {
            e.payload.correction_id
            for e in events
            if isinstance(e.payload, ev.CorrectionApplied | ev.CorrectionReturned | ev.CorrectionRevoked)
        }
        assert accepted == settled, "no correction is lost"

    def _nothing_begins_after_a_cancel(self, events: list[Event]) -> None:
        cancelling = False
        for event in events:
            assert not (cancelling and event.type in BEGINNINGS), event
            if isinstance(event.payload, ev.RunCancelling) and event.payload.tool_call_id is None:
                cancelling = True

    def _what_was_approved_is_what_runs(self, events: list[Event]) -> None:
        said: dict[str, ev.ApprovalResolved | None] = {}
        for event in events:
            p = event.payload
            if isinstance(p, ev.ApprovalRequired):
                said[p.tool_call_id] = None
            elif isinstance(p, ev.ApprovalResolved):
                said[p.tool_call_id] = p
            elif isinstance(p, ev.ToolStarted | ev.ToolRequested) and p.tool_call_id in said:
                answer = said[p.tool_call_id]
                assert answer is not None
                assert answer.decision == "approved"
                digest = p.args_digest if isinstance(p, ev.ToolStarted) else args_digest(SECRET, p.args)
                assert digest == answer.args_digest

    def _corrections(self, events: list[Event]) -> None:
        """Who asked for a new plan is known, also after a crash; what was taken is what was wanted."""
        asked = {a.command.command_id: a.command.payload for a in self.sent}
        for correction in self.state.corrections.values():
            payload = asked[correction.correction_id]
            # A client may have sent something else under its id first, which was refused and is not remembered.
            wanted = isinstance(payload, cmd.RunCorrect) and correction.text == payload.text and payload.replan
            assert correction.asked_replan is bool(wanted)
        loaded = drive(self.store.log.load(RUN))
        records = [msgspec.json.decode(r.data, type=CorrectionRecord) for r in loaded.journal if r.kind == "correction"]
        applied = [event.payload for event in events if isinstance(event.payload, ev.CorrectionApplied)]
        assert [(r.text, r.replanned) for r in records] == [(p.text, p.replanned) for p in applied]
        for p in applied:
            takes = [take for take in self.takes if take.only is None or p.correction_id in take.only]
            assert any(take.step_id == p.step_id and p.replanned is (p.correction_id in take.replan) for take in takes)

    def _effects_of_commands(self, events: list[Event]) -> None:
        for command_id, (at_seq, kind) in self.done.items():
            event = events[at_seq - 1]
            assert event.origin is not None
            assert event.origin.command_id == command_id
            assert event.type in EFFECTS[kind]
        caused = [e.origin.command_id for e in events if e.origin is not None and e.origin.command_id is not None]
        assert sorted(caused) == sorted(self.done), "one effect event a command, and none without a receipt"

    def _view(self, view: View) -> None:
        state = self.state
        assert view.cursor.seq == state.head
        assert view.status == state.status
        assert view.thread_id == state.thread_id
        assert view.plan == (state.plan or ())
        assert view.usage == (state.usage if view.usage is not None else None)
        still_open = {m.message_id: m.text for m in view.messages if m.state == "open"}
        assert still_open == {m.message_id: "".join(m.text) for m in state.message.values()}
        pending = {(p["kind"], p.get("approval_id") or p.get("input_id") or p["tool_call_id"]) for p in view.pending}
        assert pending == {(_kind(q.payload), q.key) for q in state.questions.values()}
        assert {c.correction_id: c.state for c in view.corrections} == {
            c.correction_id: c.state for c in state.corrections.values()
        }
        assert {c.tool_call_id for c in view.calls} == set(state.calls)
        for shown in view.calls:
            call = state.calls[shown.tool_call_id]
            assert (shown.state not in ("completed", "failed")) == call.open
            if not call.open:
                assert shown.state == call.state
            assert shown.args_digest == call.args_digest
        assert {s.step_id for s in view.steps if s.state == "started"} == set(state.steps)


def _kept(receipt: Receipt) -> bool:
    return receipt.code is not None and ERRORS[receipt.code].remembered


def _kind(payload: Payload) -> str:
    return {"approval.required": "approval", "input.required": "input", "tool.requested": "tool"}[payload.TYPE]
