"""A typed answer: read, given back to the agent when it does not fit, and in the end asked for once more simply."""

from collections.abc import Sequence
from typing import Any, Final

from msgspec import Struct

from midstream.agents.asking import Asks, NoAnswer, Question
from midstream.agents.conversation import Message, Text, UserMessage, repaired
from midstream.agents.definition import Agent
from midstream.agents.journal import journal_record
from midstream.agents.output import BadOutput, Output
from midstream.agents.records import NoteRecord
from midstream.agents.recovery import recovering
from midstream.agents.tools.shown import in_text
from midstream.agents.transcript import Transcript
from midstream.runs.contract import RunFailure
from midstream.runs.port import Port
from midstream_protocol.events import RunStep

SIMPLER: Final = "Put the answer below into the form that is asked for. Change nothing else about it."

KIND: Final = "validation"


class Mended(Struct, kw_only=True, frozen=True):
    """An answer that fits: as JSON, and as the text that was read or made of it."""

    value: Any
    text: str


class Mending:
    """For one stage of an agent that has an `output`."""

    def __init__(self, *, port: Port, agent: Agent, system: str, output: Output, asks: Asks, stage: str = "") -> None:
        self._port = port
        self._system = system
        self._agent = agent
        self._output = output
        self._asks = asks
        self._stage = stage
        self._most = agent.limits.max_output_fixes

    async def read(self, text: str, *, transcript: Transcript, spent: bool, step: RunStep) -> Mended | None:
        """The answer; None: the agent was told what is wrong with it and is to be asked again. `spent`: it cannot be.

        Raises `RunFailure` `invalid_output`, `Stopping`.
        """
        try:
            return Mended(value=self._output.plain(self._output.read(text)), text=text)
        except BadOutput as bad:
            wrong = bad
        if not spent and transcript.fixes < self._most:
            note = NoteRecord(kind="validation", text=wrong.text, stage=self._stage)
            await self._tell(note, attempt=transcript.fixes + 1, step=step)
            transcript.noted(note)
            return None
        if not transcript.simpler:
            note = NoteRecord(kind="simpler", text=SIMPLER, stage=self._stage)
            await self._tell(note, attempt=self._most + 1, step=step)
            transcript.noted(note)
        asked = tuple(entry.message for entry in transcript.entries() if entry.kind in ("request", "correction"))
        return await self._simpler(text, step.step_id, asked=asked)

    async def shaped(self, text: str) -> Mended:
        """What several stages came to, as one answer that fits. Raises as `read` does."""
        try:
            return Mended(value=self._output.plain(self._output.read(text)), text=text)
        except BadOutput:
            return await self._simpler(text, None)

    async def _tell(self, note: NoteRecord, *, attempt: int, step: RunStep) -> None:
        journal = [journal_record("note", self._port.new_id("note"), note)]
        await recovering(
            self._port,
            kind=KIND,
            attempt=attempt,
            max_attempts=self._most + 1,
            step_id=step.step_id,
            journal=journal,
        )

    async def _simpler(self, text: str, step_id: str | None, *, asked: Sequence[Message] = ()) -> Mended:
        """`asked`: what people said, without the work that was done for it."""
        answer = UserMessage(parts=(Text(text=f"The answer:\n{text or '(There was none.)'}"),))
        question = Question(
            agent=self._agent.name,
            system=f"{self._system}\n\n{SIMPLER}",
            messages=tuple(repaired([*asked, answer])),
            name="answer",
            description="The answer in its form.",
            schema=self._output.schema,
            models=self._agent.models,
            max_tokens=self._agent.max_tokens,
            step_id=step_id,
            phase="working",
            doing="Putting the answer into its form",
        )
        try:
            said = in_text(await self._asks.ask(question))
            return Mended(value=self._output.plain(self._output.read(said)), text=said)
        except (NoAnswer, BadOutput) as error:
            raise RunFailure("invalid_output", "The answer does not have the form that the agent promises.") from error
