"""The steps of a run that people see: one a turn, one more for each try of it."""

from typing import Literal

import msgspec

from midstream.runs.port import Port
from midstream_protocol.events import Payload, RunStatusChanged, RunStep


async def begin_step(
    port: Port,
    *,
    agent: str,
    title: str,
    kind: Literal["turn", "retry"] = "turn",
    parent: str | None = None,
    attempt: int | None = None,
) -> RunStep:
    """Start a step and say what the run does now. Raises `Stopping`."""
    step = RunStep(
        step_id=port.new_id("step"),
        state="started",
        kind=kind,
        title=title,
        agent=agent,
        parent_step_id=parent,
        attempt=attempt,
    )
    facts: list[Payload] = [step]
    if not port.waiting:
        # A program that begins again may find a question open: then the run still waits.
        facts.append(RunStatusChanged(status="running", phase="working", text=title))
    await port.record(*facts, step_id=step.step_id)
    return step


def ended(step: RunStep, state: Literal["completed", "failed"]) -> RunStep:
    """The event that ends it."""
    return msgspec.structs.replace(step, state=state)
