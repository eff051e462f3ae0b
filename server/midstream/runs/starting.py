"""Starting a run: once, however often it is asked for. The run's existence in the log is the idempotency; nothing is
remembered before it, so a start that was cut off anywhere is finished by being sent again.
"""

import hashlib
import secrets
from collections.abc import Callable, Sequence
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
    RecordWrite,
    StartConflict,
    Store,
    StoredReceipt,
    VersionConflict,
)
from midstream.runs.apply import apply, apply_journal, apply_receipt
from midstream.runs.contract import GO_ON, Agents, Limits, Offered, Principal, StartRecord
from midstream.runs.keys import derived_id, namespace, store_key
from midstream.runs.listing import listed
from midstream.runs.resuming import resumed_by
from midstream.runs.state import RunState
from midstream.runs.threads import Place, Seen, Thread, Threads, decide_thread
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

OnCreate = Callable[[str, StartRecord], Sequence[RecordWrite]]
"""What is to be written in the step that makes a run, by its store key and first record."""

_TRIES: Final = 20
"""How often a start is decided again because something of it changed meanwhile."""

_json: Final = msgspec.json.Encoder()
_ordered: Final = msgspec.json.Encoder(order="deterministic")


class Fresh(Struct, kw_only=True, frozen=True):
    """A run that was made just now, ready for its actor."""

    loaded: Loaded
    record: StartRecord
    state: RunState
    lease: Lease
    events: Sequence[bytes]
    """What was written of it."""


class Started(Struct, kw_only=True, frozen=True):
    """What came of a start. `fresh` None: the run was there already. `correct`: the run to correct instead."""

    receipt: Receipt
    fresh: Fresh | None = None
    correct: str | None = None


class _Asked(Struct, kw_only=True, frozen=True):
    """A start whose request makes sense, with all its names."""

    principal: Principal
    command_id: str
    client_id: str | None
    ask: RunStart
    agent: str
    run_id: str
    thread_id: str
    space: str
    fingerprint: str

    @property
    def run(self) -> str:
        return f"{self.space}.{self.run_id}"

    @property
    def claims(self) -> str:
        """The kind of record in which commands are written down that name what they start."""
        return f"start.{self.space}"


class Starter:
    """`owner` and `key` are this server's; see keys.py. `on_create` gives what is to be written with a new run."""

    def __init__(
        self,
        *,
        store: Store,
        agents: Agents,
        limits: Limits,
        clock: Clock,
        threads: Threads,
        owner: str,
        key: bytes,
        on_create: OnCreate | None = None,
    ) -> None:
        self._store = store
        self._agents = agents
        self._limits = limits
        self._clock = clock
        self._threads = threads
        self._owner = owner
        self._key = key
        self._on_create = on_create

    async def start(
        self,
        principal: Principal,
        command: Command,
        *,
        client_id: str | None,
        room: Callable[[], None],
        lost: str | None = None,
    ) -> Started:
        """Make the run, or find it. Raises `ProtocolError` (nothing was made), `LogError`.

        `room` raises if there may be no further run now. `lost`: the run that this start was to correct, which takes no
        corrections any more.
        """
        asked = await self._checked(principal, command, client_id=client_id)
        if lost is None:
            # Most starts are new in every respect. The store itself tells when one is not, in the step that makes it.
            made = await self._make_unseen(asked, room)
            if made is not None:
                return made
        for _ in range(_TRIES):
            claim = await self._claim(asked)
            if claim.corrected is not None and claim.corrected != lost:
                return _corrects(asked, claim.corrected)
            try:
                if (existing := await self._existing(asked.run)) is not None:
                    return await self._again(existing, asked, claim)
                room()
                with self._threads.making.start(asked.run):
                    made = await self._make(asked, claim, lost=lost)
            except VersionConflict:
                continue
            if made is not None:
                return made
        raise Busy("this thread is changing too fast: try again")

    async def _make_unseen(self, asked: _Asked, room: Callable[[], None]) -> Started | None:
        """Make the run without looking whether it is there. None: something stands against it, nothing was made."""
        try:
            room()
            with self._threads.making.start(asked.run):
                if asked.ask.run_id is None:
                    claim = _Claim(write=_claims_nothing(asked))
                elif await self._existing(store_key(asked.principal.id, self._derived("run", asked))) is None:
                    claim = _Claim(write=_claims_run(asked, version=0))
                else:
                    return None
                return await self._make(asked, claim, lost=None, unseen=True)
        except (VersionConflict, Busy, QuotaExceeded):
            return None

    async def _again(self, existing: Header, asked: _Asked, claim: "_Claim") -> Started:
        """The run is there. Raises `Conflict`, `VersionConflict`."""
        found = await self._found(existing, asked)
        if claim.write is not None and claim.write.data is not None:
            await self._store.records.put(
                asked.claims, asked.command_id, claim.write.data, expect_version=claim.write.expect_version
            )
        return found

    async def _make(self, asked: _Asked, claim: "_Claim", *, lost: str | None, unseen: bool = False) -> Started | None:
        """Find the run its place and make it, in one step. None: it is there already.

        Raises `VersionConflict`: something changed meanwhile.
        """
        ask = asked.ask
        if unseen and ask.thread_id is None and ask.resume is None:
            seen = Seen(version=0, thread=Thread())
        else:
            seen = await self._threads.see(asked.space, asked.thread_id, fresh=not unseen)
        active = seen.thread.active
        over = active is not None and active != asked.run_id and await self._threads.over(f"{asked.space}.{active}")
        after, place = decide_thread(seen.thread, asked.run_id, if_busy=ask.if_busy or "reject", active_ended=over)
        if place.kind == "correct":
            return await self._correct(asked, place, claim, lost=lost)
        change = None if after == seen.thread else self._threads.change(asked.space, asked.thread_id, after, seen)
        # Remembered again only when it is certain how it went.
        self._threads.forget_seen(asked.space, asked.thread_id)
        started = await self._create(asked, place, [] if claim.write is None else [claim.write], change)
        if change is not None and started is not None:
            self._threads.written(asked.space, asked.thread_id, after, version=seen.version + 1)
        return started

    async def _correct(self, asked: _Asked, place: Place, claim: "_Claim", *, lost: str | None) -> Started:
        assert place.active is not None
        if not isinstance(asked.ask.input, str) or asked.ask.resume is not None:
            raise text_only()
        if place.active == lost:
            raise Busy("the run of this thread is about to end: send the start again in a moment")
        # Written down before it is done: the same start, sent again when that run is over, must not start another.
        corrects = f"{CORRECTS}{place.active}".encode()
        await self._store.records.put(asked.claims, asked.command_id, corrects, expect_version=claim.version)
        return _corrects(asked, place.active)

    async def _create(
        self, asked: _Asked, place: Place, records: list[RecordWrite], thread: RecordWrite | None
    ) -> Started | None:
        ask, created_ms = asked.ask, self._clock.now_ms()
        record = StartRecord(
            run_id=asked.run_id,
            thread_id=asked.thread_id,
            agent=asked.agent,
            principal=asked.principal,
            input=GO_ON if ask.input is None else ask.input,
            secret=secrets.token_hex(32),
            created_ms=created_ms,
            client_id=asked.client_id,
            limits=ask.limits,
            metadata=ask.metadata,
            previous=place.previous,
            resume=None if ask.resume is None else ask.resume.run_id,
            title=place.title,
            on_abandon=ask.on_abandon,
            on_lag=ask.on_lag,
            webhook=ask.webhook,
        )
        queued = place.kind == "queued"
        receipt = Receipt(
            command_id=asked.command_id,
            run_id=asked.run_id,
            thread_id=asked.thread_id,
            status="accepted",
            at_seq=1,
            as_="queued" if queued else "started",
        )
        payloads, events = _first_events(record, asked, queued=queued)
        journal = [JournalRecord(kind="start", key=record.run_id, data=_json.encode(record))]
        if ask.client_tools and asked.client_id is not None:
            offered = Offered(client_id=asked.client_id, tools=ask.client_tools)
            journal.append(JournalRecord(kind="offer", key=asked.client_id, data=_json.encode(offered)))
        stored = StoredReceipt(command_id=receipt.command_id, fingerprint=asked.fingerprint, data=_json.encode(receipt))
        if thread is not None:
            records.append(thread)
        records.append(listed(asked.space, run_id=asked.run_id, thread_id=asked.thread_id, created_ms=created_ms))
        if self._on_create is not None:
            records += self._on_create(asked.run, record)
        batch = Batch(
            batch_id=new_id("b"),
            status="queued" if queued else "running",
            events=events,
            journal=tuple(journal),
            receipts=(stored,),
            wake_at=created_ms if queued else None,
            records=tuple(records),
        )
        try:
            created = await self._store.log.create(
                asked.run,
                fingerprint=asked.fingerprint,
                batch=batch,
                owner=self._owner,
                lease_ms=self._limits.lease_ms,
            )
        except StartConflict:
            raise _conflict() from None
        if not created.new or created.lease is None:
            return None
        state = RunState(run_id=record.run_id)
        for at, (payload, data) in enumerate(zip(payloads, events, strict=True), start=1):
            apply(state, at, payload, record.created_ms, size=len(data))
        for item in journal:
            apply_journal(state, item, live=False)
        apply_receipt(state, stored)
        loaded = Loaded(
            header=created.header,
            fingerprint=asked.fingerprint,
            journal=batch.journal,
            receipts=batch.receipts,
            snapshot=None,
        )
        fresh = Fresh(loaded=loaded, record=record, state=state, lease=created.lease, events=events)
        return Started(receipt=receipt, fresh=fresh)

    async def _checked(self, principal: Principal, command: Command, *, client_id: str | None) -> _Asked:
        """Raises what is wrong with the request as a whole."""
        ask = command.payload
        assert isinstance(ask, RunStart)
        resumed = await resumed_by(ask, principal_id=principal.id, log=self._store.log) if ask.resume else None
        agent = resumed.agent if resumed is not None else ask.agent or self._agents.default
        rules = self._agents.rules(agent)
        if rules is None:
            raise UnknownAgent(f"there is no agent “{agent}”: one of {', '.join(self._agents.names())}")
        if len(input_text(ask).encode()) > self._limits.max_input_bytes:
            raise TooLarge(f"the input may have {self._limits.max_input_bytes} bytes of text")
        taken = [tool.name for tool in ask.client_tools or () if rules.is_server_tool(tool.name)]
        if taken:
            raise Conflict(f"the agent has its own tool of this name: {', '.join(taken)}")

        def derived(prefix: str) -> str:
            return derived_id(prefix, key=self._key, principal_id=principal.id, command_id=command.command_id)

        return _Asked(
            principal=principal,
            command_id=command.command_id,
            client_id=client_id,
            ask=ask,
            agent=agent,
            run_id=ask.run_id or derived("run"),
            thread_id=ask.thread_id or (resumed.thread_id if resumed is not None else derived("thread")),
            space=namespace(principal.id),
            fingerprint=hashlib.sha256(_ordered.encode(ask)).hexdigest(),
        )

    async def _claim(self, asked: _Asked) -> "_Claim":
        """What the start's command was used for. One command_id starts one run, or corrects one. Raises `Conflict`.

        A derived run id follows from the command_id, so only an id of the client's making has to be written down.
        """
        found = await self._store.records.get(asked.claims, asked.command_id)
        if found is None:
            if asked.ask.run_id is None:
                return _Claim(write=_claims_nothing(asked))
            if await self._existing(store_key(asked.principal.id, self._derived("run", asked))) is not None:
                raise _reused()
            return _Claim(write=_claims_run(asked, version=0))
        if found.data == asked.run.encode():
            return _Claim(version=found.version)
        if found.data.startswith(CORRECTS.encode()):
            return _Claim(
                corrected=found.data.decode().removeprefix(CORRECTS),
                version=found.version,
                write=_claims_run(asked, version=found.version),
            )
        raise _reused()

    async def _existing(self, run: str) -> Header | None:
        return (await self._store.log.read(run, after=0, max_events=1)).header

    async def _found(self, header: Header, asked: _Asked) -> Started:
        """The run is there: the same request gets it, another is refused. Raises `Conflict`."""
        loaded = await self._store.log.load(header.run)
        assert loaded is not None
        if loaded.fingerprint != asked.fingerprint:
            raise _conflict()
        for stored in loaded.receipts:
            if stored.command_id == asked.command_id:
                if stored.fingerprint != asked.fingerprint:
                    raise _conflict()
                return Started(receipt=msgspec.json.decode(stored.data, type=Receipt))
        record = msgspec.json.decode(loaded.journal[0].data, type=StartRecord)
        receipt = Receipt(
            command_id=asked.command_id,
            run_id=record.run_id,
            thread_id=record.thread_id,
            status="accepted",
            at_seq=1,
            as_="started",
        )
        return Started(receipt=receipt)

    def _derived(self, prefix: str, asked: _Asked) -> str:
        return derived_id(prefix, key=self._key, principal_id=asked.principal.id, command_id=asked.command_id)


class _Claim(Struct, kw_only=True, frozen=True):
    """`corrected`: the command corrected that run instead. `version`: of its record (0: there is none). `write`: what
    is written about it with the run that it makes.
    """

    corrected: str | None = None
    version: int = 0
    write: RecordWrite | None = None


def _claims_nothing(asked: _Asked) -> RecordWrite:
    """That there is no record of the command, and will be none."""
    return RecordWrite(kind=asked.claims, id=asked.command_id, data=None, expect_version=0)


def _claims_run(asked: _Asked, *, version: int) -> RecordWrite:
    return RecordWrite(kind=asked.claims, id=asked.command_id, data=asked.run.encode(), expect_version=version)


def _first_events(record: StartRecord, asked: _Asked, *, queued: bool) -> tuple[list[Payload], tuple[bytes, ...]]:
    payloads: list[Payload] = [
        RunStarted(agent=record.agent, thread_id=record.thread_id),
        MessageCompleted(
            message_id=f"msg_{record.run_id}"[:64], role="user", text=input_text(asked.ask), state="complete"
        ),
    ]
    if queued:
        text = "Waiting for the run before it in this thread"
        payloads.append(RunStatusChanged(status="queued", phase="waiting", text=text))
    origin = Origin(client_id=asked.client_id, command_id=asked.command_id)
    ts = iso_ms(record.created_ms)
    events = [
        event_bytes(
            seq=at, run_id=record.run_id, ts=ts, payload=payload, step_id=None, origin=origin if at == 1 else None
        )
        for at, payload in enumerate(payloads, start=1)
    ]
    return payloads, tuple(events)


CORRECTS: Final = "correct:"
"""Of a command's record: it corrected this run. A store key never has a colon."""


def _corrects(asked: _Asked, run_id: str) -> Started:
    return Started(receipt=Receipt(command_id=asked.command_id, status="accepted"), correct=run_id)


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
