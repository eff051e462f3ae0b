"""One turn of the model: a call streamed to people, tried again when the model's service fails, stopped for a
correction that cannot wait.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import aclosing
from typing import Any, Final

import msgspec
from msgspec import Struct

from midstream.agents.conversation import AssistantMessage
from midstream.agents.definition import AgentLimits
from midstream.agents.models import Models, Tries
from midstream.agents.providers.contract import (
    CallOpened,
    Cited,
    ContextTooLong,
    Finished,
    ModelError,
    ModelFailed,
    ModelRequest,
    Opened,
    TextDelta,
    TokenUsage,
)
from midstream.agents.recovery import GiveUp, Shrink, give_up
from midstream.agents.speech import PLAIN_STYLE, Speech, SpeechStyle
from midstream.agents.steps import begin_step, ended
from midstream.agents.tools.toolbox import Toolbox
from midstream.runs.contract import RunFailure
from midstream.runs.port import Port
from midstream.tasks import spawn
from midstream.telemetry import count_model_call, observe_first_token
from midstream_protocol.events import RunStatusChanged, RunStep

WINDOW_FULL: Final = "model_context_window_exceeded"
"""The stop reason of an answer that filled the model's window before its end."""

Make = Callable[[RunStep], Awaitable[ModelRequest]]


class Turned(Struct, kw_only=True, frozen=True):
    """What a turn came to. `message` None: it was stopped before it said anything. `step` is the one it ended in."""

    message: AssistantMessage | None
    message_id: str
    stop_reason: str
    step: RunStep
    usage: TokenUsage = TokenUsage()


def _cannot() -> bool:
    return False


def _nothing() -> tuple[str, ...]:
    return ()


class Turn:
    """The model calls of one agent in one run."""

    def __init__(
        self,
        *,
        port: Port,
        models: Models,
        agent: str,
        toolbox: Toolbox,
        limits: AgentLimits,
        style: SpeechStyle = PLAIN_STYLE,
    ) -> None:
        self.port: Final = port
        self.models: Final = models
        self.agent: Final = agent
        self.toolbox: Final = toolbox
        self.limits: Final = limits
        self.style: Final = style

    async def take(
        self,
        make: Make,
        *,
        step: RunStep,
        stage: str = "",
        heard: Callable[[], tuple[str, ...]] = _nothing,
        shrink: Callable[[], bool] = _cannot,
    ) -> Turned:
        """Stream one answer.

        `make` makes the request, before every try and with the step of that try, so that what came meanwhile is in it;
        its model and idle timeout are filled in here. `heard`: ids of the corrections that are in what it made.
        `shrink` is asked to make the conversation shorter when the model says that it is too long (False: it cannot).
        Raises `RunFailure` when no model can be had, `Stopping`.
        """
        return await _Call(self, make=make, step=step, stage=stage, heard=heard, shrink=shrink).answer()


class _Call:
    """One call, with all its tries. `_step_open`: whether the step of the newest try has not ended."""

    def __init__(
        self,
        turn: Turn,
        *,
        make: Make,
        step: RunStep,
        stage: str,
        heard: Callable[[], tuple[str, ...]],
        shrink: Callable[[], bool],
    ) -> None:
        self._turn = turn
        self._port = turn.port
        self._make = make
        self._step = step
        self._step_open = True
        self._stage = stage
        self._heard = heard
        self._shrink = shrink
        self._tries = Tries(turn.port, turn.models)

    async def answer(self) -> Turned:
        while True:
            speech: Speech | None = None
            try:
                request = await self._ready()
                speech = self._speech()
                return await self._stream(request, speech)
            except ModelError as error:
                await self._recover(error, speech)

    # -- between tries

    async def _ready(self) -> ModelRequest:
        """The request, when the model may be asked. A correction that cannot wait enters meanwhile."""
        models = self._turn.models
        while True:
            await self._port.clearance()
            admitted = await self._admitted()
            self._port.check()
            if not self._step_open:
                await self._begin_again()
            elif self._tries.told and not self._port.waiting:
                status = RunStatusChanged(status="running", phase="working", text=self._step.title)
                await self._port.emit(status, step_id=self._step.step_id)
            request = await self._make(self._step)
            if admitted:
                return msgspec.structs.replace(request, model=models.name, idle_timeout_s=models.idle_timeout_s)

    async def _admitted(self) -> bool:
        cut: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def interrupt() -> None:
            if not cut.done():
                cut.set_result(None)

        with self._port.on_interrupt(interrupt):
            return await self._tries.admitted(step_id=self._step.step_id, cut=cut)

    async def _begin_again(self) -> None:
        turn, count = self._turn, self._tries.count
        title = f"Asking the model again ({count} of {max(count, self._tries.most)})"
        # Of a stage it is a step like the turn that failed, so that what is open in the stage can be told.
        parent = self._step.parent_step_id or self._step.step_id
        self._step = await begin_step(
            self._port, agent=turn.agent, title=title, kind="retry", parent=parent, attempt=count
        )
        self._step_open = True

    async def _recover(self, error: ModelError, speech: Speech | None) -> None:
        measure = self._tries.measure(error)
        if isinstance(measure, Shrink) and not (isinstance(error, _WindowFull) or self._shrink()):
            measure = give_up(error)
        if isinstance(measure, GiveUp):
            if speech is not None:
                await speech.supersede(error.code)
            raise RunFailure(measure.code, measure.text, retryable=measure.retryable) from error
        over = [ended(self._step, "failed")] if self._step_open else []
        if speech is not None:
            await speech.supersede(error.code, *over)
        elif over:
            await self._port.record(*over, step_id=self._step.step_id)
        self._step_open = False
        await self._tries.recover(measure, step_id=self._step.step_id)

    # -- one try

    def _speech(self) -> Speech:
        turn = self._turn
        return Speech(
            port=self._port,
            agent=turn.agent,
            toolbox=turn.toolbox,
            step_id=self._step.step_id,
            stage=self._stage,
            heard=self._heard(),
            style=turn.style,
        )

    async def _stream(self, request: ModelRequest, speech: Speech) -> Turned:
        stopped_for_correction = False
        listening = spawn(_answered(lambda: self._listen(request, speech)), name=f"run:{self._port.start.run_id}/model")

        def interrupt() -> None:
            nonlocal stopped_for_correction
            # A message that is complete is not interrupted any more: the correction enters after it. Nor is one twice:
            # that would interrupt the closing of its stream.
            if not listening.done() and not stopped_for_correction:
                stopped_for_correction = True
                listening.cancel()

        with self._port.on_interrupt(interrupt):
            try:
                finished = await listening
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if not stopped_for_correction or (task is not None and task.cancelling()):
                    count_model_call("cancelled")
                    speech.leave()
                    raise
                finished = None
        if isinstance(finished, Exception):
            if not isinstance(finished, ModelError):
                speech.leave()
            raise finished
        if finished is None:
            count_model_call("interrupted")
            return self._turned(speech, await speech.interrupt(), "interrupted", speech.usage)
        if finished.stop_reason == WINDOW_FULL and self._tries.may_shrink and self._shrink():
            speech.usage = finished.usage
            raise _WindowFull("The conversation is longer than the model can read.")
        count_model_call("answered")
        message = AssistantMessage(parts=finished.parts)
        await speech.complete(message, stop_reason=finished.stop_reason, usage=finished.usage)
        return self._turned(speech, message, finished.stop_reason, finished.usage)

    def _turned(self, speech: Speech, message: AssistantMessage | None, reason: str, usage: TokenUsage) -> Turned:
        return Turned(message=message, message_id=speech.message_id, stop_reason=reason, step=self._step, usage=usage)

    async def _listen(self, request: ModelRequest, speech: Speech) -> Finished:
        asked, silent = self._port.clock.monotonic(), True
        # Closed before anything else happens: a model that nobody listens to must not go on.
        async with aclosing(self._turn.models.provider.stream(request)) as stream:
            async for event in stream:
                # That the stream is open is nothing of the answer yet.
                if silent and not isinstance(event, Opened):
                    silent = False
                    observe_first_token(self._port.clock.monotonic() - asked)
                match event:
                    case Opened():
                        self._tries.opened()
                        speech.model, speech.usage = event.model, event.usage
                        await speech.begin()
                    case TextDelta():
                        await speech.say(event.text)
                    case CallOpened():
                        await speech.prepare(event.id, event.tool)
                    case Cited():
                        speech.cite(event.data)
                    case Finished():
                        return event
                    case _:
                        # Reasoning is the model's own: nobody is shown it.
                        continue
        raise ModelFailed("The model's answer ended without an end.")


class _WindowFull(ContextTooLong):
    """An answer that filled the window; the conversation is shorter already."""


async def _answered(listening: Callable[[], Coroutine[Any, Any, Finished]]) -> Finished | Exception:
    # A model that fails is no surprise to report: it is raised again where the answer is waited for.
    try:
        return await listening()
    except Exception as error:  # noqa: BLE001 - handed on
        return error
