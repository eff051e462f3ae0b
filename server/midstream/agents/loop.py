"""The loop of one stage: ask the model, run the calls it wants, tell it the answers, until it has no more to call.

Every turn is in the journal before its calls run, and every answer before the next turn, so a loop that begins again
continues at the first thing not done. Corrections enter at safe points: before a model call, after all answers of a
message. The loop does not end the run; it returns what the stage came to.
"""

from collections.abc import Container
from typing import Any, Final, Protocol

from msgspec import Struct

from midstream.agents.allowance import Allowance, RunAllowance, granted
from midstream.agents.budget.contract import Entry, Fits, Fitted
from midstream.agents.budget.tokens import fixed_tokens
from midstream.agents.conversation import Call, calls_of
from midstream.agents.definition import Agent
from midstream.agents.journal import journal_record
from midstream.agents.mending import Mending
from midstream.agents.planning.contract import Correction
from midstream.agents.providers.contract import ModelRequest, ToolSpec
from midstream.agents.records import NoteRecord
from midstream.agents.recovery import recovering
from midstream.agents.steps import begin_step, ended
from midstream.agents.tools.runtime import Runtime
from midstream.agents.tools.site import CallFailed
from midstream.agents.transcript import BUDGET_EXHAUSTED, Transcript, text_of
from midstream.agents.turn import WINDOW_FULL, Turn
from midstream.runs.contract import ResultRecord, RunFailure
from midstream.runs.port import Port
from midstream_protocol.events import ContextTrimmed, RunStep

MAX_TRUNCATED: Final = 2
"""Answers cut off inside a call that are tried again: the model may find a shorter way."""

BUDGET_NOTE: Final = (
    "[You have used up what this run may do. Do not call tools any more: answer now with what you have, and say what "
    "is left to do.]"
)

LIMIT_NOTE: Final = "[You reached the limit of tool calls; continue from where you left off.]"

OVER_LIMIT: Final = "The limit of tool calls is reached; the call was not run."

_GO_ON: Final = ("interrupted", "pause_turn")
"""Stop reasons after which the model is asked again, whatever it said."""

TRUNCATED: Final = "Your answer was cut off by its length limit, so none of its calls was run. Make smaller calls."


class Came(Struct, kw_only=True, frozen=True):
    """What a stage came to: its last answer, and the typed value of an agent with an `output`.

    `spent`: it has no turn left to use a correction with.
    """

    text: str
    value: Any = None
    spent: bool = False


class Hears(Protocol):
    """Where a stage hears of corrections. `pipeline.board.Board` is the real one."""

    async def hear(self, *, stage: str, step_id: str, known: Container[str], ending: bool = False) -> list[Correction]:
        """Those that have entered the run and are not in `known`, in order. `ending`: the stage has no more to do."""
        ...


class Tools(Protocol):
    """What the model of a stage is offered now."""

    def specs(self, *, shortened: bool) -> tuple[ToolSpec, ...]:
        """`shortened`: some results in the conversation are not whole."""
        ...

    def has(self, name: str) -> bool:
        """Whether a call of that name is this stage's to make."""
        ...


class Loop:
    """The turns of one stage, one after the other. `stage` is "", and `parent` None, in a run without a plan.

    `doing` is what people read while the stage is at work.
    """

    def __init__(
        self,
        *,
        agent: Agent,
        system: str,
        port: Port,
        transcript: Transcript,
        tools: Tools,
        runtime: Runtime,
        turn: Turn,
        hears: Hears,
        fits: Fits,
        run_allowance: RunAllowance,
        mending: Mending | None = None,
        stage: str = "",
        parent: str | None = None,
        doing: str = "",
    ) -> None:
        self._agent = agent
        self._system = system
        self._port = port
        self._transcript = transcript
        self._tools = tools
        self._runtime = runtime
        self._turn = turn
        self._hears = hears
        self._fits = fits
        self._run_allowance = run_allowance
        self._calls = Allowance(agent.limits.max_tool_calls, used=transcript.used, renewals=transcript.renewals)
        self._mending = mending
        self._stage = stage
        self._parent = parent
        self._doing = doing
        self._recovering = False
        self._truncated = 0
        self._came: Came | None = None

    @property
    def partial(self) -> str:
        """What it has said so far, for a stage that failed."""
        return self._transcript.partial

    async def run(self) -> Came:
        """Raises `RunFailure`, `Stopping`."""
        self._came = await self._resume()
        return await self._until_it_came()

    async def go_on(self) -> Came:
        """Something may have been said after the end: use it, or come to the same again. Raises as `run` does."""
        step = await self._begin("Thinking")
        taken = await self._hear(step, ending=True)
        await self._port.record(ended(step, "completed"), step_id=step.step_id)
        if taken:
            self._came = None
        return await self._until_it_came()

    async def _until_it_came(self) -> Came:
        while self._came is None:
            self._came = await self._step()
        return self._came

    async def _resume(self) -> Came | None:
        """Finish the turn that a program before this one began."""
        transcript = self._transcript
        last = transcript.last
        if last is None or transcript.stop_reason in _GO_ON or (calls_of(last) and not transcript.unanswered()):
            return None
        self._port.check()
        step = await self._begin("Continuing")
        return await self._after(transcript.last_id, transcript.stop_reason, step)

    async def _step(self) -> Came | None:
        """One turn. What the stage came to, if that was the last."""
        port, transcript = self._port, self._transcript
        port.check()
        if transcript.refused:
            await self._renew()
        if self._run_allowance.no_turns:
            raise RunFailure("turn_limit", "This run has used up its model calls.")
        step = await self._begin("Thinking")
        with self._run_allowance.turn():
            turned = await self._turn.take(
                self._request, step=step, stage=self._stage, heard=transcript.fresh, shrink=self._fits.too_long
            )
        if turned.message is not None:
            transcript.said(turned.message_id, turned.message, stop_reason=turned.stop_reason)
            self._run_allowance.said()
            if turned.usage.input_tokens:
                self._fits.reported(turned.usage.input_tokens)
        return await self._after(turned.message_id, turned.stop_reason, turned.step, said=turned.message is not None)

    async def _request(self, step: RunStep) -> ModelRequest:
        """What the model is asked now. Corrections that came since enter here."""
        await self._hear(step)
        transcript = self._transcript
        tools = () if self._must_answer else self._tools.specs(shortened=False)
        entries = transcript.entries(note=BUDGET_NOTE if self._last_turn else None)
        fitted = await self._fitted(entries, tools, step)
        if fitted.shortened and not self._must_answer:
            tools = self._tools.specs(shortened=True)
        return ModelRequest(
            model="",
            system=self._system,
            messages=fitted.messages,
            tools=tools,
            max_tokens=min(self._agent.max_tokens, fitted.answer_tokens or self._agent.max_tokens),
            conversation_id=self._port.start.thread_id,
            agent=self._agent.name,
            turn=transcript.turns,
        )

    async def _fitted(self, entries: list[Entry], tools: tuple[ToolSpec, ...], step: RunStep) -> Fitted:
        fitted = self._fits.fit(entries, fixed_tokens=fixed_tokens(self._system, tools))
        if fitted.trimmed:
            trimmed = ContextTrimmed(
                before_tokens=fitted.before_tokens,
                after_tokens=fitted.after_tokens,
                dropped=fitted.dropped,
                truncated=fitted.truncated,
            )
            await self._port.record(trimmed, step_id=step.step_id)
        return fitted

    # -- bounds

    @property
    def _last_turn(self) -> bool:
        """Whether the next turn is the last: it must answer."""
        return self._transcript.turns >= self._agent.limits.max_turns - 1 or self._run_allowance.last_turn

    @property
    def _must_answer(self) -> bool:
        none = self._calls.none or self._run_allowance.calls.none
        return none or self._last_turn or self._transcript.last_answer

    @property
    def _spent(self) -> bool:
        """Whether the answer that had to be the last one is there, calls or not."""
        return self._transcript.turns >= self._agent.limits.max_turns or self._run_allowance.no_turns

    async def _renew(self) -> None:
        """A call was refused for a limit: the model is told to go on, and in the end to answer."""
        run, stage = self._run_allowance.calls, self._calls
        reached = [each for each in (run, stage) if each.exhausted]
        most = self._agent.limits.max_continuations
        renewals = max((each.renewals for each in reached), default=0)
        if renewals >= most:
            note = NoteRecord(kind="last_answer", text=BUDGET_NOTE, stage=self._stage)
        else:
            note = NoteRecord(kind="tool_limit", text=LIMIT_NOTE, stage=self._stage, of_run=run.exhausted)
        journal = [journal_record("note", self._port.new_id("note"), note)]
        if note.kind == "tool_limit" and reached:
            await recovering(
                self._port,
                kind="tool_limit",
                attempt=renewals + 1,
                max_attempts=most,
                step_id=self._parent,
                journal=journal,
            )
            self._recovering = True
            for each in reached:
                each.renew()
        else:
            # Of the run's limit, which a stage beside this one has renewed already, people were told there.
            await self._port.record(journal=journal)
        self._transcript.noted(note)

    # -- after a message

    async def _after(self, message_id: str, stop_reason: str, step: RunStep, *, said: bool = True) -> Came | None:
        """What a message asks for. What the stage came to, if that was all."""
        if stop_reason == "refusal":
            raise RunFailure("refused", "The model declined to answer this.")
        if stop_reason == WINDOW_FULL:
            raise RunFailure("context_too_long", "The conversation is longer than the model can read.")
        message = self._transcript.last if said else None
        finished = self._spent or (self._transcript.last_answer and stop_reason not in _GO_ON)
        if message is not None and (calls := self._transcript.unanswered()):
            await self._run_calls(calls, message_id, stop_reason, step, none=finished)
        goes_on = message is None or stop_reason in _GO_ON or bool(calls_of(message))
        if goes_on and not finished:
            await self._port.record(ended(step, "completed"), step_id=step.step_id)
            return None
        return await self._finish("" if message is None else text_of(message), step)

    async def _run_calls(
        self, calls: list[Call], message_id: str, stop_reason: str, step: RunStep, *, none: bool
    ) -> None:
        if stop_reason == "max_tokens" and any(call.args is None for call in calls):
            await self._refuse(calls, CallFailed("truncated", TRUNCATED), step.step_id)
            self._truncated += 1
            if self._truncated > MAX_TRUNCATED:
                text = f"The model's answers were cut off again and again at {self._agent.max_tokens:,} tokens."
                raise RunFailure("truncated", text)
            return
        self._truncated = 0
        foreign = [call for call in calls if not self._tools.has(call.tool)]
        for call in foreign:
            failed = CallFailed("unknown_tool", f"There is no tool called {call.tool[:64]!r}.")
            await self._refuse([call], failed, step.step_id)
        calls = [call for call in calls if call not in foreign]
        count = 0 if none else granted(len(calls), self._calls, self._run_allowance.calls)
        allowed, refused = calls[:count], calls[count:]
        if refused:
            await self._refuse(refused, CallFailed(BUDGET_EXHAUSTED, OVER_LIMIT), step.step_id)
        if allowed:
            records = await self._runtime.run_all(allowed, message_id=message_id, step_id=step.step_id)
            for call, record in zip(allowed, records, strict=True):
                self._transcript.answered(call.id, record, ran_with=self._port.call_args(call.id))

    async def _refuse(self, calls: list[Call], failed: CallFailed, step_id: str) -> None:
        for call in calls:
            record: ResultRecord = await self._runtime.refuse(call, failed, step_id=step_id)
            self._transcript.answered(call.id, record)

    async def _finish(self, text: str, step: RunStep) -> Came | None:
        """Come to an end, unless somebody has something to say that can still be heard."""
        came: Came | None = Came(text=text, spent=self._spent)
        if not self._spent and await self._hear(step, ending=True):
            came = None
        elif self._mending is not None:
            mended = await self._mending.read(text, transcript=self._transcript, spent=self._spent, step=step)
            self._recovering = mended is None
            came = None if mended is None else Came(text=mended.text, value=mended.value, spent=self._spent)
        await self._port.record(ended(step, "completed"), step_id=step.step_id)
        return came

    # -- parts

    async def _hear(self, step: RunStep, *, ending: bool = False) -> list[Correction]:
        heard = await self._hears.hear(
            stage=self._stage, step_id=step.step_id, known=self._transcript.heard, ending=ending
        )
        for correction in heard:
            self._transcript.corrected(correction.correction_id, correction.text)
        return heard

    async def _begin(self, title: str) -> RunStep:
        # A stage has said what the run does, and says it again after it was put right.
        status = None if self._parent is None else self._doing if self._recovering else ""
        self._recovering = False
        return await begin_step(self._port, agent=self._agent.name, title=title, parent=self._parent, status=status)
