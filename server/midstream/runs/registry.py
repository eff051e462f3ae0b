"""The registry: the one door to runs. Starts them, finds them, takes them up again, and hands them over at the end.

Commands go to the run's actor; reads go to its feed and the log. A run without an actor - ended, or waiting since
before a restart - is woken when a command needs it, and read straight from the log.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
import structlog

from midstream.clock import Clock
from midstream.log import Header, JournalRecord, Lease, Loaded, LogError, LogUnavailable, Store
from midstream.runs.actor import Actor
from midstream.runs.attachment import Attachment, fresh, reset_frame, reset_reason
from midstream.runs.commands import Door, decide_command, fingerprint, refused
from midstream.runs.contract import Agents, Limits, Principal, StartRecord, Stopping
from midstream.runs.keys import namespace, server_key, store_key
from midstream.runs.listing import RunList
from midstream.runs.replay import Views, load_state
from midstream.runs.starting import Starter
from midstream.runs.state import Asked, Dequeued, Offer, Recovered, RunState
from midstream.runs.subscription import Subscription
from midstream.runs.tail import Feed
from midstream.runs.threads import Threads, ended, promoted, queue_position
from midstream.tasks import spawn, stop
from midstream_protocol.commands import ClientTool, Command, RunCorrect, RunStart
from midstream_protocol.errors import Conflict, Draining, NotFound, ProtocolError, RunEnded, Unavailable
from midstream_protocol.events import TERMINAL_STATUSES
from midstream_protocol.frames import Receipt
from midstream_protocol.ids import new_id
from midstream_protocol.view import View

_log = structlog.get_logger("midstream.runs")

_SWEEP_S: Final = 1.0
"""How often runs are looked for that are due: a waiting run's timer, or a run whose owner is gone."""

_TRIES: Final = 3
"""How often a command is routed again when the actor it was sent to has just ended."""


class Registry:
    """All methods on one event loop. Open before use; `drain`, then `aclose`."""

    def __init__(self, *, store: Store, agents: Agents, limits: Limits, clock: Clock) -> None:
        self.draining = False
        self.missing_agents: dict[str, str] = {}
        """Runs that wait for an agent which this server does not have: store key → agent."""
        self._store = store
        self._agents = agents
        self._limits = limits
        self._clock = clock
        self._owner = new_id("srv")
        self._actors: dict[str, Actor] = {}
        self._waking: dict[str, asyncio.Task[Actor | None]] = {}
        self._feeds: dict[str, Feed] = {}
        self._views = Views(store.log)
        self._threads = Threads(store.records)
        self._list = RunList(store.records)
        self._background: set[asyncio.Task[Any]] = set()
        self._sweeper: asyncio.Task[None] | None = None
        self._starter: Starter | None = None

    # -- life

    async def open(self) -> None:
        """Open the store and take up every run that was under way. Raises `StoreInUse`, `LogUnavailable`."""
        await self._store.open()
        key = await server_key(self._store.records)
        self._starter = Starter(
            store=self._store,
            agents=self._agents,
            limits=self._limits,
            clock=self._clock,
            threads=self._threads,
            runs=self._list,
            owner=self._owner,
            key=key,
        )
        await self._claim_due()
        self._sweeper = spawn(self._sweep(), name="registry/sweeper")

    async def drain(self, grace_s: float | None = None) -> None:
        """Refuse new runs, let running turns reach a safe point, hand every run over. What is not done by then is
        stopped where it is; the next server tells the truth about it.
        """
        self.draining = True
        grace = self._limits.drain_grace_s if grace_s is None else grace_s
        await stop(self._sweeper)
        actors = list(self._actors.values())
        if actors:
            await asyncio.gather(*(actor.hand_over(grace_s=grace) for actor in actors))
        if self._background:
            await asyncio.wait(set(self._background), timeout=grace)

    async def aclose(self) -> None:
        if not self.draining:
            await self.drain(0)
        await stop(*self._background, *self._waking.values())
        await self._store.aclose()

    @property
    def live_runs(self) -> int:
        return len(self._actors)

    # -- commands

    async def start(self, principal: Principal, command: Command, *, client_id: str | None) -> Receipt:
        """Settle a `run.start`: a receipt, whatever comes of it."""
        assert self._starter is not None
        try:
            if self.draining:
                raise Draining("this server is going down: start the run again in a moment")
            started = await self._starter.start(principal, command, client_id=client_id, live=len(self._actors))
        except ProtocolError as error:
            return refused(command, error)
        except LogError as error:
            _log.warning("a start failed", error=str(error))
            return refused(command, Unavailable("the log cannot be written now: try again"))
        if started.correct is not None:
            return await self._correct_instead(principal, command, started.correct, client_id=client_id)
        if started.fresh is not None:
            fresh = started.fresh
            self._take_up(fresh.loaded, fresh.state, fresh.lease, recovered=None)
        return started.receipt

    async def submit(self, principal: Principal, command: Command, *, client_id: str | None) -> Receipt:
        """Settle any other command to a run: a receipt, whatever comes of it."""
        try:
            return await self._submit(principal, command, client_id=client_id)
        except ProtocolError as error:
            return refused(command, error)
        except LogError as error:
            _log.warning("a command failed", error=str(error))
            return refused(command, Unavailable("the log cannot be written now: try again"))

    async def offer(self, principal: Principal, run_id: str, *, client_id: str, tools: Sequence[ClientTool]) -> None:
        """That client hosts these tools from now on. Raises `NotFound`, `Conflict`, `RunEnded`, `Unavailable`."""
        run = store_key(principal.id, run_id)
        header = await self._header(run)
        if header.status in TERMINAL_STATUSES:
            raise RunEnded("the run has ended: no call will come")
        try:
            actor = await self._awake(run)
            if actor is None:
                raise Unavailable("the run cannot be taken up now: try again")
            rules = self._agents.rules(actor.start.agent)
            taken = [tool.name for tool in tools if rules is not None and rules.is_server_tool(tool.name)]
            if taken:
                raise Conflict(f"the agent has its own tool of this name: {', '.join(taken)}")
            reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            actor.mailbox.put_control(Offer(client_id=client_id, tools=tuple(tools)), reply=reply)
            await reply
        except Stopping:
            raise RunEnded("the run has ended: no call will come") from None
        except LogError as error:
            raise Unavailable("the log cannot be written now: try again") from error

    async def _submit(self, principal: Principal, command: Command, *, client_id: str | None) -> Receipt:
        assert command.run_id is not None
        run = store_key(principal.id, command.run_id)
        asked = Asked(command=command, principal=principal, client_id=client_id, fingerprint=fingerprint(command))
        for _ in range(_TRIES):
            actor = self._actors.get(run)
            if actor is None:
                header = await self._header(run)
                if header.status in TERMINAL_STATUSES:
                    return await self._after_end(principal, asked, header)
                actor = await self._awake(run)
                if actor is None:
                    break
            reply: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
            actor.mailbox.put_control(asked, reply=reply)
            try:
                return await reply
            except Stopping:
                # The actor ended with the command still in its mailbox: the run's end answers it.
                await self._settled(run)
        raise Unavailable("the run cannot be taken up now: try again")

    async def _after_end(self, principal: Principal, asked: Asked, header: Header) -> Receipt:
        """A command to a run that is over: its receipts and its state still answer."""
        command = asked.command
        loaded = await self._store.log.load(header.run)
        if loaded is None:
            raise NotFound("there is no such run")
        record = _start_record(loaded.journal)
        payload = command.payload
        known = any(r.command_id == command.command_id for r in loaded.receipts)
        if isinstance(payload, RunCorrect) and payload.if_ended == "start" and not known:
            start = RunStart(input=payload.text, agent=record.agent, thread_id=record.thread_id)
            again = Command(type=RunStart.TYPE, command_id=command.command_id, payload=start)
            return await self.start(principal, again, client_id=asked.client_id)
        state = await load_state(self._store.log, loaded, run_id=record.run_id)
        rules = self._agents.rules(record.agent)
        if rules is None:
            raise RunEnded("the run has ended")
        door = Door(
            state=state,
            rules=rules,
            limits=self._limits,
            now_ms=self._clock.now_ms(),
            secret=bytes.fromhex(record.secret),
        )
        receipt = decide_command(door, asked).receipt
        assert receipt is not None
        return receipt

    async def _correct_instead(
        self, principal: Principal, command: Command, run_id: str, *, client_id: str | None
    ) -> Receipt:
        """`if_busy: correct`: the input becomes a correction of the run that is under way."""
        payload = command.payload
        assert isinstance(payload, RunStart)
        if not isinstance(payload.input, str):
            return refused(command, Conflict("only text can correct a run: say if_busy: queue or parallel"))
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
        """A place in the run from `since_seq` on. Raises `NotFound`, `Unavailable`."""
        run = store_key(principal.id, run_id)
        feed, header = await self._feed(run)
        view = await self._view_now(feed)
        # From here to the subscription nothing waits, so no event falls between them.
        reason = reset_reason(
            view=view,
            epoch=feed.epoch,
            first_seq=header.first_seq,
            since_seq=since_seq,
            asked_epoch=epoch,
            replay=replay,
        )
        reset = reset_frame(view, epoch=feed.epoch, reason=reason) if reason is not None else None
        cursor = view.cursor.seq if reset is not None else since_seq
        subscription = Subscription(feed=feed, log=self._store.log, cursor=cursor, wake=wake)
        position = None
        if view.status == "queued":
            thread = await self._threads.get(namespace(principal.id), view.thread_id)
            position = queue_position(thread, run_id)
        rules = self._agents.rules(view.agent)
        return Attachment(
            view=view,
            epoch=feed.epoch,
            first_seq=header.first_seq,
            now_ms=self._clock.now_ms(),
            steerable=rules is not None and rules.steerable,
            queue_position=position,
            reset=reset,
            subscription=subscription,
        )

    async def view(self, principal: Principal, run_id: str) -> View:
        """The run as it is now, with fresh times left. Raises `NotFound`, `Unavailable`."""
        feed, _ = await self._feed(store_key(principal.id, run_id))
        view = await self._view_now(feed)
        if not view.pending:
            return view
        return msgspec.structs.replace(view, pending=tuple(fresh(view.pending, now_ms=self._clock.now_ms())))

    async def list_runs(
        self,
        principal: Principal,
        *,
        status: str | None = None,
        thread_id: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> tuple[list[View], str | None]:
        """Runs of this principal, newest first, and where the next page begins. Views without their details."""
        found: list[View] = []
        space = namespace(principal.id)
        while True:
            entries = await self._list.page(space, after=cursor, limit=limit)
            for entry in entries:
                cursor = entry.id
                if thread_id is not None and entry.thread_id != thread_id:
                    continue
                try:
                    view = await self.view(principal, entry.run_id)
                except NotFound:
                    # Listed, then never created: the start was not finished.
                    continue
                if status is None or view.status == status:
                    found.append(msgspec.structs.replace(view, messages=(), calls=(), steps=()))
                if len(found) == limit:
                    return found, cursor
            if len(entries) < limit:
                return found, None

    # -- inside: finding runs

    async def _header(self, run: str) -> Header:
        try:
            page = await self._store.log.read(run, after=0, max_events=1)
        except LogUnavailable as error:
            raise Unavailable("the log cannot be read now: try again") from error
        header = page.header
        if header is None:
            raise NotFound("there is no such run, or it is not yours")
        return header

    async def _feed(self, run: str) -> tuple[Feed, Header]:
        header = await self._header(run)
        feed = self._feeds.get(run)
        if feed is None:
            feed = self._new_feed(header)
        return feed, header

    def _new_feed(self, header: Header) -> Feed:
        self._forget_idle_feeds()
        feed = self._feeds[header.run] = Feed(
            run=header.run,
            run_id=header.run.partition(".")[2],
            epoch=header.epoch,
            head=header.head_seq,
            ended=header.status in TERMINAL_STATUSES,
            events=self._limits.tail_events,
            size=self._limits.tail_bytes,
        )
        return feed

    def _forget_idle_feeds(self) -> None:
        if len(self._feeds) < 2 * len(self._actors) + 64:
            return
        for run in [run for run, feed in self._feeds.items() if feed.idle and run not in self._actors]:
            del self._feeds[run]

    async def _view_now(self, feed: Feed) -> View:
        """The view at the feed's head; does not wait between the last look at the head and its return."""
        try:
            while True:
                view = await self._views.at(feed.run, epoch=feed.epoch, head=feed.head)
                if view.cursor.seq >= feed.head:
                    return view
                rest = feed.slice(view.cursor.seq, max_events=feed.head, max_bytes=1 << 30)
                if rest is not None:
                    return self._views.extend(feed.run, view, rest, epoch=feed.epoch)
        except LogUnavailable as error:
            raise Unavailable("the log cannot be read now: try again") from error

    # -- inside: actors

    async def _awake(self, run: str) -> Actor | None:
        """The run's actor, waking it if it has none. None: somebody else owns the run."""
        actor = self._actors.get(run)
        if actor is not None:
            return actor
        task = self._waking.get(run)
        if task is None:
            task = self._waking[run] = spawn(self._wake(run), name=f"run:{run}/wake")
            task.add_done_callback(lambda _: self._waking.pop(run, None))
        return await asyncio.shield(task)

    async def _wake(self, run: str) -> Actor | None:
        if self.draining:
            return None
        lease = await self._store.leases.claim(
            run, owner=self._owner, now_ms=self._clock.now_ms(), lease_ms=self._limits.lease_ms
        )
        return None if lease is None else await self._recover(lease)

    async def _recover(self, lease: Lease) -> Actor:
        loaded = await self._store.log.load(lease.run)
        if loaded is None:
            raise NotFound("there is no such run")
        record = _start_record(loaded.journal)
        state = await load_state(self._store.log, loaded, run_id=record.run_id)
        return self._take_up(loaded, state, lease, recovered=Recovered())

    def _take_up(self, loaded: Loaded, state: RunState, lease: Lease, *, recovered: Recovered | None) -> Actor:
        """An actor for a run that this server holds the lease of."""
        run, record = loaded.header.run, _start_record(loaded.journal)
        feed = self._feeds.get(run) or self._new_feed(loaded.header)
        if feed.head < state.head:
            # Written by an actor that was lost before it could show it.
            feed.head = state.head
            feed.forget_tail()
            feed.wake()
        program = self._agents.program(record)
        rules = self._agents.rules(record.agent) or _NO_RULES
        actor = Actor(
            run=run,
            start=record,
            state=state,
            lease=lease,
            journal=loaded.journal,
            feed=feed,
            log=self._store.log,
            rules=rules,
            program=program,
            limits=self._limits,
            clock=self._clock,
            history=lambda: self._history(record),
            recovered=recovered is not None,
        )
        self._actors[run] = actor
        if program is None:
            self.missing_agents[run] = record.agent
            self._later(self._limits.app_changed_after_s, lambda: self._give_up(actor, record.agent))
            recovered = None
        if state.status == "queued":
            recovered = None
        task = actor.launch(recovered=recovered)
        task.add_done_callback(lambda _: self._actor_done(actor))
        if state.status == "queued":
            self._background_task(self._promote(record), name=f"run:{record.run_id}/queue")
        return actor

    def _give_up(self, actor: Actor, agent: str) -> None:
        text = f"This server has no agent “{agent}” any more, so the run cannot go on."
        actor.mailbox.put_control(Recovered(gone=text))

    def _actor_done(self, actor: Actor) -> None:
        run = actor.run
        self.missing_agents.pop(run, None)
        if self._actors.get(run) is actor:
            del self._actors[run]
        if actor.ended:
            if actor.feed.idle:
                actor.feed.forget_tail()
            self._background_task(self._release_thread(actor.start), name=f"run:{actor.start.run_id}/thread")
        elif actor.failure is not None and not self.draining:
            self._background_task(self._retry(run), name=f"run:{actor.start.run_id}/retry")
        self._background_task(self._release(actor), name=f"run:{actor.start.run_id}/release")

    async def _release(self, actor: Actor) -> None:
        if actor.failure is None:
            try:
                await self._store.leases.release(actor.lease)
            except LogError as error:
                _log.warning("a lease was not released", run=actor.run, error=str(error))

    async def _retry(self, run: str) -> None:
        """Take the run up again once its log can be written, however long that takes."""
        delay = self._limits.recover_delay_s
        while not self.draining:
            await self._clock.sleep(delay)
            delay = min(delay * 2, self._limits.recover_max_delay_s)
            if run in self._actors:
                return
            try:
                actor = await self._awake(run)
            except (LogError, ProtocolError) as error:
                _log.warning("a run waits for its log", run=run, error=str(error))
                continue
            if actor is not None:
                return

    async def _settled(self, run: str) -> None:
        """Let an actor that has ended leave the table."""
        while (actor := self._actors.get(run)) is not None:
            task = actor.task
            if task is None or task.done():
                await asyncio.sleep(0)
                return
            await asyncio.wait([task])

    # -- inside: time and threads

    async def _sweep(self) -> None:
        while True:
            await self._clock.sleep(_SWEEP_S)
            try:
                await self._claim_due()
                await self._renew()
            except LogError as error:
                _log.warning("cannot look for due runs", error=str(error))

    async def _claim_due(self) -> None:
        while not self.draining and len(self._actors) < self._limits.max_live_runs:
            lease = await self._store.leases.claim(
                None, owner=self._owner, now_ms=self._clock.now_ms(), lease_ms=self._limits.lease_ms
            )
            if lease is None:
                return
            if lease.run in self._actors or lease.run in self._waking:
                continue
            await self._recover(lease)

    async def _renew(self) -> None:
        now = self._clock.now_ms()
        for actor in list(self._actors.values()):
            if actor.lease.expires_at - now < self._limits.lease_ms // 2:
                lease = await self._store.leases.renew(actor.lease, now_ms=now, lease_ms=self._limits.lease_ms)
                if lease is not None:
                    actor.lease = lease

    async def _release_thread(self, record: StartRecord) -> None:
        """The run has ended: its thread is free for the next."""
        space = namespace(record.principal.id)
        try:
            await self._threads.update(space, record.thread_id, lambda thread: ended(thread, record.run_id))
            await self._promote(record)
        except (LogError, ProtocolError) as error:
            # Not lost: the next start in this thread sees that the run has ended.
            _log.warning("a thread was not released", thread=record.thread_id, error=str(error))

    async def _promote(self, record: StartRecord) -> None:
        space = namespace(record.principal.id)
        thread = await self._threads.get(space, record.thread_id)
        if thread.active is not None:
            header = await self._header(f"{space}.{thread.active}")
            if header.status not in TERMINAL_STATUSES and thread.active != record.run_id:
                return
        chosen: list[str | None] = [thread.active]

        def change(now: Any) -> Any:
            if now.active is not None and now.active == thread.active and thread.active != record.run_id:
                now = ended(now, now.active)
            after, first = promoted(now)
            chosen[0] = first if first is not None else after.active
            return after

        await self._threads.update(space, record.thread_id, change)
        if chosen[0] is not None:
            actor = await self._awake(f"{space}.{chosen[0]}")
            if actor is not None and actor.queued:
                actor.mailbox.put_control(Dequeued())

    async def _history(self, record: StartRecord) -> list[list[JournalRecord]]:
        """The journals of the runs before this one in its thread, oldest first."""
        space = namespace(record.principal.id)
        found: list[list[JournalRecord]] = []
        for run_id in record.previous[-self._limits.max_thread_history :]:
            loaded = await self._store.log.load(f"{space}.{run_id}")
            if loaded is not None:
                found.append(list(loaded.journal))
        return found

    def _later(self, seconds: float, callback: Callable[[], object]) -> None:
        self._clock.call_later(seconds, callback)

    def _background_task(self, coroutine: Any, *, name: str) -> None:
        task = spawn(coroutine, name=name)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


class _NoRules:
    """For a run whose agent is gone: it can be cancelled, and that is all."""

    steerable = False

    def is_server_tool(self, tool: str) -> bool:
        del tool
        return True

    def check_args(self, tool: str, args: Any) -> list[Any]:
        del tool, args
        return []

    def shown_args(self, tool: str, args: Any) -> dict[str, Any]:
        del tool, args
        return {}

    def check_value(self, schema: Any, value: object) -> list[Any]:
        del schema, value
        return []


_NO_RULES: Final = _NoRules()


def _start_record(journal: Sequence[JournalRecord]) -> StartRecord:
    first = journal[0]
    assert first.kind == "start"
    return msgspec.json.decode(first.data, type=StartRecord)
