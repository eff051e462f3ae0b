"""A run at a terminal: what it does is printed, what is typed steers it."""

import asyncio
import signal
import sys
from collections.abc import Coroutine
from typing import Any, Final

from msgspec import Struct

from midstream.cli import keys
from midstream.cli.blocks import value_text
from midstream.cli.editor import edited
from midstream.cli.failure import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OF, EXIT_OK, Explained, explain
from midstream.cli.keys import Approve, Correct, Deny, Edit, Hold, Intent, Quit, Reply, Revoke, Say, Stop
from midstream.cli.render import Ask, Renderer
from midstream.cli.safe_text import safe_line
from midstream.cli.terminal import Terminal, Typist
from midstream.client import Client, Received, Run, State, Update, connect
from midstream.tasks import spawn, stop
from midstream_protocol.commands import Remember
from midstream_protocol.errors import InvalidArgs
from midstream_protocol.events import ApprovalRequired
from midstream_protocol.frames import RunAttached, RunReset

_ANSWERS_WAIT_S: Final = 2.0
"""After a run's end, for the receipts of what was typed in its last moment."""
_JSON_TYPES: Final = frozenset({"number", "integer", "boolean", "object", "array"})


class ChatOptions(Struct, kw_only=True, frozen=True):
    """`text` None: a prompt loop. `run_id`: follow that run instead of starting one. `yes`: approve everything."""

    url: str
    token: str | None = None
    text: str | None = None
    run_id: str | None = None
    agent: str | None = None
    thread_id: str | None = None
    since_seq: int = 0
    yes: bool = False
    json: bool = False
    watch_only: bool = False


async def chat(options: ChatOptions) -> int:
    """The program; returns its exit code. Raises what `failure.explain` explains."""
    terminal = Terminal(sys.stdout, sys.stderr)
    person = sys.stdin.isatty() and not options.json and not options.watch_only
    talk = _Chat(options, terminal, person=person)
    async with connect(options.url, token=options.token, on_state=talk.on_state) as client:
        return await talk.talk(client)


class _Chat:
    def __init__(self, options: ChatOptions, terminal: Terminal, *, person: bool) -> None:
        self._options = options
        self._terminal = terminal
        self._person = person
        self._typist = Typist(sys.stdin.fileno(), self._typed) if person else None
        self._loops = options.text is None and options.run_id is None
        self._client: Client | None = None
        self._run: Run | None = None
        self._next: Run | None = None
        self._thread_id = options.thread_id
        self._renderer = Renderer()
        self._lines: asyncio.Queue[str | None] = asyncio.Queue()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._leaving = asyncio.Event()
        self._left_with = EXIT_OK
        self._live = False
        self._asking: str | None = None
        self._announced: set[str] = set()
        self._interrupts = 0
        self._editing = False
        self._was_lost = False
        self._doing: set[asyncio.Task[None]] = set()

    # -- the conversation

    async def talk(self, client: Client) -> int:
        self._client = client
        loop = asyncio.get_running_loop()
        if not self._options.watch_only:
            loop.add_signal_handler(signal.SIGINT, self._interrupted)
        if self._typist is not None:
            self._typist.listen()
        try:
            if self._loops:
                return await self._converse(client)
            return await self._once(client)
        finally:
            if not self._options.watch_only:
                loop.remove_signal_handler(signal.SIGINT)
            if self._typist is not None:
                self._typist.stop()
            self._terminal.unask()
            await stop(*self._doing)

    async def _once(self, client: Client) -> int:
        if self._options.run_id is not None:
            opening: Coroutine[Any, Any, Run] = client.attach(self._options.run_id, since_seq=self._options.since_seq)
        else:
            opening = self._start(client, self._options.text or "")
        code = await self._follow(opening)
        while self._next is not None and not self._leaving.is_set():
            code = await self._follow(_ready(self._next))
        return code

    async def _converse(self, client: Client) -> int:
        self._terminal.note("one thread, any number of runs; /help says what can be typed while one runs")
        while not self._leaving.is_set():
            text = await self._next_line()
            if text is None:
                break
            if not text.strip():
                continue
            # While nothing runs there is only one thing to say; commands keep their meaning.
            intent = keys.parse(text, asked=None) if text.lstrip().startswith("/") else Correct(text.strip())
            match intent:
                case Quit():
                    break
                case Say(said):
                    self._terminal.note(said)
                case Correct(said):
                    try:
                        await self._follow(self._start(client, said))
                        while self._next is not None and not self._leaving.is_set():
                            await self._follow(_ready(self._next))
                    except Explained as error:
                        if client.state == "closed":
                            raise
                        self._terminal.note(explain(error, url=self._options.url), "bad")
                case _:
                    self._terminal.note("nothing is running; type what you want done")
        return self._left_with

    async def _next_line(self) -> str | None:
        self._terminal.ask("› ")
        line = spawn(self._lines.get(), name="chat/line")
        leaving = spawn(self._leaving.wait(), name="chat/leaving")
        await asyncio.wait([line, leaving], return_when=asyncio.FIRST_COMPLETED)
        text = line.result() if line.done() else None
        await stop(line, leaving)
        return text

    async def _start(self, client: Client, text: str) -> Run:
        return await client.start(input=text, agent=self._options.agent, thread_id=self._thread_id)

    # -- one run

    async def _follow(self, opening: Coroutine[Any, Any, Run]) -> int:
        self._interrupts = 0
        self._next = None
        self._live = False
        self._renderer = Renderer(own_input=self._options.run_id is not None)
        reading = spawn(self._read(opening), name="chat/run")
        leaving = spawn(self._leaving.wait(), name="chat/leaving")
        try:
            await asyncio.wait([reading, leaving], return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                self._farewell()
                return self._left_with
            reading.result()
        finally:
            await stop(reading, leaving)
        if self._doing:
            await asyncio.wait(self._doing, timeout=_ANSWERS_WAIT_S)
        self._run = None
        self._stop_asking()
        return EXIT_OF.get(self._renderer.ended or "", EXIT_FAILED)

    async def _read(self, opening: Coroutine[Any, Any, Run]) -> None:
        run = self._run = await opening
        async for update in run.updates():
            await self._flowing.wait()
            self._on_update(update)

    def _on_update(self, update: Update) -> None:
        renderer, show = self._renderer, self._terminal.show
        match update:
            case Received(event=event, text=text):
                if self._options.json:
                    self._terminal.raw(text)
                    # The state machine still has to know what waits.
                    list(renderer.event(event))
                else:
                    show(renderer.event(event))
            case RunAttached():
                self._live = False
                self._thread_id = update.thread_id
                parts = list(renderer.attached(update))
                if not self._options.json:
                    show(parts)
            case RunReset():
                parts = list(renderer.reset(update))
                if self._options.json:
                    self._terminal.note(f"the log starts over at {update.snapshot_seq} ({update.reason})", "warn")
                else:
                    show(parts)
            case _:
                parts = list(renderer.caught_up())
                if not self._options.json:
                    show(parts)
                self._live = True
        if self._live:
            self._look_at_asks()

    def _farewell(self) -> None:
        run = self._run
        if run is not None:
            self._terminal.note(f"left; the run goes on. Come back with: midstream chat --run {safe_line(run.run_id)}")

    # -- what waits for an answer

    def _look_at_asks(self) -> None:
        """Ask for the oldest one, once it is known that it still waits."""
        asks = self._renderer.asks
        key = next(iter(asks), None)
        if key is None:
            self._stop_asking()
            return
        for each, ask in asks.items():
            if each not in self._announced:
                self._announced.add(each)
                self._announce(each, ask)
        if self._person and key != self._asking:
            self._asking = key
            self._terminal.ask(_prompt(asks[key]))

    def _announce(self, key: str, ask: Ask) -> None:
        """To those who cannot type here."""
        run = self._run
        if run is None or self._options.watch_only:
            return
        if self._options.yes and isinstance(ask, ApprovalRequired):
            self._terminal.note(f"!! APPROVED WITHOUT ASKING (--yes): {safe_line(ask.label)}", "bad")
            self._do(self._approve(run, ask, None))
        elif not self._person:
            verb = "approve|deny" if isinstance(ask, ApprovalRequired) else "answer"
            rest = "" if isinstance(ask, ApprovalRequired) else " TEXT"
            self._terminal.note(
                f"waiting for an answer, from another terminal: midstream {verb} {safe_line(run.run_id)} {key}{rest}",
                "ask",
            )

    def _stop_asking(self) -> None:
        if self._asking is not None:
            self._asking = None
            self._terminal.unask()

    # -- what is typed

    def _typed(self, line: str | None) -> None:
        self._terminal.typed()
        run = self._run
        if run is None:
            self._lines.put_nowait(line)
            return
        if line is None:
            # The end of input is no wish to stop the run.
            self._lines.put_nowait(None)
            return
        held = not self._flowing.is_set()
        self._flowing.set()
        asked = self._renderer.asks.get(self._asking or "")
        intent = self._intent(line, asked)
        if isinstance(intent, Hold) and held:
            return
        self._asking = None
        self._act(run, intent, asked)
        if self._live:
            self._look_at_asks()

    def _intent(self, line: str, asked: Ask | None) -> Intent:
        if asked is None:
            return keys.parse(line, asked=None)
        if isinstance(asked, ApprovalRequired):
            return keys.parse(line, asked="approval")
        as_json = (asked.schema or {}).get("type") in _JSON_TYPES
        return keys.parse(line, asked="input", choices=tuple(asked.choices or ()), as_json=as_json)

    def _act(self, run: Run, intent: Intent, asked: Ask | None) -> None:
        match intent:
            case Say(text):
                self._terminal.note(text)
            case Hold():
                self._flowing.clear()
                self._terminal.ask("held - type a correction, or Enter to go on › ")
            case Quit():
                self._left_with = EXIT_OK
                self._leaving.set()
            case Stop(mode, reason):
                self._do(self._sent(run.cancel(mode=mode, reason=reason)))
            case Correct(text, mode):
                self._do(self._correct(run, text, mode))
            case Revoke():
                self._revoke(run)
            case Reply(answer) if asked is not None and not isinstance(asked, ApprovalRequired):
                self._do(self._sent(run.answer(asked.input_id, answer)))
            case Deny(reason) if isinstance(asked, ApprovalRequired):
                self._do(self._sent(run.deny(asked.approval_id, reason=reason)))
            case Approve(for_run) if isinstance(asked, ApprovalRequired):
                if for_run and "run" not in asked.remember_scopes:
                    self._terminal.note("this one cannot be remembered; answer y to approve it once")
                else:
                    remember = Remember(scope="run") if for_run else None
                    self._do(self._approve(run, asked, None, remember=remember))
            case Edit(args) if isinstance(asked, ApprovalRequired):
                if not asked.editable:
                    self._terminal.note("its arguments cannot be edited; answer y or n")
                elif args is not None:
                    self._do(self._approve(run, asked, args))
                else:
                    self._do(self._edit(run, asked))

    def _revoke(self, run: Run) -> None:
        correction_id = self._renderer.last_correction
        if correction_id is None:
            self._terminal.note("there is no correction to take back")
        else:
            self._do(self._sent(run.revoke(correction_id)))

    # -- what is sent

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        task = spawn(self._guarded(work), name="chat/command")
        self._doing.add(task)
        task.add_done_callback(self._doing.discard)

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Explained as error:
            self._terminal.note(explain(error, url=self._options.url), "bad")
            # A refused answer leaves the question open: ask again.
            self._asking = None
            if self._live:
                self._look_at_asks()

    async def _sent(self, command: Coroutine[Any, Any, Any]) -> None:
        await command

    async def _approve(
        self, run: Run, ask: ApprovalRequired, args: dict[str, Any] | None, *, remember: Remember | None = None
    ) -> None:
        # The digest makes sure that what was seen here is what is approved.
        await run.approve(ask.approval_id, args=args, args_digest=ask.args_digest, remember=remember)

    async def _correct(self, run: Run, text: str, mode: Any) -> None:
        # In a conversation, what comes a moment too late is the next thing to do; the server decides which it is.
        receipt = await run.correct(text, mode=mode, if_ended="start" if self._loops else "reject")
        if receipt.as_ == "started" and self._client is not None:
            self._next = self._client.run(receipt.run_id or "")

    async def _edit(self, run: Run, ask: ApprovalRequired) -> None:
        self._flowing.clear()
        self._editing = True
        if self._typist is not None:
            self._typist.stop()
        try:
            after = await edited(ask.args)
        except ValueError as wrong:
            self._terminal.note(str(wrong), "bad")
            after = None
        finally:
            self._editing = False
            self._flowing.set()
            if self._typist is not None:
                self._typist.listen()
        changed = keys.changed_args(ask.args, after) if after is not None else {}
        if not changed:
            self._terminal.note("nothing was changed, and nothing approved")
            self._asking = None
            self._look_at_asks()
            return
        self._terminal.note(f"approving with: {safe_line(value_text(changed), limit=500)}")
        try:
            await self._approve(run, ask, changed)
        except InvalidArgs:
            self._terminal.note("the edit was not taken:", "bad")
            raise

    # -- signals and the connection

    def _interrupted(self) -> None:
        if self._editing:
            return
        run = self._run
        self._interrupts += 1
        if run is None or self._interrupts > 2:
            self._left_with = EXIT_INTERRUPTED
            self._leaving.set()
            return
        self._flowing.set()
        self._terminal.typed()
        if self._interrupts == 1:
            self._terminal.note("cancelling; Ctrl-C again to force", "warn")
        else:
            self._terminal.note("forcing; Ctrl-C again leaves this terminal, not the run", "warn")
        self._do(self._sent(run.cancel(mode="now")))

    def on_state(self, state: State, reason: str) -> None:
        if state == "reconnecting":
            self._was_lost = True
            self._live = False
            self._terminal.note(f"reconnecting… ({safe_line(reason)})", "warn")
        elif state == "ready" and self._was_lost:
            self._was_lost = False
            self._terminal.note("connected again")


def _prompt(ask: Ask) -> str:
    if not isinstance(ask, ApprovalRequired):
        return "answer › "
    edit = ", e edit" if ask.editable else ""
    remember = ", a all for this run" if "run" in ask.remember_scopes else ""
    return f"approve? y yes, n no [reason]{edit}{remember} › "


async def _ready(run: Run) -> Run:
    return run
