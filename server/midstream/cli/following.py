"""One run at a terminal: its updates are printed, its questions asked, and what is typed meanwhile is acted on."""

import asyncio
from collections.abc import Callable
from typing import Final

from midstream.cli import keys
from midstream.cli.acting import Actions, Stage
from midstream.cli.failure import EXIT_FAILED, EXIT_OF
from midstream.cli.invoked import command
from midstream.cli.keys import Approve, Deny, Edit, Hold, Intent, Quit, Reply, Say, Stop
from midstream.cli.render import Ask, Renderer
from midstream.cli.terminal import Terminal
from midstream.client import Received, Run, Update
from midstream.client.safe_text import safe_line
from midstream_protocol.events import ApprovalRequired
from midstream_protocol.frames import RunAttached, RunReset

LAST_RECEIPTS_S: Final = 2.0

_JSON_TYPES: Final = frozenset({"number", "integer", "boolean", "object", "array"})


class Following:
    """`person`: somebody can be asked here. `yes`: approve everything. `json`: print the events as they are.

    `quiet`: only watch; say nothing about what waits.
    """

    def __init__(
        self,
        run: Run,
        terminal: Terminal,
        stage: Stage,
        *,
        leave: Callable[[], None],
        person: bool,
        yes: bool,
        json: bool,
        quiet: bool,
        own_input: bool,
        starts_anew: bool,
    ) -> None:
        self.run = run
        self.next_run_id: str | None = None
        """The run that a correction started because this one was over."""
        self._terminal = terminal
        self._url = stage.url
        self._leave = leave
        self._person = person
        self._yes = yes
        self._json = json
        self._quiet = quiet
        self._renderer = Renderer(own_input=own_input)
        self._actions = Actions(run, stage, starts_anew=starts_anew, on_started=self._started)
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._live = False
        self._asking: str | None = None
        self._announced: set[str] = set()
        self._answered: set[str] = set()
        """Answered here, and the answer is on its way: not to be asked again unless it is refused."""
        self._cancels = 0

    async def follow(self) -> int:
        """To the end of the run; its exit code."""
        async for update in self.run.updates():
            await self._flowing.wait()
            self._show(update)
        await self._actions.finish(within_s=LAST_RECEIPTS_S)
        return EXIT_OF.get(self._renderer.ended or "", EXIT_FAILED)

    async def end(self) -> None:
        """No more of it here, whatever becomes of the run."""
        self._stop_asking()
        await self._actions.finish(within_s=LAST_RECEIPTS_S)

    # -- what the run does

    def _show(self, update: Update) -> None:
        renderer = self._renderer
        match update:
            case Received(event=event, text=text):
                if self._json:
                    self._terminal.raw(text)
                parts = list(renderer.event(event))
                self._actions.last_correction = renderer.last_correction
            case RunAttached():
                self._live = False
                parts = list(renderer.attached(update))
            case RunReset():
                parts = list(renderer.reset(update))
                if self._json:
                    self._terminal.note(f"the log starts over after {update.snapshot_seq} ({update.reason})", "warn")
            case _:
                parts = list(renderer.caught_up())
                self._live = True
        if not self._json:
            self._terminal.show(parts)
        self._look_at_asks()

    def lost(self) -> None:
        """The connection is gone: what waits is only known again when it is back."""
        self._live = False

    # -- what waits for an answer

    def ask_again(self) -> None:
        self._asking = None
        self._answered.clear()
        self._look_at_asks()

    def _look_at_asks(self) -> None:
        """Ask for the oldest, once it is known that it still waits."""
        if not self._live:
            return
        asks = self._renderer.asks
        for key, ask in asks.items():
            if key not in self._announced:
                self._announced.add(key)
                self._announce(key, ask)
        mine = [key for key, ask in asks.items() if not (key in self._answered or self._approves(ask))]
        if not mine:
            self._stop_asking()
        elif self._person and mine[0] != self._asking:
            self._asking = mine[0]
            self._terminal.ask(_prompt(asks[mine[0]]))

    def _announce(self, key: str, ask: Ask) -> None:
        if self._approves(ask) and isinstance(ask, ApprovalRequired):
            self._terminal.note(f"!! APPROVED WITHOUT ASKING (--yes): {safe_line(ask.label)}", "bad")
            self._actions.approve(ask)
        elif not self._person and not self._quiet:
            run_id = safe_line(self.run.run_id)
            approval = isinstance(ask, ApprovalRequired)
            how = f"approve|deny {run_id} {safe_line(key)}" if approval else f"answer {run_id} TEXT"
            self._terminal.note(f"waiting for an answer, from another terminal: {command(how, url=self._url)}", "ask")

    def _approves(self, ask: Ask) -> bool:
        return self._yes and isinstance(ask, ApprovalRequired)

    def _stop_asking(self) -> None:
        if self._asking is not None:
            self._asking = None
            self._terminal.unask()

    # -- what a person does

    def typed(self, line: str) -> None:
        held = not self._flowing.is_set()
        self._flowing.set()
        asked = self._renderer.asks.get(self._asking or "")
        intent = self._meant(line, asked)
        key, self._asking = self._asking, None
        match intent:
            case Hold() if not held:
                self._flowing.clear()
                self._terminal.ask("held - type a correction, or Enter to go on › ")
                return
            case Hold():
                pass
            case Quit():
                self._leave()
            case Say(text):
                self._terminal.note(text)
            case _:
                if isinstance(intent, Approve | Deny | Edit | Reply) and key is not None:
                    self._answered.add(key)
                self._actions.act(intent, asked)
        self._look_at_asks()

    def _meant(self, line: str, asked: Ask | None) -> Intent:
        if asked is None:
            return keys.parse(line, asked=None)
        if isinstance(asked, ApprovalRequired):
            return keys.parse(line, asked="approval")
        as_json = (asked.schema or {}).get("type") in _JSON_TYPES
        return keys.parse(line, asked="input", choices=tuple(asked.choices or ()), as_json=as_json)

    def interrupted(self) -> bool:
        """Ctrl-C: cancel, then force. Whether there is nothing harder left to do."""
        self._cancels += 1
        self._flowing.set()
        if self._cancels > 2:
            return True
        first = "cancelling; Ctrl-C again to force"
        second = "forcing; Ctrl-C again leaves this terminal, and the run to its server"
        self._terminal.note(first if self._cancels == 1 else second, "warn")
        self._actions.act(Stop(), None)
        return False

    def hold(self) -> None:
        self._flowing.clear()

    def go_on(self) -> None:
        self._flowing.set()

    def _started(self, run_id: str) -> None:
        self.next_run_id = run_id


def _prompt(ask: Ask) -> str:
    if not isinstance(ask, ApprovalRequired):
        return "answer › "
    edit = ", e edit" if ask.editable else ""
    remember = ", a all for this run" if "run" in ask.remember_scopes else ""
    return f"approve? y yes, n no [reason]{edit}{remember} › "
