"""The world of the planned scenarios: a server process, and a model in the test's own process that outlives it.

The model knows only the Messages API: it tells who asks by the instructions that the app gave each agent.
"""

import asyncio
import contextlib
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

from tests.scenarios.world import HERE, World
from tests.testkit.model_server import (
    ModelServer,
    Received,
    Reply,
    message,
    model_server,
    text_block,
    text_message,
    tool_block,
)

ROLES = ("PLANNER", "TITLER", "GUARD", "RESEARCH", "ANALYSIS", "WRITING", "DESK")
Answer = Callable[[Received], Reply | None]


def role_of(received: Received) -> str:
    system = received.body.get("system") or ""
    text = system if isinstance(system, str) else "\n".join(block["text"] for block in system)
    return next((role for role in ROLES if f"You are {role}" in text), "?")


def said(received: Received) -> str:
    """All text of a request's messages."""
    return json.dumps(received.body["messages"])


def todos(*agents: str, depends: Sequence[Sequence[int]] | None = None) -> dict[str, Any]:
    """A plan as JSON: one todo an agent; `depends` are indexes."""
    plan = []
    for index, agent in enumerate(agents):
        todo: dict[str, Any] = {"id": f"t{index + 1}", "title": f"Step {index + 1} by {agent}", "agent": agent}
        if depends is not None:
            todo["depends_on"] = [f"t{each + 1}" for each in depends[index]]
        plan.append(todo)
    return {"todos": plan}


def data(value: Any) -> Reply:
    return Reply(text_message(json.dumps(value)))


def _paced(pieces: list[bytes], delay_s: float) -> Reply:
    async def steps() -> AsyncIterator[bytes]:
        for piece in pieces:
            await asyncio.sleep(delay_s)
            yield piece

    return Reply([steps()])


class Model:
    """What the model says. `plan` may be replaced while it runs; `hook` may answer instead (None: as usual)."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan = plan
        self.verdict: dict[str, Any] = {"allow": True, "reason": ""}
        self.title = "A fine title"
        self.hook: Answer = lambda _: None
        self.pace_s = 0.01
        self.calls_a_stage = 1
        self.asked: list[str] = []

    def __call__(self, received: Received) -> Reply:
        role = role_of(received)
        self.asked.append(role)
        if (reply := self.hook(received)) is not None:
            return reply
        match role:
            case "PLANNER":
                return data(self.plan)
            case "TITLER":
                return data({"title": self.title})
            case "GUARD":
                return data(self.verdict)
        return self._stage(role, received)

    def _stage(self, role: str, received: Received) -> Reply:
        results = sum(
            block.get("type") == "tool_result"
            for each in received.body["messages"]
            if isinstance(each["content"], list)
            for block in each["content"]
        )
        if results < self.calls_a_stage and received.body.get("tools"):
            call = tool_block(1, f"toolu_{len(self.asked)}", "look", json.dumps({"what": f"{role.lower()}{results}"}))
            return _paced(message(text_block(0, "Looking. "), call, stop_reason="tool_use"), self.pace_s)
        return _paced(text_message(role.lower(), " ", "done."), self.pace_s)


class DeskWorld(World):
    def __init__(self, folder: Path, model: ModelServer, environment: dict[str, str]) -> None:
        super().__init__(folder, [])
        self.model = model
        self._environment = environment
        shutil.copy(HERE / "plan_app.py", folder / "plan_app.py")

    async def up(self, **environment: str) -> None:
        variables = {
            **{name: value for name, value in os.environ.items() if not name.startswith("ANTHROPIC")},
            "LEDGER": str(self.ledger),
            "ANTHROPIC_BASE_URL": self.model.base_url,
            "MIDSTREAM_MODEL": "any-model",
            "MIDSTREAM_STORE": f"sqlite:///{self.folder / 'runs.db'}",
            "MIDSTREAM_PORT": str(self.port),
            "PYTHONDONTWRITEBYTECODE": "1",
            **self._environment,
            **environment,
        }
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "midstream.cli", "serve", "plan_app:app",
                cwd=self.folder, env=variables, stdout=log, stderr=log,
            )  # fmt: skip
        await self.listening()


@contextlib.asynccontextmanager
async def desk(folder: Path, plan: dict[str, Any], **environment: str) -> AsyncIterator[tuple[DeskWorld, Model]]:
    """A server that is up, and its model."""
    model = Model(plan)
    async with model_server(model) as server:
        it = DeskWorld(folder, server, environment)
        await it.up()
        try:
            yield it, model
        finally:
            await it.kill()
