"""Intents to commands: what was typed is sent, and a refusal is said."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from midstream.cli import keys
from midstream.cli.blocks import Style, value_text
from midstream.cli.editor import edited
from midstream.cli.failure import Explained, explain
from midstream.cli.keys import Approve, Correct, Deny, Edit, Intent, Reply, Revoke, Stop
from midstream.cli.render import Ask
from midstream.client import Run
from midstream.client.safe_text import safe_line
from midstream.tasks import spawn, stop
from midstream_protocol.commands import Remember
from midstream_protocol.events import ApprovalRequired, CorrectionMode
from midstream_protocol.frames import Receipt


class Stage(Protocol):
    """Where it happens: what an action may do to the terminal and to the following of its run."""

    url: str

    def note(self, text: str, style: Style = "dim") -> None: ...

    def ask_again(self) -> None:
        """What waits still waits."""
        ...

    def lend_terminal(self) -> None:
        """To an editor: no output, no input, until it is taken back."""
        ...

    def take_back_terminal(self) -> None: ...


class Actions:
    """One run's. Each command is a task of its own: a later one, a cancel say, never waits for an earlier receipt.

    `starts_anew`: a correction that comes too late starts the next run, instead of being refused; it then goes to
    `on_started`.
    """

    def __init__(self, run: Run, stage: Stage, *, starts_anew: bool, on_started: Callable[[str], None]) -> None:
        self.last_correction: str | None = None
        self._run = run
        self._stage = stage
        self._starts_anew = starts_anew
        self._on_started = on_started
        self._tasks: set[asyncio.Task[None]] = set()

    def act(self, intent: Intent, asked: Ask | None) -> None:
        """`asked` is the question that was shown when the line was typed."""
        run = self._run
        match intent:
            case Stop(mode, reason):
                self._do(run.cancel(mode=mode, reason=reason))
            case Correct(text, mode):
                self._do(self._correct(text, mode))
            case Revoke() if self.last_correction is None:
                self._stage.note("there is no correction to take back")
            case Revoke():
                self._do(run.revoke(self.last_correction or ""))
            case Reply(answer) if asked is not None and not isinstance(asked, ApprovalRequired):
                self._do(run.answer(asked.input_id, answer))
            case Deny(reason) if isinstance(asked, ApprovalRequired):
                self._do(run.deny(asked.approval_id, reason=reason))
            case Approve(for_run) if isinstance(asked, ApprovalRequired):
                self.approve(asked, for_run=for_run)
            case Edit(args) if isinstance(asked, ApprovalRequired):
                self._edit(asked, args)

    def approve(self, ask: ApprovalRequired, *, for_run: bool = False) -> None:
        if for_run and "run" not in ask.remember_scopes:
            self._stage.note("this one cannot be remembered; answer y to approve it once")
            self._stage.ask_again()
        else:
            self._do(self._approve(ask, remember=Remember(scope="run") if for_run else None))

    async def finish(self, *, within_s: float) -> None:
        """Wait for the receipts of what was typed in the last moment."""
        if self._tasks:
            _, unconfirmed = await asyncio.wait(self._tasks, timeout=within_s)
            if unconfirmed:
                self._stage.note(f"not confirmed by the server: {len(unconfirmed)} of what was typed last", "warn")
        await stop(*self._tasks)

    def _do(self, work: Coroutine[Any, Any, Receipt | None]) -> None:
        task = spawn(self._said(work), name=f"chat:{self._run.run_id}/command")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _said(self, work: Coroutine[Any, Any, Receipt | None]) -> None:
        try:
            await work
        except Explained as error:
            self._stage.note(explain(error, url=self._stage.url), "bad")
            self._stage.ask_again()

    async def _correct(self, text: str, mode: CorrectionMode) -> None:
        # The server decides whether it came too late: only it knows.
        receipt = await self._run.correct(text, mode=mode, if_ended="start" if self._starts_anew else "reject")
        if receipt.as_ == "started" and receipt.run_id is not None:
            self._on_started(receipt.run_id)

    async def _approve(
        self, ask: ApprovalRequired, *, args: dict[str, Any] | None = None, remember: Remember | None = None
    ) -> Receipt:
        # The digest makes sure that what was seen here is what is approved.
        return await self._run.approve(ask.approval_id, args=args, args_digest=ask.args_digest, remember=remember)

    def _edit(self, ask: ApprovalRequired, args: dict[str, Any] | None) -> None:
        if not ask.editable:
            self._stage.note("its arguments cannot be edited; answer y or n")
            self._stage.ask_again()
        elif args is not None:
            self._do(self._approve(ask, args=args))
        else:
            self._do(self._edit_outside(ask))

    async def _edit_outside(self, ask: ApprovalRequired) -> None:
        self._stage.lend_terminal()
        try:
            after = await edited(ask.args)
        except ValueError as wrong:
            self._stage.note(str(wrong), "bad")
            after = ask.args
        finally:
            self._stage.take_back_terminal()
        changed = keys.changed_args(ask.args, after)
        if changed:
            self._stage.note(f"approving with {safe_line(value_text(changed), limit=500)}")
            await self._approve(ask, args=changed)
        else:
            self._stage.note("nothing was changed, and nothing approved")
            self._stage.ask_again()
