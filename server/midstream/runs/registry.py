"""The registry: the one door to runs. Commands go to a run's actor; reads go to its feed and the log.

A run without an actor - ended, or waiting since before a restart - is woken when a command needs it, and read straight
from the log.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
import structlog

from midstream.clock import Clock
from midstream.log import Header, LogError, Reset, Store
from midstream.runs.attachment import Attachment, reset_frame, reset_reason
from midstream.runs.commands import Door, decide_command, fingerprint, refused
from midstream.runs.contract import NO_RULES, Agents, Limits, Principal, Stopping
from midstream.runs.inputs import Asked, Offer
from midstream.runs.keys import namespace, server_key, store_key
from midstream.runs.late import LateReceipts
from midstream.runs.listing import Entry, RunList
from midstream.runs.recent import RecentCommands
from midstream.runs.replay import Views, load_state, own_event
from midstream.runs.starting import Starter, text_only
from midstream.runs.subscription import Subscription
from midstream.runs.supervisor import Supervisor, start_record
from midstream.runs.tail import Feed
from midstream.runs.taps import Taps
from midstream.runs.threads import Thread, queue_position
from midstream_protocol.codec import iso_ms
from midstream_protocol.commands import ClientTool, Command, RunCorrect, RunStart
from midstream_protocol.errors import Conflict, Draining, NotFound, ProtocolError, RunEnded, Unavailable
from midstream_protocol.events import TERMINAL_STATUSES
from midstream_protocol.frames import Receipt
from midstream_protocol.view import View

_log = structlog.get_logger("midstream.runs")

_TRIES: Final = 3
"""How often a command is routed again when the actor it was sent to has just ended."""


class Registry:
    """All methods on one event loop. Open before use; `drain`, then `aclose`."""

    def __init__(self, *, store: Store, agents: Agents, limits: Limits, clock: Clock) -> None:
        self._store = store
        self._agents = agents
        self._limits = limits
        self._clock = clock
        self._living = Supervisor(store=store, agents=agents, limits=limits, clock=clock)
        self._views = Views(store.log)
        self._recent = RecentCommands()
        self._late = LateReceipts(store.records)
        self._list = RunList(store.records)
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
            runs=self._list,
            owner=self._living.owner,
            key=await server_key(self._store.records),
        )
        await self._living.open()

    async def drain(self, grace_s: float | None = None) -> None:
        """Refuse new runs, let running turns reach a safe point, hand every run over. What is not done by then is
        stopped where it is; the next server tells the truth about it.
        """
        await self._living.drain(self._limits.drain_grace_s if grace_s is None else grace_s)

    async def aclose(self) -> None:
        if not self.draining:
            await self.drain(0)
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

    @property
    def missing_agents(self) -> dict[str, str]:
        """Runs that wait for an agent which this server does not have: store key → agent."""
        return dict(self._living.missing_agents)

    # -- commands

    async def start(self, principal: Principal, command: Command, *, client_id: str | None) -> Receipt:
        """Settle a `run.start`: a receipt, whatever comes of it."""
        assert self._starter is not None
        try:
            if self.draining:
                raise Draining("this server is going down: start the run again in a moment")
            started = await self._starter.start(principal, command, client_id=client_id, live=self.live_runs)
            while (corrected := started.correct) is not None:
                receipt = await self._correct_instead(principal, command, corrected, client_id=client_id)
                if receipt.code not in (RunEnded.code, NotFound.code):
                    return receipt
                # The run ended before it could be corrected, or was never made: whoever has its thread now is
                # corrected, or nobody has, and the start is one.
                self._recent.forget(principal.id, command.command_id)
                started = await self._starter.start(
                    principal, command, client_id=client_id, live=self.live_runs, lost=corrected
                )
        except (ProtocolError, LogError) as error:
            return refused(command, _wire(error))
        if started.fresh is not None and not self.draining:
            fresh_run = started.fresh
            self._living.take_up(fresh_run.loaded, fresh_run.state, fresh_run.lease, recovered=None)
        return started.receipt

    async def submit(self, principal: Principal, command: Command, *, client_id: str | None) -> Receipt:
        """Settle any other command to a run: a receipt, whatever comes of it."""
        try:
            return await self._submit(principal, command, client_id=client_id)
        except (ProtocolError, LogError) as error:
            return refused(command, _wire(error))

    async def offer(self, principal: Principal, run_id: str, *, client_id: str, tools: Sequence[ClientTool]) -> None:
        """That client hosts these tools from now on. Raises `NotFound`, `Conflict`, `RunEnded`, `Unavailable`."""
        run = store_key(principal.id, run_id)
        actor = None
        try:
            header = await self._living.header(run)
            if header.status in TERMINAL_STATUSES:
                raise RunEnded("the run has ended: no call will come")
            actor = await self._living.awake(run)
            if actor is None:
                raise self._not_now()
            rules = self._agents.rules(actor.start.agent) or NO_RULES
            taken = [tool.name for tool in tools if rules.is_server_tool(tool.name)]
            if taken:
                raise Conflict(f"the agent has its own tool of this name: {', '.join(taken)}")
            reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            actor.mailbox.put_control(Offer(client_id=client_id, tools=tuple(tools)), reply=reply)
            await reply
        except Stopping:
            if actor is None or not actor.ended:
                raise self._not_now() from None
            raise RunEnded("the run has ended: no call will come") from None
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
        return await self._late.keep(header.run, asked, decision.receipt)

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
        """A place in the run from `since_seq` on. Raises `NotFound`, `Unavailable`."""
        try:
            while True:
                feed, header = await self._living.feed(store_key(principal.id, run_id))
                position = await self._queue_position(principal, feed) if header.status == "queued" else None
                view = await self._view_now(feed)
                # A feed that nobody listened to may have been let go meanwhile: nothing would come through it.
                if self._living.holds(feed):
                    break
        except LogError as error:
            raise _wire(error) from error
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
        return Attachment(
            view=view,
            epoch=feed.epoch,
            first_seq=header.first_seq,
            now_ms=self._clock.now_ms(),
            steerable=(self._agents.rules(view.agent) or NO_RULES).steerable,
            queue_position=position,
            reset=reset,
            subscription=Subscription(
                feed=feed,
                log=self._store.log,
                cursor=cursor,
                wake=wake,
                merge_until=view.cursor.seq if replay == "merged" else 0,
            ),
        )

    async def view(self, principal: Principal, run_id: str) -> View:
        """The run as it is now: the fold of its events and nothing else. Raises `NotFound`, `Unavailable`."""
        try:
            feed, _ = await self._living.feed(store_key(principal.id, run_id))
            return await self._view_now(feed)
        except LogError as error:
            raise _wire(error) from error

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
    ) -> tuple[list[View], str | None]:
        """Runs of this principal, newest first, and where the next page begins. Views without their details.

        Raises `Unavailable`.
        """
        found: list[View] = []
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
                    found.append(msgspec.structs.replace(view, messages=(), calls=(), steps=()))
                if len(found) == limit:
                    return found, cursor
            if len(entries) < limit:
                return found, None

    async def _is_start_of(self, entry: Entry, run: str) -> bool:
        """Whether the run was made by the start that wrote this entry, and not by the one that was sent again later."""
        page = await self._store.log.read(run, after=0, max_events=1)
        return isinstance(page, Reset) or own_event(page.events[0]).ts == iso_ms(entry.created_ms)

    async def _queue_position(self, principal: Principal, feed: Feed) -> int | None:
        view = await self._view_now(feed)
        thread = await self._living.threads.get(namespace(principal.id), view.thread_id)
        return queue_position(thread, feed.run_id)

    async def _view_now(self, feed: Feed) -> View:
        """The view at the feed's head: nothing waits between the last look at the head and the return."""
        while True:
            view = await self._views.at(feed.run, epoch=feed.epoch, head=feed.head)
            if view.cursor.seq >= feed.head:
                return view
            rest = feed.slice(view.cursor.seq, max_events=feed.head, max_bytes=1 << 30)
            if rest is not None:
                return self._views.extend(feed.run, view, rest, epoch=feed.epoch)


def _wire(error: ProtocolError | LogError) -> ProtocolError:
    """What a client is told when the store fails: nothing about the store."""
    if isinstance(error, ProtocolError):
        return error
    _log.warning("the store failed", error=str(error))
    return Unavailable("the log cannot be used now: try again in a moment")
