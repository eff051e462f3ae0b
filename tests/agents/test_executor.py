"""The executor alone: every collaborator is a fake, and there is neither a log nor a socket."""

import asyncio
from typing import Any

import pytest

from midstream.agents.executor import Executor
from midstream.agents.pipeline.contract import Piped
from midstream.runs.contract import CorrectionsPending, Principal, RunFailure, StartRecord, Stopping
from midstream_protocol.events import Resume

START = StartRecord(
    run_id="run_1",
    thread_id="thread_1",
    agent="desk",
    principal=Principal(id="local", name="local"),
    input="Go.",
    secret="00",
    created_ms=0,
)


class World:
    """All collaborators, and what was asked of them in which order. `pending`: corrections that come at the end."""

    def __init__(self, *, pending: int = 0, spent: bool = False, **broken: Any) -> None:
        self.start = START
        self.order: list[str] = []
        self.results: list[Any] = []
        self.pending = pending
        self.spent = spent
        self.broken = broken
        self.refusal: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.gate = asyncio.Event()
        self.gate.set()
        self.began = asyncio.Event()
        self.stopped: list[str] = []
        self.plan = None

    async def did(self, what: str) -> None:
        self.order.append(what)
        await asyncio.sleep(0)
        if (error := self.broken.get(what)) is not None:
            raise error

    # the port

    def through(self, filter: Any) -> None:  # noqa: A002 - the word for it
        assert filter is self
        self.order.append("through")

    async def clearance(self) -> None:
        await asyncio.sleep(0)

    async def end(self, result: Any, *, return_corrections: bool = False) -> None:
        await self.did("end")
        if self.pending and not return_corrections:
            self.pending -= 1
            raise CorrectionsPending
        self.results.append(result)

    # the orchestrator

    async def prepare(self) -> None:
        await self.did("prepare")

    async def verdict(self) -> None:
        await self.did("verdict")
        await asyncio.shield(self.refusal)

    async def finish(self) -> None:
        await self.did("finish")

    async def aclose(self) -> None:
        await self.did("aclose")

    # the pipeline

    async def run(self) -> Piped:
        return await self._piped("run")

    async def go_on(self) -> Piped:
        return await self._piped("go_on")

    async def _piped(self, what: str) -> Piped:
        await self.did(what)
        self.began.set()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.stopped.append(what)
            raise
        return Piped(result=f"{what} secret", spent=self.spent)

    # the way out

    async def leaving(self, value: Any) -> Any:
        return value.replace("secret", "[hidden]")

    def executor(self) -> Executor:
        async def orchestrator(port: Any) -> Any:
            assert port is self
            await self.did("orchestrator")
            return self

        async def pipeline(port: Any, orchestrator: Any) -> Any:
            assert port is orchestrator is self
            await self.did("pipeline")
            return self

        return Executor(orchestrator=orchestrator, pipeline=pipeline, outflow=lambda _port: self)


async def played(world: World) -> None:
    await asyncio.wait_for(world.executor().run(world), 10)


@pytest.mark.asyncio
async def test_the_order_of_the_work():
    world = World()
    await played(world)
    assert [each for each in world.order if each != "verdict"] == [
        "through",
        "orchestrator",
        "prepare",
        "pipeline",
        "run",
        "finish",
        "end",
        "aclose",
    ]
    assert world.results == ["run [hidden]"]


@pytest.mark.asyncio
async def test_a_correction_at_the_end_is_used():
    world = World(pending=2)
    await played(world)
    assert [each for each in world.order if each in ("run", "go_on", "end")] == [
        "run",
        "end",
        "go_on",
        "end",
        "go_on",
        "end",
    ]
    assert world.results == ["go_on [hidden]"]


@pytest.mark.asyncio
async def test_or_given_back_when_nothing_is_left_to_use_it_with():
    world = World(pending=1, spent=True)
    await played(world)
    assert "go_on" not in world.order
    assert world.results == ["run [hidden]"]


@pytest.mark.parametrize("broken", ["orchestrator", "prepare", "pipeline", "run", "finish", "end", "go_on"])
@pytest.mark.parametrize("kind", [RunFailure, Stopping, ValueError])
@pytest.mark.asyncio
async def test_whatever_fails_ends_it_and_leaves_nothing_open(broken, kind):
    resume = Resume(text="Go on.", run_id="run_1")
    error = RunFailure("x", "a secret", retryable=True, resume=resume) if kind is RunFailure else kind("a secret")
    world = World(pending=1, **{broken: error})
    with pytest.raises(kind) as raised:
        await played(world)
    assert world.results == []
    assert ("aclose" in world.order) == (broken != "orchestrator")
    after = {"prepare": "pipeline", "pipeline": "run", "run": "finish", "finish": "end"}
    if broken in after:
        assert after[broken] not in world.order
    if kind is RunFailure:
        failure = raised.value
        assert (failure.code, failure.text, failure.retryable, failure.resume) == ("x", "a [hidden]", True, resume)


@pytest.mark.asyncio
async def test_a_refusal_stops_the_work():
    world = World()
    world.gate.clear()
    running = asyncio.ensure_future(played(world))
    await world.began.wait()
    world.refusal.set_exception(RunFailure("guardrail", "No."))
    with pytest.raises(RunFailure, match=r"No\."):
        await running
    assert world.stopped == ["run"]
    assert world.results == []
    assert world.order[-1] == "aclose"


@pytest.mark.asyncio
async def test_an_allowance_lets_it_go_on():
    world = World()
    world.gate.clear()
    running = asyncio.ensure_future(played(world))
    await world.began.wait()
    world.refusal.set_result(None)
    for _ in range(5):
        await asyncio.sleep(0)
    assert not running.done()
    world.gate.set()
    await running
    assert world.results == ["run [hidden]"]


@pytest.mark.asyncio
async def test_a_cancelled_run_stops_what_is_under_way_and_waits_for_it():
    world = World()
    world.gate.clear()
    running = asyncio.ensure_future(played(world))
    await world.began.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert world.stopped == ["run"]
    assert world.order[-1] == "aclose"


@pytest.mark.asyncio
async def test_without_a_way_out_everything_leaves_as_it_is():
    world = World()
    executor = world.executor()
    executor = Executor(orchestrator=executor._orchestrator, pipeline=executor._pipeline)
    await executor.run(world)
    assert world.results == ["run secret"]
    assert "through" not in world.order
