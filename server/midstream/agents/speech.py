"""One message of the model on its way to people: opened, spoken, and closed exactly once, whatever happens."""

from midstream.agents.conversation import AssistantMessage, Text, calls_of, encode_message
from midstream.agents.journal import journal_record
from midstream.agents.providers.contract import TokenUsage
from midstream.agents.tools.settle import settled
from midstream.agents.tools.toolbox import Toolbox
from midstream.agents.transcript import TurnRecord
from midstream.agents.usage import used_by
from midstream.log import JournalRecord
from midstream.runs.port import Port
from midstream_protocol.codec import json_safe
from midstream_protocol.events import (
    MessageCompleted,
    MessageDelta,
    MessageStarted,
    MessageSuperseded,
    Payload,
    ToolFailed,
    ToolPreparing,
)
from midstream_protocol.ids import is_id


class Speech:
    """`open` between `begin` and one of `complete`, `interrupt`, `supersede`, `leave`."""

    def __init__(self, *, port: Port, agent: str, toolbox: Toolbox | None, step_id: str | None) -> None:
        self.message_id = port.new_id("msg")
        self.open = False
        self.model = ""
        self.usage = TokenUsage()
        self._port = port
        self._agent = agent
        self._toolbox = toolbox
        self._step_id = step_id
        self._said: list[str] = []
        self._calls: list[str] = []

    @property
    def text(self) -> str:
        return "".join(self._said)

    async def begin(self) -> None:
        await self._port.emit(
            MessageStarted(message_id=self.message_id, role="assistant", agent=self._agent), step_id=self._step_id
        )
        self.open = True

    async def say(self, text: str) -> None:
        shown = json_safe(text)
        if shown:
            await self._port.emit(MessageDelta(message_id=self.message_id, text=shown), step_id=self._step_id)
            # After it was admitted: a cancelled `emit` has said nothing.
            self._said.append(shown)

    async def prepare(self, call_id: str, tool: str) -> None:
        await self._port.emit(self._preparing(call_id, tool), step_id=self._step_id)
        self._calls.append(call_id)

    async def complete(self, message: AssistantMessage, *, stop_reason: str, usage: TokenUsage | None) -> None:
        """The whole message is durable when this returns, and so are its usage and the calls it holds."""
        late = [call for call in calls_of(message) if call.id not in self._calls]
        facts: list[Payload] = [self._preparing(call.id, call.tool) for call in late]
        facts.append(self._completed("complete", stop_reason))
        if usage is not None:
            facts.append(used_by(usage, model=self.model))
        self.open = False
        await self._record(facts, self._journal(message, stop_reason))

    async def interrupt(self) -> AssistantMessage | None:
        """Stopped for a correction: what was said stays. None if nothing was said: then the message never was."""
        facts, message = self._ending("interrupted")
        self.open = False
        await self._record(facts, [] if message is None else self._journal(message, "interrupted"))
        return message

    async def supersede(self, reason: str, *more: Payload) -> None:
        facts: list[Payload] = [*self._spent(), *more]
        if self.open:
            facts.insert(0, MessageSuperseded(message_id=self.message_id, reason=reason))
        self.open = False
        await self._record(facts, [])

    def leave(self) -> None:
        """The run is being cancelled: close the message without waiting."""
        if self.open:
            facts, message = self._ending("cancelled")
            self.open = False
            self._port.post(
                *facts,
                journal=[] if message is None else self._journal(message, "interrupted"),
                step_id=self._step_id,
            )

    def _ending(self, code: str) -> tuple[list[Payload], AssistantMessage | None]:
        if not self.open:
            return [], None
        if not self.text:
            # Its calls in preparation go with it.
            return [MessageSuperseded(message_id=self.message_id, reason=code), *self._spent()], None
        dropped = [
            ToolFailed(
                tool_call_id=call_id,
                code=code,
                text="The model was stopped while it was still writing this call.",
                outcome="not_started",
                retryable=False,
            )
            for call_id in self._calls
        ]
        # Calls half written, and thinking that is not signed yet, cannot be given back to a model.
        message = AssistantMessage(parts=(Text(text=self.text),))
        return [self._completed("interrupted", None), *dropped, *self._spent()], message

    def _spent(self) -> list[Payload]:
        """What the model said of its tokens when it began: an answer that was cut short has cost them all the same."""
        return [used_by(self.usage, model=self.model)] if self.usage != TokenUsage() else []

    def _completed(self, state: str, stop_reason: str | None) -> MessageCompleted:
        return MessageCompleted(
            message_id=self.message_id,
            role="assistant",
            text=self.text,
            state="complete" if state == "complete" else "interrupted",
            stop_reason=stop_reason,
        )

    def _preparing(self, call_id: str, tool: str) -> ToolPreparing:
        known = self._toolbox.find(tool) if self._toolbox is not None else None
        name = tool if is_id(tool) else "unknown"
        label = known.title if known is not None else name
        return ToolPreparing(tool_call_id=call_id, message_id=self.message_id, tool=name, label=label)

    def _journal(self, message: AssistantMessage, stop_reason: str) -> list[JournalRecord]:
        return [
            JournalRecord(kind="message", key=self.message_id, data=encode_message(message)),
            journal_record("turn", self.message_id, TurnRecord(stop_reason=stop_reason)),
        ]

    async def _record(self, facts: list[Payload], journal: list[JournalRecord]) -> None:
        if facts or journal:
            writing = self._port.record(*facts, journal=journal, step_id=self._step_id)
            await settled(writing, name=f"message:{self.message_id}")
