"""One run of a test, and the one person who watches and steers it."""

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from midstream.runs.contract import Principal
from midstream.runs.grants import Scope
from midstream_protocol.codec import decode_event
from midstream_protocol.commands import (
    ApprovalRespond,
    Command,
    CommandPayload,
    CorrectionRevoke,
    InputRespond,
    Remember,
    RunCancel,
    RunCorrect,
    ToolError,
    ToolResult,
)
from midstream_protocol.events import (
    TERMINAL_TYPES,
    CancelMode,
    CorrectionMode,
    Event,
    MessageDelta,
    RunCompleted,
)
from midstream_protocol.frames import Receipt
from midstream_protocol.ids import new_id
from midstream_protocol.view import View

if TYPE_CHECKING:
    from midstream.testing.stage import Stage

TESTER: Final = Principal(id="tester", name="Tester")
CLIENT_ID: Final = "test-client"

PATIENCE_S: Final = 30.0
"""Real seconds to wait for what must come by itself; nothing of it is slow, so this is only met by what hangs."""

_ROUNDS: Final = 5
"""How often the loop is let go on; one round is enough for what one timer wakes."""


class Refused(AssertionError):
    """A command of the test was not accepted."""

    def __init__(self, receipt: Receipt) -> None:
        super().__init__(f"{receipt.code}: {receipt.text}")
        self.receipt = receipt


class PlayedRun:
    """One run, and the one person who watches it. `events` are those seen so far, in order."""

    def __init__(self, stage: "Stage", run_id: str) -> None:
        self.run_id: Final = run_id
        self.events: list[Event] = []
        self._stage = stage
        self._looked_at = 0
        self._news = asyncio.Event()

    # -- watching

    async def until(self, type: str, where: Callable[[Any], bool] | None = None) -> Event:  # noqa: A002
        """The next event of that type, whose payload `where` accepts, after the one found before.

        Raises AssertionError if the run ends without one, or nothing happens any more.
        """
        while True:
            while self._looked_at < len(self.events):
                event = self.events[self._looked_at]
                self._looked_at += 1
                if event.type == type and (where is None or where(event.payload)):
                    return event
            if self.events and self.events[-1].type in TERMINAL_TYPES:
                raise AssertionError(f"the run ended without {type}: {self._story()}")
            await self._more(type)

    async def ended(self) -> Event:
        """The terminal event."""
        while not (self.events and self.events[-1].type in TERMINAL_TYPES):
            await self._more("the end")
        return self.events[-1]

    async def catch_up(self) -> list[Event]:
        """Let all be done that needs no time, and read it: what is new."""
        seen = len(self.events)
        for _ in range(_ROUNDS):
            await self._stage.clock.advance(0)
        registry = self._stage.registry
        attached = await registry.attach(TESTER, self.run_id, wake=self._news.set, since_seq=seen)
        try:
            while found := await attached.subscription.pull():
                self.events += [decode_event(each) for each in found]
        finally:
            attached.subscription.close()
        return self.events[seen:]

    async def result(self) -> Any:
        """The result of the completed run. Raises AssertionError if it failed or was cancelled."""
        event = await self.ended()
        if not isinstance(event.payload, RunCompleted):
            raise AssertionError(f"the run did not complete: {event.payload}")  # noqa: TRY004 - a test's failure
        return event.payload.result

    async def view(self) -> View:
        return await self._stage.registry.view(TESTER, self.run_id)

    def of_type(self, type: str) -> list[Any]:  # noqa: A002
        """The payloads of the events of that type seen so far."""
        return [event.payload for event in self.events if event.type == type]

    @property
    def text(self) -> str:
        """What the agent has said so far."""
        return "".join(event.payload.text for event in self.events if isinstance(event.payload, MessageDelta))

    # -- steering: each raises `Refused`

    async def approve(
        self,
        approval_id: str | None = None,
        *,
        edit: Mapping[str, Any] | None = None,
        remember: bool | Scope = False,
        expires_in_s: float | None = None,
    ) -> Receipt:
        """Approve the open question (the oldest, if there are several), with some arguments replaced. `remember`: for
        what else it is approved (True: the run), and for how long.
        """
        scope: Scope | None = "run" if remember is True else remember or None
        return await self.command(
            ApprovalRespond(
                approval_id=approval_id or await self._pending("approval", "approval_id"),
                decision="approve",
                args=dict(edit) if edit is not None else None,
                remember=Remember(scope=scope, expires_in_s=expires_in_s) if scope else None,
            )
        )

    async def deny(self, reason: str | None = None, *, approval_id: str | None = None) -> Receipt:
        approval_id = approval_id or await self._pending("approval", "approval_id")
        return await self.command(ApprovalRespond(approval_id=approval_id, decision="deny", reason=reason))

    async def answer(self, answer: Any, *, input_id: str | None = None) -> Receipt:
        """Answer the agent's question."""
        input_id = input_id or await self._pending("input", "input_id")
        return await self.command(InputRespond(input_id=input_id, answer=answer))

    async def tool_result(
        self, result: Any = None, *, error: tuple[str, str] | None = None, tool_call_id: str | None = None
    ) -> Receipt:
        """Answer a call as the client that runs it; `error` is a code and a text."""
        return await self.command(
            ToolResult(
                tool_call_id=tool_call_id or await self._pending("tool", "tool_call_id"),
                ok=error is None,
                result=result,
                error=ToolError(code=error[0], text=error[1]) if error is not None else None,
            )
        )

    async def correct(self, text: str, *, mode: CorrectionMode = "next_step") -> Receipt:
        return await self.command(RunCorrect(text=text, mode=mode))

    async def revoke(self, correction_id: str) -> Receipt:
        return await self.command(CorrectionRevoke(correction_id=correction_id))

    async def cancel(
        self, *, mode: CancelMode = "now", tool_call_id: str | None = None, reason: str | None = None
    ) -> Receipt:
        return await self.command(RunCancel(mode=mode, tool_call_id=tool_call_id, reason=reason))

    async def command(self, payload: CommandPayload, *, command_id: str | None = None) -> Receipt:
        """Send any command to this run."""
        command = Command(
            type=payload.TYPE, command_id=command_id or new_id("cmd"), run_id=self.run_id, payload=payload
        )
        receipt = await self._stage.registry.submit(TESTER, command, client_id=CLIENT_ID)
        if receipt.status != "accepted":
            raise Refused(receipt)
        return receipt

    # -- the world around it

    async def advance(self, seconds: float) -> None:
        """Let time pass."""
        await self._stage.clock.advance(seconds)

    async def crash(self, *, down_s: float = 0.0) -> None:
        """The server dies here, and after `down_s` seconds another takes the run over."""
        await self._stage.crash(down_s=down_s)

    async def restart(self) -> None:
        """The server stops in order, and another takes the run over."""
        await self._stage.restart()

    # -- parts

    async def _pending(self, kind: str, key: str) -> str:
        found = [item[key] for item in (await self.view()).pending if item["kind"] == kind]
        if not found:
            raise AssertionError(f"nothing waits for this ({kind}): {self._story()}")
        return str(found[0])

    async def _more(self, what: str) -> None:
        """Read what there is; if there is nothing, wait for it."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._read()
        except TimeoutError:
            raise AssertionError(f"nothing happens, and {what} did not come: {self._story()}") from None

    async def _read(self) -> None:
        """At least one more event. A server that crashes meanwhile is followed to the next one."""
        while True:
            self._news.clear()
            registry = self._stage.registry
            attached = await registry.attach(TESTER, self.run_id, wake=self._news.set, since_seq=len(self.events))
            try:
                while registry is self._stage.registry:
                    if found := await attached.subscription.pull():
                        self.events += [decode_event(each) for each in found]
                        return
                    await self._news.wait()
                    self._news.clear()
            finally:
                attached.subscription.close()

    def moved(self) -> None:
        """For the stage: there is another server now."""
        self._news.set()

    def _story(self) -> str:
        return " ".join(event.type for event in self.events) or "no events"
