"""A model that writes a book in one go: shown in pieces, and nobody waits for the whole of it."""

import asyncio
import math

import pytest

from midstream.agents.speech import MAX_DELTA_CHARS, Speech
from tests.agents.kit import acting, agent, check_log

pytestmark = pytest.mark.asyncio


@pytest.mark.parametrize("sign", ["word ", "<", "<tool", "😀"])
async def test_it_is_shown_in_pieces_that_are_the_whole(sign):
    text = (sign * 40_000)[:40_000]
    async with acting(agent(), [text]) as (run, _, _stage):
        result = await run.result()
        deltas = [payload.text for payload in run.of_type("message.delta")]
        assert max(map(len, deltas)) <= MAX_DELTA_CHARS + len("<tool")
        completed = [payload for payload in run.of_type("message.completed") if payload.role == "assistant"]
        assert [payload.text for payload in completed] == ["".join(deltas)] == [result]
        if sign != "<tool":
            assert result == text
        check_log(run)


async def test_others_have_their_turn_between_the_pieces():
    turns, seen = 0, []

    class Port:
        def new_id(self, prefix):
            return prefix

        def say(self, message_id, text, *, step_id):
            seen.append(turns)
            return True

    async def other():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await Speech(port=Port(), agent="a", toolbox=None, step_id=None).say("<" * 100_000)
    task.cancel()
    assert len(seen) == math.ceil(100_000 / MAX_DELTA_CHARS)
    assert len(set(seen)) == len(seen)
