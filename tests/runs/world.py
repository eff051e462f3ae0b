"""A run without an actor: what goes into its beats, what came out, and what must be true of it at any time.

Ops are small integers that are read against the state as it is, so that a random sequence mostly does what agents and
clients do (and now and then what they must not), and shrinks well.
"""

from collections.abc import Callable, Coroutine
from typing import Any, Final

import msgspec

from midstream.clock import SystemClock
from midstream.log import Batch, JournalRecord, MemoryStore, StoredReceipt
from midstream.runs.beat import Beat, run_beat
from midstream.runs.commands import Door, fingerprint
from midstream.runs.contract import (
    BadDraft,
    CallCancelled,
    CallRecord,
    CorrectionsPending,
    Limits,
    ResultRecord,
    Stopping,
)
from midstream.runs.inputs import Asked, Drafted, End, Offer, ProgramEnded, Recovered, TakeCorrections, Tick
from midstream.runs.mailbox import Posted
from midstream.runs.replay import load_state, own_event
from midstream.runs.state import RunState, apply, apply_receipt
from midstream_protocol import commands as cmd
from midstream_protocol import events as ev
from midstream_protocol.codec import event_bytes, iso_ms
from midstream_protocol.digest import args_digest
from midstream_protocol.errors import ERRORS
from midstream_protocol.events import TERMINAL_TYPES, Event, Payload
from midstream_protocol.frames import Receipt
from midstream_protocol.order import verify
from midstream_protocol.view import View, fold_all
from tests.runs.simple import ME, OpenRules

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
    def __init__(self) -> None:
        self.now_ms = START_MS
        self.rules = OpenRules()
        self.store = MemoryStore(clock=SystemClock())
        self.control: list[Posted] = []
        self.output: list[Posted] = []
        self.sent: list[Asked] = []
        self.receipts: dict[str, list[tuple[str, Receipt]]] = {}
        self.waiting: set[Slot] = set()
        self.count = 0
        self.wrong: list[str] = []
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
        for n, payload in enumerate(payloads, 1):
            apply(self.state, n, payload, self.now_ms)
        apply_receipt(self.state, stored)
        self._new_door()

    def _new_door(self) -> None:
        self.door = Door(state=self.state, rules=self.rules, limits=LIMITS, now_ms=self.now_ms, secret=SECRET)

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

    def _close(self, posted: list[Posted]) -> None:
        for item in posted:
            self.waiting.discard(item.reply)

    def _replies(self, posted: list[Posted], beat: Beat) -> None:
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


# -- ops: each reads two small integers against the world


def pick(world: dict[str, Any], n: int) -> str | None:
    """The nth of these keys; None, now and then and when there are none."""
    keys = list(world)
    return keys[n % len(keys)] if keys and n != 7 else None


def calls_in(state: RunState, *states: str) -> dict[str, Any]:
    return {key: call for key, call in state.calls.items() if call.state in states}


def draft(world: World, kind: int, n: int, m: int) -> list[Payload]:
    """What agent code may say next; n == 7 names what is not there, m == 7 says something wrong."""
    state = world.state
    message = pick(state.message, n) or f"m{n}"
    step = pick(state.steps, n) or f"s{n}"
    at = iso_ms(world.now_ms + 1000 * (5 + 20 * m))
    args = {"n": m, "secret": "x"}
    digest = args_digest(SECRET, args)
    match kind:
        case 0:
            return [ev.MessageStarted(message_id=f"m{n}", role="assistant", agent="a")]
        case 1 | 2:
            return [ev.MessageDelta(message_id=message, text="ab"[: m % 3])]
        case 3:
            text = "".join(state.message[message].text) if message in state.message and m != 7 else "?"
            return [ev.MessageCompleted(message_id=message, role="assistant", text=text, state="complete")]
        case 4:
            return [ev.MessageSuperseded(message_id=message, reason="model_error")]
        case 5:
            return [ev.ReasoningDelta(message_id=message, text="hm")]
        case 6:
            return [ev.ToolPreparing(tool_call_id=f"t{n}", message_id=message, tool="srv", label="Do")]
        case 7 | 8:
            call = pick(calls_in(state, "preparing"), n) or f"t{n}"
            known = state.call_args.get(call, args) if m != 7 else {"other": 1}
            attempt = 1 if call not in calls_in(state, "running") or m == 7 else state.calls[call].attempt + 1
            started = ev.ToolStarted(
                tool_call_id=call,
                tool="srv",
                label="Do",
                args_preview={},
                args_digest=args_digest(SECRET, known),
                attempt=attempt,
            )
            return [started]
        case 9:
            call = pick(calls_in(state, "preparing"), n) or f"t{n}"
            known = state.call_args.get(call, args) if m != 7 else {"other": 1}
            return [
                ev.ToolRequested(
                    tool_call_id=call,
                    tool="cl",
                    label="Do",
                    args=known,
                    client_id=CLIENTS[m % 2] or "north",
                    expires_at=at,
                    expires_in_s=5,
                )
            ]
        case 10:
            call = pick(calls_in(state, "running", "background"), n) or f"t{n}"
            return [ev.ToolProgress(tool_call_id=call, fraction=m / 10)]
        case 11:
            call = pick(calls_in(state, "running"), n) or f"t{n}"
            return [ev.ToolRetrying(tool_call_id=call, attempt=m, max_attempts=9, wait_s=1, code="timeout")]
        case 12:
            call = pick(calls_in(state, "running"), n) or f"t{n}"
            return [ev.ToolPending(tool_call_id=call, expires_at=at)]
        case 13:
            call = pick(calls_in(state, "running", "background"), n) or f"t{n}"
            return [ev.ToolCompleted(tool_call_id=call, duration_ms=m, preview="", via="tool")]
        case 14:
            call = pick(calls_in(state, "preparing", "running", "background", "requested"), n) or f"t{n}"
            outcomes: list[Any] = ["not_started", "failed", "unknown"]
            outcome: Any = outcomes[m % 3] if m == 7 or call not in calls_in(state, "preparing") else "not_started"
            return [ev.ToolFailed(tool_call_id=call, code="tool_error", text="", outcome=outcome, retryable=False)]
        case 15 | 16:
            call = pick(calls_in(state, "preparing", "running"), n) or f"t{n}"
            return [
                ev.ApprovalRequired(
                    approval_id=f"a{world.count}_{n}" if m != 7 else f"a{n}",
                    tool_call_id=call,
                    tool="srv",
                    label="Do",
                    reason="policy",
                    risk="low",
                    args={},
                    editable=n % 3 > 0,
                    args_digest=digest,
                    decisions=["approve", "deny"],
                    remember_scopes=["run"],
                    expires_at=at,
                    expires_in_s=5,
                    on_expire="deny",
                )
            ]
        case 17:
            return [
                ev.InputRequired(
                    input_id=f"i{n}",
                    question="?",
                    expires_at=at,
                    expires_in_s=5,
                    choices=["yes", "no"] if m % 2 else None,
                    schema={"type": "string"} if not m % 2 else None,
                )
            ]
        case 18:
            states: list[Any] = ["started", "started", "completed", "failed", "skipped"]
            state_name = states[m % 5]
            at_step = f"s{n}" if state_name == "started" or m == 7 else step
            return [ev.RunStep(step_id=at_step, state=state_name, kind="turn", title="", agent="a")]
        case 19:
            return [(ev.PlanCreated if m % 2 else ev.PlanUpdated)(todos=[])]
        case 20:
            statuses: list[Any] = ["running", "waiting", "queued"]
            status: Any = statuses[m % 3] if n == 7 else "running"
            return [ev.RunStatusChanged(status=status, phase="working", text="")]
        case 21:
            return [
                ev.UsageUpdated(input_tokens=n, output_tokens=m, cached_input_tokens=0, total_tokens=n + m, by_model={})
            ]
        case 22:
            return [ev.Notice(level="info", code="x", text="y")]
        case 23:
            return [ev.MessageCompleted(message_id=f"m{n}", role="user", text="u", state="complete")]
        case _:
            return [ev.RecoveryStarted(kind="overloaded", attempt=1, max_attempts=3, wait_s=0)]


DRAFTS: Final = 25


def journal_of(*said: tuple[Payload, int]) -> tuple[JournalRecord, ...]:
    """The records that belong to what was said with that `m`: as the agent layer writes them."""
    records = []
    for payload, m in said:
        if isinstance(payload, ev.ApprovalRequired):
            call = CallRecord(tool=payload.tool, args={"n": m, "secret": "x"})
            records.append(JournalRecord(kind="call", key=payload.tool_call_id, data=msgspec.json.encode(call)))
        elif isinstance(payload, ev.ToolCompleted | ev.ToolFailed):
            result = ResultRecord(ok=isinstance(payload, ev.ToolCompleted), value=m)
            records.append(JournalRecord(kind="result", key=payload.tool_call_id, data=msgspec.json.encode(result)))
    return tuple(records)


def command(world: World, kind: int, n: int, m: int) -> cmd.CommandPayload:
    """What clients may ask; n == 7 names what is not there."""
    state = world.state
    match kind:
        case 0 if n == m or state.cancelling is not None:
            return cmd.RunCancel(mode="now" if m % 3 == 0 else "after_step", reason="stop" if n % 2 else None)
        case 2:
            return cmd.RunCancel(tool_call_id=pick(state.calls, n) or "t_none", mode="now")
        case 0 | 1 | 3 | 4:
            modes: list[Any] = ["next_step", "now", "when_idle"]
            return cmd.RunCorrect(text="x" * (70 if m == 7 else 3), mode=modes[m % 3])
        case 5:
            return cmd.CorrectionRevoke(correction_id=pick(state.corrections, n) or "c_none")
        case 6 | 7:
            return _approve(state, n, m)
        case 8:
            asked = {q.key: q for q in state.questions.values() if isinstance(q.payload, ev.InputRequired)}
            key = pick(asked, n) or pick(state.answers, n) or "i_none"
            return cmd.InputRespond(input_id=key, answer=["yes", "no", 5][m % 3])
        case _:
            client_calls = {key: call for key, call in state.calls.items() if call.client_id is not None}
            key = pick(client_calls, n) or pick(state.calls, n) or "t_none"
            answers: list[dict[str, Any]] = [
                {"ok": True, "result": {"n": m}},
                {"ok": False, "error": cmd.ToolError(code="nope", text="no")},
                {"progress": cmd.ToolProgressReport(text="half", fraction=0.5)},
            ]
            return cmd.ToolResult(tool_call_id=key, **answers[m % 3])


COMMANDS: Final = 11


def _approve(state: RunState, n: int, m: int) -> cmd.ApprovalRespond:
    asked = {q.key: q for q in state.questions.values() if isinstance(q.payload, ev.ApprovalRequired)}
    key = pick(asked, n) or pick(state.answers, n) or "a_none"
    question = asked.get(key)
    digest = question.payload.args_digest if question is not None else "d"  # type: ignore[union-attr]
    edits: list[dict[str, Any] | None] = [None, None, {}, {"n": 1}, {"n": -1}, {"extra": "é"}, None, None]
    return cmd.ApprovalRespond(
        approval_id=key,
        decision="deny" if m in (2, 5) else "approve",
        args=edits[m % 8],
        args_digest=[None, digest, digest, "wrong"][m % 4] if m else None,
        remember=cmd.Remember(scope="run" if m == 1 else "always") if m in (1, 6) else None,
    )


def ask(world: World, payload: cmd.CommandPayload, *, command_id: str, client: str | None) -> Asked:
    sent = cmd.Command(type=payload.TYPE, command_id=command_id, run_id="run_1", payload=payload)
    asked = Asked(command=sent, principal=ME, client_id=client, fingerprint=fingerprint(sent))
    world.sent.append(asked)
    return asked


def repeat(world: World, n: int, m: int) -> None:
    """A client that resends, or that uses an id for something else."""
    if not world.sent:
        return
    asked = world.sent[n % len(world.sent)]
    if m == 7:
        other = cmd.RunCorrect(text="z")
        sent = msgspec.structs.replace(asked.command, type=other.TYPE, payload=other)
        asked = Asked(command=sent, principal=ME, client_id=asked.client_id, fingerprint=fingerprint(sent))
    world.post(asked, wait=True)


def offer(n: int) -> Offer:
    return Offer(client_id=CLIENTS[n % 2] or "", tools=(cmd.ClientTool(name="cl", input_schema={"type": "object"}),))


# -- one step of a random life

Op = tuple[str, int, int, int]


def _say(world: World, kind: int, n: int, m: int) -> None:
    payloads = draft(world, kind % DRAFTS, n, m)
    step = pick(world.state.steps, m) if n % 2 else None
    emitted = isinstance(payloads[0], ev.MessageDelta | ev.MessageStarted | ev.Notice | ev.ToolProgress)
    world.post(Drafted(payloads=tuple(payloads), journal=journal_of((payloads[0], m)), step_id=step), wait=not emitted)


def _say_two(world: World, kind: int, n: int, m: int) -> None:
    first, second = draft(world, kind % DRAFTS, n, m)[0], draft(world, (kind + n) % DRAFTS, m, n)[0]
    world.post(Drafted(payloads=(first, second), journal=journal_of((first, m), (second, n))), wait=True)


def _command(world: World, kind: int, n: int, m: int) -> None:
    payload = command(world, kind % COMMANDS, n, m)
    client = CLIENTS[(n + m) % 3]
    if isinstance(payload, cmd.ToolResult) and n % 4:
        call = world.state.calls.get(payload.tool_call_id)
        client = call.client_id if call is not None else client
    world.post(ask(world, payload, command_id=f"c{len(world.sent)}", client=client), wait=True)


def _take(world: World, kind: int, n: int, _m: int) -> None:
    step = pick(world.state.steps, n)
    if step is not None:
        world.post(TakeCorrections(step_id=step, ending=kind % 2 == 0), wait=True)


def _time(world: World, kind: int, n: int, m: int) -> None:
    world.beat()
    world.now_ms += 1 + (kind * n * m * 40 if kind % 3 else n)
    world.post(Tick(), wait=False)
    world.beat()
    if not world.state.ended:
        late = [q for q in world.state.questions.values() if q.expires_ms <= world.now_ms]
        assert not late, "nothing is open after its time"


def _crash(world: World, kind: int, _n: int, _m: int) -> None:
    if kind % 3:
        return
    world.crash()
    if not world.state.ended:
        world.post(Recovered(gone="gone" if kind == 12 else None), wait=False)
        world.beat()


def _end(world: World, kind: int, n: int, m: int) -> None:
    if n != m:
        return
    endings: list[Any] = [
        End(result={"n": n}),
        End(result=None, return_corrections=True),
        ProgramEnded(code="internal", text="It failed.", error_id="err_1"),
        ProgramEnded(),
    ]
    item = endings[kind % 4]
    world.post(item, wait=isinstance(item, End))


OPS: Final[dict[str, Callable[[World, int, int, int], None]]] = {
    "say": _say,
    "say_two": _say_two,
    "command": _command,
    "repeat": lambda world, _kind, n, m: repeat(world, n, m),
    "take": _take,
    "time": _time,
    "crash": _crash,
    "end": _end,
    "offer": lambda world, _kind, n, _m: world.post(offer(n), wait=True),
    "beat": lambda world, _kind, _n, _m: (world.beat(), None)[1],
}


def finish(world: World, how: int) -> None:
    """However it was going, it ends."""
    world.beat()
    if world.state.ended:
        return
    if how == 0:
        world.post(End(result="done", return_corrections=True), wait=True)
    elif how == 1:
        world.post(ProgramEnded(code="internal", text="It failed.", error_id="err_2"), wait=False)
    elif how == 2:
        world.now_ms += round(LIMITS.run_deadline_s * 1000) + 1
        world.post(Tick(), wait=False)
        world.beat()
    else:
        world.post(ask(world, cmd.RunCancel(mode="now"), command_id="c_last", client="north"), wait=True)
    world.beat()
    if not world.state.ended:
        # Cancelled: the end comes with the program's.
        world.post(ProgramEnded(), wait=False)
        world.beat()
    assert world.state.ended
