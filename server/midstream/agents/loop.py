"""The loop of an agent: ask the model, run the calls it wants, tell it the answers, until it has no more to call.

Every turn is in the journal before its calls run, and every answer before the next turn, so a program that begins
again continues at the first thing not done. Corrections enter at safe points: before a model call, after all answers
of a message.
"""

from collections.abc import Mapping
from typing import Any, Final

from midstream.agents.conversation import Call, calls_of
from midstream.agents.definition import Agent, RunInfo
from midstream.agents.providers.contract import DEFAULT_IDLE_TIMEOUT_S, ModelRequest, Provider
from midstream.agents.steps import begin_step, ended
from midstream.agents.tools.ask_user import ask_user
from midstream.agents.tools.definition import Tool
from midstream.agents.tools.runtime import Runtime
from midstream.agents.tools.site import CallFailed
from midstream.agents.tools.toolbox import Toolbox
from midstream.agents.transcript import Transcript, input_text, text_of
from midstream.agents.turn import Turn, Turned
from midstream.runs.contract import CorrectionsPending, RunFailure
from midstream.runs.port import Port
from midstream_protocol.events import RunStep

MAX_TRUNCATED: Final = 2
"""Answers cut off inside a call that are tried again: the model may find a shorter way."""

BUDGET_NOTE: Final = (
    "[You have used up what this run may do. Do not call tools any more: answer now with what you have, and say what "
    "is left to do.]"
)

_GO_ON: Final = ("interrupted", "pause_turn")
"""Stop reasons after which the model is asked again, whatever it said."""

TRUNCATED: Final = "Your answer was cut off by its length limit, so none of its calls was run. Make smaller calls."


class AgentProgram:
    """One agent's work on one run (`runs.contract.Program`)."""

    def __init__(
        self,
        agent: Agent,
        *,
        provider: Provider,
        model: str,
        resources: Mapping[type, Any],
        idle_timeout_s: float = DEFAULT_IDLE_TIMEOUT_S,
    ) -> None:
        self._agent = agent
        self._provider = provider
        self._model = agent.models[0] if agent.models else model
        self._resources = resources
        own = agent.limits.idle_timeout_s
        self._idle_timeout_s = own if own is not None else idle_timeout_s

    async def run(self, port: Port) -> None:
        transcript = Transcript()
        for journal in await port.history():
            transcript.read(journal)
        transcript.read(port.journal)
        toolbox = Toolbox(tools_of(self._agent), port)
        await Loop(
            agent=self._agent,
            port=port,
            transcript=transcript,
            toolbox=toolbox,
            runtime=Runtime(port=port, toolbox=toolbox, resources=self._resources),
            turn=Turn(
                port=port,
                provider=self._provider,
                agent=self._agent.name,
                toolbox=toolbox,
                limits=self._agent.limits,
            ),
            model=self._model,
            idle_timeout_s=self._idle_timeout_s,
        ).run()


def tools_of(agent: Agent) -> dict[str, Tool]:
    """The tools an agent declares, by name."""
    tools = {tool.name: tool for tool in agent.tools}
    return {**tools, ask_user.name: ask_user} if agent.can_ask else tools


class Loop:
    """The turns of one run, one after the other."""

    def __init__(
        self,
        *,
        agent: Agent,
        port: Port,
        transcript: Transcript,
        toolbox: Toolbox,
        runtime: Runtime,
        turn: Turn,
        model: str,
        idle_timeout_s: float,
    ) -> None:
        self._agent = agent
        self._idle_timeout_s = idle_timeout_s
        self._port = port
        self._transcript = transcript
        self._toolbox = toolbox
        self._runtime = runtime
        self._turn = turn
        self._model = model
        self._truncated = 0
        asked = port.start.limits
        limits = agent.limits
        self._max_turns = min(limits.max_turns, (asked and asked.max_turns) or limits.max_turns)
        calls = asked.max_tool_calls if asked is not None and asked.max_tool_calls is not None else None
        self._max_calls = limits.max_tool_calls if calls is None else min(limits.max_tool_calls, calls)
        self._system = self._instructions()

    async def run(self) -> None:
        if await self._resume():
            return
        while not await self._step():
            continue

    async def _resume(self) -> bool:
        """Finish the turn that a program before this one began. Whether the run is over."""
        transcript = self._transcript
        last = transcript.last
        if last is None or transcript.stop_reason in _GO_ON or (calls_of(last) and not transcript.unanswered()):
            return False
        self._port.check()
        step = await self._begin("Continuing")
        return await self._after(
            Turned(message=last, message_id=transcript.last_id, stop_reason=transcript.stop_reason, step=step)
        )

    async def _step(self) -> bool:
        """One turn. Whether the run is over."""
        port, transcript = self._port, self._transcript
        port.check()
        step = await self._begin("Thinking")
        for correction in await port.corrections(step_id=step.step_id):
            transcript.corrected(correction.text)
        last = self._spent
        request = ModelRequest(
            model=self._model,
            system=self._system,
            messages=transcript.messages(note=BUDGET_NOTE if last else None),
            tools=() if last else tuple(self._toolbox.specs()),
            max_tokens=self._agent.max_tokens,
            idle_timeout_s=self._idle_timeout_s,
            conversation_id=port.start.thread_id,
        )
        turned = await self._turn.take(request, step=step)
        if turned.message is not None:
            transcript.said(turned.message_id, turned.message, stop_reason=turned.stop_reason)
        return await self._after(turned)

    @property
    def _spent(self) -> bool:
        """Whether the next turn is the last: it must answer."""
        return self._transcript.turns >= self._max_turns - 1 or self._transcript.calls >= self._max_calls

    async def _after(self, turned: Turned) -> bool:
        """What a message asks for. Whether the run is over."""
        message = turned.message
        if turned.stop_reason == "refusal":
            raise RunFailure("refused", "The model declined to answer this.")
        if turned.stop_reason == "model_context_window_exceeded":
            raise RunFailure("context_too_long", "The conversation is longer than the model can read.")
        if message is not None and (calls := self._transcript.unanswered()):
            await self._run_calls(calls, turned)
        goes_on = message is None or turned.stop_reason in _GO_ON or bool(calls_of(message))
        if goes_on and not self._over_budget:
            await self._port.record(ended(turned.step, "completed"), step_id=turned.step.step_id)
            return False
        return await self._end("" if message is None else text_of(message), turned.step)

    @property
    def _over_budget(self) -> bool:
        """Whether the answer that had to be the last one is there, calls or not."""
        return self._transcript.turns >= self._max_turns

    async def _run_calls(self, calls: list[Call], turned: Turned) -> None:
        if turned.stop_reason == "max_tokens" and any(call.args is None for call in calls):
            await self._refuse(calls, CallFailed("truncated", TRUNCATED), turned.step.step_id)
            self._truncated += 1
            if self._truncated > MAX_TRUNCATED:
                text = f"The model's answers were cut off again and again at {self._agent.max_tokens:,} tokens."
                raise RunFailure("truncated", text)
            return
        self._truncated = 0
        # Calls of this message are counted already: what is over the bound is at its end.
        over = max(0, self._transcript.calls - self._max_calls) if not self._over_budget else len(calls)
        allowed, refused = calls[: max(0, len(calls) - over)], calls[max(0, len(calls) - over) :]
        if refused:
            text = "This run has used up its tool calls; the call was not run."
            await self._refuse(refused, CallFailed("budget_exhausted", text), turned.step.step_id)
        if allowed:
            records = await self._runtime.run_all(allowed, message_id=turned.message_id, step_id=turned.step.step_id)
            for call, record in zip(allowed, records, strict=True):
                self._transcript.answered(call.id, record, ran_with=self._port.call_args(call.id))

    async def _refuse(self, calls: list[Call], failed: CallFailed, step_id: str) -> None:
        for call in calls:
            self._transcript.answered(call.id, await self._runtime.refuse(call, failed, step_id=step_id))

    async def _end(self, text: str, step: RunStep) -> bool:
        """End the run, unless somebody has something to say that can still be heard. Whether it is over."""
        port = self._port
        while True:
            taken = [] if self._over_budget else await port.corrections(step_id=step.step_id, ending=True)
            for correction in taken:
                self._transcript.corrected(correction.text)
            await port.record(ended(step, "completed"), step_id=step.step_id)
            if taken:
                return False
            try:
                await port.end(text, return_corrections=self._over_budget)
            except CorrectionsPending:
                # One came after the last look.
                step = await self._begin("Thinking")
            else:
                return True

    async def _begin(self, title: str) -> RunStep:
        return await begin_step(self._port, agent=self._agent.name, title=title)

    def _instructions(self) -> str:
        instructions = self._agent.instructions
        if isinstance(instructions, str):
            return instructions
        start = self._port.start
        return instructions(
            RunInfo(
                run_id=start.run_id,
                thread_id=start.thread_id,
                agent=self._agent.name,
                principal=start.principal,
                input=input_text(start.input),
                metadata=start.metadata or {},
            )
        )
