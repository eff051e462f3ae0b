"""The steps of a run that people see: one a stage, one a turn in it, one more for each try of a turn."""

from collections.abc import Collection, Sequence
from typing import Literal

import msgspec

from midstream.log import JournalRecord
from midstream.runs.port import Port
from midstream_protocol.events import Payload, RunStatusChanged, RunStep

Kind = Literal["plan", "stage", "turn", "retry"]


async def begin_step(
    port: Port,
    *,
    agent: str,
    title: str,
    kind: Kind = "turn",
    parent: str | None = None,
    attempt: int | None = None,
    status: str | None = None,
) -> RunStep:
    """Start a step and say what the run does now: its title, or `status` ("" says nothing). Raises `Stopping`."""
    step = RunStep(
        step_id=port.new_id("step"),
        state="started",
        kind=kind,
        title=title,
        agent=agent,
        parent_step_id=parent,
        attempt=attempt,
    )
    text = title if status is None else status
    await begin(port, step, status=text, phase="planning" if kind == "plan" else "working")
    return step


async def begin(
    port: Port, step: RunStep, *, status: str, phase: str = "working", journal: Sequence[JournalRecord] = ()
) -> None:
    """Start this step, with the journal that belongs to it. Raises `Stopping`."""
    facts: list[Payload] = [step]
    if status and not port.waiting:
        # A program that begins again may find a question open: then the run still waits.
        facts.append(RunStatusChanged(status="running", phase=phase, text=status))
    await port.record(*facts, journal=journal, step_id=step.step_id)


def steps_in(open_steps: Sequence[RunStep], ids: Collection[str]) -> list[RunStep]:
    """Those of the open steps that are inside the steps of these ids, the innermost first. `open_steps` are in the
    order in which they began.
    """
    known = set(ids)
    inside = []
    for step in open_steps:
        if step.parent_step_id in known:
            known.add(step.step_id)
            inside.append(step)
    return inside[::-1]


def ended(step: RunStep, state: Literal["completed", "failed"]) -> RunStep:
    """The event that ends it."""
    return msgspec.structs.replace(step, state=state)
