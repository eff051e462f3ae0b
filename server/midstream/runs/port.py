"""The port: all that agent code may touch of its run.

Two ways in. `emit` is for what is only shown (deltas, progress, status): it returns when the draft is admitted and
waits while the output lane is full, so that a slow log slows the model's stream and not the memory. `record` is for
facts: it returns after they are durable, and is required before every side effect and after every model message and
tool result. `EMITTED` names the types that `emit` takes; everything else must be recorded.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from midstream.clock import Clock
from midstream.log import JournalRecord, LogError
from midstream.runs.beyond import Beyond
from midstream.runs.contract import BadDraft, Filter, RunFailure, StartRecord, Stopping
from midstream.runs.grants import Leave
from midstream.runs.inputs import Drafted, End, Input, TakeCorrections
from midstream.runs.state import Answer, CallState, CorrectionState, RunState
from midstream_protocol.codec import json_safe
from midstream_protocol.digest import args_digest
from midstream_protocol.events import (
    ApprovalRequired,
    InputRequired,
    MessageDelta,
    MessageStarted,
    Notice,
    Payload,
    ReasoningDelta,
    RunStatusChanged,
    RunStep,
    ToolPreparing,
    ToolProgress,
    ToolRequested,
    UsageUpdated,
)
from midstream_protocol.ids import new_id

if TYPE_CHECKING:
    from midstream.runs.attendance import Attendance
    from midstream.runs.mailbox import Mailbox

EMITTED: Final = frozenset(
    cls.TYPE
    for cls in (
        MessageStarted,
        MessageDelta,
        ReasoningDelta,
        ToolPreparing,
        ToolProgress,
        RunStatusChanged,
        Notice,
        UsageUpdated,
    )
)
"""What `emit` takes. A side effect must never rest on one of these."""

Question = ApprovalRequired | InputRequired | ToolRequested


T = TypeVar("T")


class Port:
    """One program's door to its run. Safe to use from all tasks of that program."""

    __slots__ = (
        "_attendance",
        "_beyond",
        "_call_cancels",
        "_filter",
        "_interrupts",
        "_mailbox",
        "_state",
        "_stopping",
        "_waiting",
        "clock",
        "journal",
        "recovered",
        "start",
    )

    def __init__(
        self,
        *,
        start: StartRecord,
        journal: Sequence[JournalRecord],
        recovered: bool,
        state: RunState,
        mailbox: "Mailbox",
        clock: Clock,
        beyond: Beyond,
        attendance: "Attendance | None" = None,
    ) -> None:
        self.start: Final = start
        self.journal: Final = tuple(journal)
        """The run's journal as it was when this program began, in order."""
        self.recovered: Final = recovered
        """Whether an earlier program of this run was lost (crash, restart): then continue, do not begin."""
        self.clock: Final = clock
        self._state = state
        self._mailbox = mailbox
        self._beyond = beyond
        self._attendance = attendance
        self._waiting: dict[str, asyncio.Future[Answer]] = {}
        self._interrupts: list[Callable[[], None]] = []
        self._call_cancels: dict[str, Callable[[], None]] = {}
        self._stopping = False
        self._filter: Filter | None = None

    def through(self, filter: Filter) -> None:  # noqa: A002 - the word for it
        """From here on everything drafted passes this filter."""
        self._filter = filter

    # -- writing

    async def emit(self, payload: Payload, *, step_id: str | None = None) -> None:
        """Show something. Waits while the output lane is full, `emit_wait_s` at most. Raises `Stopping`, `BadDraft`."""
        if payload.TYPE not in EMITTED:
            raise BadDraft(f"{payload.TYPE} is a fact: use port.record, which returns when it is durable")
        if self._state.ended:
            raise Stopping
        shown = payload if self._filter is None else await self._filter.passed(payload)
        if shown is None:
            return
        try:
            if type(shown) is MessageDelta and type(shown.text) is str:
                while not self._mailbox.say(shown.message_id, shown.text, step_id):
                    if not await self._mailbox.room_in_time():
                        self._mailbox.let_in()
                return
            drafted = Drafted(payloads=(shown,), step_id=step_id)
            while not self._mailbox.put_output(drafted):
                if not await self._mailbox.room_in_time():
                    self._mailbox.force_output(drafted)
                    return
        except LogError as error:
            raise Stopping from error

    def say(self, message_id: str, text: str, *, step_id: str | None) -> bool:
        """Show one text delta of an open message, if nothing has to be waited for; they are so many. False: nothing was
        done, `emit` it. Raises `Stopping`.
        """
        if self._state.ended:
            raise Stopping
        if type(text) is not str or not self._mailbox.has_room:
            return False
        shown: str | None = text
        if self._filter is not None:
            shown = self._filter.delta(message_id, text)
        if not shown:
            return shown is not None
        try:
            return self._mailbox.say(message_id, shown, step_id)
        except LogError as error:
            raise Stopping from error

    def post(self, *payloads: Payload, journal: Sequence[JournalRecord] = (), step_id: str | None = None) -> None:
        """Leave closings behind without waiting, for `finally` blocks of cancelled work."""
        if self._filter is not None:
            passed = [self._filter.passed_now(payload) for payload in payloads]
            payloads = tuple(payload for payload in passed if payload is not None)
        self._mailbox.force_output(Drafted(payloads=payloads, journal=tuple(journal), step_id=step_id))

    async def record(
        self, *payloads: Payload, journal: Sequence[JournalRecord] = (), step_id: str | None = None
    ) -> int:
        """Write facts and their journal in one step; returns the seq of the last event once it is durable.

        Raises `Stopping` (nothing was written: do not act), `CallCancelled` (nor for this call), `BadDraft`.
        """
        if self._filter is not None:
            passed = [await self._filter.passed(payload) for payload in payloads]
            payloads = tuple(payload for payload in passed if payload is not None)
        drafted = Drafted(payloads=payloads, journal=tuple(journal), step_id=step_id)
        return int(await self._put_and_wait(drafted))

    async def ask(
        self, question: Question, *, journal: Sequence[JournalRecord] = (), step_id: str | None = None
    ) -> Answer:
        """Put a question to people or a client and wait until its answer is durable.

        A question that is already in the log (same id: after a restart) is not asked again. Raises `Stopping`,
        `CallCancelled`.
        """
        key = question_key(question)
        if self._state.answer(key) is None and not self._state.is_open(key):
            await self.record(question, journal=journal, step_id=step_id)
        return await self.answer(key)

    async def answer(self, key: str) -> Answer:
        """Wait for the answer to the open question of that id."""
        known = self._state.answer(key)
        if known is not None and self._mailbox.durable_seq >= known.seq:
            return self._with_value(known)
        if self._stopping:
            # Whoever would tell the answer is gone, or going.
            raise Stopping
        waiter = self._waiting.get(key)
        if waiter is None or waiter.done():
            waiter = self._waiting[key] = asyncio.get_running_loop().create_future()
        return await asyncio.shield(waiter)

    def due_corrections(self, *, ending: bool = False) -> list[CorrectionState]:
        """What `corrections` would take now. Look only: one may be revoked before it is taken."""
        return self._state.due_corrections(ending=ending)

    async def corrections(
        self,
        *,
        step_id: str,
        ending: bool = False,
        only: frozenset[str] | None = None,
        replan: frozenset[str] = frozenset(),
    ) -> list[CorrectionState]:
        """Take the corrections that are due at this safe point; they are durable as applied, in order.

        `ending`: the work is done, so those that wait for idleness are due too. `only`: none but these (ids);
        `replan`: those of them that change the plan.
        """
        self.check()
        if not self._state.has_due_correction(ending=ending):
            return []
        taken = await self._put_and_wait(TakeCorrections(step_id=step_id, ending=ending, only=only, replan=replan))
        return list(taken)

    async def end(self, result: Any, *, return_corrections: bool = False) -> None:
        """End the run as completed: returns when that is durable. What JSON cannot carry in `result` is replaced.

        Raises `CorrectionsPending` (take them and go on), unless `return_corrections` gives them back to the user;
        `Stopping`.
        """
        await self._put_and_wait(End(result=json_safe(result), return_corrections=return_corrections))

    # -- reading

    @property
    def stopping(self) -> bool:
        """Whether nothing new may begin: cancelled after the step, or the server is going down."""
        return self._stopping or self._state.cancelling is not None or self._state.ended

    def check(self) -> None:
        """A safe point: raises `Stopping` if nothing new may begin."""
        if self.stopping:
            raise Stopping

    async def clearance(self) -> None:
        """Before each model call: waits while the run is to pause because nobody is attached or keeps up. Raises
        `Stopping`.
        """
        self.check()
        attendance = self._attendance
        if attendance is None:
            return
        while attendance.missing() is not None:
            await attendance.changed()
            self.check()
        attendance.go_on()

    @property
    def waiting(self) -> bool:
        """Whether a question to people is open."""
        return self._state.waits_for_people()

    @property
    def open_steps(self) -> list[RunStep]:
        """The steps that have not ended, as they were started."""
        return list(self._state.steps.values())

    def call(self, tool_call_id: str) -> CallState | None:
        return self._state.calls.get(tool_call_id)

    @property
    def unknown_calls(self) -> list[CallState]:
        """The calls that ended with an outcome that nobody knows."""
        return [self._state.calls[tool_call_id] for tool_call_id in self._state.unknown_calls]

    def call_args(self, tool_call_id: str) -> dict[str, Any] | None:
        """The arguments that call will run with: the ones that were approved, if somebody was asked."""
        return self._state.call_args.get(tool_call_id)

    def approval_of(self, tool_call_id: str) -> Answer | None:
        """The newest resolution of an approval of that call, if there is one."""
        return self._state.approval_of(tool_call_id)

    def open_approval_of(self, tool_call_id: str) -> str | None:
        """The id of the approval of that call which is open now."""
        return self._state.open_approval_of(tool_call_id)

    async def leave_for(self, tool: str, scopes: Collection[str]) -> Leave | None:
        """The grant of one of these scopes by which this tool needs no approval now. Raises `RunFailure`."""
        own = self._state.grant_of(tool, self.clock.now_ms()) if "run" in scopes else None
        if own is not None:
            return Leave(grant_id=own, scope="run")
        return await self._outside(self._beyond.leave_for(tool, scopes))

    @property
    def client_tools(self) -> dict[str, Any]:
        """Tools that clients offered: name → `ClientTool`."""
        return {name: offer.tool for name, offer in self._state.hosts.items()}

    def host_of(self, tool: str) -> str | None:
        """The client_id that hosts this tool."""
        offer = self._state.hosts.get(tool)
        return offer.client_id if offer is not None else None

    @property
    def usage(self) -> Any:
        """Cumulative usage as the log has it (`Usage`)."""
        return self._state.usage

    def args_digest(self, args: dict[str, Any]) -> str:
        return args_digest(bytes.fromhex(self.start.secret), args)

    def new_id(self, prefix: str) -> str:
        return new_id(prefix)

    async def history(self) -> list[list[JournalRecord]]:
        """The journals of the thread's runs before this one, oldest first.

        Raises `RunFailure` when they cannot be read, as the next three do.
        """
        return await self._outside(self._beyond.history())

    async def written(self) -> list[JournalRecord]:
        """The run's own journal as it is by now: for what is too large to be kept in memory."""
        return await self._outside(self._beyond.written())

    async def resumed(self) -> list[JournalRecord] | None:
        """The journal of the run that this one goes on with (`start.resume`); None: with none, or it is gone."""
        return await self._outside(self._beyond.resumed())

    async def claim_title(self, text: str) -> bool:
        """Give the thread its title, once. False: it has one from another run. Again, after a crash, is no harm."""
        return await self._outside(self._beyond.claim_title(text))

    async def _outside(self, answer: Awaitable[T]) -> T:
        try:
            return await answer
        except LogError as error:
            # If this run's own log is gone too, this end cannot be written either, and the run goes on later.
            raise RunFailure("unavailable", "The thread cannot be read now.", retryable=True) from error

    # -- being told

    @contextlib.contextmanager
    def on_interrupt(self, callback: Callable[[], None]) -> Iterator[None]:
        """While inside: called once for each correction that wants the model's turn interrupted now."""
        self._interrupts.append(callback)
        try:
            yield
        finally:
            self._interrupts.remove(callback)

    @contextlib.contextmanager
    def on_cancel_call(self, tool_call_id: str, callback: Callable[[], None]) -> Iterator[None]:
        """While inside: called when that one call is cancelled; at once if it was before."""
        self._call_cancels[tool_call_id] = callback
        if tool_call_id in self._state.call_cancels:
            callback()
        try:
            yield
        finally:
            del self._call_cancels[tool_call_id]

    # -- for the actor alone

    def interrupt(self) -> None:
        for callback in list(self._interrupts):
            callback()

    def cancel_call(self, tool_call_id: str) -> None:
        if (callback := self._call_cancels.get(tool_call_id)) is not None:
            callback()

    def resolve(self, key: str, answer: Answer) -> None:
        waiter = self._waiting.pop(key, None)
        if waiter is not None and not waiter.done():
            waiter.set_result(self._with_value(answer))

    def waits_for(self, keys: Iterable[str]) -> bool:
        """Whether the program waits for the answers to all these questions."""
        return all(key in self._waiting for key in keys)

    def stop(self) -> None:
        """No new turn, no new call; and nobody waits for an answer that cannot come any more."""
        self._stopping = True
        for waiter in self._waiting.values():
            if not waiter.done():
                waiter.set_exception(Stopping())
                # Nobody may be waiting: then the exception is not a surprise to report.
                waiter.exception()
        self._waiting.clear()
        self.hurry()

    def hurry(self) -> None:
        """Whoever waits for clearance looks again."""
        if self._attendance is not None:
            self._attendance.hurry()

    def _with_value(self, answer: Answer) -> Answer:
        """A client-run tool's result is large and wanted once: it goes with the first who reads it."""
        result = self._state.tool_values.pop(answer.key, None)
        return answer if result is None else msgspec.structs.replace(answer, value=result.value)

    async def _put_and_wait(self, item: Input) -> Any:
        if self._state.ended:
            raise Stopping
        reply = asyncio.get_running_loop().create_future()
        try:
            while not self._mailbox.put_output(item, reply=reply):
                await self._mailbox.room()
            return await reply
        except LogError as error:
            # The log failed, or another owns the run: this program's part in it is over, and no fault of its own.
            raise Stopping from error


def question_key(question: Question) -> str:
    """The id by which a question is answered."""
    match question:
        case ApprovalRequired():
            return question.approval_id
        case InputRequired():
            return question.input_id
        case ToolRequested():
            return question.tool_call_id
