"""What an app's tools need beside their arguments: opened once at the start, handed in by type, closed at the end."""

import inspect
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

from midstream.agents.tools.signature import BadTool

ResourceFactory = Callable[[], Any]
"""A function that makes one resource: plain, `async`, an async generator that yields it once (and closes it after),
or one that returns a context manager, async or not."""


class Resources:
    """`by_type` answers the types that were asked for; it is empty while they are closed."""

    def __init__(self, factories: Iterable[ResourceFactory], *, wanted: Iterable[tuple[type, str]]) -> None:
        self.by_type: dict[type, Any] = {}
        self._factories = tuple(factories)
        self._wanted = tuple(wanted)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Open inside; closed after, in the reverse order. Raises what a factory raises, `BadTool` for one missing."""
        async with AsyncExitStack() as stack:
            made = [await _opened(factory, stack) for factory in self._factories]
            self.by_type.update((kind, _of_type(kind, who, made)) for kind, who in self._wanted)
            try:
                yield
            finally:
                self.by_type.clear()


async def _opened(factory: ResourceFactory, stack: AsyncExitStack) -> Any:
    made = asynccontextmanager(factory)() if inspect.isasyncgenfunction(factory) else factory()
    if inspect.isawaitable(made):
        made = await made
    if isinstance(made, AbstractAsyncContextManager):
        return await stack.enter_async_context(made)
    if isinstance(made, AbstractContextManager):
        return stack.enter_context(made)
    return made


def _of_type(kind: type, who: str, opened: list[Any]) -> Any:
    found = [value for value in opened if isinstance(value, kind)]
    if not found:
        raise BadTool(f"{who} needs a {kind.__name__}, and none of the app's resources is one")
    if len(found) > 1:
        raise BadTool(f"{who} needs a {kind.__name__}, and {len(found)} of the app's resources are one")
    return found[0]
