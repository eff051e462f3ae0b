"""Events to lines: what a person sees of a run. A pure state machine; `terminal` does the printing."""

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from midstream.cli import blocks
from midstream.cli.blocks import Break, Line, Part, Status, Stream, line
from midstream.client.safe_text import safe_line, safe_text
from midstream_protocol import events as ev
from midstream_protocol.events import TERMINAL_STATUSES, ApprovalRequired, Event, InputRequired
from midstream_protocol.frames import RunAttached, RunReset
from midstream_protocol.view import View, view_from_builtins

Ask = ApprovalRequired | InputRequired

STATUS_LABEL_CHARS: Final = 40
"""Of a call's label beside its progress: a status has one line, and the progress is the news."""


class Renderer:
    """One run's output. `own_input` False leaves out the input that was just typed here.

    `asks` are the questions that wait for an answer, oldest first. `ended` is the terminal event's type.
    """

    def __init__(self, *, own_input: bool = True) -> None:
        self.asks: dict[str, Ask] = {}
        self.ended: str | None = None
        self.last_correction: str | None = None
        self._own_input = own_input
        self._forget()

    def _forget(self) -> None:
        self.asks.clear()
        self._settled: set[str] = set()
        self._labels: dict[str, str] = {}
        self._texts: dict[str, str] = {}
        self._shown: dict[str, int] = {}
        self._speaker: str | None = None
        self._last_text = ""
        self._pending: list[dict[str, Any]] = []
        self._status = ""

    # -- what arrives

    def event(self, event: Event) -> Iterator[Part]:
        if isinstance(event.payload, ev.Payload):
            yield from self._payload(event.payload)
        else:
            yield line(f"· {event.type}", "dim")

    def attached(self, frame: RunAttached) -> Iterator[Part]:
        """Remember what waits: what was asked before the replay began will not come as an event."""
        self._pending = frame.pending
        self._status = frame.status
        if frame.status == "queued":
            place = f", number {frame.queue_position}" if frame.queue_position else ""
            yield Status(f"queued{place}")

    def caught_up(self) -> Iterator[Part]:
        for item in self._pending:
            ask = _ask_of(item)
            if ask is not None and _key(ask) not in self._settled:
                yield from self._asked(ask)
        self._pending = []
        if self.ended is None and self._status in TERMINAL_STATUSES:
            # Attached beyond its last event: there is nothing to see but that it is over.
            self.ended = f"run.{self._status}"
            yield line(f"the run is over: {self._status}", "dim")

    def reset(self, frame: RunReset) -> Iterator[Part]:
        """Start over from the snapshot."""
        self._forget()
        yield Break()
        yield line(f"--- the server starts over ({frame.reason}); the run as it is now: ---", "warn")
        if frame.snapshot is not None:
            yield from self._view(view_from_builtins(frame.snapshot))

    # -- one event

    def _payload(self, payload: ev.Payload) -> Iterator[Part]:
        match payload:
            case ev.RunStatusChanged(text=text):
                yield Status(safe_line(text))
            case ev.RunStep():
                yield from self._step(payload)
            case ev.ThreadTitled(title=title):
                yield line(f"# {title}", "head")
            case ev.PlanCreated() | ev.PlanUpdated():
                yield line("plan" if payload.reason is None else f"plan: {payload.reason}", "head")
                yield from blocks.plan(payload.todos)
            case ev.GuardrailTriggered(name=name, reason=reason):
                yield line(f"✋ {name}: {reason}", "bad")
            case ev.RunCancelling():
                yield from self._cancelling(payload)
            case ev.RecoveryStarted():
                yield line(
                    f"↻ recovering ({payload.kind}): attempt {payload.attempt} of {payload.max_attempts}"
                    + (f" in {blocks.duration(payload.wait_s)}" if payload.wait_s else ""),
                    "warn",
                )
            case ev.ContextTrimmed():
                yield line(
                    f"· the conversation was shortened: {payload.before_tokens:,} to {payload.after_tokens:,} tokens",
                    "dim",
                )
            case ev.ObjectCreated(kind="diff", data=data):
                yield from blocks.diff(blocks.value_text(data))
            case ev.ObjectCreated(kind=kind, data=data):
                yield line(f"· {kind}", "head")
                yield from blocks.block(blocks.value_text(data))
            case ev.Notice(level=level, text=text):
                yield line(f"· {text}", "dim" if level == "info" else "warn")
            case ev.RunStarted() | ev.UsageUpdated() | ev.MessageStarted():
                pass
            case _:
                yield from self._more(payload)

    def _more(self, payload: ev.Payload) -> Iterator[Part]:
        name = payload.TYPE.partition(".")[0]
        if name in ("message", "reasoning"):
            yield from self._message(payload)
        elif name == "tool":
            yield from self._tool(payload)
        elif name in ("approval", "input"):
            yield from self._question(payload)
        elif name == "correction":
            yield from self._correction(payload)
        else:
            yield from self._end(payload)

    def _step(self, step: ev.RunStep) -> Iterator[Part]:
        if step.kind == "turn":
            return
        of = f" ({step.index} of {step.of})" if step.index is not None and step.of is not None else ""
        if step.state == "started":
            yield line(f"── {step.title}{of} · {step.agent}", "head")
        elif step.state != "completed":
            yield line(f"── {step.title}: {step.state}", "bad" if step.state == "failed" else "dim")

    def _cancelling(self, payload: ev.RunCancelling) -> Iterator[Part]:
        what = "the run" if payload.tool_call_id is None else self._label(payload.tool_call_id)
        how = "at once" if payload.mode == "now" else "after this step"
        again = " (escalated)" if payload.escalated else ""
        why = f": {payload.reason}" if payload.reason else ""
        yield line(f"■ cancelling {what} {how}{again}, asked by {payload.by}{why}", "warn")

    # -- messages: one speaks at a time, what another says meanwhile is shown when it has ended

    def _message(self, payload: ev.Payload) -> Iterator[Part]:
        match payload:
            case ev.MessageDelta(message_id=message_id, text=text):
                self._texts[message_id] = self._texts.get(message_id, "") + text
                if self._speaker is None:
                    self._speaker = message_id
                    yield Status("")
                    # What it thought aloud is over.
                    yield Break()
                if self._speaker == message_id:
                    yield from self._catch_up(message_id, self._texts[message_id])
            case ev.MessageCompleted(role="user"):
                if self._own_input and payload.correction_id is None:
                    yield from blocks.block(payload.text, "user", indent="› ", most=blocks.MAX_BLOCK_LINES)
            case ev.MessageCompleted():
                yield from self._completed(payload)
            case ev.MessageSuperseded(message_id=message_id, reason=reason):
                shown = self._shown.pop(message_id, 0)
                yield from self._silent(message_id)
                if shown:
                    yield line(f"(the answer above is withdrawn: {reason})", "warn")
            case ev.ReasoningDelta(text=text):
                if self._speaker is None:
                    yield Stream(safe_text(text), "dim")

    def _completed(self, payload: ev.MessageCompleted) -> Iterator[Part]:
        message_id = payload.message_id
        heard = self._texts.get(message_id, "")
        # A reader that came in the middle has shown the end of it; nothing is missing then but what came before.
        if payload.text.startswith(heard):
            if self._speaker not in (message_id, None):
                yield Break()
            yield from self._catch_up(message_id, payload.text)
        self._last_text = payload.text
        self._shown.pop(message_id, None)
        yield from self._silent(message_id)
        if payload.state == "interrupted":
            yield line("(interrupted)", "warn")
        elif payload.stop_reason == "max_tokens":
            yield line("(cut off: the answer reached its longest length)", "warn")

    def _catch_up(self, message_id: str, text: str) -> Iterator[Part]:
        shown = self._shown.get(message_id, 0)
        if len(text) > shown:
            self._shown[message_id] = len(text)
            yield Stream(safe_text(text[shown:]))

    def _silent(self, message_id: str) -> Iterator[Part]:
        self._texts.pop(message_id, None)
        if self._speaker in (message_id, None):
            self._speaker = None
        yield Break()

    # -- calls

    def _label(self, tool_call_id: str) -> str:
        return self._labels.get(tool_call_id, "a call")

    def _tool(self, payload: ev.Payload) -> Iterator[Part]:
        match payload:
            case ev.ToolPreparing():
                self._labels[payload.tool_call_id] = safe_line(payload.label)
                yield Status(f"preparing: {safe_line(payload.label)}")
            case ev.ToolStarted():
                self._labels[payload.tool_call_id] = safe_line(payload.label)
                attempt = f" (attempt {payload.attempt})" if payload.attempt > 1 else ""
                yield line(f"● {payload.label}{attempt}")
                yield Status(safe_line(payload.label))
            case ev.ToolRequested():
                self._labels[payload.tool_call_id] = safe_line(payload.label)
                yield line(f"● {payload.label} (runs in client {payload.client_id})")
            case ev.ToolProgress():
                yield from self._progress(payload)
            case ev.ToolRetrying():
                yield line(
                    f"↻ {self._label(payload.tool_call_id)}: {payload.code}; attempt {payload.attempt} of"
                    f" {payload.max_attempts} in {blocks.duration(payload.wait_s)}",
                    "warn",
                )
            case ev.ToolPending(tool_call_id=call):
                yield line(f"● {self._label(call)} goes on in the background", "dim")
            case ev.ToolCompleted():
                yield Status("")
                via = "" if payload.via == "tool" else f" · {payload.via}"
                part = " · partial" if payload.partial else ""
                took = blocks.duration(payload.duration_ms / 1000)
                yield line(f"✓ {self._label(payload.tool_call_id)} · {took}{via}{part}", "good")
                if payload.preview:
                    yield from blocks.block(payload.preview)
            case ev.ToolFailed():
                yield from self._failed_call(payload)

    def _progress(self, payload: ev.ToolProgress) -> Iterator[Part]:
        if payload.chunk is not None:
            yield from blocks.block(blocks.value_text(payload.chunk.data))
        done = "" if payload.fraction is None else f" {payload.fraction:.0%}"
        # The newest line: a command's output comes as it was written.
        news = (payload.text or "").rstrip().rpartition("\n")[2]
        text = f" {safe_line(news)}" if news else ""
        if done or text:
            label = safe_line(self._label(payload.tool_call_id), limit=STATUS_LABEL_CHARS)
            yield Status(f"{label}:{done}{text}", goes_on=True)

    def _failed_call(self, payload: ev.ToolFailed) -> Iterator[Part]:
        yield Status("")
        yield line(f"✗ {self._label(payload.tool_call_id)}: {payload.text} ({payload.code})", "bad")
        if payload.outcome == "unknown":
            yield Line("    its outcome is unknown: it may have happened", "warn")

    # -- questions

    def _question(self, payload: ev.Payload) -> Iterator[Part]:
        match payload:
            case ApprovalRequired() | InputRequired():
                yield from self._asked(payload)
            case ev.ApprovalResolved():
                self._settle(payload.approval_id)
                why = f": {payload.reason}" if payload.reason else ""
                edited = ", with edited arguments" if payload.edited else ""
                who = "" if payload.decision in ("expired", "cancelled") else f" by {payload.by}"
                style: blocks.Style = "good" if payload.decision == "approved" else "bad"
                yield line(f"{payload.decision}{who}{edited}{why}", style, indent="  ")
            case ev.InputResolved():
                self._settle(payload.input_id)
                answer = "no answer" if payload.answer is None else blocks.value_text(payload.answer)
                yield line(f"answered by {payload.by}: {answer}", "user", indent="  ")

    def _asked(self, ask: Ask) -> Iterator[Part]:
        key = _key(ask)
        if key in self.asks:
            return
        self.asks[key] = ask
        if isinstance(ask, ApprovalRequired):
            self._labels[ask.tool_call_id] = safe_line(ask.label)
            yield from blocks.approval(ask)
        else:
            yield from blocks.question(ask)

    def _settle(self, key: str) -> None:
        self._settled.add(key)
        self.asks.pop(key, None)

    # -- corrections

    def _correction(self, payload: ev.Payload) -> Iterator[Part]:
        match payload:
            case ev.CorrectionAccepted():
                self.last_correction = payload.correction_id
                yield line(f"↪ correction accepted ({_MODES.get(payload.mode, payload.mode)}): {payload.text}", "user")
            case ev.CorrectionHeld():
                yield line(f"↪ correction held ({payload.reason}): {payload.text}", "user")
            case ev.CorrectionApplied():
                notes = ", ".join(
                    note
                    for note, true in (("interrupted the model", payload.preempted), ("replanned", payload.replanned))
                    if true
                )
                yield line(f"↪ correction applied{f' ({notes})' if notes else ''}: {payload.text}", "good")
            case ev.CorrectionReturned():
                yield line(f"↩ correction NOT used ({payload.reason}): {payload.text}", "bad")
            case ev.CorrectionRevoked():
                yield line(f"↩ correction taken back: {payload.text}", "user")

    # -- the end

    def _end(self, payload: ev.Payload) -> Iterator[Part]:
        yield Status("")
        yield Break()
        match payload:
            case ev.RunCompleted():
                if payload.result not in (None, self._last_text):
                    yield from blocks.block(
                        blocks.value_text(payload.result), "plain", indent="", most=blocks.MAX_BLOCK_LINES
                    )
                yield line(f"✓ completed · {blocks.spent(payload.usage)}", "good")
            case ev.RunFailed():
                yield line(f"✗ failed: {payload.text} ({payload.code} · {payload.error_id})", "bad")
                for each in payload.completed:
                    yield line(f"done: {each}", "dim", indent="    ")
                yield from blocks.effects(payload.effects)
                if payload.resume is not None:
                    yield line(payload.resume.text, indent="    ")
            case ev.RunCancelled():
                why = f": {payload.reason}" if payload.reason else ""
                yield line(f"■ cancelled by {payload.by}{why} · {blocks.spent(payload.usage)}", "warn")
                yield from blocks.effects(payload.effects)
            case _:
                yield line(f"· {payload.TYPE}", "dim")
                return
        self.ended = payload.TYPE
        self.asks.clear()

    # -- a snapshot

    def _view(self, view: View) -> Iterator[Part]:
        if view.title is not None:
            yield line(f"# {view.title}", "head")
        yield from blocks.plan(view.plan)
        for message in view.messages:
            if message.role == "user":
                yield from blocks.block(message.text, "user", indent="› ", most=blocks.MAX_BLOCK_LINES)
            elif message.state == "open":
                self._texts[message.message_id] = message.text
                self._speaker = message.message_id
                yield from self._catch_up(message.message_id, message.text)
            else:
                self._last_text = message.text
                yield Stream(safe_text(message.text))
                yield Break()
        for call in view.calls:
            self._labels[call.tool_call_id] = safe_line(call.label)
            if call.state not in ("completed", "failed"):
                yield line(f"● {call.label} ({call.state})")
        for item in view.pending:
            ask = _ask_of(item)
            if ask is not None:
                yield from self._asked(ask)
        for ending in (view.failure, view.cancelled):
            if ending is not None:
                yield from self._end(ending)
        if view.status == "completed":
            self.ended = ev.RunCompleted.TYPE
            yield line("✓ completed", "good")


_MODES = {"next_step": "at the next step", "now": "now", "when_idle": "when the plan is done"}


def _key(ask: Ask) -> str:
    return ask.approval_id if isinstance(ask, ApprovalRequired) else ask.input_id


def _ask_of(item: dict[str, Any]) -> Ask | None:
    """A pending item as the event that opened it; None for what this program cannot answer."""
    kinds: dict[str, type[Ask]] = {"approval": ApprovalRequired, "input": InputRequired}
    kind = kinds.get(str(item.get("kind")))
    return None if kind is None else msgspec.convert(item, kind)
