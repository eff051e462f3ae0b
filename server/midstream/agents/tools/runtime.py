"""A tool call from the model's wish to its recorded answer: validate → approve → record the intent → run → record.

Every way out is one `tool.completed` or `tool.failed` with a `ResultRecord` in the journal beside it, so the model is
always told and nothing is run twice unasked. A program that begins again calls `run` again: what the log says of the
call decides where it goes on.
"""

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from midstream.agents.conversation import Call
from midstream.agents.journal import journal_record
from midstream.agents.outflow.known import Secrets
from midstream.agents.tools.approval import ApprovalExpired, Approvals
from midstream.agents.tools.ask_user import ask_user, put_question
from midstream.agents.tools.client import request, result_of
from midstream.agents.tools.context import ToolContext, ToolError
from midstream.agents.tools.effect import Effect, Ending, Raised, Returned, Stopped
from midstream.agents.tools.invoke import invoke
from midstream.agents.tools.settle import settled
from midstream.agents.tools.shown import Kept, keep, shortened
from midstream.agents.tools.site import CallFailed, CancelSwitch, Site
from midstream.agents.tools.toolbox import Toolbox
from midstream.agents.tools.validate import check_arguments, in_words
from midstream.log import JournalRecord
from midstream.logs import Logger
from midstream.runs.contract import CallCancelled, CallRecord, ResultRecord, Stopping
from midstream.runs.port import Port
from midstream.runs.state import Answer, CallState
from midstream.tasks import spawn, stop
from midstream_protocol.codec import json_safe
from midstream_protocol.events import Outcome, Payload, ToolCompleted, ToolFailed, ToolStarted
from midstream_protocol.limits import MAX_TEXT_CHARS, MAX_TOOL_RESULT_BYTES

_log = Logger("midstream.agents")

MAX_ARGS_BYTES: Final = MAX_TOOL_RESULT_BYTES
"""Bytes of one call's arguments, which an approval shows whole: as much as a client may answer."""

PARALLEL_CALLS: Final = 8
"""Calls of one message that run at once."""


class Runtime:
    """The calls of one run. `resources` are the app's, by type. Safe for concurrent calls.

    `secrets` are the run's: what leaves is without them, and what a call is given or gives is learned. `hold` is
    awaited before anything of a call is begun or asked, and may raise.
    """

    def __init__(
        self,
        *,
        port: Port,
        toolbox: Toolbox,
        resources: Mapping[type, Any],
        secrets: Secrets | None = None,
        hold: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._port = port
        self._toolbox = toolbox
        self._resources = resources
        self._secrets = secrets if secrets is not None else Secrets()
        self._hold = hold
        self._approvals = Approvals(port)
        self._seen: dict[str, str] = {}
        # Of the program before this one. What ends from now on is told once, and whole results are not kept in memory.
        self._results = {
            record.key: msgspec.json.decode(record.data, type=ResultRecord)
            for record in port.journal
            if record.kind == "result"
        }
        self._seen.update(
            (record.key, msgspec.json.decode(record.data, type=CallRecord).tool)
            for record in port.journal
            if record.kind == "call"
        )
        self._secrets.meet_all(port.journal, self._redact)

    async def run_all(
        self, calls: Sequence[Call], *, message_id: str | None, step_id: str | None
    ) -> list[ResultRecord]:
        """Run the calls of one message at the same time; the answers come in the order of the calls.

        Raises `Stopping` after those under way have ended; `RunFailure` and cancellation stop them at once.
        """
        if len(calls) == 1:
            return [await self.run(calls[0], message_id=message_id, step_id=step_id)]
        # Of this message alone: calls of another stage do not wait until somebody has answered these.
        slots = asyncio.Semaphore(PARALLEL_CALLS)
        tasks = [
            spawn(self._in_turn(slots, call, message_id, step_id), name=f"run:{self._port.start.run_id}/call:{call.id}")
            for call in calls
        ]
        try:
            waiting = set(tasks)
            while waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    # A run that stops lets its siblings end; anything else ends them.
                    if isinstance(error := task.result(), Exception) and not isinstance(error, Stopping):
                        raise error
        finally:
            await stop(*tasks)
        results: list[ResultRecord] = []
        for task in tasks:
            outcome = task.result()
            if isinstance(outcome, Exception):
                raise outcome
            results.append(outcome)
        return results

    async def _in_turn(
        self, slots: asyncio.Semaphore, call: Call, message_id: str | None, step_id: str | None
    ) -> ResultRecord | Exception:
        async with slots:
            try:
                return await self.run(call, message_id=message_id, step_id=step_id)
            except Exception as error:  # noqa: BLE001 - raised by `run_all`, which decides about the siblings
                return error

    async def run(self, call: Call, *, message_id: str | None, step_id: str | None) -> ResultRecord:
        """Run one call to its recorded answer, from wherever the log says it is. Raises `Stopping`, `RunFailure`."""
        if (known := self._results.get(call.id)) is not None:
            return known
        self._seen[call.id] = call.tool
        if self._hold is not None:
            await self._hold()
        try:
            record = await self._go(call, message_id, step_id)
        except CallFailed as failed:
            record = await self._fail(call.id, failed, step_id)
        except CallCancelled:
            record = await self._fail(call.id, self._cancelled(call.id), step_id)
        except ApprovalExpired as expired:
            await self._fail(call.id, CallFailed("approval_expired", expired.text), step_id)
            raise
        return record

    async def refuse(self, call: Call, failed: CallFailed, *, step_id: str | None) -> ResultRecord:
        """End a call that is not to be run at all, with its answer for the model."""
        return await self._fail(call.id, failed, step_id)

    # -- one call

    async def _go(self, call: Call, message_id: str | None, step_id: str | None) -> ResultRecord:
        state = self._port.call(call.id)
        if state is not None and not state.open:
            return await self._closed_elsewhere(call.id, state)
        if state is not None and state.state == "requested":
            return await self._answered(call.id, await self._port.answer(call.id))
        site = self._site(call, state, message_id, step_id)
        cancel = CancelSwitch()
        with self._port.on_cancel_call(call.id, cancel.throw):
            if state is not None and state.state == "running":
                if cancel.thrown.is_set():
                    raise self._cancelled(call.id)
                attempt = state.attempt + 1
                site = await self._once_more(site, attempt)
                return await self._effect(site, attempt=attempt, cancel=cancel)
            site = await self._approvals.settle(site, unsettled=self._unsettled(site))
            if cancel.thrown.is_set():
                raise self._cancelled(call.id)
            self._port.check()
            if site.tool.client:
                return await self._answered(call.id, await request(self._port, site))
            if site.tool is ask_user:
                return await self._asked(site)
            return await self._effect(site, attempt=1, cancel=cancel)

    def _cancelled(self, call_id: str) -> CallFailed:
        """A cancelled call that is not under way now; it may have been before the server was interrupted."""
        state = self._port.call(call_id)
        if state is None or state.started_seq == 0:
            return CallFailed("cancelled", "The user cancelled this call before it started.")
        text = "The call was cancelled as the server was interrupted; whether it had an effect is unknown."
        return CallFailed("cancelled", text, outcome="unknown")

    def _site(self, call: Call, state: CallState | None, message_id: str | None, step_id: str | None) -> Site:
        """The call with its tool and valid arguments. Raises `CallFailed`."""
        begun = state is not None and state.state == "running"
        tool = self._toolbox.find(call.tool)
        if tool is None and begun:
            # The app was changed between a crash and now.
            raise CallFailed(
                "unknown_tool", "This tool is gone; whether the call had an effect is unknown.", outcome="unknown"
            )
        if tool is None:
            raise CallFailed("unknown_tool", f"There is no tool called {call.tool[:64]!r}.")
        args = self._port.call_args(call.id)
        if args is None:
            args = call.args
        if args is None:
            raise CallFailed("invalid_args", "The arguments are not a JSON object.")
        if json_safe(args) != args:
            raise CallFailed("invalid_args", "The arguments hold a number or text that JSON clients cannot read.")
        if len(msgspec.json.encode(args)) > MAX_ARGS_BYTES:
            raise CallFailed("invalid_args", f"The arguments have more than {MAX_ARGS_BYTES:,} bytes.")
        if errors := check_arguments(tool.arguments, tool.input_schema, args):
            text = f"The arguments do not fit {tool.name}:\n{in_words(errors)}"
            raise CallFailed("invalid_args", text, outcome="unknown" if begun else "not_started")
        self._meet(call.id, args)
        return Site(
            call_id=call.id, tool=tool, args=args, message_id=message_id, step_id=step_id, hide=self._secrets.hide
        )

    def _meet(self, call_id: str, value: Any) -> None:
        """What a call was given or gave: its secrets are hidden from now on, whoever repeats them."""
        self._secrets.meet(value, self._redact(self._seen[call_id]))

    def _redact(self, tool: str) -> frozenset[str]:
        found = self._toolbox.find(tool)
        return found.redact if found is not None else frozenset()

    async def _once_more(self, site: Site, attempt: int) -> Site:
        """A call was under way when the server died. Whether it runs again is its tool's to say."""
        lost = CallFailed(
            "unknown_outcome",
            "The server was interrupted while this call ran. Whether it had an effect is unknown: find out before "
            "you call it again.",
            outcome="unknown",
        )
        if site.tool.on_unknown == "retry":
            return site
        if site.tool.on_unknown == "tell":
            raise lost
        again = await self._approvals.again(site, attempt=attempt)
        if again is None:
            raise lost
        return again

    def _unsettled(self, site: Site) -> bool:
        """Whether the same tool was called with the same arguments before in this run, and nobody knows the outcome."""
        if site.tool.idempotent or site.tool.client:
            return False
        lost = [each for each in self._port.unknown_calls if each.tool_call_id != site.call_id]
        if not lost:
            return False
        digest = self._port.args_digest(site.args)
        # By the journal's names: the log may show a tool without its own.
        return any(self._seen.get(each.tool_call_id) == site.tool.name and each.args_digest == digest for each in lost)

    # -- the effect

    async def _effect(self, site: Site, *, attempt: int, cancel: CancelSwitch) -> ResultRecord:
        port, tool = self._port, site.tool
        await self._start(site, attempt)
        context = ToolContext(
            port=port,
            tool_call_id=site.call_id,
            idempotency_key=self._idempotency_key(site.call_id),
            attempt=attempt,
            step_id=site.step_id,
            hide=self._secrets.hide,
        )
        began = port.clock.monotonic()
        effect = Effect(
            lambda: invoke(tool, site.args, context=context, resources=self._resources),
            timeout_s=tool.timeout_s,
            clock=port.clock,
            name=f"run:{port.start.run_id}/tool:{site.call_id}",
        )
        cancel.then(lambda: effect.stop("cancelled"))
        ending = await effect.ending()
        context.close()
        took_ms = max(0, round((port.clock.monotonic() - began) * 1000))
        payload, record = self._told(site, effect, ending, took_ms)
        journal = [journal_record("result", site.call_id, record)]
        if effect.run_cancelled:
            port.post(payload, journal=journal, step_id=site.step_id)
            raise asyncio.CancelledError
        await settled(port.record(payload, journal=journal, step_id=site.step_id), name=f"call:{site.call_id}")
        return record

    async def _start(self, site: Site, attempt: int) -> None:
        """The intent is durable before the effect begins. Raises `Stopping`: then nothing may begin."""
        self._port.check()
        started, journal = self._intent(site, attempt)
        await self._port.record(started, journal=[journal], step_id=site.step_id)

    def _intent(self, site: Site, attempt: int) -> tuple[ToolStarted, JournalRecord]:
        started = ToolStarted(
            tool_call_id=site.call_id,
            tool=site.tool.name,
            label=site.label,
            args_preview=shortened(self._secrets.hide(site.tool.shown_args(site.args))),
            args_digest=self._port.args_digest(site.args),
            attempt=attempt,
            message_id=site.message_id,
        )
        return started, journal_record("call", site.call_id, CallRecord(tool=site.tool.name, args=site.args))

    def _told(self, site: Site, effect: Effect, ending: Ending, took_ms: int) -> tuple[Payload, ResultRecord]:
        if isinstance(ending, Returned):
            kept = keep(ending.value, redact=site.tool.redact, hide=self._secrets.hide)
            self._meet(site.call_id, kept.record.value)
            return _completed(site.call_id, kept, took_ms), kept.record
        failed = self._failure(site, effect, ending)
        self._meet(site.call_id, failed.text)
        return self._failed(site.call_id, failed), ResultRecord(ok=False, error=failed.code, text=failed.text)

    def _failure(self, site: Site, effect: Effect, ending: Raised | Stopped) -> CallFailed:
        tool = site.tool
        error = ending.error if isinstance(ending, Raised) else None
        said = error if isinstance(error, ToolError) else None
        # What is left of an idempotent tool does no harm, so it may be called failed; a thread goes on.
        stopped: Outcome = "failed" if tool.idempotent and not tool.threaded else "unknown"
        if isinstance(ending, Stopped) and ending.lingers:
            stopped = "unknown"
        outcome = said.outcome if said is not None else stopped
        if effect.why == "timeout":
            text = said.text if said is not None else f"The tool took more than {tool.timeout_s:g} s."
            return CallFailed("timeout", text, outcome=outcome, retryable=True)
        if effect.why == "cancelled":
            text = said.text if said is not None else "The call was cancelled while it ran."
            return CallFailed("cancelled", text, outcome=outcome)
        if said is not None:
            return CallFailed("tool_error", said.text, outcome=said.outcome, retryable=said.retryable)
        execution_id = self._port.new_id("exec")
        _log.error(
            "tool failed",
            tool=tool.name,
            run=self._port.start.run_id,
            tool_call_id=site.call_id,
            execution_id=execution_id,
            exc_info=error,
        )
        text = f"The tool failed: {type(error).__name__}."
        return CallFailed("tool_error", text, outcome="failed", execution_id=execution_id)

    def _idempotency_key(self, call_id: str) -> str:
        # An own loop's call ids are counted, so they repeat between runs; the run's secret does not.
        return hmac.new(bytes.fromhex(self._port.start.secret), f"call:{call_id}".encode(), "sha256").hexdigest()[:40]

    # -- the other ways to an answer

    async def _asked(self, site: Site) -> ResultRecord:
        value = await put_question(self._port, site)
        self._port.check()
        # In one step: there is nothing to do in between, and a start without its end would be taken for an effect.
        started, intent = self._intent(site, 1)
        kept = keep(value, hide=self._secrets.hide)
        await settled(
            self._port.record(
                started,
                _completed(site.call_id, kept, 0),
                journal=[intent, journal_record("result", site.call_id, kept.record)],
                step_id=site.step_id,
            ),
            name=f"call:{site.call_id}",
        )
        return kept.record

    async def _answered(self, call_id: str, answer: Answer) -> ResultRecord:
        """The answer of a client-run call. One that the run gave itself (too late, cancelled) is journalled here."""
        record = result_of(answer)
        if not record.ok:
            await self._port.record(journal=[journal_record("result", call_id, record)])
        return record

    async def _closed_elsewhere(self, call_id: str, state: CallState) -> ResultRecord:
        """The log ended this call and no answer of it was kept: only a client's call that was cancelled or late."""
        if state.client_id is not None:
            return await self._answered(call_id, await self._port.answer(call_id))
        record = ResultRecord(ok=False, error=state.state, text="This call is over; its result was not kept.")
        await self._port.record(journal=[journal_record("result", call_id, record)])
        return record

    async def _fail(self, call_id: str, failed: CallFailed, step_id: str | None) -> ResultRecord:
        record = ResultRecord(ok=False, error=failed.code, text=failed.text)
        # An own loop's call that never began is in no event: only its code is told.
        shown = [self._failed(call_id, failed)] if self._port.call(call_id) is not None else []
        await settled(
            self._port.record(*shown, journal=[journal_record("result", call_id, record)], step_id=step_id),
            name=f"call:{call_id}",
        )
        return record

    def _failed(self, call_id: str, failed: CallFailed) -> ToolFailed:
        return ToolFailed(
            tool_call_id=call_id,
            code=failed.code,
            text=self._secrets.hide(failed.text)[:MAX_TEXT_CHARS],
            outcome=failed.outcome,
            retryable=failed.retryable,
            execution_id=failed.execution_id,
        )


def _completed(call_id: str, kept: Kept, took_ms: int) -> ToolCompleted:
    return ToolCompleted(
        tool_call_id=call_id,
        duration_ms=took_ms,
        preview=kept.preview,
        via="tool",
        truncated=True if kept.truncated else None,
    )
