"""Starting a run: once, however often it is asked for. The run's existence in the log is the idempotency; nothing is
remembered before it, so a start that was cut off anywhere is finished by being sent again.
"""

import hashlib
import secrets
from typing import Final

import msgspec
from msgspec import Struct

from midstream.clock import Clock
from midstream.log import (
    Batch,
    Header,
    JournalRecord,
    Lease,
    Loaded,
    Reset,
    StartConflict,
    Store,
    StoredReceipt,
    VersionConflict,
)
from midstream.runs.apply import apply, apply_journal, apply_receipt
from midstream.runs.contract import GO_ON, Agents, Limits, Offered, Principal, StartRecord
from midstream.runs.keys import derived_id, namespace, store_key
from midstream.runs.listing import RunList
from midstream.runs.replay import own_event
from midstream.runs.resuming import Resumed, resumed_by
from midstream.runs.state import RunState
from midstream.runs.threads import Place, Thread, Threads, decide_thread
from midstream_protocol.codec import event_bytes, iso_ms
from midstream_protocol.commands import Command, RunStart, TextBlock
from midstream_protocol.errors import Busy, Conflict, ProtocolError, QuotaExceeded, TooLarge, UnknownAgent
from midstream_protocol.events import (
    MessageCompleted,
    Origin,
    Payload,
    RunStarted,
    RunStatusChanged,
)
from midstream_protocol.frames import Receipt
from midstream_protocol.ids import new_id


class Fresh(Struct, kw_only=True, frozen=True):
    """A run that was made just now, ready for its actor."""

    loaded: Loaded
    state: RunState
    lease: Lease


class Started(Struct, kw_only=True, frozen=True):
    """What came of a start. `fresh` None: the run was there already. `correct`: the run to correct instead."""

    receipt: Receipt
    fresh: Fresh | None = None
    correct: str | None = None


class Starter:
    """`owner` and `key` are this server's; see keys.py."""

    def __init__(
        self,
        *,
        store: Store,
        agents: Agents,
        limits: Limits,
        clock: Clock,
        threads: Threads,
        runs: RunList,
        owner: str,
        key: bytes,
    ) -> None:
        self._store = store
        self._agents = agents
        self._limits = limits
        self._clock = clock
        self._threads = threads
        self._runs = runs
        self._owner = owner
        self._key = key

    async def start(
        self, principal: Principal, command: Command, *, client_id: str | None, live: int, lost: str | None = None
    ) -> Started:
        """Make the run, or find it. Raises `ProtocolError` (nothing was made), `LogError`.

        `lost`: the run that this start was to correct, which takes no corrections any more.
        """
        ask = command.payload
        assert isinstance(ask, RunStart)
        resumed = await resumed_by(ask, principal_id=principal.id, log=self._store.log)
        agent = self._checked(ask, resumed)
        run_id = ask.run_id or self._derived("run", principal, command)
        thread_id = ask.thread_id or (resumed.thread_id if resumed else self._derived("thread", principal, command))
        run = store_key(principal.id, run_id)
        print_ = hashlib.sha256(msgspec.json.encode(ask, order="deterministic")).hexdigest()
        corrected = await self._claim_command(principal, command, run, made_by_client=ask.run_id is not None)
        if corrected is not None and corrected != lost:
            return _corrects(command, corrected)
        if corrected is not None:
            await self._store.records.put(f"start.{namespace(principal.id)}", command.command_id, run.encode())
        existing = await self._existing(run)
        if existing is not None:
            return await self._found(existing, command, print_)
        if live >= self._limits.max_live_runs:
            raise QuotaExceeded("this server has as many runs as it may have: try again when one has ended")
        with self._threads.making.start(run):
            return await self._make(
                principal, command, ask, agent, (run_id, thread_id), print_, client_id=client_id, lost=lost
            )

    async def _make(  # noqa: PLR0917 - private: one call, taken out of `start`
        self,
        principal: Principal,
        command: Command,
        ask: RunStart,
        agent: str,
        ids: tuple[str, str],
        print_: str,
        *,
        client_id: str | None,
        lost: str | None,
    ) -> Started:
        run_id, thread_id = ids
        space = namespace(principal.id)
        created_ms = self._clock.now_ms()
        place = await self._place(space, thread_id, run_id, if_busy=ask.if_busy or "reject")
        if place.kind == "correct":
            assert place.active is not None
            if not isinstance(ask.input, str) or ask.resume is not None:
                raise text_only()
            if place.active == lost:
                raise Busy("the run of this thread is about to end: send the start again in a moment")
            # Written down before it is done: the same start, sent again when that run is over, must not start another.
            corrects = f"{_CORRECTS}{place.active}".encode()
            await self._store.records.put(f"start.{space}", command.command_id, corrects)
            return _corrects(command, place.active)

        # Listed first: an entry without a run is passed over, a run without an entry would never be found again.
        await self._runs.add(space, run_id=run_id, thread_id=thread_id, created_ms=created_ms)
        record = StartRecord(
            run_id=run_id,
            thread_id=thread_id,
            agent=agent,
            principal=principal,
            input=GO_ON if ask.input is None else ask.input,
            secret=secrets.token_hex(32),
            created_ms=created_ms,
            client_id=client_id,
            limits=ask.limits,
            metadata=ask.metadata,
            previous=place.previous,
            resume=None if ask.resume is None else ask.resume.run_id,
            title=place.title,
            on_abandon=ask.on_abandon,
            on_lag=ask.on_lag,
            webhook=ask.webhook,
        )
        receipt = Receipt(
            command_id=command.command_id,
            run_id=run_id,
            thread_id=thread_id,
            status="accepted",
            at_seq=1,
            as_="queued" if place.kind == "queued" else "started",
        )
        return await self._create(f"{space}.{run_id}", record, receipt, print_, ask, client_id=client_id)

    async def _create(
        self, run: str, record: StartRecord, receipt: Receipt, print_: str, ask: RunStart, *, client_id: str | None
    ) -> Started:
        queued = receipt.as_ == "queued"
        origin = Origin(client_id=client_id, command_id=receipt.command_id)
        payloads: list[Payload] = [
            RunStarted(agent=record.agent, thread_id=record.thread_id),
            MessageCompleted(
                message_id=f"msg_{record.run_id}"[:64],
                role="user",
                text=input_text(ask),
                state="complete",
            ),
        ]
        if queued:
            text = "Waiting for the run before it in this thread"
            payloads.append(RunStatusChanged(status="queued", phase="waiting", text=text))
        ts = iso_ms(record.created_ms)
        events = tuple(
            event_bytes(
                seq=at, run_id=record.run_id, ts=ts, payload=payload, step_id=None, origin=origin if at == 1 else None
            )
            for at, payload in enumerate(payloads, start=1)
        )
        journal = [JournalRecord(kind="start", key=record.run_id, data=msgspec.json.encode(record))]
        if ask.client_tools and client_id is not None:
            offered = Offered(client_id=client_id, tools=ask.client_tools)
            journal.append(JournalRecord(kind="offer", key=client_id, data=msgspec.json.encode(offered)))
        stored = StoredReceipt(command_id=receipt.command_id, fingerprint=print_, data=msgspec.json.encode(receipt))
        batch = Batch(
            batch_id=new_id("b"),
            status="queued" if queued else "running",
            events=events,
            journal=tuple(journal),
            receipts=(stored,),
            wake_at=record.created_ms if queued else None,
        )
        try:
            created = await self._store.log.create(
                run, fingerprint=print_, batch=batch, owner=self._owner, lease_ms=self._limits.lease_ms
            )
        except StartConflict:
            raise _conflict() from None
        if not created.new or created.lease is None:
            command = Command(type=RunStart.TYPE, command_id=receipt.command_id, payload=ask)
            return await self._found(created.header, command, print_)
        state = RunState(run_id=record.run_id)
        for at, payload in enumerate(payloads, start=1):
            apply(state, at, payload, record.created_ms)
        for item in journal:
            apply_journal(state, item, live=False)
        apply_receipt(state, stored)
        loaded = Loaded(
            header=created.header, fingerprint=print_, journal=tuple(journal), receipts=(stored,), snapshot=None
        )
        return Started(receipt=receipt, fresh=Fresh(loaded=loaded, state=state, lease=created.lease))

    def _checked(self, ask: RunStart, resumed: Resumed | None) -> str:
        """The agent's name. Raises what is wrong with the request as a whole."""
        agent = resumed.agent if resumed is not None else ask.agent or self._agents.default
        rules = self._agents.rules(agent)
        if rules is None:
            raise UnknownAgent(f"there is no agent “{agent}”: one of {', '.join(self._agents.names())}")
        if len(input_text(ask).encode()) > self._limits.max_input_bytes:
            raise TooLarge(f"the input may have {self._limits.max_input_bytes} bytes of text")
        taken = [tool.name for tool in ask.client_tools or () if rules.is_server_tool(tool.name)]
        if taken:
            raise Conflict(f"the agent has its own tool of this name: {', '.join(taken)}")
        return agent

    async def _claim_command(
        self, principal: Principal, command: Command, run: str, *, made_by_client: bool
    ) -> str | None:
        """One command_id starts one run, or corrects one (then its id is returned). Raises `Conflict`.

        A derived run id follows from the command_id, so only an id of the client's making has to be written down.
        """
        kind, command_id = f"start.{namespace(principal.id)}", command.command_id
        found = await self._store.records.get(kind, command_id)
        if found is None and made_by_client:
            derived = store_key(principal.id, self._derived("run", principal, command))
            if await self._existing(derived) is not None:
                raise _reused()
            try:
                await self._store.records.put(kind, command_id, run.encode(), expect_version=0)
            except VersionConflict:
                found = await self._store.records.get(kind, command_id)
        if found is None or found.data == run.encode():
            return None
        if found.data.startswith(_CORRECTS.encode()):
            return found.data.decode().removeprefix(_CORRECTS)
        raise _reused()

    async def _existing(self, run: str) -> Header | None:
        page = await self._store.log.read(run, after=0, max_events=1)
        return page.header if isinstance(page, Reset) or page.header else None

    async def _found(self, header: Header, command: Command, print_: str) -> Started:
        """The run is there: the same request gets it, another is refused. Raises `Conflict`."""
        loaded = await self._store.log.load(header.run)
        assert loaded is not None
        if loaded.fingerprint != print_:
            raise _conflict()
        for stored in loaded.receipts:
            if stored.command_id == command.command_id:
                if stored.fingerprint != print_:
                    raise _conflict()
                return Started(receipt=msgspec.json.decode(stored.data, type=Receipt))
        first = own_event(await self._first(header.run))
        receipt = Receipt(
            command_id=command.command_id,
            run_id=first.run_id,
            thread_id=first.payload.thread_id,
            status="accepted",
            at_seq=1,
            as_="started",
        )
        return Started(receipt=receipt)

    async def _first(self, run: str) -> bytes:
        page = await self._store.log.read(run, after=0, max_events=1)
        assert not isinstance(page, Reset)
        return page.events[0]

    async def _place(self, space: str, thread_id: str, run_id: str, *, if_busy: str) -> Place:
        chosen: list[Place] = []
        active_ended: dict[str, bool] = {}
        while True:
            thread = await self._threads.get(space, thread_id)
            if thread.active is not None and thread.active not in active_ended:
                active_ended[thread.active] = await self._threads.over(f"{space}.{thread.active}")

            def change(now: Thread) -> Thread:
                known = now.active is None or now.active in active_ended
                if not known:
                    raise _Moved
                over = now.active is not None and active_ended[now.active]
                after, place = decide_thread(now, run_id, if_busy=if_busy, active_ended=over)
                chosen[:] = [place]
                return after

            try:
                await self._threads.update(space, thread_id, change)
            except _Moved:
                continue
            return chosen[0]

    def _derived(self, prefix: str, principal: Principal, command: Command) -> str:
        return derived_id(prefix, key=self._key, principal_id=principal.id, command_id=command.command_id)


class _Moved(Exception):
    """Another run took the thread in between: look at that one first."""


_CORRECTS: Final = "correct:"
"""Of a command's record: it corrected this run. A store key never has a colon."""


def _corrects(command: Command, run_id: str) -> Started:
    return Started(receipt=Receipt(command_id=command.command_id, status="accepted"), correct=run_id)


def text_only() -> ProtocolError:
    """The refusal of `if_busy: correct` with an input that is more than words."""
    return Conflict("only text can correct a run, and no resume: say if_busy: queue or parallel")


def _reused() -> ProtocolError:
    return Conflict("this command_id has started another run: make a new id for each command")


def _conflict() -> ProtocolError:
    return Conflict("a run of this id was started by another request: use a new id")


def input_text(ask: RunStart) -> str:
    """The words of an input, for people."""
    if ask.input is None:
        return GO_ON
    if isinstance(ask.input, str):
        return ask.input
    return "\n".join(block.text for block in ask.input if isinstance(block, TextBlock))
