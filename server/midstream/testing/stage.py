"""A server without doors, for tests: its runs, its store, its clock, and its deaths."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from midstream.agents.catalogue import AnyAgent, Catalogue
from midstream.agents.providers.contract import Provider
from midstream.agents.providers.scripted import ScriptedProvider
from midstream.app import Midstream
from midstream.log import LogUnavailable, MemoryStore, Store
from midstream.runs.contract import Limits
from midstream.runs.registry import Registry
from midstream.testing.clock import ManualClock
from midstream.testing.mortal import MortalStore
from midstream.testing.played import CLIENT_ID, TESTER, PlayedRun, Refused
from midstream.testing.script import ScriptTurn, written
from midstream_protocol.commands import (
    ClientTool,
    Command,
    RunStart,
)
from midstream_protocol.ids import new_id

UNGATHERED: Final = Limits(coalesce_ms=0, gather_ms=0)
"""On a clock that stands still the window in which text is gathered would never end."""


class Stage:
    """A server without doors: runs on a store, with a clock that the test moves."""

    def __init__(self, catalogue: Catalogue, *, store: Store, clock: ManualClock, limits: Limits) -> None:
        self.clock: Final = clock
        self.store: Final = store
        self._catalogue = catalogue
        self._limits = limits
        self._runs: list[PlayedRun] = []
        self._mortal = MortalStore(store)
        self.registry = self._server()

    async def start(
        self,
        input: str | None,  # noqa: A002 - the word of `run.start`
        *,
        client_tools: Sequence[ClientTool] | None = None,
        **fields: Any,
    ) -> PlayedRun:
        """Start a run; `fields` are those of `run.start`. `input` may be None only with `resume`. Raises `Refused`."""
        payload = RunStart(input=input, client_tools=list(client_tools) if client_tools else None, **fields)
        command = Command(type=RunStart.TYPE, command_id=new_id("cmd"), payload=payload)
        receipt = await self.registry.start(TESTER, command, client_id=CLIENT_ID)
        if receipt.status != "accepted" or receipt.run_id is None:
            raise Refused(receipt)
        run = PlayedRun(self, receipt.run_id)
        self._runs.append(run)
        return run

    async def offer(self, run: PlayedRun, *tools: ClientTool, client_id: str = CLIENT_ID) -> None:
        """A client hosts these tools from now on."""
        await self.registry.offer(TESTER, run.run_id, client_id=client_id, tools=tools)

    async def crash(self, *, down_s: float = 0.0) -> None:
        """The server dies: nothing more is written, nobody is told. After `down_s` another starts on the same store."""
        self._mortal.dead = True
        await self.registry.drain(0)
        await self._mortal.bury()
        await self.clock.advance(down_s)
        await self._next_server()

    async def restart(self) -> None:
        """The server is told to stop, which it does in order, and another starts."""
        await self.registry.drain()
        await self._next_server()

    async def _next_server(self) -> None:
        self._mortal = MortalStore(self.store)
        self.registry = self._server()
        await self.registry.open()
        for run in self._runs:
            run.moved()

    def _server(self) -> Registry:
        return Registry(store=self._mortal, agents=self._catalogue, limits=self._limits, clock=self.clock)


@asynccontextmanager
async def staged(
    app: Midstream | AnyAgent | Sequence[AnyAgent],
    script: Sequence[ScriptTurn] | Mapping[str, Any] | Provider = (),
    *,
    resources: Sequence[Any] = (),
    limits: Limits | None = None,
    clock: ManualClock | None = None,
) -> AsyncIterator[Stage]:
    """A stage for several runs; `play` is for one. `script` may be a provider of your own."""
    clock = clock or ManualClock()
    if isinstance(app, Midstream):
        agents, resources, outflow = list(app.agents), list(app.resources), app.outflow
    else:
        agents, outflow = list(app) if isinstance(app, Sequence) else [app], None
    provider = ScriptedProvider(written(script), clock=clock) if isinstance(script, Sequence | Mapping) else script
    catalogue = Catalogue(agents, provider=provider, resources=resources, outflow=outflow)
    store = MemoryStore(clock=clock)
    async with catalogue.opened():
        stage = Stage(catalogue, store=store, clock=clock, limits=limits or UNGATHERED)
        await stage.registry.open()
        try:
            yield stage
        finally:
            await stage.registry.drain(0)
            await provider.aclose()
            with suppress(LogUnavailable):
                await store.aclose()


@asynccontextmanager
async def play(
    app: Midstream | AnyAgent | Sequence[AnyAgent],
    script: Sequence[ScriptTurn] | Mapping[str, Any] | Provider = (),
    *,
    input: str = "Go.",  # noqa: A002 - the word of `run.start`
    resources: Sequence[Any] = (),
    limits: Limits | None = None,
    clock: ManualClock | None = None,
    **fields: Any,
) -> AsyncIterator[PlayedRun]:
    """Start a run of an app's (first) agent, with a model that says what `script` says.

    A script is a list of turns, each a text, a turn as in a script file, or `call(…)`. `fields` are those of
    `run.start`: `agent`, `client_tools`, `metadata`, … When the block is left, the run is stopped.
    """
    async with staged(app, script, resources=resources, limits=limits, clock=clock) as stage:
        yield await stage.start(input, **fields)
