"""One turn of the model: a call streamed to people, tried again when the model's service fails, stopped for a
correction that cannot wait.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from typing import Any, Final

from msgspec import Struct

from midstream.agents.conversation import AssistantMessage
from midstream.agents.definition import AgentLimits
from midstream.agents.providers.contract import (
    CallOpened,
    Finished,
    ModelError,
    ModelFailed,
    ModelRequest,
    Opened,
    Provider,
    TextDelta,
)
from midstream.agents.speech import Speech
from midstream.agents.steps import begin_step, ended
from midstream.agents.tools.toolbox import Toolbox
from midstream.runs.contract import RunFailure
from midstream.runs.port import Port
from midstream.tasks import spawn
from midstream_protocol.events import RecoveryStarted, RunStep

BACKOFF_S: Final = 1.0
"""Wait before the second try; doubles, with jitter, and never less than the provider asks for."""

MAX_BACKOFF_S: Final = 60.0
"""A provider that asks for more than this is not waited for."""

_RECOVERY_KINDS: Final = {"rate_limited": "rate_limit", "overloaded": "overloaded"}


class Turned(Struct, kw_only=True, frozen=True):
    """What a turn came to. `message` None: it was stopped before it said anything. `step` is the one it ended in."""

    message: AssistantMessage | None
    message_id: str
    stop_reason: str
    step: RunStep


class Turn:
    """The model calls of one run."""

    def __init__(self, *, port: Port, provider: Provider, agent: str, toolbox: Toolbox, limits: AgentLimits) -> None:
        self._port = port
        self._provider = provider
        self._agent = agent
        self._toolbox = toolbox
        self._limits = limits

    async def take(self, request: ModelRequest, *, step: RunStep) -> Turned:
        """Stream one answer. Raises `RunFailure` when the model cannot be had, `Stopping`."""
        attempt = 1
        while True:
            speech = Speech(port=self._port, agent=self._agent, toolbox=self._toolbox, step_id=step.step_id)
            try:
                return await self._stream(request, speech, step)
            except ModelError as error:
                wait_s = self._wait_s(error, attempt)
                if wait_s is None:
                    await speech.supersede(error.code)
                    raise RunFailure(error.code, error.text, retryable=error.retryable) from error
                await speech.supersede(error.code, ended(step, "failed"))
                attempt += 1
                step = await self._again(step, attempt, _RECOVERY_KINDS.get(error.code, "model_error"), wait_s)

    async def _again(self, failed: RunStep, attempt: int, kind: str, wait_s: float) -> RunStep:
        port, most = self._port, self._limits.max_model_attempts
        await port.record(RecoveryStarted(kind=kind, attempt=attempt, max_attempts=most, wait_s=round(wait_s, 3)))
        await port.clock.sleep(wait_s)
        port.check()
        title = f"Asking the model again ({attempt} of {most})"
        return await begin_step(
            port, agent=self._agent, title=title, kind="retry", parent=failed.step_id, attempt=attempt
        )

    def _wait_s(self, error: ModelError, attempt: int) -> float | None:
        if not error.retryable or attempt >= self._limits.max_model_attempts:
            return None
        if (asked := error.retry_after_s) is not None and asked > MAX_BACKOFF_S:
            return None
        # Full jitter above half: many runs that failed at once do not come back at once.
        own = min(MAX_BACKOFF_S, BACKOFF_S * 2.0 ** (attempt - 1)) * random.uniform(0.5, 1.0)  # noqa: S311
        return max(own, error.retry_after_s or 0.0)

    # -- one try

    async def _stream(self, request: ModelRequest, speech: Speech, step: RunStep) -> Turned:
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
                    speech.leave()
                    raise
                finished = None
        if isinstance(finished, Exception):
            if not isinstance(finished, ModelError):
                speech.leave()
            raise finished
        if finished is None:
            message = await speech.interrupt()
            stop_reason = "interrupted"
        else:
            message, stop_reason = AssistantMessage(parts=finished.parts), finished.stop_reason
            await speech.complete(message, stop_reason=stop_reason, usage=finished.usage)
        return Turned(message=message, message_id=speech.message_id, stop_reason=stop_reason, step=step)

    async def _listen(self, request: ModelRequest, speech: Speech) -> Finished:
        # Closed before anything else happens: a model that nobody listens to must not go on.
        async with aclosing(self._provider.stream(request)) as stream:
            async for event in stream:
                match event:
                    case Opened():
                        speech.model, speech.usage = event.model, event.usage
                        await speech.begin()
                    case TextDelta():
                        await speech.say(event.text)
                    case CallOpened():
                        await speech.prepare(event.id, event.tool)
                    case Finished():
                        return event
                    case _:
                        # Reasoning is the model's own: nobody is shown it.
                        continue
        raise ModelFailed("The model's answer ended without an end.")


async def _answered(listening: Callable[[], Coroutine[Any, Any, Finished]]) -> Finished | Exception:
    # A model that fails is no surprise to report: it is raised again where the answer is waited for.
    try:
        return await listening()
    except Exception as error:  # noqa: BLE001 - handed on
        return error
