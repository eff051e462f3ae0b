"""The agents an app serves, as the run layer asks for them (`runs.contract.Agents`)."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from midstream.agents.assembly import executor_for
from midstream.agents.crew import DEFAULT_CONTEXT_TOKENS, Shared, tools_of_all
from midstream.agents.definition import Agent
from midstream.agents.limiter import Limiter
from midstream.agents.outflow.contract import Outflow
from midstream.agents.outflow.outflow import Outlet
from midstream.agents.own import OwnAgent, OwnProgram
from midstream.agents.providers.contract import DEFAULT_IDLE_TIMEOUT_S, Provider
from midstream.agents.resources import ResourceFactory, Resources
from midstream.agents.rules import AgentRules
from midstream.agents.tools.definition import Tool
from midstream.agents.tools.signature import BadTool
from midstream.runs.contract import Program, StartRecord

AnyAgent = Agent | OwnAgent


class Catalogue:
    """`model`, `idle_timeout_s` and `context_tokens` are for agents that name none; model None: the provider's default.
    The first agent is the default one. All runs share one `limiter`, and what they say passes the app's `outflow`.

    Raises `BadTool` for agents that cannot be served together.
    """

    def __init__(
        self,
        agents: Sequence[AnyAgent],
        *,
        provider: Provider,
        model: str | None = None,
        resources: Iterable[ResourceFactory] = (),
        idle_timeout_s: float = DEFAULT_IDLE_TIMEOUT_S,
        context_tokens: int = DEFAULT_CONTEXT_TOKENS,
        limiter: Limiter | None = None,
        outflow: Outflow | None = None,
    ) -> None:
        if not agents:
            raise BadTool("an app needs an agent")
        self._agents: dict[str, AnyAgent] = {}
        for agent in agents:
            if agent.name in self._agents:
                raise BadTool(f"two agents are called {agent.name}")
            self._agents[agent.name] = agent
        self._model = model or provider.default_model
        self._tools = {name: _tools(agent) for name, agent in self._agents.items()}
        self._rules = {
            name: AgentRules(tools=self._tools[name], steerable=agent.steerable) for name, agent in self._agents.items()
        }
        self._resources = Resources(resources, wanted=self._wanted())
        self._shared = Shared(
            provider=provider,
            limiter=limiter or Limiter(),
            model=self._model,
            resources=self._resources.by_type,
            idle_timeout_s=idle_timeout_s,
            context_tokens=context_tokens,
            outlet=Outlet(outflow or Outflow()),
        )

    @property
    def default(self) -> str:
        return next(iter(self._agents))

    def names(self) -> list[str]:
        return list(self._agents)

    def program(self, start: StartRecord) -> Program | None:
        match self._agents.get(start.agent):
            case None:
                return None
            case OwnAgent() as own:
                return OwnProgram(own, shared=self._shared)
            case agent:
                return executor_for(agent, self._shared)

    def rules(self, agent: str) -> AgentRules | None:
        return self._rules.get(agent)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """With the app's resources open inside. Raises what they raise, and `BadTool` for one that is missing.

        The provider is closed by who made it.
        """
        async with self._resources.opened():
            yield

    def describe(self) -> list[dict[str, Any]]:
        """For people and for clients that choose an agent: JSON."""
        return [
            {
                "name": name,
                "description": agent.description,
                "default": name == self.default,
                "steerable": agent.steerable,
                **({"model": agent.models[0] if agent.models else self._model} if isinstance(agent, Agent) else {}),
                "tools": [_described(tool) for tool in self._tools[name].values()],
                **(_team(agent) if isinstance(agent, Agent) and not agent.plain else {}),
            }
            for name, agent in self._agents.items()
        ]

    def _wanted(self) -> list[tuple[type, str]]:
        wanted = {
            kind: f"tool {tool.name} of agent {name}"
            for name, tools in self._tools.items()
            for tool in tools.values()
            for kind in tool.injected.values()
        }
        for name, agent in self._agents.items():
            if isinstance(agent, OwnAgent):
                wanted |= dict.fromkeys(agent.injected.values(), f"agent {name}")
        return list(wanted.items())


def _team(agent: Agent) -> dict[str, Any]:
    return {"specialists": [{"name": each.name, "description": each.description} for each in agent.specialists]}


def _tools(agent: AnyAgent) -> dict[str, Tool]:
    return tools_of_all(agent) if isinstance(agent, Agent) else {tool.name: tool for tool in agent.tools}


def _described(tool: Tool) -> dict[str, Any]:
    return {
        "name": tool.name,
        "description": tool.description,
        "client": tool.client,
        "approval": tool.approval if isinstance(tool.approval, str) else "sometimes",
        "input_schema": tool.input_schema,
    }
