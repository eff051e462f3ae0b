"""The conversation at a terminal: one run, or a prompt and one run after the other in one thread."""

import asyncio
import signal
import sys
from collections.abc import Coroutine
from typing import Any

from msgspec import Struct

from midstream.cli import keys
from midstream.cli.blocks import Status, Style
from midstream.cli.failure import EXIT_INTERRUPTED, EXIT_OK, Explained, explain
from midstream.cli.following import Following
from midstream.cli.invoked import command
from midstream.cli.keys import Correct, Quit, Say
from midstream.cli.terminal import Terminal, Typist
from midstream.client import Client, Run, State, connect
from midstream.client.safe_text import safe_line
from midstream.tasks import spawn, stop


class ChatOptions(Struct, kw_only=True, frozen=True):
    """`text` None: a prompt loop. `run_id`: follow that run instead of starting one. `watch_only`: steer nothing."""

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
    conversation = _Conversation(options, Terminal(sys.stdout, sys.stderr, live=not options.json))
    async with connect(options.url, token=options.token, on_state=conversation.on_state) as client:
        return await conversation.hold_with(client)


class _Conversation:
    """The stage of its runs (see `acting.Stage`), and the one place that hears the keyboard and the signals."""

    def __init__(self, options: ChatOptions, terminal: Terminal) -> None:
        self.url = options.url
        self._options = options
        self._terminal = terminal
        self._person = sys.stdin.isatty() and terminal.live and not options.watch_only
        self._typist = Typist(sys.stdin.fileno(), self._typed) if self._person else None
        self._loops = options.text is None and options.run_id is None
        self._thread_id = options.thread_id
        self._following: Following | None = None
        self._lines: asyncio.Queue[str | None] = asyncio.Queue()
        self._leaving = asyncio.Event()
        self._left_with = EXIT_OK
        self._terminal_lent = False
        self._was_lost = False

    async def hold_with(self, client: Client) -> int:
        loop = asyncio.get_running_loop()
        if not self._options.watch_only:
            loop.add_signal_handler(signal.SIGINT, self._interrupted)
        if self._typist is not None:
            self._typist.listen()
        ticking = spawn(self._tick(), name="chat/tick")
        try:
            return await (self._converse(client) if self._loops else self._once(client))
        finally:
            if self._typist is not None:
                self._typist.stop()
            if not self._options.watch_only:
                loop.remove_signal_handler(signal.SIGINT)
            self._terminal.unask()
            await stop(ticking)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(1)
            if not self._terminal_lent:
                self._terminal.tick()

    async def _once(self, client: Client) -> int:
        options = self._options
        if options.run_id is not None:
            return await self._follow(client, client.attach(options.run_id, since_seq=options.since_seq))
        return await self._follow(client, self._start(client, options.text or ""))

    async def _converse(self, client: Client) -> int:
        self._terminal.note("one thread, any number of runs; /help says what can be typed while one runs")
        while (text := await self._next_line()) is not None:
            # A line is what to do next, unless it is a command.
            intent = keys.parse(text, asked=None) if text.startswith("/") else Correct(text)
            match intent:
                case Quit():
                    break
                case Say(said):
                    self._terminal.note(said)
                case Correct(said):
                    await self._do(client, said)
                case _:
                    self._terminal.note("nothing is running; type what you want done")
        return self._left_with

    async def _do(self, client: Client, text: str) -> None:
        try:
            await self._follow(client, self._start(client, text))
        except Explained as error:
            if client.state == "closed":
                raise
            self._terminal.note(explain(error, url=self.url), "bad")

    async def _next_line(self) -> str | None:
        """The next line that says something; None: it is over."""
        text = ""
        while not text:
            self._terminal.ask("› ")
            line = spawn(self._lines.get(), name="chat/line")
            leaving = spawn(self._leaving.wait(), name="chat/leaving")
            await asyncio.wait([line, leaving], return_when=asyncio.FIRST_COMPLETED)
            typed = line.result() if line.done() else None
            await stop(line, leaving)
            if typed is None or self._leaving.is_set():
                return None
            text = typed.strip()
        return text

    async def _start(self, client: Client, text: str) -> Run:
        return await client.start(input=text, agent=self._options.agent, thread_id=self._thread_id)

    # -- one run

    async def _follow(self, client: Client, opening: Coroutine[Any, Any, Run]) -> int:
        """The exit code of the run, or of being left."""
        following = spawn(_outcome(self._read(client, opening)), name="chat/run")
        leaving = spawn(self._leaving.wait(), name="chat/leaving")
        try:
            await asyncio.wait([following, leaving], return_when=asyncio.FIRST_COMPLETED)
            if following.done():
                if isinstance(outcome := following.result(), Exception):
                    raise outcome
                return outcome
            self._farewell()
            return self._left_with
        finally:
            await stop(following, leaving)

    async def _read(self, client: Client, opening: Coroutine[Any, Any, Run]) -> int:
        options = self._options
        run = await opening
        while True:
            following = self._following = Following(
                run,
                self._terminal,
                self,
                leave=self._leaving.set,
                person=self._person,
                yes=options.yes,
                json=options.json,
                quiet=options.watch_only,
                own_input=options.run_id is not None,
                starts_anew=self._loops,
            )
            self._deliver_typed_ahead(following)
            try:
                code = await following.follow()
            finally:
                self._following = None
                await following.end()
            if run.info is not None:
                self._thread_id = run.info.thread_id
            if following.next_run_id is None:
                return code
            run = client.run(following.next_run_id)

    def _deliver_typed_ahead(self, following: Following) -> None:
        """What was typed while the run was being opened is meant for it."""
        while not self._lines.empty():
            line = self._lines.get_nowait()
            if line is None:
                self._lines.put_nowait(None)
                return
            following.typed(line)

    def _farewell(self) -> None:
        if self._following is not None:
            back = command(f"chat --run {safe_line(self._following.run.run_id)}", url=self.url)
            self._terminal.note(f"left; the run goes on. Come back with: {back}")

    # -- what comes from outside

    def _typed(self, line: str | None) -> None:
        self._terminal.typed()
        if self._following is None or line is None:
            # The end of input is no wish to stop a run; it ends the conversation after it.
            self._lines.put_nowait(line)
        else:
            self._following.typed(line)

    def _interrupted(self) -> None:
        if self._terminal_lent:
            # It was meant for the editor, which got it too.
            return
        self._terminal.interrupted()
        if self._following is None or self._following.interrupted():
            self._left_with = EXIT_INTERRUPTED
            self._leaving.set()

    def on_state(self, state: State, reason: str) -> None:
        if state == "reconnecting":
            self._was_lost = True
            if self._following is not None:
                self._following.lost()
            self.note(f"reconnecting… ({safe_line(reason)})", "warn")
            self._terminal.show([Status(f"no connection to {safe_line(self.url)}; trying again")])
        elif state == "ready" and self._was_lost:
            self._was_lost = False
            self._terminal.show([Status("")])
            self.note("connected again")

    # -- what its runs' actions may do

    def note(self, text: str, style: Style = "dim") -> None:
        self._terminal.note(text, style)

    def ask_again(self) -> None:
        if self._following is not None:
            self._following.ask_again()

    def lend_terminal(self) -> None:
        self._terminal_lent = True
        if self._following is not None:
            self._following.hold()
        if self._typist is not None:
            self._typist.stop()

    def take_back_terminal(self) -> None:
        self._terminal_lent = False
        if self._following is not None:
            self._following.go_on()
        if self._typist is not None:
            self._typist.listen()


async def _outcome(work: Coroutine[Any, Any, int]) -> int | Exception:
    """What a run's reading came to. A refusal is an answer here, not a task that failed."""
    try:
        return await work
    except Explained as error:
        return error
