"""The agents an app serves, as the run layer asks for them (`runs.contract.Agents`)."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from midstream.agents.definition import Agent
from midstream.agents.loop import AgentProgram, tools_of
from midstream.agents.own import OwnAgent, OwnProgram
from midstream.agents.providers.contract import DEFAULT_IDLE_TIMEOUT_S, Provider
from midstream.agents.resources import ResourceFactory, Resources
from midstream.agents.rules import AgentRules
from midstream.agents.tools.definition import Tool
from midstream.agents.tools.signature import BadTool
from midstream.runs.contract import Program, StartRecord

AnyAgent = Agent | OwnAgent


class Catalogue:
    """`model` and `idle_timeout_s` are for agents that name none; None: the provider's default. The first agent is the
    default one.

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
    ) -> None:
        if not agents:
            raise BadTool("an app needs an agent")
        self._agents: dict[str, AnyAgent] = {}
        for agent in agents:
            if agent.name in self._agents:
                raise BadTool(f"two agents are called {agent.name}")
            self._agents[agent.name] = agent
        self._provider = provider
        self._idle_timeout_s = idle_timeout_s
        self._model = model or provider.default_model
        self._tools = {name: _tools(agent) for name, agent in self._agents.items()}
        self._rules = {
            name: AgentRules(tools=self._tools[name], steerable=agent.steerable) for name, agent in self._agents.items()
        }
        self._resources = Resources(resources, wanted=self._wanted())

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
                return OwnProgram(own, resources=self._resources.by_type)
            case agent:
                return AgentProgram(
                    agent,
                    provider=self._provider,
                    model=self._model,
                    resources=self._resources.by_type,
                    idle_timeout_s=self._idle_timeout_s,
                )

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


def _tools(agent: AnyAgent) -> dict[str, Tool]:
    return tools_of(agent) if isinstance(agent, Agent) else {tool.name: tool for tool in agent.tools}


def _described(tool: Tool) -> dict[str, Any]:
    return {
        "name": tool.name,
        "description": tool.description,
        "client": tool.client,
        "approval": tool.approval if isinstance(tool.approval, str) else "sometimes",
        "input_schema": tool.input_schema,
    }
