"""Asking the planner, an agent or a function: a proposal that makes a plan, or why there is none."""

from collections.abc import Callable
from typing import Any

import msgspec

from midstream.agents.asking import Asks
from midstream.agents.conversation import UserMessage
from midstream.agents.definition import Agent
from midstream.agents.planning.contract import ProposedTodo, Request, Revision
from midstream.agents.planning.merging import Team
from midstream.agents.planning.plan import Plan
from midstream.agents.planning.proposal import BadPlan, proposed
from midstream.agents.planning.questions import plan_question
from midstream.agents.planning.rounds import ROUNDS, PartFailed, answered, called
from midstream.logs import Logger

_log = Logger("midstream.agents")

Accepts = Callable[[list[ProposedTodo]], Plan]
"""Makes the plan of a proposal. Raises `BadPlan`."""


class PlannerPart:
    """`asked` counts the calls of the planner in this run, so that each has a number of its own (`Question.turn`)."""

    def __init__(self, agent: Agent, *, asks: Asks, request: Request, asked_for: UserMessage, asked: int) -> None:
        assert agent.planner is not None
        self.asked = asked
        self.team = team_of(agent)
        self._planner = agent.planner
        self._agent = agent
        self._asks = asks
        self._request = request
        self._asked_for = asked_for

    async def propose(
        self, accepts: Accepts, *, revision: Revision | None = None, step_id: str | None = None
    ) -> list[ProposedTodo]:
        """A proposal that `accepts` takes. Raises `PartFailed`, what a function raises, what asking raises."""
        before = 0 if revision is None else len(revision.plan.todos)

        def read(said: Any) -> list[ProposedTodo]:
            todos = proposed(said, limit=self.team.max_todos + before)
            accepts(todos)
            return todos

        if isinstance(self._planner, Agent):
            question = plan_question(
                self._planner,
                self._request,
                self._asked_for,
                team=self.team,
                specialists=self._agent.specialists or (self._agent,),
                history_chars=self._agent.planning.history_chars,
                revision=revision,
            )
            question = msgspec.structs.replace(question, turn=self.asked, step_id=step_id)
            return await answered(_Counted(self._asks, self), question, read)
        request = self._request
        for _ in range(ROUNDS):
            self.asked += 1
            try:
                return read(await called(self._planner, request, revision))
            except BadPlan as wrong:
                request = msgspec.structs.replace(request, problems=wrong.problems)
        _log.warning("a plan cannot be used", agent=self._agent.name, wrong=list(request.problems))
        raise PartFailed("gave no plan that can be used")


class _Counted:
    """Asks, and counts it."""

    def __init__(self, asks: Asks, part: PlannerPart) -> None:
        self._asks = asks
        self._part = part

    async def ask(self, question: Any) -> Any:
        self._part.asked += 1
        return await self._asks.ask(question)


def team_of(agent: Agent) -> Team:
    """Who can be given a todo: the specialists; without any, the agent itself, which also does what names nobody."""
    names = tuple(each.name for each in agent.specialists) or (agent.name,)
    return Team(
        names=names,
        usual=names[0] if len(names) == 1 else agent.name,
        max_todos=agent.planning.max_todos,
        max_title_chars=agent.planning.max_todo_chars,
    )
