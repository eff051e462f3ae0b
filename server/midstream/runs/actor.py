"""The actor: the one writer of one run. Takes what waits, decides it, writes it once, and only then tells anybody.

It never awaits a socket, a model or a tool: only its mailbox and its log. If a write fails, its state goes with it;
the registry takes the run up again from the log.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from midstream.clock import Clock
from midstream.log import Batch, JournalRecord, Lease, Log, LogError, RecordWrite
from midstream.logs import Logger
from midstream.runs.attendance import Attendance
from midstream.runs.beat import Beat, run_beat
from midstream.runs.beyond import Beyond
from midstream.runs.coalesce import Windows
from midstream.runs.commands import Door
from midstream.runs.contract import Limits, Program, Rules, RunFailure, StartRecord, Stopping
from midstream.runs.dead_letters import given_up, letter_writes
from midstream.runs.inputs import Abandoned, HandedOver, ProgramEnded, Recovered, Said, Tick
from midstream.runs.mailbox import Mailbox
from midstream.runs.pacing import Pace
from midstream.runs.port import Port
from midstream.runs.retention import ended_record
from midstream.runs.state import RunState
from midstream.runs.tail import Feed
from midstream.tasks import spawn
from midstream.telemetry import count_deltas, count_recovery, count_run_end, observe_append
from midstream_protocol.events import CorrectionAccepted, Payload, RecoveryStarted, RunCancelling, RunStatusChanged
from midstream_protocol.ids import new_id

_log = Logger("midstream.runs")

_SETTLING: Final = frozenset({"approval.resolved", "input.resolved", "tool.completed", "tool.failed"})
"""Events that answer somebody who waits at the port."""

_FAREWELL_S: Final = 1.0
"""Seconds a program may take to return after its run has ended."""

STRAYS: Final[set["asyncio.Task[None]"]] = set()
"""Programs that did not end when they were told to: held here so that they are counted and not collected."""


class Actor:
    """Made by the registry, which hands in a state that is true to the log, and a lease.

    `recovered`: the run had an actor before. `gone`: no program can continue it (why, for people).
    """

    __slots__ = (
        "_attendance",
        "_batches",
        "_clock",
        "_deadline_ms",
        "_door",
        "_handing_over",
        "_in_order",
        "_limits",
        "_log",
        "_marked",
        "_name",
        "_pace",
        "_port",
        "_program",
        "_program_task",
        "_state",
        "_task",
        "_timer",
        "_timer_ms",
        "_windows",
        "failure",
        "feed",
        "lease",
        "mailbox",
        "run",
        "start",
    )

    def __init__(
        self,
        *,
        run: str,
        start: StartRecord,
        state: RunState,
        lease: Lease,
        journal: Sequence[JournalRecord],
        feed: Feed,
        log: Log,
        rules: Rules,
        program: Program | None,
        limits: Limits,
        clock: Clock,
        beyond: Beyond,
        windows: Windows,
        pace: Pace,
        recovered: bool,
    ) -> None:
        self.run: Final = run
        self.start: Final = start
        self.lease = lease
        self.feed: Final = feed
        feed.stands(state)
        self.mailbox: Final = Mailbox(limits=limits, windows=windows, clock=clock)
        self.mailbox.durable_seq = state.head
        self.failure: LogError | None = None
        """Why the actor gave up although the run goes on; None: it ended, or was handed over."""
        self._state = state
        self._log = log
        self._limits = limits = _own_limits(limits, start)
        self._clock = clock
        self._windows = windows
        self._pace = pace
        self._program = program
        self._program_task: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._timer: Callable[[], None] | None = None
        self._timer_ms: int | None = None
        self._handing_over = False
        self._in_order = False
        """It hands over, and its program has returned by itself."""
        self._marked = 0
        """The batch that says so (0: none yet)."""
        self._name = new_id("w")
        self._batches = 0
        deadline_s = limits.run_deadline_s
        self._deadline_ms = state.created_ms + round(deadline_s * 1000) if deadline_s else None
        self._door = Door(
            state=state, rules=rules, limits=limits, now_ms=clock.now_ms(), secret=bytes.fromhex(start.secret)
        )
        self._attendance: Attendance | None = None
        if Attendance.matters(start):
            self._attendance = Attendance(
                start=start,
                feed=feed,
                lag_events=limits.lag_events,
                clock=clock,
                cancel=self._abandon,
                tell=self._tell,
            )
        self._port = Port(
            start=start,
            journal=journal,
            recovered=recovered,
            state=state,
            mailbox=self.mailbox,
            clock=clock,
            beyond=beyond,
            attendance=self._attendance,
        )

    @property
    def ended(self) -> bool:
        """Whether the terminal event is durable."""
        return self.feed.ended

    @property
    def rests(self) -> bool:
        """Whether all that goes on is that its program waits for answers."""
        state = self._state
        return state.log_status() == "waiting" and self.mailbox.idle and self._port.waits_for(state.questions)

    @property
    def moves_on(self) -> bool:
        """Whether the run, as it is in the log, needs somebody who works on it."""
        return self._state.log_status() == "running"

    @property
    def quiet_since_ms(self) -> int:
        """When something was decided last."""
        return self._door.now_ms

    @property
    def queued(self) -> bool:
        return self._state.status == "queued"

    @property
    def steerable(self) -> bool:
        return self._door.rules.steerable

    @property
    def task(self) -> "asyncio.Task[None] | None":
        return self._task

    def launch(self, *, recovered: Recovered | None = None) -> asyncio.Task[None]:
        """Begin. With `recovered` the first thing decided is the taking over."""
        if recovered is not None:
            self.mailbox.put_control(recovered)
        elif not self.queued:
            self._begin()
        self._arm()
        if self._attendance is not None:
            self._attendance.begin()
        self._task = spawn(self._live(), name=f"run:{self.start.run_id}/actor")
        return self._task

    async def hand_over(self, *, grace_s: float) -> None:
        """Stop working on a run that goes on elsewhere: its program ends at a safe point, or is killed after the
        grace; what was written stays, and nothing is written about the killing: recovery tells the truth about it.
        """
        self._port.stop()
        if self._program_task is not None and not self._program_task.done():
            await asyncio.wait([self._program_task], timeout=grace_s)
        self._in_order = not self.queued and (self._program_task is None or self._program_task.done())
        self._handing_over = True
        self.mailbox.put_control(Tick())
        if self._task is not None:
            await asyncio.wait([self._task])

    def _left(self) -> bool:
        """Whether nothing is to be written any more: what was said last is that the run was left in order."""
        if not self._in_order or self._marked == self._batches > 0:
            return True
        self._marked = self._batches + 1
        self.mailbox.put_control(HandedOver())
        return False

    def lose(self) -> None:
        """Another owns the run: stop at once. Nothing more of this actor could be written."""
        if self._task is not None and self.failure is None and not self.ended:
            self.failure = LogError("another owns the run")
            self._task.cancel()

    # -- the loop

    async def _live(self) -> None:
        try:
            await self._beats()
        except LogError as error:
            self.failure = error
            _log.warning("run interrupted: its log cannot be written", run=self.run, error=str(error))
        except Exception as error:  # noqa: BLE001 - the edge: whatever it was, the run must be taken up again
            # A defect of ours. The state may be wrong, the log is not: the registry goes on from there.
            self.failure = LogError("the run's actor failed")
            _log.exception("run interrupted by a defect", run=self.run, error=repr(error))
        finally:
            # First of all: nobody may wait for an actor that is gone.
            self.mailbox.close(self.failure)
            self._port.stop()
            if self._timer is not None:
                self._timer()
            if self._attendance is not None:
                self._attendance.end()
            await self._end_program()

    async def _beats(self) -> None:
        mailbox, door = self.mailbox, self._door
        while not (self._handing_over and self.mailbox.idle and self._left()):
            if not mailbox.due:
                await mailbox.wakened()
            posted = mailbox.take(self._limits.beat_inputs)
            door.now_ms = self._clock.now_ms()
            was_queued = self.queued
            began = ended = self._windows.now()
            try:
                beat = run_beat(door, posted)
                if not beat.empty:
                    await self._log.append(
                        self.run, fence=self.lease.fence, prev_seq=beat.prev_seq, batch=self._batch(beat)
                    )
                    ended = self._windows.now()
                    observe_append(ended - began, len(beat.events), beat.size)
            except BaseException as error:
                # They are in no mailbox any more, so its closing would not answer them.
                for item in posted:
                    _settle(item.reply, None, _reason(error))
                raise
            self._publish(beat)
            if beat.wrong or beat.defects:
                self._report(beat)
            if self._state.ended:
                count_run_end(self._state.status)
                return
            # Whatever else is said ends the window: what is said next goes at once.
            said = bool(posted) and type(posted[-1]) is Said
            mailbox.gather(self._windows.end_of(began, ended, deltas=beat.deltas_said) if said else 0.0)
            # Nothing follows from text deltas.
            if beat.payloads or not said:
                self._steer(beat.payloads, begin=was_queued)

    def _batch(self, beat: Beat) -> Batch:
        state = self._state
        # A queued run is due as soon as nobody owns it: whoever takes it up looks whether its thread is free.
        wake_at = state.created_ms if self.queued else self._wake_at()
        self._batches += 1
        now_ms = self._door.now_ms
        letters = given_up(self.run, state, beat.payloads, now_ms)
        records: tuple[RecordWrite, ...] = ()
        if letters:
            records = tuple(letter_writes(self.run.partition(".")[0], letters))
        if state.ended:
            records = (*records, ended_record(self.start, self.run, now_ms))
        return beat.batch(batch_id=f"{self._name}-{self._batches}", state=state, wake_at=wake_at, records=records)

    def _publish(self, beat: Beat) -> None:
        """The batch is durable: now it may be seen."""
        self.mailbox.durable_seq = self._state.head
        if beat.deltas_said:
            count_deltas(beat.deltas_said, beat.deltas_written)
        if beat.payloads:
            self.feed.stands(self._state)
        self.feed.publish(beat.events, ended=self._state.ended)
        for _, payload in beat.payloads:
            if payload.TYPE in _SETTLING:
                self._resolve(payload)
            elif isinstance(payload, RecoveryStarted):
                count_recovery(payload.kind)
        for reply, value, refused in beat.replies:
            _settle(reply, value, refused)

    def _report(self, beat: Beat) -> None:
        for wrong in beat.wrong:
            _log.error("an agent's draft was refused", run=self.run, error=str(wrong))
        for defect in beat.defects:
            _log.error("an input could not be decided", run=self.run, exc_info=defect)

    def _resolve(self, payload: Any) -> None:
        for name in ("approval_id", "input_id", "tool_call_id"):
            key = getattr(payload, name, None)
            if key is not None:
                answer = self._state.answer(key)
                if answer is not None:
                    self._port.resolve(key, answer)
                return

    # -- what durable events make it do

    def _steer(self, payloads: Sequence[tuple[int, Payload]], *, begin: bool) -> None:
        for _, payload in payloads:
            if isinstance(payload, RunCancelling):
                if payload.tool_call_id is not None:
                    self._port.cancel_call(payload.tool_call_id)
            elif (
                isinstance(payload, CorrectionAccepted)
                and payload.mode == "now"
                and not self._state.waits_for_approval()
            ):
                self._port.interrupt()
        if self._state.cancelling is not None:
            self._port.hurry()
            self._cancel_program()
        elif self._program_task is None and not self.queued and (begin or self._port.recovered):
            self._begin()
        self._arm()

    def _begin(self) -> None:
        if self._program is not None and self._program_task is None:
            self._program_task = spawn(self._work(self._program), name=f"run:{self.start.run_id}/program")

    def _cancel_program(self) -> None:
        cancel = self._state.cancelling
        assert cancel is not None
        if self._program_task is None or self._program_task.done():
            self.mailbox.put_control(ProgramEnded())
            return
        if cancel.mode != "now":
            return
        if cancel.forced:
            self.mailbox.put_control(ProgramEnded(abandoned=True))
        elif not self._program_task.cancelling():
            self._program_task.cancel()

    async def _work(self, program: Program) -> None:
        ended: ProgramEnded | None = None
        try:
            await self._pace.turn()
            await program.run(self._port)
        except Stopping:
            if self._state.cancelling is not None:
                ended = ProgramEnded()
            elif self._port.stopping:
                return
            else:
                ended = _endless()
                _log.error("agent stopped although nobody asked", run=self.run, error_id=ended.error_id)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                ended = ProgramEnded()
            else:
                # Something that it waited for was cancelled. Without an end here the run would never have one.
                ended = _endless()
                _log.exception("agent was cancelled although nobody asked", run=self.run, error_id=ended.error_id)
        except RunFailure as failure:
            error_id = new_id("err")
            _log.warning(
                "run failed", run=self.run, code=failure.code, error_id=error_id, cause=repr(failure.__cause__)
            )
            ended = ProgramEnded(
                code=failure.code,
                text=failure.text,
                retryable=failure.retryable,
                error_id=error_id,
                resume=failure.resume,
            )
        except Exception:  # noqa: BLE001 - the edge: an agent's failure ends its run and nothing else
            error_id = new_id("err")
            _log.exception("agent failed", run=self.run, error_id=error_id)
            ended = ProgramEnded(code="internal", text="The agent failed.", error_id=error_id)
        if not self._state.ended:
            # Behind everything it has said: its closings count.
            self.mailbox.force_output(ended or _endless())

    async def _end_program(self) -> None:
        task = self._program_task
        if task is None or task.done():
            return
        if self._state.ended and self._state.cancelling is None:
            # It has just been told that it is done: let it return by itself.
            await asyncio.wait([task], timeout=_FAREWELL_S)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=self._grace_left())
        if not done:
            _log.warning("a program does not end", run=self.run)
            STRAYS.add(task)
            task.add_done_callback(STRAYS.discard)

    def _grace_left(self) -> float:
        """Seconds that the program may still take."""
        cancel = self._state.cancelling
        if cancel is None or cancel.mode != "now":
            return self._limits.cancel_grace_s
        had = (self._clock.now_ms() - cancel.since_ms) / 1000
        return 0 if cancel.forced else max(0.0, self._limits.cancel_grace_s - had)

    # -- who follows it

    def _abandon(self) -> None:
        if self.feed.idle:
            self.mailbox.put_control(Abandoned())

    def _tell(self, status: RunStatusChanged) -> None:
        # A question that waits for people is what they have to know of the run.
        if not self._state.waits_for_people():
            self._port.post(status)

    # -- time

    def _wake_at(self) -> int | None:
        """When the run must be looked at again although nobody asks (Unix ms), as the log keeps it."""
        asked, deadline = self._state.wake_at(), self._deadline_ms
        if asked is None or deadline is None:
            return asked if deadline is None else deadline
        return min(asked, deadline)

    def _arm(self) -> None:
        """One timer, for the next deadline. It posts an input; it does not act."""
        due = self._wake_at()
        cancel = self._state.cancelling
        if cancel is not None:
            grace_over = cancel.since_ms + round(self._limits.cancel_grace_s * 1000)
            due = grace_over if cancel.mode == "now" else due
        if due == self._timer_ms:
            return
        if self._timer is not None:
            self._timer()
            self._timer = None
        self._timer_ms = due
        if due is not None:
            self._timer = self._clock.call_later((due - self._clock.now_ms()) / 1000, self._time)

    def _time(self) -> None:
        self._timer, self._timer_ms = None, None
        cancel = self._state.cancelling
        if cancel is not None and cancel.mode == "now":
            self.mailbox.put_control(ProgramEnded(abandoned=True))
        else:
            self.mailbox.put_control(Tick())


def _endless() -> ProgramEnded:
    return ProgramEnded(code="internal", text="The agent stopped without an end.", error_id=new_id("err"))


def _own_limits(limits: Limits, start: StartRecord) -> Limits:
    """The server's limits, lowered by what the run's starter asked for."""
    asked = start.limits.deadline_s if start.limits is not None else None
    if asked is None:
        return limits
    deadline = min(asked, limits.run_deadline_s) if limits.run_deadline_s else asked
    return msgspec.structs.replace(limits, run_deadline_s=deadline)


def _reason(error: BaseException) -> Exception:
    """What those are told whose input was lost with this actor."""
    if isinstance(error, LogError):
        return error
    return LogError("the run's actor failed") if isinstance(error, Exception) else Stopping()


def _settle(reply: "asyncio.Future[Any] | None", value: Any, refused: Exception | None) -> None:
    if reply is None or reply.done():
        return
    if refused is not None:
        reply.set_exception(refused)
        reply.exception()
    else:
        reply.set_result(value)
