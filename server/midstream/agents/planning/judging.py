"""The guardrails of one run: all asked at once, each verdict journalled as it comes, the first refusal ends it."""

import asyncio
from collections.abc import Mapping
from typing import Any

from midstream.agents.asking import Asks
from midstream.agents.conversation import UserMessage
from midstream.agents.definition import Agent
from midstream.agents.journal import journal_record
from midstream.agents.planning.contract import Allow, Guardrail, Request, Stop
from midstream.agents.planning.guardrails import named, verdict_of
from midstream.agents.planning.questions import guard_question
from midstream.agents.planning.rounds import PartFailed, answered, called, within
from midstream.agents.records import GuardRecord
from midstream.log import JournalRecord
from midstream.runs.contract import RunFailure, Stopping
from midstream.runs.port import Port
from midstream.tasks import spawn, stop
from midstream.telemetry import count_guardrail_trip
from midstream_protocol.events import GuardrailTriggered, Notice


class Judging:
    """`known`: verdicts of the journal, which are not asked for again."""

    def __init__(
        self,
        agent: Agent,
        *,
        port: Port,
        asks: Asks,
        request: Request,
        asked_for: UserMessage,
        known: Mapping[str, GuardRecord],
    ) -> None:
        self._planning = agent.planning
        self._gate = agent.planning.guardrail_mode == "gate"
        self._port = port
        self._asks = asks
        self._request = request
        self._asked_for = asked_for
        self._open = {name: guard for name, guard in named(agent.guardrails).items() if name not in known}
        self._over = asyncio.Event()
        self._failure: BaseException | None = None
        self._refusing = False
        """One has refused the request, and that is being written: nothing more is shown."""
        self.task: asyncio.Task[None] | None = None
        """Asking them, while that is under way."""
        refused = next((record for record in known.values() if not record.allow), None)
        if refused is not None:
            self._refuse(_failure(refused))
        elif not self._open:
            self._over.set()

    @property
    def over(self) -> bool:
        """Whether the verdict is there."""
        return self._over.is_set()

    @property
    def holds(self) -> bool:
        """Whether nothing may be shown yet."""
        return self._gate and not self.over

    async def leave(self) -> None:
        """Returns when something may be shown. Raises as `verdict` does, once the request was refused."""
        if self._gate or self._refusing or self.over:
            await self.verdict()

    def begin(self) -> None:
        if not self.over and self.task is None:
            name = f"run:{self._request.run_id}/guardrails"
            self.task = spawn(self._judge(), name=name, expected=(RunFailure, Stopping))

    async def verdict(self) -> None:
        """Returns when all have allowed the request. Raises `RunFailure` as soon as one has not, `Stopping`."""
        await self._over.wait()
        if self._failure is not None:
            raise self._failure

    def leave_off(self) -> None:
        """There will be no verdict any more: let go of who waits for it."""
        if not self.over:
            self._refuse(Stopping())

    def _refuse(self, failure: BaseException) -> None:
        self._failure = failure
        self._over.set()

    async def _judge(self) -> None:
        waiting = {
            spawn(self._one(name, guard), name=f"run:{self._request.run_id}/guardrail:{name}", expected=(Exception,))
            for name, guard in self._open.items()
        }
        tasks = tuple(waiting)
        try:
            while waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                failed = [error for task in done if (error := task.exception()) is not None]
                if failed:
                    # Who waits is told first: another guardrail may take its time to stop.
                    self._refuse(failed[0])
                    return
            self._over.set()
        finally:
            await stop(*tasks)

    async def _one(self, name: str, guard: Agent | Guardrail) -> None:
        try:
            verdict = await within(
                self._port.clock,
                self._planning.guardrail_timeout_s,
                lambda: self._ask(guard),
                name=f"run:{self._request.run_id}/asking:{name}",
            )
        except PartFailed as failed:
            await self._undecided(name, failed)
            return
        if isinstance(verdict, Stop):
            record = GuardRecord(allow=False, reason=verdict.reason)
            self._refusing = True
            triggered = GuardrailTriggered(name=name, reason=verdict.reason)
            await self._port.record(triggered, journal=[_kept(name, record)])
            count_guardrail_trip()
            raise _failure(record)
        await self._port.record(journal=[_kept(name, GuardRecord(allow=True))])

    async def _undecided(self, name: str, failed: PartFailed) -> None:
        """It gave no verdict: policy decides."""
        if self._planning.guardrail_error == "open":
            text = f"The check “{name}” {failed.text}. The run goes on without it."
            notice = Notice(level="warning", code="guardrail_failed", text=text)
            await self._port.record(notice, journal=[_kept(name, GuardRecord(allow=True, error=True))])
            return
        record = GuardRecord(allow=False, reason=f"The check “{name}” {failed.text}, so nothing was done.", error=True)
        await self._port.record(journal=[_kept(name, record)])
        raise _failure(record) from failed

    async def _ask(self, guard: Agent | Guardrail) -> Allow | Stop:
        def read(said: Any) -> Allow | Stop:
            return verdict_of(said, max_chars=self._planning.max_reason_chars)

        if not isinstance(guard, Agent):
            said = await called(guard, self._request)
            try:
                return read(said)
            except ValueError:
                # For who wrote it, in the server's log.
                kind = type(said).__name__
                raise TypeError(
                    f"a guardrail returns Allow() or Stop(reason), and not a value of type {kind}"
                ) from None
        question = guard_question(guard, self._request, self._asked_for, history_chars=self._planning.history_chars)
        return await answered(self._asks, question, read)


def _failure(record: GuardRecord) -> RunFailure:
    if record.error:
        return RunFailure("guardrail_failed", record.reason, retryable=True)
    return RunFailure("guardrail", record.reason)


def _kept(name: str, record: GuardRecord) -> JournalRecord:
    return journal_record("guardrail", name, record)
