"""A log that stalls reaches the model's own socket: what nobody can write is not read; but not for ever."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from midstream import Agent
from midstream.agents.catalogue import Catalogue
from midstream.agents.providers.anthropic import AnthropicProvider
from midstream.log import MemoryStore
from midstream.runs.contract import Limits
from midstream.testing import ManualClock, Stage
from midstream_protocol.order import verify
from tests.runs.house import Held
from tests.testkit.model_server import (
    ModelServer,
    Reply,
    block_delta,
    block_start,
    block_stop,
    message_end,
    message_start,
    model_server,
)

pytestmark = pytest.mark.asyncio

PIECE = "some words " * 700
PIECES = 1_200
"""9 MB: more than the sockets between hold."""


class Model:
    """What it says, and how much of it has left."""

    def __init__(self) -> None:
        self.said = 0

    async def speak(self) -> AsyncIterator[bytes]:
        yield message_start() + block_start(0, type="text", text="")
        for self.said in range(1, PIECES + 1):
            yield block_delta(0, type="text_delta", text=PIECE)
        yield block_stop(0) + b"".join(message_end())


async def standing_still(model: Model, server: ModelServer) -> int:
    """Until the model's socket takes nothing more; how much it has said by then."""
    before = -1
    async with asyncio.timeout(20):
        while not (server.unread and model.said == before):
            before = model.said
            await asyncio.sleep(0.05)
    return before


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110 - of a socket nobody tells
            await asyncio.sleep(0.01)


async def test_a_log_that_stalls_stops_the_reading_of_the_models_socket_for_so_long_as_it_may() -> None:
    clock, model = ManualClock(), Model()
    held = Held(MemoryStore(clock=clock))
    limits = Limits(output_lane=64, emit_wait_s=10)
    async with model_server(Reply([model.speak()])) as server:
        provider = AnthropicProvider(api_key=None, base_url=server.base_url, default_model="test-model")
        catalogue = Catalogue([Agent("tester", instructions="")], provider=provider)
        stage: Any = Stage(catalogue, store=held, clock=clock, limits=limits)  # type: ignore[arg-type]
        async with catalogue.opened():
            await stage.registry.open()
            run = await stage.start("Go.")
            await run.until("message.delta")
            held.hold()
            stopped_at = await standing_still(model, server)
            assert stopped_at < PIECES
            await clock.advance(9)
            assert await standing_still(model, server) == stopped_at, "it waits as long as it may"
            await clock.advance(1.5)
            await until(lambda: model.said == PIECES and not server.unread)
            held.release()
            await run.ended()
            deltas = run.of_type("message.delta")
            assert "".join(delta.text for delta in deltas) == PIECE * PIECES, "nothing is lost"
            assert verify(run.events) == []
            await stage.registry.drain(0)
            await provider.aclose()


async def test_a_log_that_comes_back_in_time_goes_on_where_it_stood() -> None:
    clock, model = ManualClock(), Model()
    held = Held(MemoryStore(clock=clock))
    async with model_server(Reply([model.speak()])) as server:
        provider = AnthropicProvider(api_key=None, base_url=server.base_url, default_model="test-model")
        catalogue = Catalogue([Agent("tester", instructions="")], provider=provider)
        stage: Any = Stage(catalogue, store=held, clock=clock, limits=Limits(output_lane=64))  # type: ignore[arg-type]
        async with catalogue.opened():
            await stage.registry.open()
            run = await stage.start("Go.")
            await run.until("message.delta")
            held.hold()
            assert await standing_still(model, server) < PIECES
            held.release()
            await run.ended()
            assert "".join(delta.text for delta in run.of_type("message.delta")) == PIECE * PIECES
            assert server.disconnects == []
            await stage.registry.drain(0)
            await provider.aclose()
