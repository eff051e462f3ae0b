"""One message of the model on its way to people: opened, spoken, and closed exactly once, whatever happens.

What is shown may be less than what the model said: its text passes a filter, and a quiet message is not shown at all.
The journal keeps the model's own words.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from midstream.agents.conversation import AssistantMessage, Text, calls_of, encode_message
from midstream.agents.journal import journal_record
from midstream.agents.providers.contract import TokenUsage
from midstream.agents.records import TurnRecord
from midstream.agents.tools.settle import settled
from midstream.agents.tools.toolbox import Toolbox
from midstream.agents.usage import used_by
from midstream.log import JournalRecord
from midstream.runs.port import Port
from midstream_protocol.codec import json_safe
from midstream_protocol.events import (
    MessageCompleted,
    MessageDelta,
    MessageStarted,
    MessageSuperseded,
    ObjectCreated,
    Payload,
    ToolFailed,
    ToolPreparing,
)
from midstream_protocol.ids import is_id

MAX_DELTA_CHARS: Final = 8 * 1024
"""Characters that are filtered and shown in one go: a few milliseconds of work at most, whatever the text is."""

MAX_CITATIONS: Final = 100
"""Citations of one message that are shown; the rest are left out."""


class TextFilter(Protocol):
    """What of a message's text may be shown. One for each message."""

    def feed(self, text: str) -> str:
        """The next piece the model said → what may be shown now."""
        ...

    def end(self) -> str:
        """The message is over, or cut off: what may be shown of the rest."""
        ...


class AllOfIt:
    """A filter that lets everything through."""

    def feed(self, text: str) -> str:
        return text

    def end(self) -> str:
        return ""


@dataclass(frozen=True, kw_only=True)
class SpeechStyle:
    """How the messages of one agent are shown. `quiet`: not at all, nor the calls in preparation. `hold` is awaited
    before the first thing of a message that anybody sees, and may raise. `text_filter` makes the filter of a message.
    """

    quiet: bool = False
    hold: Callable[[], Awaitable[None]] | None = None
    text_filter: Callable[[], TextFilter] = AllOfIt


PLAIN_STYLE: Final = SpeechStyle()


class Speech:
    """`open` between `begin` and one of `complete`, `interrupt`, `supersede`, `leave`; never if it is quiet."""

    def __init__(
        self,
        *,
        port: Port,
        agent: str,
        toolbox: Toolbox | None,
        step_id: str | None,
        stage: str = "",
        heard: tuple[str, ...] = (),
        style: SpeechStyle = PLAIN_STYLE,
    ) -> None:
        """`heard`: ids of the corrections that were before the model when it was asked."""
        self.message_id = port.new_id("msg")
        self.open = False
        self.model = ""
        self.usage = TokenUsage()
        self._port = port
        self._agent = agent
        self._toolbox = toolbox
        self._step_id = step_id
        self._stage = stage
        self._heard = heard
        self._quiet = style.quiet
        self._hold = style.hold
        self._filter = style.text_filter()
        self._over = False
        self._said: list[str] = []
        self._shown: list[str] = []
        self._calls: list[str] = []
        self._cited: list[dict[str, Any]] = []

    @property
    def text(self) -> str:
        """What the model has said, shown or not."""
        return "".join(self._said)

    async def begin(self) -> None:
        if self._quiet:
            return
        await self._let_show()
        await self._port.emit(
            MessageStarted(message_id=self.message_id, role="assistant", agent=self._agent), step_id=self._step_id
        )
        self.open = True

    async def say(self, text: str) -> None:
        said = json_safe(text)
        if self._quiet:
            self._said.append(said)
            return
        for at in range(0, len(said), MAX_DELTA_CHARS):
            if at:
                # A model may write a book in one go, and everybody else has a turn in between.
                await asyncio.sleep(0)
            await self._say(said[at : at + MAX_DELTA_CHARS])

    async def _say(self, said: str) -> None:
        shown = self._filter.feed(said)
        if shown:
            if not self._port.say(self.message_id, shown, step_id=self._step_id):
                await self._port.emit(MessageDelta(message_id=self.message_id, text=shown), step_id=self._step_id)
            # After it was admitted: a cancelled `emit` has said nothing.
            self._shown.append(shown)
        self._said.append(said)

    async def prepare(self, call_id: str, tool: str) -> None:
        if not self._quiet:
            await self._port.emit(self._preparing(call_id, tool), step_id=self._step_id)
            self._calls.append(call_id)

    def cite(self, data: dict[str, Any]) -> None:
        """A source of what is said, shown as an object when the message is complete."""
        safe = json_safe(data)
        if len(self._cited) < MAX_CITATIONS and safe not in self._cited:
            self._cited.append(safe)

    async def complete(self, message: AssistantMessage, *, stop_reason: str, usage: TokenUsage | None) -> None:
        """The whole message is durable when this returns, and so are its usage and the calls it holds."""
        facts: list[Payload] = []
        if not self._quiet:
            facts += self._rest()
            facts += [self._preparing(call.id, call.tool) for call in calls_of(message) if call.id not in self._calls]
            facts.append(self._completed("complete", stop_reason))
        if self._cited:
            await self._let_show()
            facts += self._objects()
        if usage is not None:
            facts.append(used_by(usage, model=self.model))
        self._close()
        await self._record(facts, self._journal(message, stop_reason))

    async def interrupt(self) -> AssistantMessage | None:
        """Stopped for a correction: what was said stays. None if nothing was said: then the message never was."""
        facts, message = self._ending("interrupted")
        self._close()
        await self._record(facts, [] if message is None else self._journal(message, "interrupted"))
        return message

    async def supersede(self, reason: str, *more: Payload) -> None:
        """It failed: nothing of it counts. `more` is recorded with that."""
        facts: list[Payload] = [*self._spent(), *more]
        if self.open:
            facts.insert(0, MessageSuperseded(message_id=self.message_id, reason=reason))
        self._close()
        await self._record(facts, [])

    def leave(self) -> None:
        """The run is being cancelled: close the message without waiting."""
        if self._over:
            return
        facts, message = self._ending("cancelled")
        self._close()
        if facts or message is not None:
            self._port.post(
                *facts,
                journal=[] if message is None else self._journal(message, "interrupted"),
                step_id=self._step_id,
            )

    def _close(self) -> None:
        self.open, self._over = False, True

    def _ending(self, code: str) -> tuple[list[Payload], AssistantMessage | None]:
        # Calls half written, and thinking that is not signed yet, cannot be given back to a model.
        message = AssistantMessage(parts=(Text(text=self.text),)) if self.text else None
        if not self.open:
            return self._spent(), message
        rest = self._rest()
        if not self._shown:
            # Nobody has seen a word of it. Its calls in preparation go with it.
            return [MessageSuperseded(message_id=self.message_id, reason=code), *self._spent()], message
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
        return [*rest, self._completed("interrupted", None), *dropped, *self._objects(), *self._spent()], message

    def _rest(self) -> list[Payload]:
        """What the filter still held back and lets go now, as the delta that shows it."""
        rest = self._filter.end()
        if not rest:
            return []
        self._shown.append(rest)
        return [MessageDelta(message_id=self.message_id, text=rest)]

    def _spent(self) -> list[Payload]:
        """What the model said of its tokens when it began: an answer that was cut short has cost them all the same."""
        return [used_by(self.usage, model=self.model)] if self.usage != TokenUsage() else []

    def _completed(self, state: str, stop_reason: str | None) -> MessageCompleted:
        return MessageCompleted(
            message_id=self.message_id,
            role="assistant",
            text="".join(self._shown),
            state="complete" if state == "complete" else "interrupted",
            stop_reason=stop_reason,
        )

    def _objects(self) -> list[Payload]:
        message_id = None if self._quiet else self.message_id
        return [
            ObjectCreated(object_id=self._port.new_id("obj"), kind="citation", data=data, message_id=message_id)
            for data in self._cited
        ]

    def _preparing(self, call_id: str, tool: str) -> ToolPreparing:
        known = self._toolbox.find(tool) if self._toolbox is not None else None
        name = tool if is_id(tool) else "unknown"
        label = known.title if known is not None else name
        return ToolPreparing(tool_call_id=call_id, message_id=self.message_id, tool=name, label=label)

    def _journal(self, message: AssistantMessage, stop_reason: str) -> list[JournalRecord]:
        turn = TurnRecord(stop_reason=stop_reason, stage=self._stage, heard=self._heard)
        return [
            JournalRecord(kind="message", key=self.message_id, data=encode_message(message)),
            journal_record("turn", self.message_id, turn),
        ]

    async def _let_show(self) -> None:
        if self._hold is not None:
            hold, self._hold = self._hold, None
            await hold()

    async def _record(self, facts: list[Payload], journal: list[JournalRecord]) -> None:
        if facts or journal:
            writing = self._port.record(*facts, journal=journal, step_id=self._step_id)
            await settled(writing, name=f"message:{self.message_id}")
