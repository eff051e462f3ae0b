"""Chat platforms by HTTP: a server that speaks like Slack and limits how often it is called, and one like Telegram."""

import asyncio
import json
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from examples.chat_forwarder.bot import ask, bot
from examples.chat_forwarder.chat_server import CHANNEL, TOKEN, ChatServer
from midstream import Stopping
from midstream.outbound import ChannelError, ChannelGone, RetryAfter, SlackChannel, TelegramChannel
from tests.testkit.served import served

pytestmark = pytest.mark.asyncio


def slack(url: str, *, token: str = TOKEN, chat: str = CHANNEL) -> SlackChannel:
    return SlackChannel(token=token, chat=chat, url=f"{url}/api")


async def test_a_message_is_written_and_changed_and_markup_is_not_markup() -> None:
    chat = ChatServer(interval_s=0.0)
    async with served(chat.app) as server, slack(server.url) as channel:
        handle = await channel.open("Is 1 < 2 & 3?")
        await channel.edit(handle, "<b>yes</b>")
        await channel.edit(handle, "<b>yes</b>")
        assert list(chat.shown.values()) == ["&lt;b&gt;yes&lt;/b&gt;"]
        # Another channel object, as after a restart.
        async with slack(server.url) as again:
            await again.edit(handle, "still here")
        assert list(chat.shown.values()) == ["still here"]


async def test_too_much_says_how_long_to_wait() -> None:
    clock = [100.0]
    chat = ChatServer(interval_s=7.0, now=lambda: clock[0])
    async with served(chat.app) as server, slack(server.url) as channel:
        handle = await channel.open("one")
        clock[0] += 0.5
        with pytest.raises(RetryAfter) as refused:
            await channel.edit(handle, "two")
        assert refused.value.seconds == 7.0
        clock[0] += 7.0
        await channel.edit(handle, "two")


async def test_what_is_gone_is_gone() -> None:
    chat = ChatServer(interval_s=0.0)
    async with served(chat.app) as server:
        async with slack(server.url, chat="C9") as channel:
            with pytest.raises(ChannelGone, match="channel_not_found"):
                await channel.open("one")
        async with slack(server.url, token="another") as channel:
            with pytest.raises(ChannelGone, match="invalid_auth"):
                await channel.open("one")
        async with slack(server.url) as channel:
            with pytest.raises(ChannelGone, match="message_not_found"):
                await channel.edit(f"{CHANNEL}/1.1", "two")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (JSONResponse({"ok": False, "error": "internal_error"}), ChannelError),
        (JSONResponse({"ok": False, "error": "ratelimited"}, headers={"retry-after": "9"}), RetryAfter),
        (JSONResponse({"ok": False, "error": "ratelimited"}), RetryAfter),
        (Response("down", status_code=503), ChannelError),
        (Response("<html>", status_code=200), ChannelError),
        (Response("[]", status_code=200), ChannelError),
        (Response("", status_code=429), RetryAfter),
        (Response("", status_code=429, headers={"retry-after": "soon"}), RetryAfter),
        (JSONResponse({"ok": False, "error": "token_revoked"}), ChannelGone),
    ],
)
async def test_every_answer_is_one_of_three_troubles(answer: Response, expected: type[ChannelError]) -> None:
    async def method(request: Request) -> Response:
        return answer

    app = Starlette(routes=[Route("/api/chat.postMessage", method, methods=["POST"])])
    async with served(app) as server, slack(server.url) as channel:
        with pytest.raises(ChannelError) as refused:
            await channel.open("one")
        assert type(refused.value) is expected


async def test_a_server_that_is_not_there_is_trouble_that_passes() -> None:
    async with slack("http://127.0.0.1:1") as channel:
        with pytest.raises(ChannelError) as refused:
            await channel.open("one")
        assert type(refused.value) is ChannelError


async def test_telegram() -> None:
    asked: list[tuple[str, Any]] = []
    answers: list[Response] = []

    async def method(request: Request) -> Response:
        asked.append((request.url.path, json.loads(await request.body())))
        return answers.pop(0)

    def failed(code: int, text: str, **more: Any) -> Response:
        told = {"ok": False, "error_code": code, "description": text, **more}
        return JSONResponse(told, status_code=code)

    app = Starlette(routes=[Route("/bot1:x/{method}", method, methods=["POST"])])
    async with served(app) as server, TelegramChannel(token="1:x", chat=42, url=server.url) as channel:
        answers += [
            JSONResponse({"ok": True, "result": {"message_id": 7}}),
            JSONResponse({"ok": True, "result": {}}),
            failed(400, "Bad Request: message is not modified: …"),
            failed(429, "Too Many Requests: retry after 13", parameters={"retry_after": 13}),
            failed(400, "Bad Request: message to edit not found"),
            failed(403, "Forbidden: bot was blocked by the user"),
            failed(502, "Bad Gateway"),
        ]
        handle = await channel.open("one")
        await channel.edit(handle, "two")
        await channel.edit(handle, "two")
        with pytest.raises(RetryAfter) as wait:
            await channel.edit(handle, "three")
        assert wait.value.seconds == 13
        for expected in (ChannelGone, ChannelGone, ChannelError):
            with pytest.raises(ChannelError) as refused:
                await channel.edit(handle, "three")
            assert type(refused.value) is expected
        assert asked[:2] == [
            ("/bot1:x/sendMessage", {"chat_id": 42, "text": "one"}),
            ("/bot1:x/editMessageText", {"chat_id": 42, "message_id": 7, "text": "two"}),
        ]


@pytest.mark.slow
async def test_the_example_shows_a_run_in_a_chat_and_is_never_refused() -> None:
    """With real time: a run of a few seconds into a chat that takes a call each half second."""
    seen: list[str] = []
    chat = ChatServer(interval_s=0.5, changed=seen.append)
    midstream = bot()
    async with served(chat.app) as server, midstream.lifespan(), slack(server.url) as channel:
        run_id = await ask(midstream, "Why is the sky blue?")
        async with asyncio.timeout(60):
            handle = await midstream.forward(run_id, channel, interval_s=0.5)
        assert handle.partition("/")[0] == CHANNEL
        assert chat.refused == 0
        assert len(chat.shown) == 1
        assert 3 <= len(seen) == len(chat.calls) <= 16
        assert seen[-1].startswith("Done\n\nSunlight looks white")
        assert seen[-1].endswith("comes down to you.")


@pytest.mark.slow
async def test_a_platform_that_limits_more_than_it_says_still_gets_the_last_state() -> None:
    chat = ChatServer(interval_s=1.0)
    midstream = bot()
    async with served(chat.app) as server, midstream.lifespan(), slack(server.url) as channel:
        run_id = await ask(midstream, "Why is the sky blue?")
        async with asyncio.timeout(60):
            await midstream.forward(run_id, channel, interval_s=0.2)
        assert chat.refused > 0
        assert next(iter(chat.shown.values())).endswith("comes down to you.")


@pytest.mark.slow
async def test_a_server_that_is_down_says_so_and_one_that_stops_ends_its_forwards() -> None:
    midstream = bot()
    chat = ChatServer(interval_s=0.0)
    async with served(chat.app) as server, slack(server.url) as channel:
        with pytest.raises(Stopping, match="lifespan"):
            await midstream.forward("run_1", channel)
        async with midstream.lifespan(), asyncio.TaskGroup() as group:
            run_id = await ask(midstream, "Why?")

            async def follow() -> None:
                with pytest.raises(Stopping, match="going down"):
                    await midstream.forward(run_id, channel, interval_s=0.1)

            group.create_task(follow())
            while not chat.shown:  # noqa: ASYNC110 - a real peer
                await asyncio.sleep(0.01)
            await midstream.aclose()
