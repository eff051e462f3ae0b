"""Ask the desk and print what happens as it happens: `python examples/research_desk/watch.py ["QUESTION"]`."""

import asyncio
import os
import sys
from typing import Final

from midstream.client import connect
from midstream_protocol import Event
from midstream_protocol.events import (
    ContextTrimmed,
    GuardrailTriggered,
    MessageCompleted,
    MessageDelta,
    ObjectCreated,
    PlanCreated,
    PlanUpdated,
    RecoveryStarted,
    RunCompleted,
    RunFailed,
    RunStep,
    ThreadTitled,
    ToolCompleted,
    ToolFailed,
    ToolStarted,
)

QUESTION: Final = "Which tram line should Tarnwick extend first?"
WIDTH: Final = 100


class Timeline:
    """A line for what is worth one. A number in brackets is the step of the plan that it belongs to."""

    def __init__(self) -> None:
        self._stage_of: dict[str, int] = {}
        self._streaming = False

    def line(self, event: Event) -> str | None:
        said = self._said(event)
        self._streaming = isinstance(event.payload, MessageDelta)
        if said is None:
            return None
        stage = self._stage_of.get(event.step_id or "")
        line = f"{f'[{stage}]' if stage else '':4}{event.type:20}{' '.join(said.split())}"
        return (line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…").rstrip()

    def _said(self, event: Event) -> str | None:
        match event.payload:
            case RunStep() as step:
                if step.index is not None:
                    self._stage_of[step.step_id] = step.index
                elif step.parent_step_id in self._stage_of:
                    self._stage_of[step.step_id] = self._stage_of[step.parent_step_id]
                return None if step.kind == "turn" else f"{step.state}: {step.title}"
            case MessageCompleted(role="user", text=text) | ThreadTitled(title=text):
                return text
            case PlanCreated(todos=todos):
                return " · ".join(f"{number} {todo.agent}" for number, todo in enumerate(todos, start=1))
            case PlanUpdated(todos=todos):
                return " · ".join(f"{number} {todo.status}" for number, todo in enumerate(todos, start=1))
            case GuardrailTriggered(name=name, reason=reason):
                return f"{name}: {reason}"
            case MessageDelta(text=text):
                # One line for all that stream on.
                return None if self._streaming else f"{text}…"
            case ToolStarted(label=label):
                return label
            case ToolCompleted(preview=preview):
                return preview
            case ToolFailed(text=text) | RunFailed(text=text):
                return text
            case ObjectCreated(kind=kind, data=data):
                return f"{kind}: {data['title'] if isinstance(data, dict) and 'title' in data else data}"
            case RecoveryStarted(kind=kind):
                return kind
            case ContextTrimmed():
                return ""
            case RunCompleted(result=result):
                return str(result)
        return None


async def main(question: str) -> None:
    timeline = Timeline()
    async with connect(os.environ.get("MIDSTREAM_URL", "http://127.0.0.1:8484")) as client:
        run = await client.start(input=question)
        async for event in run:
            if (line := timeline.line(event)) is not None:
                print(line, flush=True)


if __name__ == "__main__":
    asyncio.run(main(" ".join(sys.argv[1:]) or QUESTION))
