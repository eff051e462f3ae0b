"""The supervisor: which runs are alive in this process. Takes runs up, takes them up again when their log failed, parks
those that wait and wakes them when they are due, moves threads on when a run has ended, and hands all over at the end.

A run has one actor at most, one feed at most, and both under its store key.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import Any, Final

import msgspec

from midstream.clock import Clock
from midstream.log import Header, Lease, Loaded, LogError, Reset, Store
from midstream.logs import Logger
from midstream.runs.actor import Actor
from midstream.runs.beyond import Beyond
from midstream.runs.coalesce import Windows
from midstream.runs.contract import NO_RULES, Agents, Limits, Program, StartRecord
from midstream.runs.grants import Grants
from midstream.runs.inputs import Dequeued, Recovered
from midstream.runs.keys import namespace
from midstream.runs.pacing import Pace
from midstream.runs.parking import left_in_order, patience_s, without_marks
from midstream.runs.port import Port
from midstream.runs.replay import load_state
from midstream.runs.state import RunState
from midstream.runs.tail import Feed
from midstream.runs.taps import Taps
from midstream.runs.threads import Thread, Threads, ended, promoted
from midstream.tasks import spawn, stop
from midstream.telemetry import count_parked, count_woken
from midstream_protocol.commands import CancelAfter
from midstream_protocol.errors import NotFound, ProtocolError
from midstream_protocol.events import TERMINAL_STATUSES
from midstream_protocol.ids import new_id

_log = Logger("midstream.runs")

_SWEEP_S: Final = 1.0
"""How often runs are looked for that are due: a waiting run's timer, or a run whose owner is gone."""

_IDLE_FEEDS: Final = 64
"""Feeds of runs without an actor that may be kept beside those of the living."""

_PARKED_AT_ONCE: Final = 64
"""Runs handed over side by side: they share commits, and live ones are not held up by them."""


class Supervisor:
    """All methods on one event loop."""

    def __init__(
        self, *, store: Store, agents: Agents, limits: Limits, clock: Clock, parked: Callable[[str], None]
    ) -> None:
        """`parked` is called with the key of each run that has left the memory."""
        self.draining = False
        self.owner: Final = new_id("srv")
        self.actors: Final[dict[str, Actor]] = {}
        self.live_of: Final[Counter[str]] = Counter()
        """Actors by their principal's namespace."""
        self.missing_agents: Final[dict[str, str]] = {}
        """Runs that wait for an agent which this server does not have: store key → agent."""
        self.taps: Final = Taps()
        self.threads: Final = Threads(records=store.records, log=store.log)
        self.grants: Final = Grants(records=store.records, clock=clock)
        self._store = store
        self._agents = agents
        self._limits = limits
        self._clock = clock
        self._windows = Windows(limits=limits, clock=clock)
        self._parked = parked
        self._pace = Pace()
        self._feeds: dict[str, Feed] = {}
        self._feeds_dropped = 0
        self._most_feeds = _IDLE_FEEDS
        """Looked at for idle ones when there are so many."""
        self._waking: dict[str, asyncio.Task[Actor | None]] = {}
        self._background: set[asyncio.Task[Any]] = set()
        self._retries: dict[str, asyncio.Task[None]] = {}
        self._timers: dict[str, Callable[[], None]] = {}
        self._sweeper: asyncio.Task[None] | None = None
        self._parking: asyncio.Task[None] | None = None
        self._leaving: dict[str, asyncio.Task[None]] = {}
        """What is still done for a run after its actor: by store key."""

    # -- life

    async def open(self) -> None:
        """Take up every run that was under way. Raises `LogUnavailable`."""
        await self._claim_due()
        self._sweeper = spawn(self._sweep(), name="runs/sweeper")

    async def drain(self, grace_s: float) -> None:
        """Let running turns reach a safe point, and hand every run over."""
        self.draining = True
        await stop(self._sweeper, self._parking, *self._retries.values())
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

    @property
    def feeds(self) -> Collection[Feed]:
        return self._feeds.values()

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

    def read(self, run: str) -> bool:
        """Whether somebody reads the run."""
        feed = self._feeds.get(run)
        return feed is not None and not feed.idle

    def forget(self, run: str) -> None:
        """The run is erased: its readers find that out now."""
        feed = self._feeds.get(run)
        if feed is not None:
            self._drop_feed(run)
            feed.forget_tail()
            feed.wake()

    async def left(self, run: str) -> None:
        """Wait until nobody works for a run that has ended: neither who makes it, nor who passes its end on."""
        await self.threads.making.over(run)
        await self.settled(run)
        while (task := self._leaving.get(run)) is not None:
            await asyncio.wait([task])

    async def settled(self, run: str) -> None:
        """Let an actor that is ending leave the table."""
        actor = self.actors.get(run)
        if actor is not None and actor.task is not None:
            await asyncio.wait([actor.task])
            # Its done callbacks run in the next turn of the loop.
            await asyncio.sleep(0)

    # -- taking up

    def take_up(
        self,
        loaded: Loaded,
        state: RunState,
        lease: Lease,
        *,
        recovered: Recovered | None,
        record: StartRecord | None = None,
    ) -> Actor:
        """An actor for a run that this process holds the lease of. Waits for nothing. `record`: decoded already."""
        run, record = loaded.header.run, record or start_record(loaded)
        feed = self._feeds.get(run) or self._new_feed(loaded.header)
        if feed.head < state.head:
            # Written by an actor that was lost before it could show it.
            feed.catch_up(state.head, ended=state.ended)
        if recovered is not None:
            self.taps.published(run, record.run_id, ())
        program = self._program(record)
        actor = self.actors[run] = Actor(
            run=run,
            start=record,
            state=state,
            lease=lease,
            journal=without_marks(loaded.journal),
            feed=feed,
            log=self._store.log,
            rules=self._agents.rules(record.agent) or NO_RULES,
            program=program,
            limits=self._limits,
            clock=self._clock,
            windows=self._windows,
            pace=self._pace,
            beyond=Beyond(
                record,
                log=self._store.log,
                threads=self.threads,
                grants=self.grants,
                keep=self._limits.max_thread_history,
            ),
            recovered=recovered is not None,
        )
        queued = state.status == "queued"
        if program is None:
            self._wait_for_agent(actor)
        self.live_of[run.partition(".")[0]] += 1
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
        error_id = new_id("err")
        recovered = Recovered(in_order=left_in_order(loaded.journal, state.head), error_id=error_id)
        if recovered.in_order:
            count_woken()
        elif state.recoveries >= self._limits.max_recoveries and not state.ended:
            _log.error("a run that broke off again and again is given up", run=lease.run, error_id=error_id)
        return self.take_up(loaded, state, lease, recovered=recovered)

    def _wait_for_agent(self, actor: Actor) -> None:
        """Another version of the app may be on its way with the agent; until then the run can be read and cancelled."""
        agent = actor.start.agent
        self.missing_agents[actor.run] = agent
        text = f"This server has no agent “{agent}” any more, so the run cannot go on."

        def give_up() -> None:
            error_id = new_id("err")
            _log.error("a run whose agent is gone is given up", run=actor.run, agent=agent, error_id=error_id)
            actor.mailbox.put_control(Recovered(gone=text, error_id=error_id))

        self._timers[actor.run] = self._clock.call_later(self._limits.app_changed_after_s, give_up)

    # -- letting go

    def _done(self, actor: Actor) -> None:
        run = actor.run
        self._count_out(run.partition(".")[0])
        self.missing_agents.pop(run, None)
        if (cancel := self._timers.pop(run, None)) is not None:
            cancel()
        if self.actors.get(run) is actor:
            del self.actors[run]
        name = f"run:{actor.start.run_id}"
        if actor.failure is None:
            task = self._leaving[run] = self._in_background(self._let_go(actor), name=f"{name}/end")
            task.add_done_callback(lambda done: self._leaving.pop(run) if self._leaving.get(run) is done else None)
        else:
            self._retry_later(run)

    async def _let_go(self, actor: Actor) -> None:
        """The run has ended, or was handed over: somebody else may have it, and its thread goes on."""
        record = actor.start
        if not (actor.ended or self.draining):
            count_parked()
        try:
            await self._store.leases.release(actor.lease)
            if actor.ended:
                space = namespace(record.principal.id)
                await self.threads.update(space, record.thread_id, lambda thread: ended(thread, record.run_id))
                await self._promote(record)
            elif actor.moves_on and not self.draining:
                # It was answered while it was being parked.
                await self.awake(actor.run)
        except (LogError, ProtocolError) as error:
            # Not lost: the next start in this thread sees that the run has ended, and the sweeper what is due.
            _log.warning("a run's end was not passed on", run=actor.run, error=str(error))
        if actor.feed.idle and actor.run not in self.actors:
            self._drop_feed(actor.run)
            if not actor.ended:
                self._parked(actor.run)

    def _count_out(self, space: str) -> None:
        self.live_of[space] -= 1
        if not self.live_of[space]:
            del self.live_of[space]

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
                self._park_waiting()
                self._drop_idle_feeds(_IDLE_FEEDS)
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

    def _park_waiting(self) -> None:
        """Hand over the runs that have waited for long enough. They come back when somebody needs them."""
        patience = patience_s(len(self.actors), self._limits)
        if patience is None or (self._parking is not None and not self._parking.done()):
            return
        before = self._clock.now_ms() - round(patience * 1000)
        due = [actor for actor in self.actors.values() if actor.quiet_since_ms <= before and self._may_park(actor)]
        if due:
            self._parking = spawn(self._park(due), name="runs/parking")

    async def _park(self, due: Sequence[Actor]) -> None:
        for at in range(0, len(due), _PARKED_AT_ONCE):
            # Some were answered while others were parked.
            still = [actor for actor in due[at : at + _PARKED_AT_ONCE] if self._may_park(actor)]
            await asyncio.gather(*(actor.hand_over(grace_s=self._limits.cancel_grace_s) for actor in still))

    def _may_park(self, actor: Actor) -> bool:
        # Of a run that is cancelled when nobody has been there for a while, somebody must keep the time.
        return actor.rests and actor.run not in self._timers and not isinstance(actor.start.on_abandon, CancelAfter)

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
        if len(self._feeds) >= self._most_feeds:
            self._drop_idle_feeds(0)
            self._most_feeds = 2 * len(self._feeds) + _IDLE_FEEDS
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

    def _drop_idle_feeds(self, keep: int) -> None:
        idle = [run for run, feed in self._feeds.items() if feed.idle and run not in self.actors]
        for run in idle[: max(0, len(idle) - keep)]:
            self._drop_feed(run)

    def _drop_feed(self, run: str) -> None:
        if self._feeds.pop(run, None) is not None:
            self._feeds_dropped += 1

    def _in_background(self, coroutine: Coroutine[Any, Any, None], *, name: str) -> "asyncio.Task[None]":
        task = spawn(coroutine, name=name)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task


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
