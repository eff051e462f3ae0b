"""For tests of agents: play a run with a scripted model, a memory store and a clock that stands still. No network.

```python
async with play(Agent("shop", instructions="…", tools=[refund]), [call("refund", order="A1"), "Done."]) as run:
    await run.until("approval.required")
    await run.approve(edit={"amount": 5})
    assert await run.result() == "Done."
```
"""

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from midstream.agent.catalogue import AnyAgent, Catalogue
from midstream.agent.providers.contract import Provider
from midstream.agent.providers.scripted import ScriptedProvider
from midstream.app import Midstream
from midstream.log import Batch, Created, Lease, Leases, Log, LogUnavailable, MemoryStore, Store
from midstream.runs.contract import Limits, Principal
from midstream.runs.registry import Registry
from midstream_protocol.codec import decode_event
from midstream_protocol.commands import (
    ApprovalRespond,
    ClientTool,
    Command,
    CommandPayload,
    CorrectionRevoke,
    InputRespond,
    Remember,
    RunCancel,
    RunCorrect,
    RunStart,
    ToolError,
    ToolResult,
)
from midstream_protocol.events import (
    TERMINAL_TYPES,
    CancelMode,
    CorrectionMode,
    Event,
    MessageDelta,
    RunCompleted,
)
from midstream_protocol.frames import Receipt
from midstream_protocol.ids import new_id
from midstream_protocol.view import View

TESTER: Final = Principal(id="tester", name="Tester")
CLIENT_ID: Final = "test-client"

PATIENCE_S: Final = 10.0
"""Real seconds to wait for what must come by itself; nothing of it is slow, so this is only met by what hangs."""

_START_MS: Final = 1_767_225_600_000
_TURNS_OF_THE_LOOP: Final = 20
"""Loop turns that `advance` gives to what it woke, before it goes on to the next timer."""


class ManualClock:
    """A clock that moves when it is told to (`midstream.clock.Clock`)."""

    def __init__(self, *, start_ms: int = _START_MS) -> None:
        self._start_ms = start_ms
        self._now = 0.0
        self._timers: list[tuple[float, int, Callable[[], object]]] = []
        self._cancelled: set[int] = set()
        self._count = itertools.count()

    def now_ms(self) -> int:
        return self._start_ms + round(self._now * 1000)

    def monotonic(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not woken.done():
                woken.set_result(None)

        cancel = self.call_later(seconds, wake)
        try:
            await woken
        finally:
            cancel()

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Callable[[], None]:
        if seconds <= 0:
            # Due already: that needs no time to pass.
            return asyncio.get_running_loop().call_soon(callback).cancel
        number = next(self._count)
        heapq.heappush(self._timers, (self._now + seconds, number, callback))
        return lambda: self._cancelled.add(number)

    async def advance(self, seconds: float) -> None:
        """Move on, calling back each timer at its time, and let what they wake do its work."""
        # What is about to set its timer sets it from now, not from then.
        await _let_others_run()
        end = self._now + seconds
        while self._timers and self._timers[0][0] <= end:
            due, number, callback = heapq.heappop(self._timers)
            if number in self._cancelled:
                self._cancelled.discard(number)
                continue
            self._now = max(self._now, due)
            callback()
            await _let_others_run()
        self._now = end
        await _let_others_run()


async def _let_others_run() -> None:
    for _ in range(_TURNS_OF_THE_LOOP):
        await asyncio.sleep(0)


def call(tool: str, /, **args: Any) -> dict[str, Any]:
    """A scripted turn that calls one tool."""
    return {"steps": [{"call": {"tool": tool, "args": args}}]}


def calls(*each: tuple[str, dict[str, Any]], text: str | None = None) -> dict[str, Any]:
    """A scripted turn that says `text` and calls several tools in one message."""
    said: list[dict[str, Any]] = [] if text is None else [{"text": text}]
    return {"steps": [*said, *({"call": {"tool": tool, "args": args}} for tool, args in each)]}


ScriptTurn = str | Mapping[str, Any] | Sequence[Mapping[str, Any]]
"""A text, a turn as in a script file, or its steps."""


class Refused(AssertionError):
    """A command of the test was not accepted."""

    def __init__(self, receipt: Receipt) -> None:
        super().__init__(f"{receipt.code}: {receipt.text}")
        self.receipt = receipt


class PlayedRun:
    """One run, and the one person who watches it. `events` are those seen so far, in order."""

    def __init__(self, stage: "Stage", run_id: str) -> None:
        self.run_id: Final = run_id
        self.events: list[Event] = []
        self._stage = stage
        self._looked_at = 0
        self._news = asyncio.Event()

    # -- watching

    async def until(self, type: str, where: Callable[[Any], bool] | None = None) -> Event:  # noqa: A002
        """The next event of that type, whose payload `where` accepts, after the one found before.

        Raises AssertionError if the run ends without one, or nothing happens any more.
        """
        while True:
            while self._looked_at < len(self.events):
                event = self.events[self._looked_at]
                self._looked_at += 1
                if event.type == type and (where is None or where(event.payload)):
                    return event
            if self.events and self.events[-1].type in TERMINAL_TYPES:
                raise AssertionError(f"the run ended without {type}: {self._story()}")
            await self._more(type)

    async def ended(self) -> Event:
        """The terminal event."""
        while not (self.events and self.events[-1].type in TERMINAL_TYPES):
            await self._more("the end")
        return self.events[-1]

    async def result(self) -> Any:
        """The result of the completed run. Raises AssertionError if it failed or was cancelled."""
        event = await self.ended()
        if not isinstance(event.payload, RunCompleted):
            raise AssertionError(f"the run did not complete: {event.payload}")  # noqa: TRY004 - a test's failure
        return event.payload.result

    async def view(self) -> View:
        return await self._stage.registry.view(TESTER, self.run_id)

    def of_type(self, type: str) -> list[Any]:  # noqa: A002
        """The payloads of the events of that type seen so far."""
        return [event.payload for event in self.events if event.type == type]

    @property
    def text(self) -> str:
        """What the agent has said so far."""
        return "".join(event.payload.text for event in self.events if isinstance(event.payload, MessageDelta))

    # -- steering: each raises `Refused`

    async def approve(
        self, approval_id: str | None = None, *, edit: Mapping[str, Any] | None = None, remember: bool = False
    ) -> Receipt:
        """Approve the open question (the oldest, if there are several), with some arguments replaced."""
        return await self.command(
            ApprovalRespond(
                approval_id=approval_id or await self._pending("approval", "approval_id"),
                decision="approve",
                args=dict(edit) if edit is not None else None,
                remember=Remember(scope="run") if remember else None,
            )
        )

    async def deny(self, reason: str | None = None, *, approval_id: str | None = None) -> Receipt:
        approval_id = approval_id or await self._pending("approval", "approval_id")
        return await self.command(ApprovalRespond(approval_id=approval_id, decision="deny", reason=reason))

    async def answer(self, answer: Any, *, input_id: str | None = None) -> Receipt:
        """Answer the agent's question."""
        input_id = input_id or await self._pending("input", "input_id")
        return await self.command(InputRespond(input_id=input_id, answer=answer))

    async def tool_result(
        self, result: Any = None, *, error: tuple[str, str] | None = None, tool_call_id: str | None = None
    ) -> Receipt:
        """Answer a call as the client that runs it; `error` is a code and a text."""
        return await self.command(
            ToolResult(
                tool_call_id=tool_call_id or await self._pending("tool", "tool_call_id"),
                ok=error is None,
                result=result,
                error=ToolError(code=error[0], text=error[1]) if error is not None else None,
            )
        )

    async def correct(self, text: str, *, mode: CorrectionMode = "next_step") -> Receipt:
        return await self.command(RunCorrect(text=text, mode=mode))

    async def revoke(self, correction_id: str) -> Receipt:
        return await self.command(CorrectionRevoke(correction_id=correction_id))

    async def cancel(
        self, *, mode: CancelMode = "now", tool_call_id: str | None = None, reason: str | None = None
    ) -> Receipt:
        return await self.command(RunCancel(mode=mode, tool_call_id=tool_call_id, reason=reason))

    async def command(self, payload: CommandPayload, *, command_id: str | None = None) -> Receipt:
        """Send any command to this run."""
        command = Command(
            type=payload.TYPE, command_id=command_id or new_id("cmd"), run_id=self.run_id, payload=payload
        )
        receipt = await self._stage.registry.submit(TESTER, command, client_id=CLIENT_ID)
        if receipt.status != "accepted":
            raise Refused(receipt)
        return receipt

    # -- the world around it

    async def advance(self, seconds: float) -> None:
        """Let time pass."""
        await self._stage.clock.advance(seconds)

    async def crash(self, *, down_s: float = 0.0) -> None:
        """The server dies here, and after `down_s` seconds another takes the run over."""
        await self._stage.crash(down_s=down_s)

    # -- parts

    async def _pending(self, kind: str, key: str) -> str:
        found = [item[key] for item in (await self.view()).pending if item["kind"] == kind]
        if not found:
            raise AssertionError(f"nothing waits for this ({kind}): {self._story()}")
        return str(found[0])

    async def _more(self, what: str) -> None:
        """Read what there is; if there is nothing, wait for it."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._read()
        except TimeoutError:
            raise AssertionError(f"nothing happens, and {what} did not come: {self._story()}") from None

    async def _read(self) -> None:
        """At least one more event. A server that crashes meanwhile is followed to the next one."""
        while True:
            self._news.clear()
            registry = self._stage.registry
            attached = await registry.attach(TESTER, self.run_id, wake=self._news.set, since_seq=len(self.events))
            try:
                while registry is self._stage.registry:
                    if found := await attached.subscription.pull():
                        self.events += [decode_event(each) for each in found]
                        return
                    await self._news.wait()
                    self._news.clear()
            finally:
                attached.subscription.close()

    def moved(self) -> None:
        """For the stage: there is another server now."""
        self._news.set()

    def _story(self) -> str:
        return " ".join(event.type for event in self.events) or "no events"


class Stage:
    """A server without doors: runs on a store, with a clock that the test moves."""

    def __init__(self, catalogue: Catalogue, *, store: Store, clock: ManualClock, limits: Limits) -> None:
        self.clock: Final = clock
        self.store: Final = store
        self._catalogue = catalogue
        self._limits = limits
        self._runs: list[PlayedRun] = []
        self._mortal = _Mortal(store)
        self.registry = self._server()

    async def start(
        self,
        input: str,  # noqa: A002 - the word of `run.start`
        *,
        client_tools: Sequence[ClientTool] | None = None,
        **fields: Any,
    ) -> PlayedRun:
        """Start a run; `fields` are those of `run.start`. Raises `Refused`."""
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
        self._mortal = _Mortal(self.store)
        self.registry = self._server()
        await self.registry.open()
        for run in self._runs:
            run.moved()

    async def stop(self) -> None:
        """The server is told to stop, and does so in order."""
        await self.registry.drain()

    def _server(self) -> Registry:
        return Registry(store=self._mortal, agents=self._catalogue, limits=self._limits, clock=self.clock)


class _Mortal:
    """The store as one server sees it; once `dead`, nothing of that server reaches it."""

    def __init__(self, store: Store) -> None:
        self.dead = False
        self.held: dict[str, Lease] = {}
        self.name = store.name
        self.inbox = store.inbox
        self.records = store.records
        self.log: Log = _MortalLog(self, store.log)
        self.leases: Leases = _MortalLeases(self, store.leases)
        self._store = store

    async def open(self) -> None:
        await self._store.open()

    async def aclose(self) -> None:
        """The store outlives its servers."""

    async def bury(self) -> None:
        """Its leases are free, as they are when a machine sees that their owner's process is gone."""
        for lease in self.held.values():
            await self._store.leases.release(lease)


class _MortalLog:
    def __init__(self, owner: _Mortal, log: Log) -> None:
        self._owner = owner
        self._log = log
        self.load = log.load
        self.read = log.read
        self.delete = log.delete

    async def create(self, run: str, *, fingerprint: str, batch: Batch, owner: str, lease_ms: int) -> Created:
        created = await self._log.create(run, fingerprint=fingerprint, batch=batch, owner=owner, lease_ms=lease_ms)
        if created.lease is not None:
            self._owner.held[run] = created.lease
        return created

    async def append(self, run: str, *, fence: int, prev_seq: int, batch: Batch) -> int:
        if self._owner.dead:
            raise LogUnavailable("this server is dead")
        return await self._log.append(run, fence=fence, prev_seq=prev_seq, batch=batch)


class _MortalLeases:
    def __init__(self, owner: _Mortal, leases: Leases) -> None:
        self._owner = owner
        self._leases = leases
        self.release = leases.release

    async def claim(self, run: str | None, *, owner: str, now_ms: int, lease_ms: int) -> Lease | None:
        return self._held(await self._leases.claim(run, owner=owner, now_ms=now_ms, lease_ms=lease_ms))

    async def renew(self, lease: Lease, *, now_ms: int, lease_ms: int) -> Lease | None:
        return self._held(await self._leases.renew(lease, now_ms=now_ms, lease_ms=lease_ms))

    def _held(self, lease: Lease | None) -> Lease | None:
        if lease is not None:
            self._owner.held[lease.run] = lease
        return lease


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
        agents, resources = list(app.agents), list(app.resources)
    else:
        agents = list(app) if isinstance(app, Sequence) else [app]
    provider = ScriptedProvider(_script(script), clock=clock) if isinstance(script, Sequence | Mapping) else script
    catalogue = Catalogue(agents, provider=provider, resources=resources)
    store = MemoryStore(clock=clock)
    async with catalogue.opened():
        stage = Stage(catalogue, store=store, clock=clock, limits=limits or Limits())
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


def _script(script: Sequence[ScriptTurn] | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(script, Mapping):
        return dict(script)
    # An agent with a loop of its own asks no model; one that does finds no turn.
    turns = [_turn(turn) for turn in script]
    return {"turns": turns or [{"steps": [{"error": "model_bad_request"}]}]}


def _turn(turn: ScriptTurn) -> dict[str, Any]:
    if isinstance(turn, str):
        return {"steps": [{"text": turn}]}
    return dict(turn) if isinstance(turn, Mapping) else {"steps": list(turn)}
