"""A server over a store that can be held, broken, restarted and killed, and readers that wait for what happens."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from midstream.log import Batch, Created, Leases, Log, LogUnavailable, Store
from midstream.runs.attachment import Attachment
from midstream.runs.contract import Limits, Principal
from midstream.runs.port import Port
from midstream.runs.registry import Registry
from midstream_protocol.codec import decode_event
from midstream_protocol.commands import Command, CommandPayload
from midstream_protocol.events import Event
from midstream_protocol.frames import Receipt
from midstream_protocol.ids import new_id
from midstream_protocol.order import verify
from tests.runs.simple import ME, OneAgent, start

PATIENCE_S = 20.0
"""Real seconds: only met by what hangs."""

Body = Callable[[Port], Awaitable[None]]


async def soon(awaitable: Awaitable[Any]) -> Any:
    return await asyncio.wait_for(awaitable, PATIENCE_S)


class Held:
    """The store of one server's life. `hold()` keeps appends waiting, `broken` makes every call fail, `dead` too and
    for ever: nothing of a killed server may still be written."""

    def __init__(self, store: Store) -> None:
        self.inner = store
        self.name = store.name
        self.records = store.records
        self.inbox = store.inbox
        self.log: Log = _HeldLog(self)
        self.leases: Leases = _HeldLeases(self)
        self.broken: Exception | None = None
        self.broken_reads: Exception | None = None
        self.appends = 0
        self.waiting = asyncio.Event()
        self._gate = asyncio.Event()
        self._gate.set()

    def hold(self) -> None:
        self.waiting.clear()
        self._gate.clear()

    def release(self) -> None:
        self._gate.set()

    async def pass_gate(self) -> None:
        if not self._gate.is_set():
            self.waiting.set()
            await self._gate.wait()
        self.check()

    def check(self) -> None:
        if self.broken is not None:
            raise self.broken

    async def open(self) -> None:
        await self.inner.open()

    async def shrink(self) -> int:
        return await self.inner.shrink()

    async def aclose(self) -> None:
        await self.inner.aclose()


class _HeldLog:
    def __init__(self, owner: Held) -> None:
        self._owner = owner
        self._log = owner.inner.log
        self.read = self._reading(self._log.read)
        self.load = self._reading(self._log.load)
        self.compact = self._log.compact
        self.delete = self._log.delete

    def _reading(self, call: Callable[..., Awaitable[Any]]) -> Any:
        async def read(*args: Any, **named: Any) -> Any:
            if self._owner.broken_reads is not None:
                raise self._owner.broken_reads
            return await call(*args, **named)

        return read

    async def create(self, run: str, *, fingerprint: str, batch: Batch, owner: str, lease_ms: int) -> Created:
        self._owner.check()
        return await self._log.create(run, fingerprint=fingerprint, batch=batch, owner=owner, lease_ms=lease_ms)

    async def append(self, run: str, *, fence: int, prev_seq: int, batch: Batch) -> int:
        self._owner.appends += 1
        await self._owner.pass_gate()
        return await self._log.append(run, fence=fence, prev_seq=prev_seq, batch=batch)


class _HeldLeases:
    def __init__(self, owner: Held) -> None:
        self._owner = owner
        self._leases = owner.inner.leases

    async def claim(self, run: str | None, **named: Any) -> Any:
        self._owner.check()
        return await self._leases.claim(run, **named)

    async def renew(self, lease: Any, **named: Any) -> Any:
        return await self._leases.renew(lease, **named)

    async def release(self, lease: Any) -> None:
        self._owner.check()
        await self._leases.release(lease)


class Reader:
    """One subscriber, from an attachment on."""

    def __init__(self, attachment: Attachment, moved: asyncio.Event) -> None:
        self.attachment = attachment
        self.lines: list[bytes] = []
        self._moved = moved
        self._read = 0

    @property
    def events(self) -> list[Event]:
        return [decode_event(line) for line in self.lines]

    async def pull(self) -> None:
        while batch := await self.attachment.subscription.pull():
            self.lines += batch

    async def until(self, type_: str) -> Event:
        """The next event of that type, behind the one found last."""
        while True:
            await self.pull()
            events = self.events
            for at in range(self._read, len(events)):
                if events[at].type == type_:
                    self._read = at + 1
                    return events[at]
            self._read = len(events)
            assert not self.attachment.subscription.ended, f"no {type_} in {[e.type for e in events]}"
            await soon(self._moved.wait())
            self._moved.clear()

    async def all(self) -> list[Event]:
        """Everything, up to the end of the run."""
        await self.pull()
        while not self.attachment.subscription.ended:
            await soon(self._moved.wait())
            self._moved.clear()
            await self.pull()
        return self.events

    def close(self) -> None:
        self.attachment.subscription.close()


class House:
    """`body` is what the one agent's program does; it may be exchanged between lives."""

    def __init__(
        self,
        store: Store,
        body: Body,
        *,
        clock: Any,
        limits: Limits | None = None,
        steerable: bool = True,
    ) -> None:
        self.store = store
        self.body = body
        self.clock = clock
        self.limits = limits or Limits()
        self.agents = OneAgent(self._body, steerable=steerable)
        self.ports: list[Port] = []
        self._before = asyncio.all_tasks()
        self.held = Held(store)
        self.registry = self._registry()

    async def _body(self, port: Port) -> None:
        self.ports.append(port)
        await self.body(port)

    def _registry(self) -> Registry:
        return Registry(store=self.held, agents=self.agents, limits=self.limits, clock=self.clock)

    async def open(self) -> "House":
        await self.registry.open()
        return self

    async def crash(self) -> None:
        """kill -9: whatever it was doing, and nothing more of it is written."""
        self.held.broken = LogUnavailable("this server is dead")
        self.held.release()
        mine = asyncio.all_tasks() - self._before - {asyncio.current_task()}
        for task in mine:
            task.cancel()
        if mine:
            await asyncio.wait(mine)
        await self.store.aclose()
        self._next_life()

    async def shut(self, *, grace_s: float = 5.0) -> None:
        await self.registry.drain(grace_s)
        await self.registry.aclose()
        self._next_life()

    def _next_life(self) -> None:
        self.held = Held(self.store)
        self.registry = self._registry()

    async def aclose(self) -> None:
        self.held.release()
        await self.registry.aclose()

    # -- clients

    async def start(self, text: str = "hello", *, client: str = "north", **fields: Any) -> str:
        receipt = await soon(self.registry.start(ME, start(text, **fields), client_id=client))
        assert receipt.status == "accepted", receipt
        return str(receipt.run_id)

    async def send(
        self,
        run_id: str,
        payload: CommandPayload,
        *,
        command_id: str | None = None,
        client: str | None = "north",
        who: Principal = ME,
    ) -> Receipt:
        sent = Command(type=payload.TYPE, command_id=command_id or new_id("c"), run_id=run_id, payload=payload)
        receipt = await soon(self.registry.submit(who, sent, client_id=client))
        assert isinstance(receipt, Receipt)
        assert receipt.command_id == sent.command_id
        return receipt

    async def attach(self, run_id: str, **options: Any) -> Reader:
        moved = asyncio.Event()
        return Reader(await soon(self.registry.attach(ME, run_id, wake=moved.set, **options)), moved)

    async def log(self, run_id: str, *, ended: bool = True) -> list[Event]:
        """Everything that happened; what it says must be in order."""
        reader = await self.attach(run_id)
        if ended:
            await reader.all()
        else:
            await reader.pull()
        reader.close()
        events = reader.events
        assert verify(events, ended=ended) == []
        return events


def types(events: list[Event]) -> list[str]:
    return [event.type for event in events]
