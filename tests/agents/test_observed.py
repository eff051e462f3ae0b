"""What operators are told of models and stages: how long the first word took, and how long a stage."""

import asyncio

import pytest
from prometheus_client.parser import text_string_to_metric_families

from midstream.agents.providers.contract import ModelOverloaded
from midstream.runs.contract import RunFailure, Stopping
from midstream.telemetry import exposed
from tests.agents.driven import Says, Talk, driving, opened, said
from tests.agents.pipeline.test_pipeline import World, run, spread

pytestmark = pytest.mark.asyncio


def seen(name: str) -> dict[str, float]:
    """The counts and sums of one histogram, by suffix and label."""
    return {
        " ".join([sample.name.removeprefix(name), *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(exposed().decode())
        for sample in family.samples
        if sample.name in {f"{name}_count", f"{name}_sum"}
    }


def grown(name: str, before: dict[str, float]) -> dict[str, float]:
    return {key: value - before[key] for key, value in seen(name).items() if value != before[key]}


FIRST_TOKEN = "midstream_model_first_token_seconds"
STAGE = "midstream_stage_seconds"


async def test_the_time_to_the_first_thing_of_an_answer():
    before = seen(FIRST_TOKEN)
    thinking, writing = asyncio.Event(), asyncio.Event()
    answer = said("Well, ", "yes.")
    model = Says([answer[0], thinking, answer[1], writing, *answer[2:]])
    async with driving(Talk(model)) as driven:
        await driven.until("message.started")
        await driven.advance(3)
        thinking.set()
        await driven.until("message.delta")
        # What comes after the first is no part of it.
        await driven.advance(4)
        writing.set()
        await driven.result()
    assert grown(FIRST_TOKEN, before) == pytest.approx({"_count": 1, "_sum": 3.0})


async def test_a_model_that_said_nothing_has_no_first_token():
    before = seen(FIRST_TOKEN)
    model = Says([opened(), ModelOverloaded("busy")], said("Yes."))
    async with driving(Talk(model)) as driven:
        await driven.until("recovery.started")
        assert grown(FIRST_TOKEN, before) == {}
        await driven.advance(60)
        await driven.result()
    assert grown(FIRST_TOKEN, before)["_count"] == 1


async def test_stages_are_timed_by_their_outcome():
    before = seen(STAGE)
    world = World(spread())
    world.gates["a"] = asyncio.Event()
    running = asyncio.ensure_future(run(world))
    await world.until_assigned("a")
    await world.port.clock.advance(70)
    world.gates["a"].set()
    await running
    assert grown(STAGE, before) == pytest.approx({"_count completed": 4, "_sum completed": 70.0})


async def test_stages_that_fail_and_stages_that_are_stopped():
    before = seen(STAGE)
    world = World(spread())
    world.failing("a")
    with pytest.raises(RunFailure):
        await run(world)
    assert grown(STAGE, before)["_count failed"] == 1
    before = seen(STAGE)
    world = World(spread())
    world.answers["a"] = Stopping()
    with pytest.raises(Stopping):
        await run(world)
    # Neither done nor failed: it goes on elsewhere, or was cancelled.
    assert grown(STAGE, before) == {}
