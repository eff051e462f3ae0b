"""The registry: the one door to runs. Commands go to a run's actor; reads go to its feed and the log.

A run without an actor - ended, or waiting since before a restart - is woken when a command needs it, and read straight
from the log.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from typing import Any, Final

import msgspec

from midstream.clock import Clock
from midstream.log import Header, LogError, NoSuchRun, Reset, Store
from midstream.logs import Logger
from midstream.runs.attachment import (
    Attachment,
    Place,
    ResetReason,
    Standing,
    asked,
    reset_frame,
    reset_reason,
    standing_of,
)
from midstream.runs.census import census
from midstream.runs.commands import Door, decide_command, fingerprint, refused
from midstream.runs.contract import NO_RULES, Agents, Limits, Principal, Stopping
from midstream.runs.dead_letters import DeadLetters
from midstream.runs.erasing import Erasing
from midstream.runs.inputs import Asked, Offer
from midstream.runs.keys import namespace, server_key, store_key
from midstream.runs.late import LateReceipts
from midstream.runs.listing import Entry, Listed, RunList, shown
from midstream.runs.recent import RecentCommands
from midstream.runs.replay import Views, load_state, own_event
from midstream.runs.retention import Retention
from midstream.runs.starting import OnCreate, Starter, text_only
from midstream.runs.subscription import Subscription, Watch, Window
from midstream.runs.supervisor import Supervisor, start_record
from midstream.runs.tail import Feed
from midstream.runs.taps import Taps
from midstream.runs.threads import Thread, queue_position
from midstream.tasks import spawn, stop
from midstream.telemetry import Census, count_events, count_reset, observe_first_event
from midstream_protocol.codec import iso_ms
from midstream_protocol.commands import ClientTool, Command, RunCorrect, RunStart
from midstream_protocol.errors import (
    Conflict,
    Draining,
    NotFound,
    ProtocolError,
    QuotaExceeded,
    RunEnded,
    Unavailable,
)
from midstream_protocol.events import TERMINAL_STATUSES, RunStarted
from midstream_protocol.frames import Receipt, RunReset
from midstream_protocol.view import View

_log = Logger("midstream.runs")

_TRIES: Final = 3
"""How often a command is routed again when the actor it was sent to has just ended."""


class Registry:
    """All methods on one event loop. Open before use; `drain`, then `aclose`."""

    def __init__(
        self, *, store: Store, agents: Agents, limits: Limits, clock: Clock, on_create: OnCreate | None = None
    ) -> None:
        """`on_create` gives records that are to be written in the step that makes a run."""
        self._store = store
        self._on_create = on_create
        self._agents = agents
        self._limits = limits
        self._clock = clock
        self._views = Views(store.log)
        self._living = Supervisor(store=store, agents=agents, limits=limits, clock=clock, parked=self._views.forget)
        self._recent = RecentCommands()
        self._late = LateReceipts(store.records)
        self._list = RunList(store.records)
        self.grants: Final = self._living.grants
        """What principals approved beyond one run; each has its own (`keys.namespace`)."""
        self.dead_letters: Final = DeadLetters(records=store.records, limits=limits, clock=clock)
        """What was tried and given up, in the same way."""
        self._erasing = Erasing(
            store=store,
            living=self._living,
            views=self._views,
            late=self._late,
            dead_letters=self.dead_letters,
            clock=clock,
        )
        self._retention: asyncio.Task[None] | None = None
        self._dropping: asyncio.Task[None] | None = None
        self._starter: Starter | None = None

    # -- life

    async def open(self) -> None:
        """Open the store and take up every run that was under way. Raises `StoreInUse`, `LogUnavailable`."""
        await self._store.open()
        self._starter = Starter(
            store=self._store,
            agents=self._agents,
            limits=self._limits,
            clock=self._clock,
            threads=self._living.threads,
            on_create=self._on_create,
            owner=self._living.owner,
            key=await server_key(self._store.records),
        )
        await self._erasing.open()
        await self._living.open()
        retention = Retention(
            records=self._store.records,
            limits=self._limits,
            clock=self._clock,
            delete=self._erasing.delete_ended,
            compact=self._erasing.compact,
        )
        self._retention = spawn(retention.keep_looking(), name="runs/retention")
        self._dropping = spawn(self.dead_letters.keep_looking(), name="runs/dead-letters")

    async def drain(self, grace_s: float | None = None) -> None:
        """Refuse new runs, let running turns reach a safe point, hand every run over. What is not done by then is
        stopped where it is; the next server tells the truth about it.
        """
        await self._living.drain(self._limits.drain_grace_s if grace_s is None else grace_s)
        await stop(self._dropping)

    async def aclose(self) -> None:
        if not self.draining:
            await self.drain(0)
        await stop(self._retention, self._dropping)
        await self._erasing.aclose()
        await self._store.aclose()

    @property
    def draining(self) -> bool:
        return self._living.draining

    @property
    def taps(self) -> Taps:
        """Who looks at all runs as they go."""
        return self._living.taps

    @property
    def live_runs(self) -> int:
        """Runs with an actor in this process."""
        return len(self._living.actors)

    def census(self) -> Census:
        """What there is at the moment, for who watches this server."""
        return census(self._living.actors.values(), self._living.feeds)

    @property
    def missing_agents(self) -> dict[str, str]:
        """Runs that wait for an agent which this server does not have: store key → agent."""
        return dict(self._living.missing_agents)

    # -- commands

    async def start(self, principal: Principal, command: Command, *, client_id: str | None) -> Receipt:
        """Settle a `run.start`: a receipt, whatever comes of it."""
        assert self._starter is not None
        began = perf_counter()
        room = partial(self._room, namespace(principal.id))
        try:
            if self.draining:
                raise Draining("this server is going down: start the run again in a moment")
            started = await self._starter.start(principal, command, client_id=client_id, room=room)
            while (corrected := started.correct) is not None:
                receipt = await self._correct_instead(principal, command, corrected, client_id=client_id)
                if receipt.code not in (RunEnded.code, NotFound.code):
                    return receipt
                # The run ended before it could be corrected, or was never made: whoever has its thread now is
                # corrected, or nobody has, and the start is one.
                self._recent.forget(principal.id, command.command_id)
                started = await self._starter.start(principal, command, client_id=client_id, room=room, lost=corrected)
        except (ProtocolError, LogError) as error:
            return refused(command, _wire(error))
        if (made := started.fresh) is not None:
            observe_first_event(perf_counter() - began)
            count_events(len(made.events), sum(map(len, made.events)))
            if self.taps:
                # No actor has written these, so no feed publishes them.
                self.taps.published(made.loaded.header.run, made.state.run_id, made.events)
            if not self.draining:
                actor = self._living.take_up(made.loaded, made.state, made.lease, recovered=None, record=made.record)
                actor.feed.recall(made.events)
        return started.receipt

    def _room(self, space: str) -> None:
        """Raises `QuotaExceeded` if there may be no further run of this principal now."""
        making, limits = self._living.threads.making, self._limits
        if self.live_runs + len(making) >= limits.max_live_runs:
            raise QuotaExceeded("this server has as many runs as it may have: try again when one has ended")
        most = limits.max_runs_per_user
        if most and self._living.live_of[space] + making.of(space) >= most:
            raise QuotaExceeded(
                f"you have {most} runs under way, as many as one user may have here: wait for one to end, or cancel one"
            )

    async def submit(self, principal: Principal, command: Command, *, client_id: str | None) -> Receipt:
        """Settle any other command to a run: a receipt, whatever comes of it."""
        try:
            return await self._submit(principal, command, client_id=client_id)
        except (ProtocolError, LogError) as error:
            return refused(command, _wire(error))

    async def offer(self, principal: Principal, run_id: str, *, client_id: str, tools: Sequence[ClientTool]) -> None:
        """That client hosts these tools from now on. Raises `NotFound`, `Conflict`, `RunEnded`, `Unavailable`."""
        run = store_key(principal.id, run_id)
        try:
            for _ in range(_TRIES):
                header = await self._living.header(run)
                if header.status in TERMINAL_STATUSES:
                    raise RunEnded("the run has ended: no call will come")
                actor = await self._living.awake(run)
                if actor is None:
                    break
                rules = self._agents.rules(actor.start.agent) or NO_RULES
                taken = [tool.name for tool in tools if rules.is_server_tool(tool.name)]
                if taken:
                    raise Conflict(f"the agent has its own tool of this name: {', '.join(taken)}")
                reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
                actor.mailbox.put_control(Offer(client_id=client_id, tools=tuple(tools)), reply=reply)
                try:
                    await reply
                except Stopping:
                    if self.draining:
                        break
                    # It ended, or was parked, with the offer still in its mailbox.
                    await self._living.settled(run)
                else:
                    return
        except LogError as error:
            raise _wire(error) from error
        raise self._not_now()

    async def delete(self, principal: Principal, run_id: str) -> None:
        """Erase a run that has ended, and all that was kept beside it; who reads it is told that it is gone.

        Raises `NotFound`, `RunActive`, `Unavailable`.
        """
        try:
            await self._erasing.delete(store_key(principal.id, run_id))
        except LogError as error:
            raise _wire(error) from error

    async def _submit(self, principal: Principal, command: Command, *, client_id: str | None) -> Receipt:
        assert command.run_id is not None
        run = store_key(principal.id, command.run_id)
        asked = Asked(command=command, principal=principal, client_id=client_id, fingerprint=fingerprint(command))
        for _ in range(_TRIES):
            actor = self._living.actors.get(run)
            if actor is None or actor.ended:
                # An actor that has ended waits for its program; nobody has to wait with it.
                await self._living.threads.making.over(run)
                header = await self._living.header(run)
                if header.status in TERMINAL_STATUSES:
                    self._recent.note(principal.id, command.command_id, run)
                    return await self._after_end(principal, asked, header)
                actor = await self._living.awake(run)
                if actor is None:
                    break
            # Only now: of a run that does not exist there is nothing to be confused with.
            self._recent.note(principal.id, command.command_id, run)
            reply: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
            actor.mailbox.put_control(asked, reply=reply)
            try:
                return await reply
            except Stopping:
                # The actor ended with the command still in its mailbox: the run's end answers it.
                await self._living.settled(run)
        raise self._not_now()

    def _not_now(self) -> ProtocolError:
        if self.draining:
            return Draining("this server is going down: send the command again, with the same id, in a moment")
        return Unavailable("the run cannot be taken up now: send the command again, with the same id")

    async def _after_end(self, principal: Principal, asked: Asked, header: Header) -> Receipt:
        """A command to a run that is over: its receipts and its state still answer."""
        command = asked.command
        loaded = await self._store.log.load(header.run)
        if loaded is None:
            raise NotFound("there is no such run")
        record = start_record(loaded)
        payload = command.payload
        known = any(receipt.command_id == command.command_id for receipt in loaded.receipts)
        if not known and (told := await self._late.find(header.run, asked)) is not None:
            return told
        if isinstance(payload, RunCorrect) and payload.if_ended == "start" and not known:
            start = RunStart(input=payload.text, agent=record.agent, thread_id=record.thread_id)
            again = Command(type=RunStart.TYPE, command_id=command.command_id, payload=start)
            return await self.start(principal, again, client_id=asked.client_id)
        state = await load_state(self._store.log, loaded, run_id=record.run_id)
        door = Door(
            state=state,
            rules=self._agents.rules(record.agent) or NO_RULES,
            limits=self._limits,
            now_ms=self._clock.now_ms(),
            secret=bytes.fromhex(record.secret),
        )
        decision = decide_command(door, asked)
        assert decision.receipt is not None
        if known or decision.remember is None:
            return decision.receipt
        receipt = await self._late.keep(header.run, asked, decision.receipt)
        if await self._store.log.load(header.run) is None:
            # Erased meanwhile, and this would be left of it.
            await self._late.forget(header.run)
            raise NotFound("there is no such run, or it is not yours")
        return receipt

    async def _correct_instead(
        self, principal: Principal, command: Command, run_id: str, *, client_id: str | None
    ) -> Receipt:
        """`if_busy: correct`: the input becomes a correction of the run that is under way."""
        payload = command.payload
        assert isinstance(payload, RunStart)
        if not isinstance(payload.input, str):
            return refused(command, text_only())
        correction = Command(
            type=RunCorrect.TYPE, command_id=command.command_id, run_id=run_id, payload=RunCorrect(text=payload.input)
        )
        receipt = await self.submit(principal, correction, client_id=client_id)
        return msgspec.structs.replace(receipt, as_="corrected") if receipt.status == "accepted" else receipt

    # -- reading

    async def attach(
        self,
        principal: Principal,
        run_id: str,
        *,
        wake: Callable[[], None],
        since_seq: int = 0,
        epoch: str | None = None,
        replay: str = "full",
    ) -> Attachment:
        """A place in the run from `since_seq` on. Raises `NotFound`, `QuotaExceeded`, `Unavailable`."""
        run = store_key(principal.id, run_id)
        try:
            while True:
                feed, first_seq, known = await self._found(run)
                head = feed.head
                position = None
                if known.status == "queued":
                    thread = await self._living.threads.get(namespace(principal.id), known.thread_id)
                    position = queue_position(thread, feed.run_id)
                reason = reset_reason(
                    head_seq=feed.head,
                    epoch=feed.epoch,
                    first_seq=first_seq,
                    since_seq=since_seq,
                    asked_epoch=epoch,
                    replay=replay,
                    limits=self._limits,
                )
                view = await self._view_now(feed) if reason is not None else None
                # A feed that nobody listened to may have been let go meanwhile: nothing would come through it.
                if self._living.holds(feed) and (feed.head == head or feed.status is not None):
                    break
        except LogError as error:
            raise _wire(error) from error
        # From here to the subscription nothing waits, so no event falls between them.
        self._admit(feed)
        standing = _told(feed) or known
        reset = None
        if view is not None and reason is not None:
            count_reset(reason)
            reset = reset_frame(view, epoch=feed.epoch, reason=reason)
        return Attachment(
            standing=standing,
            epoch=feed.epoch,
            head_seq=feed.head,
            first_seq=first_seq,
            now_ms=self._clock.now_ms(),
            steerable=(self._agents.rules(standing.agent) or NO_RULES).steerable,
            queue_position=position,
            reset=reset,
            subscription=Subscription(
                feed=feed,
                log=self._store.log,
                cursor=since_seq if reset is None else feed.head,
                wake=wake,
                merge_until=feed.head if replay == "merged" else 0,
                window=Window(events=self._limits.max_replay_events, size=self._limits.max_replay_bytes),
                resync=lambda reason: self._resync(feed, reason),
            ),
        )

    async def watch(self, principal: Principal, run_id: str, *, wake: Callable[[], None]) -> Watch:
        """Be told when the run moves, without reading it. Raises `NotFound`, `QuotaExceeded`, `Unavailable`."""
        try:
            while True:
                feed, _ = await self._reached(store_key(principal.id, run_id))
                if self._living.holds(feed):
                    self._admit(feed)
                    return Watch(feed=feed, wake=wake)
        except LogError as error:
            raise _wire(error) from error

    async def view(self, principal: Principal, run_id: str) -> View:
        """The run as it is now: the fold of its events and nothing else. Raises `NotFound`, `Unavailable`."""
        try:
            feed, _ = await self._reached(store_key(principal.id, run_id))
            return await self._view_now(feed)
        except LogError as error:
            raise _wire(error) from error

    async def place(self, principal: Principal, run_id: str) -> Place:
        """Where the run is now, which costs less than its view. Raises `NotFound`, `Unavailable`."""
        try:
            feed, _, known = await self._found(store_key(principal.id, run_id))
        except LogError as error:
            raise _wire(error) from error
        return Place(epoch=feed.epoch, head_seq=feed.head, status=known.status)

    async def thread(self, principal: Principal, thread_id: str) -> Thread:
        """The thread as it is now. Raises `NotFound` for one never used, `Unavailable`."""
        try:
            found = await self._living.threads.find(namespace(principal.id), thread_id)
        except LogError as error:
            raise _wire(error) from error
        if found is None:
            raise NotFound("there is no such thread, or it is not yours")
        return found

    async def list_runs(
        self,
        principal: Principal,
        *,
        status: str | None = None,
        thread_id: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> tuple[list[Listed], str | None]:
        """Runs of this principal, newest first, and where the next page begins.

        Raises `Unavailable`.
        """
        found: list[Listed] = []
        space = namespace(principal.id)
        limit = max(1, limit)
        while True:
            try:
                entries = await self._list.page(space, after=cursor, limit=limit)
            except LogError as error:
                raise _wire(error) from error
            for entry in entries:
                cursor = entry.id
                if thread_id is not None and entry.thread_id != thread_id:
                    continue
                try:
                    if not await self._is_start_of(entry, store_key(principal.id, entry.run_id)):
                        continue
                    view = await self.view(principal, entry.run_id)
                except NotFound:
                    # Listed, then never created: the start was not finished.
                    continue
                except LogError as error:
                    raise _wire(error) from error
                if status is None or view.status == status:
                    found.append(shown(entry, view))
                if len(found) == limit:
                    return found, cursor
            if len(entries) < limit:
                return found, None

    async def _is_start_of(self, entry: Entry, run: str) -> bool:
        """Whether the run was made by the start that wrote this entry, and not by the one that was sent again later."""
        page = await self._store.log.read(run, after=0, max_events=1)
        return isinstance(page, Reset) or own_event(page.events[0]).ts == iso_ms(entry.created_ms)

    def _admit(self, feed: Feed) -> None:
        if feed.readers >= self._limits.max_readers:
            raise QuotaExceeded(f"{feed.readers} are attached to this run, as many as may be: try again later")

    async def _reached(self, run: str) -> tuple[Feed, Header | None]:
        """The run's feed; the header is None where nothing had to be read. Raises `NotFound`, `LogError`."""
        actor = self._living.actors.get(run)
        if actor is not None and not actor.feed.ended and self._living.holds(actor.feed):
            return actor.feed, None
        return await self._living.feed(run)

    async def _found(self, run: str) -> tuple[Feed, int, Standing]:
        """The run's feed, its first seq, and how it stands at the feed's head. Raises `NotFound`, `LogError`."""
        while True:
            feed, header = await self._reached(run)
            # A live run is never trimmed.
            first_seq = 1 if header is None else header.first_seq
            if (known := _told(feed)) is not None:
                return feed, first_seq, known
            if header is not None and header.status in TERMINAL_STATUSES:
                page = await self._store.log.read(run, after=0, max_events=1)
                if not isinstance(page, Reset) and isinstance(began := own_event(page.events[0]).payload, RunStarted):
                    standing = Standing(thread_id=began.thread_id, agent=began.agent, status=header.status)
                    return feed, first_seq, standing
            if not feed.ended or feed.head == (header.head_seq if header is not None else 0):
                return feed, first_seq, standing_of(await self._view_now(feed))
            # It ended while its header was on its way.

    async def _view_now(self, feed: Feed) -> View:
        """The view at the feed's head: nothing waits between the last look at the head and the return."""
        while True:
            view = self._views.known(feed.run, epoch=feed.epoch)
            if view is not None and view.cursor.seq >= feed.head:
                return view
            rest = None
            if view is not None:
                rest = feed.slice(view.cursor.seq, max_events=feed.head, max_bytes=1 << 30)
            elif feed.first == 1:
                rest = feed.slice(0, max_events=feed.head, max_bytes=1 << 30)
            if rest:
                return self._views.extend(feed.run, view, rest, epoch=feed.epoch)
            view = await self._views.at(feed.run, epoch=feed.epoch, head=feed.head)
            if view.cursor.seq >= feed.head:
                return view

    async def _resync(self, feed: Feed, reason: ResetReason) -> RunReset:
        """For a reader that cannot go on from its cursor."""
        view = await self._view_now(feed)
        count_reset(reason)
        return reset_frame(view, epoch=feed.epoch, reason=reason)


def _told(feed: Feed) -> Standing | None:
    """How the run stands, as its writer said; None: none of this process has."""
    if feed.status is None:
        return None
    return Standing(thread_id=feed.thread_id, agent=feed.agent, status=feed.status, pending=asked(feed.questions))


def _wire(error: ProtocolError | LogError) -> ProtocolError:
    """What a client is told when the store fails: nothing about the store."""
    if isinstance(error, ProtocolError):
        return error
    if isinstance(error, NoSuchRun):
        # Erased while it was looked at.
        return NotFound("there is no such run, or it is not yours")
    _log.warning("the store failed", error=str(error))
    return Unavailable("the log cannot be used now: try again in a moment")
