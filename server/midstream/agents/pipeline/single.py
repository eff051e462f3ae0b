"""The pipeline of an agent that does not plan: one stage, without a plan and without a step around it."""

from typing import Protocol

from midstream.agents.loop import Came
from midstream.agents.pipeline.contract import Piped


class Looping(Protocol):
    """The one loop. `loop.Loop` is the real one."""

    async def run(self) -> Came: ...

    async def go_on(self) -> Came: ...


class Single:
    """`Pipes` of one loop."""

    def __init__(self, loop: Looping, *, typed: bool = False) -> None:
        """`typed`: the result is the answer's value, not its text."""
        self._loop = loop
        self._typed = typed

    async def run(self) -> Piped:
        return self._piped(await self._loop.run())

    async def go_on(self) -> Piped:
        return self._piped(await self._loop.go_on())

    def _piped(self, came: Came) -> Piped:
        return Piped(result=came.value if self._typed else came.text, spent=came.spent)
