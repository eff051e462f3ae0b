"""A model that says what a script says: for demos, for tests, and to try an interface without a key.

Deterministic, and labelled as scripted wherever a model's name shows. `max_tokens` does not cut a script.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from midstream.agents.conversation import AssistantPart, Call, Message, Reasoning, Text, new_call_id
from midstream.agents.providers.contract import (
    BadModelRequest,
    CallOpened,
    Cited,
    ContextTooLong,
    Finished,
    ModelDenied,
    ModelError,
    ModelEvent,
    ModelFailed,
    ModelOverloaded,
    ModelRateLimited,
    ModelRequest,
    ModelStalled,
    ModelUnreachable,
    Opened,
    ReasoningDelta,
    TextDelta,
    TokenUsage,
)
from midstream.agents.providers.json_values import parsed_args
from midstream.agents.providers.script import Script, ScriptedError, Step, load_script, turn_of
from midstream.clock import Clock, SystemClock

MODEL: Final = "scripted"

# Conversations whose failed tries are remembered, for errors with `times`.
REMEMBERED: Final = 1024

# Characters of a token, as one counts when nothing counts better.
_CHARS_A_TOKEN: Final = 4

_ERRORS: Final[Mapping[str, type[ModelError]]] = {
    error.code: error
    for error in (
        ModelRateLimited,
        ModelOverloaded,
        ModelUnreachable,
        ModelStalled,
        ModelFailed,
        ModelDenied,
        ContextTooLong,
        BadModelRequest,
    )
}


class ScriptedProvider:
    """Plays a script: a `Script`, the path of its file, or what such a file holds (see `script`).

    Raises `ValueError` for a script that is none. Streams may run concurrently.
    """

    name = "scripted"
    default_model = MODEL

    def __init__(
        self,
        script: Script | str | Path | Mapping[str, Any],
        *,
        clock: Clock | None = None,
        new_call_id: Callable[[], str] = new_call_id,
    ) -> None:
        self._script = load_script(script)
        self._clock = clock or SystemClock()
        self._new_call_id = new_call_id
        self._failed: OrderedDict[tuple[str, str, int, int, int], int] = OrderedDict()

    def window(self, model: str) -> int | None:
        """It reads nothing."""
        del model
        return None

    async def aclose(self) -> None:
        """Nothing is open."""

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        own = request.agent in self._script.agents
        found = turn_of(
            self._script,
            request.messages,
            agent=request.agent,
            turn=request.turn,
            must_call=request.must_call,
        )
        if found is None:
            raise BadModelRequest(self._over(request))
        number, turn = found
        parts: list[AssistantPart] = []
        stop_reason = ""
        usage = TokenUsage(input_tokens=_tokens(request.messages))
        yield Opened(model=MODEL, usage=usage)
        for index, step in enumerate(turn.steps):
            match step:
                case Step(stop_reason=str(reason)):
                    stop_reason = reason
                case Step(usage=given) if given is not None:
                    usage = msgspec.convert(msgspec.to_builtins(given), TokenUsage)
                case Step(error=error) if error is not None:
                    where = request.turn if own else len(request.messages)
                    self._fail(error, key=(request.conversation_id, request.agent, where, number, index))
                case Step(stall=True):
                    await self._wait(request.idle_timeout_s, request)
                case Step(cite=dict(source)):
                    yield Cited(data=source)
                case Step(reasoning=str(text)):
                    yield ReasoningDelta(text=text)
                    parts.append(Reasoning(raw={"type": "thinking", "thinking": text}))
                case Step(answer=answer) if answer is not None and request.must_call is None:
                    text = msgspec.json.encode(answer).decode()
                    yield TextDelta(text=text)
                    parts.append(Text(text=text))
                case Step(text=None, chunks=None, call=None, raw_call=None, answer=None):
                    await self._wait(step.delay_s or 0.0, request)
                case Step(call=None, raw_call=None, answer=None):
                    for piece in step.pieces():
                        await self._wait(step.delay_s or 0.0, request)
                        yield TextDelta(text=piece)
                    if text := "".join(step.pieces()):
                        parts.append(Text(text=text))
                case _:
                    call = self._call(step, request.must_call)
                    yield CallOpened(id=call.id, tool=call.tool)
                    parts.append(call)
        calls = any(isinstance(part, Call) for part in parts)
        if usage.output_tokens == 0:
            usage = msgspec.structs.replace(usage, output_tokens=_tokens(parts))
        yield Finished(
            stop_reason=stop_reason or ("tool_use" if calls else "end_turn"), parts=tuple(parts), usage=usage
        )

    async def _wait(self, seconds: float, request: ModelRequest) -> None:
        if seconds >= request.idle_timeout_s:
            await self._clock.sleep(request.idle_timeout_s)
            raise ModelStalled("The scripted model went silent.")
        if seconds > 0:
            await self._clock.sleep(seconds)
        else:
            # A model that never waits would let nothing else on the loop have its turn.
            await asyncio.sleep(0)

    def _over(self, request: ModelRequest) -> str:
        if request.agent in self._script.agents:
            return (
                f"The script has no turn {request.turn} for the agent {request.agent!r}: add one, or set `loop: true`."
            )
        if self._script.turns is None:
            return f"The script has no turns for the agent {request.agent!r}: add them under `agents`."
        return "The script has no more turns for this conversation: add one, or set `loop: true`."

    def _call(self, step: Step, must_call: str | None) -> Call:
        id = self._new_call_id()  # noqa: A001
        if step.raw_call is not None:
            args = parsed_args(step.raw_call.json)
            raw = step.raw_call.json if args is None else None
            return Call(id=id, provider_id=id, tool=step.raw_call.tool, args=args, raw=raw)
        if step.answer is not None:
            assert must_call is not None
            return Call(id=id, provider_id=id, tool=must_call, args=step.answer)
        assert step.call is not None
        return Call(id=id, provider_id=id, tool=step.call.tool, args=step.call.args)

    def _fail(self, error: str | ScriptedError, *, key: tuple[str, str, int, int, int]) -> None:
        if isinstance(error, str):
            error = ScriptedError(type=error)  # type: ignore[arg-type]
        if error.times is not None:
            failed = self._failed.get(key, 0)
            if failed >= error.times:
                return
            self._failed[key] = failed + 1
            self._failed.move_to_end(key)
            while len(self._failed) > REMEMBERED:
                self._failed.popitem(last=False)
        raise _ERRORS[error.type](f"The script says: {error.type}.", retry_after_s=error.retry_after_s)


def _tokens(spoken: tuple[Message, ...] | list[AssistantPart]) -> int:
    return len(msgspec.json.encode(spoken)) // _CHARS_A_TOKEN
