"""`Midstream` as an application: alone, mounted in another one, not started, and going down."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from websockets.exceptions import InvalidStatus

from midstream import Midstream, Run, agent
from midstream.app import BadSettings
from midstream.log import LogUnavailable, MemoryStore, StoreInUse
from midstream.settings import Settings
from tests.gateway.peer import Peer
from tests.testkit.served import Served, served

pytestmark = pytest.mark.asyncio


@agent("echo")
async def echo(run: Run) -> str:
    await run.say(run.input)
    return run.input


@agent("patient")
async def patient(run: Run) -> str:
    await asyncio.Event().wait()
    return ""


def app(**options: object) -> Midstream:
    settings = options.pop("settings", None) or Settings(drain_grace_s=0.1, store="memory:")
    return Midstream([echo, patient], settings=settings, provider=Unused(), **options)  # type: ignore[arg-type]


class Unused:
    """No agent of these tests asks a model."""

    name = "unused"
    default_model = ""

    def stream(self, request: object) -> object:
        raise AssertionError("no model is asked here")

    async def aclose(self) -> None:
        raise AssertionError("a provider that was handed in is closed by who made it")


@asynccontextmanager
async def running(midstream: Midstream) -> AsyncIterator[Served]:
    async with midstream.lifespan(), served(midstream, settings=midstream.settings, drain=midstream.drain) as server:
        yield server


async def whole_run(server: Served, prefix: str = "") -> Peer:
    async with server.websocket(f"{prefix}/v1/ws") as socket:
        peer = Peer(socket)
        await peer.send("run.start", {"input": "hello", "agent": "echo"})
        await peer.until("run.completed")
        return peer


async def test_a_run_from_its_start_to_its_end() -> None:
    async with running(app()) as server:
        peer = await whole_run(server)
        assert peer.frames[0]["payload"]["server"].startswith("midstream/")
        assert peer.frames[-1]["payload"]["result"] == "hello"
        agents = (await server.http.get("/v1/agents")).json()["items"]
        assert [(each["name"], each["default"]) for each in agents] == [("echo", True), ("patient", False)]
        assert (await server.http.get("/readyz")).json() == {"status": "ready"}


async def test_mounted_in_another_app_under_a_path() -> None:
    midstream = app()
    outer = Starlette(routes=[Mount("/agents", midstream)], lifespan=midstream.lifespan)
    async with midstream.lifespan(outer), served(outer) as server:
        peer = await whole_run(server, "/agents")
        run_id = peer.frames[1]["payload"]["run_id"]
        assert (await server.http.get(f"/agents/v1/runs/{run_id}")).json()["status"] == "completed"
        started = await server.http.post("/agents/v1/runs", json={"input": "x"})
        assert started.json()["links"]["self"].startswith("/agents/v1/runs/")
        assert (await server.http.get(started.json()["links"]["self"])).status_code == 200
        missing = await server.http.get("/agents/nowhere")
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")


async def test_not_started_says_how_to_start_it() -> None:
    async with served(Starlette(routes=[Mount("/agents", app())])) as server:
        answer = await server.http.get("/agents/v1/runs")
        assert answer.status_code == 503
        assert "lifespan=midstream.lifespan" in answer.json()["error"]["text"]
        with pytest.raises(InvalidStatus) as refused:
            async with server.websocket("/agents/v1/ws"):
                pass
        assert refused.value.response.status_code == 503


async def test_it_can_be_started_again_and_its_runs_are_there(tmp_path: Path) -> None:
    midstream = app(settings=Settings(store=f"sqlite:///{tmp_path / 'm.db'}", drain_grace_s=0.1))
    async with running(midstream) as server:
        peer = await whole_run(server)
    run_id = peer.frames[1]["payload"]["run_id"]
    async with running(midstream) as server:
        lines = await server.http.get(f"/v1/runs/{run_id}/events", headers={"accept": "application/x-ndjson"})
        assert lines.content == b"".join(event + b"\n" for event in peer.events(run_id))


async def test_the_drain_is_done_once_and_a_closed_app_is_as_before_its_start() -> None:
    midstream = app()
    async with running(midstream) as server:
        async with server.websocket("/v1/ws") as socket:
            peer = Peer(socket)
            await peer.send("run.start", {"input": "x", "agent": "patient"})
            await peer.until("run.caught_up")
            await asyncio.gather(midstream.drain(), midstream.drain())
            await peer.until("connection.draining")
            assert (await server.http.get("/readyz")).status_code == 503
            assert (await server.http.get("/healthz")).status_code == 200
        await midstream.aclose()
        await midstream.aclose()
        assert (await server.http.get("/healthz")).status_code == 503


class Down(MemoryStore):
    """A store that cannot be opened."""

    async def open(self) -> None:
        raise StoreInUse("another server has it")


async def test_a_start_that_fails_is_told_and_leaves_nothing_open() -> None:
    closed = asyncio.Event()

    async def resource() -> AsyncIterator[object]:
        try:
            yield object()
        finally:
            closed.set()

    midstream = app(store=Down(), resources=[resource])
    with pytest.raises(StoreInUse):
        await midstream.open()
    assert closed.is_set()
    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        return {"type": "lifespan.startup"}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    await midstream({"type": "lifespan"}, receive, send)  # type: ignore[arg-type]
    assert sent == [{"type": "lifespan.startup.failed", "message": "another server has it"}]


async def test_a_model_that_cannot_be_chosen_names_its_setting() -> None:
    midstream = Midstream([echo], settings=Settings(model="scripted:/nowhere.yaml", store="memory:"))
    with pytest.raises(BadSettings, match="MIDSTREAM_MODEL"):
        await midstream.open()


async def test_a_workspace_that_is_no_folder_names_its_setting(tmp_path: Path) -> None:
    settings = Settings(workspace=tmp_path / "nowhere", store="memory:")
    with pytest.raises(BadSettings, match="MIDSTREAM_WORKSPACE"):
        await Midstream(settings=settings, provider=Unused()).open()  # type: ignore[arg-type]


async def test_a_store_that_stops_answering_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    async with running(app(store=store)) as server:

        async def down(*_: object, **__: object) -> None:
            raise LogUnavailable("gone")

        monkeypatch.setattr(store.records, "get", down)
        answer = await server.http.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["reasons"] == ["the store does not answer"]
        assert answer.json()["error"]["code"] == "unavailable"
