"""Webhooks of a whole server, as its settings and its clients ask for them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from midstream import BadSettings, Midstream, Run, agent
from midstream.settings import Settings, load_settings
from tests.outbound.receiver import receiver
from tests.outbound.rig import KEY, SECRET
from tests.testkit.served import Served, served

pytestmark = pytest.mark.asyncio


@agent("echo")
async def echo(run: Run) -> str:
    if run.input == "ask":
        return str(await run.ask("Really?"))
    if run.input == "break":
        raise ValueError("broken")
    return run.input


class Unused:
    name = "unused"
    default_model = ""

    async def aclose(self) -> None: ...


@asynccontextmanager
async def running(**settings: Any) -> AsyncIterator[Served]:
    app = Midstream(
        [echo],
        settings=Settings(store="memory:", drain_grace_s=0.1, **settings),
        provider=Unused(),  # type: ignore[arg-type]
    )
    async with app.lifespan(), served(app) as server:
        yield server


async def test_a_client_brings_its_own_place() -> None:
    async with receiver() as place, running(webhook_secret=SECRET, webhook_allow_private=True) as server:
        webhook = {"url": f"http://127.0.0.1:{place.port}/mine", "events": ["run.completed", "run.failed"]}
        started = await server.http.post("/v1/runs", json={"input": "hello", "webhook": webhook})
        assert started.status_code == 201
        told = (await place.until(1))[0]
        assert told.signed_with(KEY)
        assert told.told["run_id"] == started.json()["run_id"]
        assert told.told["payload"]["result"] == "hello"
        # What it links to is there.
        assert (await server.http.get(told.told["links"]["self"])).json()["status"] == "completed"
        await server.http.post("/v1/runs", json={"input": "break", "webhook": webhook})
        assert (await place.until(2))[1].told["type"] == "run.failed"


async def test_an_operator_hears_of_every_run_and_of_its_questions() -> None:
    async with receiver() as place:
        url = f"http://127.0.0.1:{place.port}/all"
        async with running(webhook_url=(url,), webhook_secret=SECRET, webhook_allow_private=True) as server:
            started = (await server.http.post("/v1/runs", json={"input": "ask"})).json()
            asked = (await place.until(1))[0].told
            assert (asked["type"], asked["payload"]["question"]) == ("input.required", "Really?")
            answer = {
                "type": "input.respond",
                "command_id": "c1",
                "payload": {"input_id": asked["payload"]["input_id"], "answer": "yes"},
            }
            assert (await server.http.post(asked["links"]["commands"], json=answer)).status_code == 200
            ended = (await place.until(2))[1].told
            assert (ended["type"], ended["run_id"]) == ("run.completed", started["run_id"])


@pytest.mark.parametrize(
    ("settings", "url", "says"),
    [
        ({"webhook_secret": SECRET}, "http://10.0.0.1/", "MIDSTREAM_WEBHOOK_ALLOW_PRIVATE"),
        ({"webhook_secret": SECRET}, "gopher://example.org/", "https://"),
        ({"webhook_secret": SECRET}, "https://a:b@example.org/", "leave them out"),
        ({}, "https://example.org/", "MIDSTREAM_WEBHOOK_SECRET"),
    ],
)
async def test_a_place_that_cannot_be_is_refused_and_nothing_is_begun(
    settings: dict[str, Any], url: str, says: str
) -> None:
    async with running(**settings) as server:
        ask = {"input": "hello", "thread_id": "t1", "webhook": {"url": url}}
        refused = await server.http.post("/v1/runs", json=ask)
        assert refused.status_code == 422
        error = refused.json()["error"]
        assert error["code"] == "invalid_args"
        assert says in error["text"]
        assert (await server.http.get("/v1/runs")).json()["items"] == []
        # The thread is free.
        del ask["webhook"]
        assert (await server.http.post("/v1/runs", json=ask)).status_code == 201


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"webhook_url": ("https://example.org/",)}, "MIDSTREAM_WEBHOOK_SECRET"),
        ({"webhook_url": ("http://127.0.0.1/",), "webhook_secret": "s"}, "MIDSTREAM_WEBHOOK_ALLOW_PRIVATE"),
        ({"webhook_url": ("example.org",), "webhook_secret": "s"}, "MIDSTREAM_WEBHOOK_URL"),
        ({"webhook_secret": "whsec_?"}, "openssl"),
    ],
)
async def test_settings_that_do_not_go_together_stop_the_start(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(BadSettings, match=says):
        async with running(**settings):
            pass


async def test_settings_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIDSTREAM_WEBHOOK_URL", "https://a.example/x, https://b.example/")
    monkeypatch.setenv("MIDSTREAM_WEBHOOK_SECRET", SECRET)
    monkeypatch.setenv("MIDSTREAM_WEBHOOK_EVENTS", "run.completed,run.failed")
    monkeypatch.setenv("MIDSTREAM_WEBHOOKS_IN_FLIGHT", "4")
    settings = load_settings()
    assert SECRET not in repr(settings)
    options = settings.webhooks()
    assert options.urls == ("https://a.example/x", "https://b.example/")
    assert (options.secret, options.events, options.in_flight) == (SECRET, ("run.completed", "run.failed"), 4)
    monkeypatch.setenv("MIDSTREAM_WEBHOOK_EVENTS", "run.completed,run.started")
    with pytest.raises(BadSettings, match=r"MIDSTREAM_WEBHOOK_EVENTS.*run\.started"):
        load_settings()
