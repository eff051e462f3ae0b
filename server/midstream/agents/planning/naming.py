"""Naming a thread that has no title: asked once, beside the work, with a title that is always there in the end."""

import asyncio
from typing import Any, Final

from midstream.agents.asking import Asks, NoAnswer
from midstream.agents.definition import Agent
from midstream.agents.journal import journal_record
from midstream.agents.planning.contract import Request
from midstream.agents.planning.judging import Judging
from midstream.agents.planning.questions import title_question
from midstream.agents.planning.rounds import PartFailed, called, within
from midstream.agents.planning.title import first_words, tidy_title
from midstream.agents.records import TitleRecord
from midstream.agents.transcript import text_of
from midstream.log import JournalRecord
from midstream.logs import Logger
from midstream.runs.contract import RunFailure, Stopping
from midstream.runs.port import Port
from midstream.tasks import spawn
from midstream_protocol.events import ThreadTitled

_log = Logger("midstream.agents")

TITLE_AGENT: Final = "title"
"""Whose question it is when the agent's own model names the thread."""

_MAX_TOKENS: Final = 1_024


class Naming:
    """`known`: the title of the journal. Does nothing where no title is wanted or there is one."""

    def __init__(
        self, agent: Agent, *, port: Port, asks: Asks, request: Request, judging: Judging, known: TitleRecord | None
    ) -> None:
        self._agent = agent
        self._port = port
        self._asks = asks
        self._request = request
        self._judging = judging
        self._known = known
        self.task: asyncio.Task[None] | None = None
        """Naming it, while that is under way."""

    def begin(self) -> None:
        asked = self._known is not None and self._known.ours is not None
        if self._agent.title and self._port.start.title is None and not asked:
            name = f"run:{self._request.run_id}/naming"
            self.task = spawn(self._name(), name=name, expected=(RunFailure, Stopping))

    async def done(self) -> None:
        """Wait until the thread has its title. Raises nothing: a thread without one is no failure of a run."""
        if self.task is not None:
            await asyncio.wait({self.task})

    async def _name(self) -> None:
        title = self._known.title if self._known is not None else await self._made()
        await self._judging.leave()
        try:
            ours = await self._port.claim_title(title)
        except RunFailure as failure:
            _log.warning("a thread could not be titled", run=self._request.run_id, cause=repr(failure.__cause__))
            return
        shown = [ThreadTitled(title=title)] if ours else []
        await self._port.record(*shown, journal=[_kept(title, ours=ours)])

    async def _made(self) -> str:
        """The title, journalled."""
        planning = self._agent.planning
        try:
            title = await within(
                self._port.clock,
                planning.title_timeout_s,
                self._ask,
                name=f"run:{self._request.run_id}/title",
            )
        except PartFailed:
            title = first_words(self._request.input, max_chars=planning.max_title_chars)
        await self._port.record(journal=[_kept(title)])
        return title

    async def _ask(self) -> str:
        title = tidy_title(await self._said(), max_chars=self._agent.planning.max_title_chars)
        if title is None:
            raise PartFailed("gave no title")
        return title

    async def _said(self) -> Any:
        titler = self._agent.title
        if not isinstance(titler, Agent | bool):
            return await called(titler, self._request)
        if not isinstance(titler, Agent):
            titler = Agent(TITLE_AGENT, instructions="", model=self._agent.model, max_tokens=_MAX_TOKENS)
        try:
            said = await self._asks.ask(title_question(titler, self._request))
        except NoAnswer as refused:
            # A title in plain words is one.
            return text_of(refused.message)
        return said.get("title") if isinstance(said, dict) else said


def _kept(title: str, *, ours: bool | None = None) -> JournalRecord:
    return journal_record("title", "", TitleRecord(title=title, ours=ours))
