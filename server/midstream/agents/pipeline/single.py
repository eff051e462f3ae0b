"""The pipeline of an agent that does not plan: one stage, without a plan and without a step around it."""

from collections.abc import Coroutine
from typing import Any, Protocol

from midstream.agents.loop import Came
from midstream.agents.pipeline.contract import Piped
from midstream.runs.contract import RunFailure
from midstream_protocol.events import Resume


class Looping(Protocol):
    """The one loop. `loop.Loop` is the real one."""

    async def run(self) -> Came: ...

    async def go_on(self) -> Came: ...


class Single:
    """`Pipes` of one loop."""

    def __init__(self, loop: Looping, *, run_id: str, typed: bool = False) -> None:
        """`typed`: the result is the answer's value, not its text."""
        self._loop = loop
        self._run_id = run_id
        self._typed = typed

    async def run(self) -> Piped:
        return await self._resumable(self._loop.run())

    async def go_on(self) -> Piped:
        return await self._resumable(self._loop.go_on())

    async def _resumable(self, looping: Coroutine[Any, Any, Came]) -> Piped:
        try:
            return self._piped(await looping)
        except RunFailure as failure:
            text = "Start a run with this `resume`: it goes on with what was said and done here."
            resume = Resume(text=text, run_id=self._run_id)
            raise RunFailure(
                failure.code, failure.text, retryable=failure.retryable, resume=failure.resume or resume
            ) from failure.__cause__

    def _piped(self, came: Came) -> Piped:
        return Piped(result=came.value if self._typed else came.text, spent=came.spent)
