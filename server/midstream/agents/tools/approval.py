"""Whether a call needs a person's leave, and getting it. What was approved is what runs, or nothing does."""

import asyncio
from collections.abc import Collection
from inspect import isawaitable
from typing import Any, Final

import msgspec
from msgspec import Struct

from midstream.agents.journal import journal_record
from midstream.agents.tools.context import ToolError
from midstream.agents.tools.definition import AskWhen, Preview, Tool
from midstream.agents.tools.effect import Effect, Raised, Returned
from midstream.agents.tools.shown import bounded
from midstream.agents.tools.site import CallFailed, Site
from midstream.agents.tools.validate import to_arguments
from midstream.clock import Clock
from midstream.logs import Logger
from midstream.runs.contract import CallRecord, RunFailure
from midstream.runs.grants import SCOPES, Scope
from midstream.runs.port import Port
from midstream.runs.state import Answer
from midstream.threads import in_thread
from midstream_protocol import events
from midstream_protocol.codec import iso_ms, json_safe
from midstream_protocol.events import ApprovalRequired, Notice, Risk

_log = Logger("midstream.agents")

POLICY: Final = "policy"
CHANGED: Final = "changed"
UNKNOWN_OUTCOME: Final = "unknown_outcome"

_FOR: Final[dict[Scope, str]] = {"run": "this run", "thread": "this thread", "always": "every run"}
"""How far a grant reaches, in words."""

_FIRST: Final = "appr"

PREVIEW_TIMEOUT_S: Final = 10.0
"""Seconds to make a preview: a person waits for it, and nothing has been asked yet."""

MAX_PREVIEW_DATA: Final = 64 * 1024
"""Characters of a preview's text: a diff that a person can read."""


class Guard(Struct, kw_only=True, frozen=True):
    """Journal kind `guard`, key = approval_id: the state of the world that its preview showed."""

    guard: str | None


class Approvals:
    """The questions of one run about its calls."""

    def __init__(self, port: Port) -> None:
        self._port = port
        self._guards = {
            record.key: msgspec.json.decode(record.data, type=Guard).guard
            for record in port.journal
            if record.kind == "guard"
        }

    async def settle(self, site: Site, *, unsettled: bool) -> Site:
        """Return the call as it may run: its arguments are the approved ones. Continues a question that is open or
        answered already. `unsettled`: the same call may have had its effect before, so a person is asked.

        Raises `CallFailed` (denied, expired, cancelled), `RunFailure` (expired, where the tool says so), `Stopping`.
        """
        answer = await self._given(site)
        if answer is None:
            reason = UNKNOWN_OUTCOME if unsettled else self._needed(site)
            if reason is None:
                return site
            scopes = () if unsettled else _scopes(site.tool)
            leave = await self._port.leave_for(site.tool.name, scopes) if scopes else None
            if leave is not None:
                text = f"{site.label}: approved for {_FOR[leave.scope]} ({leave.grant_id})"
                await self._port.emit(Notice(level="info", code="approval_granted", text=text), step_id=site.step_id)
                return site
            answer = await self._ask(site, reason)
        while True:
            _check(answer, site)
            site = self._approved(site)
            if await self._unchanged(answer, site):
                return site
            answer = await self._ask(site, CHANGED)

    async def again(self, site: Site, *, attempt: int) -> Site | None:
        """Ask whether to run a call again whose outcome is unknown, as this attempt. None: do not."""
        # The id says what the leave was for: one for the first start, or for an attempt before, is no leave for this.
        prefix = f"again{attempt}"
        answer = await self._given(site, prefix=prefix)
        if answer is None:
            answer = await self._ask(site, UNKNOWN_OUTCOME, prefix=prefix)
        if answer.decision == "cancelled":
            raise CallFailed(
                "cancelled", "The call was cancelled; whether it had an effect is unknown.", outcome="unknown"
            )
        return self._approved(site) if answer.decision == "approved" else None

    async def _given(self, site: Site, *, prefix: str = _FIRST) -> Answer | None:
        """The answer to a question about this call that was asked before (the program began again)."""
        open_id = self._port.open_approval_of(site.call_id)
        if open_id is not None:
            return await self._port.answer(open_id)
        answer = self._port.approval_of(site.call_id)
        return answer if answer is not None and answer.key.startswith(f"{prefix}_") else None

    def _needed(self, site: Site) -> str | None:
        policy = site.tool.approval
        if policy == "never":
            return None
        if not isinstance(policy, AskWhen):
            return POLICY
        try:
            asks = policy.when(to_arguments(site.tool.arguments, site.args))
        except Exception:  # noqa: BLE001 - the app's function may raise anything
            # Who cannot tell whether to ask, asks.
            _log.exception("ask_when failed: asking", tool=site.tool.name, run=self._port.start.run_id)
            asks = True
        return (policy.reason or POLICY) if asks else None

    async def _ask(self, site: Site, reason: str, *, prefix: str = _FIRST) -> Answer:
        tool, port = site.tool, self._port
        preview = await make_preview(tool, site.args, clock=port.clock)
        approval_id = port.new_id(prefix)
        guard = preview.guard if preview is not None else None
        self._guards[approval_id] = guard
        required = ApprovalRequired(
            approval_id=approval_id,
            tool_call_id=site.call_id,
            tool=tool.name,
            label=site.label,
            reason=reason,
            risk=_risk(tool),
            args=tool.shown_args(site.args),
            editable=tool.editable,
            args_digest=port.args_digest(site.args),
            decisions=["approve", "deny"],
            # A grant would not have answered these two questions.
            remember_scopes=[] if reason in (CHANGED, UNKNOWN_OUTCOME) else list(_scopes(tool)),
            expires_at=iso_ms(port.clock.now_ms() + round(tool.expires_s * 1000)),
            expires_in_s=tool.expires_s,
            on_expire=tool.on_expire,
            preview=_shown(preview) if preview is not None else None,
            args_schema=tool.input_schema if tool.editable else None,
        )
        journal = [
            journal_record("call", site.call_id, CallRecord(tool=tool.name, args=site.args)),
            journal_record("guard", approval_id, Guard(guard=guard)),
        ]
        return await port.ask(required, journal=journal, step_id=site.step_id)

    def _approved(self, site: Site) -> Site:
        args = self._port.call_args(site.call_id)
        return site if args is None else msgspec.structs.replace(site, args=args)

    async def _unchanged(self, answer: Answer, site: Site) -> bool:
        """Whether what the preview showed still holds. An edit that leads to another state of the world is a change."""
        if site.tool.preview is None:
            return True
        now = await make_preview(site.tool, site.args, clock=self._port.clock)
        return now is not None and now.guard == self._guards.get(answer.key)


async def make_preview(tool: Tool, args: dict[str, Any], *, clock: Clock) -> Preview | None:
    """What the approval shows. Raises `CallFailed`: a call that cannot be previewed would fail, so nobody is asked."""
    maker = tool.preview
    if maker is None:
        return None
    typed = to_arguments(tool.arguments, args)

    async def made() -> Any:
        found = await in_thread(lambda: maker(typed), name=f"preview:{tool.name}")
        return await found if isawaitable(found) else found

    effect = Effect(made, timeout_s=PREVIEW_TIMEOUT_S, clock=clock, name=f"preview:{tool.name}")
    match await effect.ending():
        case _ if effect.run_cancelled:
            raise asyncio.CancelledError
        case Returned(value=Preview() as preview):
            return preview
        case Raised(error=ToolError() as error):
            raise CallFailed("tool_error", error.text, retryable=error.retryable) from error
        case Raised(error=error):
            _log.error("a preview failed", tool=tool.name, exc_info=error)
            raise CallFailed("tool_error", f"The preview failed: {type(error).__name__}.") from error
        case Returned():
            _log.error("a preview is no Preview", tool=tool.name)
            raise CallFailed("tool_error", "The preview failed.")
        case _:
            raise CallFailed("timeout", f"The preview took more than {PREVIEW_TIMEOUT_S:g} s.", retryable=True)


def _risk(tool: Tool) -> Risk:
    return (tool.approval.risk if isinstance(tool.approval, AskWhen) else None) or tool.risk


def _scopes(tool: Tool) -> Collection[Scope]:
    """How far a grant for this tool may reach, and so which grants count for it now."""
    if tool.remember is not None:
        return tool.remember
    # What does great harm is looked at in each run, unless its author says otherwise.
    return ("run",) if _risk(tool) == "high" else SCOPES


def _check(answer: Answer, site: Site) -> None:
    """Raises unless the answer is yes."""
    said = f" They said: {answer.reason}" if answer.reason else ""
    match answer.decision:
        case "approved":
            return
        case "denied":
            raise CallFailed("denied", f"The user denied this call.{said}")
        case "expired" if site.tool.on_expire == "fail":
            raise ApprovalExpired(f"Nobody answered in time: {site.label}")
        case "expired":
            raise CallFailed("approval_expired", "Nobody approved this call in time.")
        case _:
            raise CallFailed("cancelled", "The call was cancelled before it started.")


class ApprovalExpired(RunFailure):
    """Nobody answered, and the tool says that the run fails then."""

    def __init__(self, text: str) -> None:
        super().__init__("approval_expired", text)


def _shown(preview: Preview) -> events.Preview:
    data = json_safe(preview.data)
    return events.Preview(kind=preview.kind, data=bounded(data, MAX_PREVIEW_DATA) if isinstance(data, str) else data)
