"""The supervisor: which runs are alive in this process. Takes runs up, takes them up again when their log failed, wakes
the waiting ones that are due, moves threads on when a run has ended, and hands everything over at the end.

A run has one actor at most, one feed at most, and both under its store key.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

import msgspec
import structlog

from midstream.clock import Clock
from midstream.log import Header, Lease, Loaded, LogError, Reset, Store
from midstream.runs.actor import Actor
from midstream.runs.beyond import Beyond
from midstream.runs.contract import NO_RULES, Agents, Limits, Program, StartRecord
from midstream.runs.inputs import Dequeued, Recovered
from midstream.runs.keys import namespace
from midstream.runs.port import Port
from midstream.runs.replay import load_state
from midstream.runs.state import RunState
from midstream.runs.tail import Feed
from midstream.runs.taps import Taps
from midstream.runs.threads import Thread, Threads, ended, promoted
from midstream.tasks import spawn, stop
from midstream_protocol.errors import NotFound, ProtocolError
from midstream_protocol.events import TERMINAL_STATUSES
from midstream_protocol.ids import new_id

_log = structlog.get_logger("midstream.runs")

_SWEEP_S: Final = 1.0
"""How often runs are looked for that are due: a waiting run's timer, or a run whose owner is gone."""

_IDLE_FEEDS: Final = 64
"""Feeds of runs without an actor that may be kept beside those of the living."""


class Supervisor:
    """All methods on one event loop."""

    def __init__(self, *, store: Store, agents: Agents, limits: Limits, clock: Clock) -> None:
        self.draining = False
        self.owner: Final = new_id("srv")
        self.actors: Final[dict[str, Actor]] = {}
        self.missing_agents: Final[dict[str, str]] = {}
        """Runs that wait for an agent which this server does not have: store key → agent."""
        self.taps: Final = Taps()
        self.threads: Final = Threads(records=store.records, log=store.log)
        self._store = store
        self._agents = agents
        self._limits = limits
        self._clock = clock
        self._feeds: dict[str, Feed] = {}
        self._feeds_dropped = 0
        self._waking: dict[str, asyncio.Task[Actor | None]] = {}
        self._background: set[asyncio.Task[Any]] = set()
        self._retries: dict[str, asyncio.Task[None]] = {}
        self._timers: dict[str, Callable[[], None]] = {}
        self._sweeper: asyncio.Task[None] | None = None

    # -- life

    async def open(self) -> None:
        """Take up every run that was under way. Raises `LogUnavailable`."""
        await self._claim_due()
        self._sweeper = spawn(self._sweep(), name="runs/sweeper")

    async def drain(self, grace_s: float) -> None:
        """Let running turns reach a safe point, and hand every run over."""
        self.draining = True
        await stop(self._sweeper, *self._retries.values())
        for cancel in self._timers.values():
            cancel()
        actors = list(self.actors.values())
        if actors:
            await asyncio.gather(*(actor.hand_over(grace_s=grace_s) for actor in actors))
        if self._background:
            await asyncio.wait(set(self._background), timeout=max(1.0, grace_s))
        await stop(*self._background, *self._waking.values())

    # -- finding

    async def header(self, run: str) -> Header:
        """Where the run stands in the log. Raises `NotFound`, `LogUnavailable`."""
        page = await self._store.log.read(run, after=0, max_events=1)
        if isinstance(page, Reset) and page.header is None:
            raise NotFound("there is no such run, or it is not yours")
        assert page.header is not None
        return page.header

    async def feed(self, run: str) -> tuple[Feed, Header]:
        """The run's feed, shared by all who read it. Raises `NotFound`, `LogUnavailable`."""
        while True:
            dropped = self._feeds_dropped
            header = await self.header(run)
            feed = self._feeds.get(run)
            if feed is None and dropped == self._feeds_dropped:
                feed = self._new_feed(header)
            # Otherwise the run may have had a feed that came and went meanwhile: then this header is from before that,
            # and a feed made from it would stand still for ever.
            if feed is not None:
                return feed, header

    def holds(self, feed: Feed) -> bool:
        """Whether this is the run's feed still."""
        return self._feeds.get(feed.run) is feed

    async def awake(self, run: str) -> Actor | None:
        """The run's actor, waking it if it has none. None: it cannot be owned now. Raises `NotFound`, `LogError`."""
        actor = self.actors.get(run)
        if actor is not None:
            return actor
        task = self._waking.get(run)
        if task is None:
            task = self._waking_up(run, self._wake(run))
        return await asyncio.shield(task)

    async def settled(self, run: str) -> None:
        """Let an actor that is ending leave the table."""
        actor = self.actors.get(run)
        if actor is not None and actor.task is not None:
            await asyncio.wait([actor.task])
            # Its done callbacks run in the next turn of the loop.
            await asyncio.sleep(0)

    # -- taking up

    def take_up(self, loaded: Loaded, state: RunState, lease: Lease, *, recovered: Recovered | None) -> Actor:
        """An actor for a run that this process holds the lease of. Waits for nothing."""
        run, record = loaded.header.run, start_record(loaded)
        feed = self._feeds.get(run) or self._new_feed(loaded.header)
        if feed.head < state.head:
            # Written by an actor that was lost before it could show it.
            feed.catch_up(state.head, ended=state.ended)
        program = self._program(record)
        actor = self.actors[run] = Actor(
            run=run,
            start=record,
            state=state,
            lease=lease,
            journal=loaded.journal,
            feed=feed,
            log=self._store.log,
            rules=self._agents.rules(record.agent) or NO_RULES,
            program=program,
            limits=self._limits,
            clock=self._clock,
            beyond=Beyond(record, log=self._store.log, threads=self.threads, keep=self._limits.max_thread_history),
            recovered=recovered is not None,
        )
        queued = state.status == "queued"
        if program is None:
            self._wait_for_agent(actor)
        task = actor.launch(recovered=None if queued or program is None else recovered)
        task.add_done_callback(lambda _: self._done(actor))
        if queued:
            self._in_background(self._promote(record), name=f"run:{record.run_id}/queue")
        return actor

    def _program(self, record: StartRecord) -> Program | None:
        try:
            return self._agents.program(record)
        except Exception as error:  # noqa: BLE001 - an app's own code: it fails its run and nothing else
            return _Unmade(error)

    async def _wake(self, run: str) -> Actor | None:
        # Whoever makes the run takes it up in the same turn of the loop in which it is made.
        await self.threads.making.over(run)
        if self.draining:
            return None
        if (actor := self.actors.get(run)) is not None:
            return actor
        lease = await self._store.leases.claim(
            run, owner=self.owner, now_ms=self._clock.now_ms(), lease_ms=self._limits.lease_ms
        )
        return None if lease is None else await self._recover(lease)

    def _waking_up(self, run: str, coroutine: Coroutine[Any, Any, Actor | None]) -> "asyncio.Task[Actor | None]":
        """One at a time for a run, so that it never gets two actors."""
        task = self._waking[run] = spawn(coroutine, name=f"run:{run}/wake", expected=(LogError, ProtocolError))
        task.add_done_callback(lambda _: self._waking.pop(run, None))
        return task

    async def _recover(self, lease: Lease) -> Actor | None:
        try:
            loaded = await self._store.log.load(lease.run)
            if loaded is None:
                raise NotFound("there is no such run")
            record = start_record(loaded)
            state = await load_state(self._store.log, loaded, run_id=record.run_id)
        except LogError:
            # It is ours now, and whoever looks for runs without an owner passes it by.
            self._retry_later(lease.run)
            raise
        if self.draining:
            return None
        return self.take_up(loaded, state, lease, recovered=Recovered())

    def _wait_for_agent(self, actor: Actor) -> None:
        """Another version of the app may be on its way with the agent; until then the run can be read and cancelled."""
        agent = actor.start.agent
        self.missing_agents[actor.run] = agent
        text = f"This server has no agent “{agent}” any more, so the run cannot go on."

        def give_up() -> None:
            actor.mailbox.put_control(Recovered(gone=text))

        self._timers[actor.run] = self._clock.call_later(self._limits.app_changed_after_s, give_up)

    # -- letting go

    def _done(self, actor: Actor) -> None:
        run = actor.run
        self.missing_agents.pop(run, None)
        if (cancel := self._timers.pop(run, None)) is not None:
            cancel()
        if self.actors.get(run) is actor:
            del self.actors[run]
        name = f"run:{actor.start.run_id}"
        if actor.failure is None:
            self._in_background(self._let_go(actor), name=f"{name}/end")
        else:
            self._retry_later(run)

    async def _let_go(self, actor: Actor) -> None:
        """The run has ended, or was handed over: somebody else may have it, and its thread goes on."""
        record = actor.start
        try:
            await self._store.leases.release(actor.lease)
            if actor.ended:
                space = namespace(record.principal.id)
                await self.threads.update(space, record.thread_id, lambda thread: ended(thread, record.run_id))
                await self._promote(record)
        except (LogError, ProtocolError) as error:
            # Not lost: the next start in this thread sees that the run has ended.
            _log.warning("a run's end was not passed on", run=actor.run, error=str(error))
        if actor.feed.idle and actor.run not in self.actors:
            self._drop_feed(actor.run)

    def _retry_later(self, run: str) -> None:
        if not self.draining and run not in self._retries:
            task = self._retries[run] = spawn(self._retry(run), name=f"run:{run}/retry")
            task.add_done_callback(lambda _: self._retries.pop(run, None))

    async def _retry(self, run: str) -> None:
        """Take the run up again once its log can be written, however long that takes; unless another owner has it."""
        delay = self._limits.recover_delay_s
        while not self.draining:
            await self._clock.sleep(delay)
            delay = min(delay * 2, self._limits.recover_max_delay_s)
            try:
                if run not in self.actors:
                    await self.awake(run)
            except (LogError, ProtocolError) as error:
                _log.warning("a run waits for its log", run=run, error=str(error))
            else:
                return

    # -- time

    async def _sweep(self) -> None:
        while True:
            await self._clock.sleep(_SWEEP_S)
            try:
                # First: a process that stood still for longer than its leases last would find its own runs due.
                await self._renew()
                await self._claim_due()
            except LogError as error:
                _log.warning("cannot look for due runs", error=str(error))

    async def _claim_due(self) -> None:
        while not self.draining and len(self.actors) < self._limits.max_live_runs:
            lease = await self._store.leases.claim(
                None, owner=self.owner, now_ms=self._clock.now_ms(), lease_ms=self._limits.lease_ms
            )
            if lease is None:
                return
            if (actor := self.actors.get(lease.run)) is not None:
                # Its lease ended unseen, and it goes on. Had another written meanwhile, its next write would fail.
                actor.lease = lease
            elif lease.run not in self._waking:
                await self._take_up_due(lease)

    async def _take_up_due(self, lease: Lease) -> None:
        try:
            await self._waking_up(lease.run, self._recover(lease))
        except LogError as error:
            _log.warning("a run waits for its log", run=lease.run, error=str(error))
        except Exception:  # noqa: BLE001 - the edge: whatever is wrong with a run is its own trouble
            # One run that cannot be read must not keep the others waiting, nor the server from starting.
            _log.exception("a run cannot be taken up", run=lease.run)

    async def _renew(self) -> None:
        now = self._clock.now_ms()
        for actor in list(self.actors.values()):
            if actor.lease.expires_at - now < self._limits.lease_ms // 2:
                lease = await self._store.leases.renew(actor.lease, now_ms=now, lease_ms=self._limits.lease_ms)
                if lease is None:
                    actor.lose()
                else:
                    actor.lease = lease

    # -- threads

    async def _promote(self, record: StartRecord) -> None:
        """Begin the thread's next run if nothing stands before it."""
        space = namespace(record.principal.id)
        before = await self.threads.get(space, record.thread_id)
        over = before.active is not None and await self.threads.over(f"{space}.{before.active}")

        def change(thread: Thread) -> Thread:
            if over and thread.active is not None and thread.active == before.active:
                # The run that held it ended without saying so: a crash came between.
                thread = ended(thread, thread.active)
            return promoted(thread)[0]

        thread = await self.threads.update(space, record.thread_id, change)
        run = f"{space}.{thread.active}"
        # One that is being made looks after itself; one that is not queued runs, or waits, without our help.
        if thread.active is None or run in self.threads.making or (await self.header(run)).status != "queued":
            return
        actor = await self.awake(run)
        if actor is not None and actor.queued:
            actor.mailbox.put_control(Dequeued())

    # -- parts

    def _new_feed(self, header: Header) -> Feed:
        if len(self._feeds) >= 2 * len(self.actors) + _IDLE_FEEDS:
            for run in [run for run, feed in self._feeds.items() if feed.idle and run not in self.actors]:
                self._drop_feed(run)
        feed = self._feeds[header.run] = Feed(
            run=header.run,
            run_id=header.run.partition(".")[2],
            epoch=header.epoch,
            head=header.head_seq,
            ended=header.status in TERMINAL_STATUSES,
            events=self._limits.tail_events,
            size=self._limits.tail_bytes,
            taps=self.taps,
        )
        return feed

    def _drop_feed(self, run: str) -> None:
        if self._feeds.pop(run, None) is not None:
            self._feeds_dropped += 1

    def _in_background(self, coroutine: Coroutine[Any, Any, None], *, name: str) -> None:
        task = spawn(coroutine, name=name)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


class _Unmade:
    """In the place of a program that could not be made."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def run(self, port: Port) -> None:
        del port
        raise self._error


def start_record(loaded: Loaded) -> StartRecord:
    """A run's first journal record."""
    first = loaded.journal[0]
    assert first.kind == "start"
    return msgspec.json.decode(first.data, type=StartRecord)
