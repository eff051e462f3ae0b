"""The laws of `midstream.agents.providers.contract`, over every provider we ship."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from midstream.agents.conversation import Call, Text, UserMessage
from midstream.agents.providers.anthropic import AnthropicProvider
from midstream.agents.providers.contract import (
    CallOpened,
    Cited,
    Finished,
    ModelEvent,
    ModelOverloaded,
    ModelRequest,
    ModelStalled,
    Opened,
    Provider,
    TextDelta,
    ToolSpec,
)
from midstream.agents.providers.local import LocalProvider, local_available
from midstream.agents.providers.scripted import ScriptedProvider
from midstream.tasks import spawn
from tests.testkit.model_server import (
    STALL,
    Reply,
    block_delta,
    error_reply,
    interleaved,
    message,
    message_start,
    model_server,
    ping,
    text_block,
    text_message,
    tool_block,
)

pytestmark = pytest.mark.asyncio


def a_request(**changes: Any) -> ModelRequest:
    tool = ToolSpec(name="look", description="Look.", input_schema={"type": "object"})
    fields: dict[str, Any] = {
        "model": "test-model",
        "system": "Be kind.",
        "messages": (UserMessage(parts=(Text(text="Hi"),)),),
        "tools": (tool,),
        "idle_timeout_s": 5.0,
    }
    return ModelRequest(**{**fields, **changes})


# Each scene, as bytes of the Messages API and as a script; both say the same.
SCENES: dict[str, tuple[Reply, dict[str, Any]]] = {
    "text": (
        Reply(text_message("Hel", "lo")),
        {"steps": [{"chunks": ["Hel", "lo"]}]},
    ),
    "calls": (
        Reply(
            message(
                text_block(0, "I look."),
                interleaved(
                    tool_block(1, "toolu_a", "look", '{"at"', ': "sky', '"}'),
                    tool_block(2, "toolu_b", "look", "", '{"a', 't": "se', 'a"}'),
                ),
                stop_reason="tool_use",
            )
        ),
        {
            "steps": [
                {"text": "I look."},
                {"call": {"tool": "look", "args": {"at": "sky"}}},
                {"call": {"tool": "look", "args": {"at": "sea"}}},
            ]
        },
    ),
    "cut call": (
        Reply(message(tool_block(0, "toolu_a", "look", '{"at": "s'), stop_reason="max_tokens")),
        {"steps": [{"raw_call": {"tool": "look", "json": '{"at": "s'}}, {"stop_reason": "max_tokens"}]},
    ),
    "overloaded": (
        error_reply(529, "overloaded_error"),
        {"steps": [{"error": "overloaded"}]},
    ),
    "silent after a word": (
        Reply([*text_message("Hel")[:3], STALL]),
        {"steps": [{"text": "Hel"}, {"stall": True}]},
    ),
    "silent from the start": (
        Reply(silent=True),
        {"steps": [{"stall": True}]},
    ),
}

Subject = Callable[[str], Any]


@asynccontextmanager
async def anthropic_subject(scene: str) -> AsyncIterator[Provider]:
    async with model_server(SCENES[scene][0]) as server:
        provider = AnthropicProvider(api_key=None, base_url=server.base_url)
        yield provider
        await provider.aclose()
        await provider.aclose()


@asynccontextmanager
async def scripted_subject(scene: str) -> AsyncIterator[Provider]:
    provider = ScriptedProvider({"turns": [SCENES[scene][1]]})
    yield provider
    await provider.aclose()
    await provider.aclose()


@pytest.fixture(params=[anthropic_subject, scripted_subject], ids=["anthropic", "scripted"])
def subject(request: pytest.FixtureRequest) -> Subject:
    chosen: Subject = request.param
    return chosen


async def answer(
    provider: Provider, request: ModelRequest, *, into: list[ModelEvent] | None = None
) -> list[ModelEvent]:
    """All events; with `into`, also those before an error."""
    events: list[ModelEvent] = [] if into is None else into
    async for event in provider.stream(request):
        events.append(event)  # noqa: PERF401 - what came before an error must be seen
    return events


async def test_the_text_comes_in_its_pieces_and_whole_at_the_end(subject: Subject) -> None:
    async with subject("text") as provider:
        events = await answer(provider, a_request())
    assert isinstance(events[0], Opened)
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["Hel", "lo"]
    last = events[-1]
    assert isinstance(last, Finished)
    assert last.parts == (Text(text="Hello"),)
    assert last.stop_reason == "end_turn"
    assert last.usage.output_tokens > 0
    assert sum(isinstance(event, Finished) for event in events) == 1


async def test_calls_are_announced_and_their_arguments_come_at_the_end(subject: Subject) -> None:
    async with subject("calls") as provider:
        events = await answer(provider, a_request())
    last = events[-1]
    assert isinstance(last, Finished)
    text, first, second = last.parts
    assert text == Text(text="I look.")
    assert isinstance(first, Call)
    assert isinstance(second, Call)
    assert (first.args, second.args) == ({"at": "sky"}, {"at": "sea"})
    assert [event for event in events if isinstance(event, CallOpened)] == [
        CallOpened(id=first.id, tool="look"),
        CallOpened(id=second.id, tool="look"),
    ]
    assert first.id != second.id
    assert last.stop_reason == "tool_use"


async def test_a_call_that_was_cut_off_has_no_arguments(subject: Subject) -> None:
    async with subject("cut call") as provider:
        events = await answer(provider, a_request())
    last = events[-1]
    assert isinstance(last, Finished)
    (call,) = last.parts
    assert isinstance(call, Call)
    assert call.args is None
    assert call.raw == '{"at": "s'
    assert last.stop_reason == "max_tokens"


async def test_a_failure_is_a_model_error(subject: Subject) -> None:
    async with subject("overloaded") as provider:
        with pytest.raises(ModelOverloaded) as caught:
            await answer(provider, a_request())
    assert caught.value.retryable


@pytest.mark.parametrize("scene", ["silent after a word", "silent from the start"])
async def test_silence_ends_in_model_stalled(subject: Subject, scene: str) -> None:
    async with subject(scene) as provider:
        events: list[ModelEvent] = []
        began = asyncio.get_running_loop().time()
        with pytest.raises(ModelStalled):
            await answer(provider, a_request(idle_timeout_s=0.1), into=events)
        assert 0.09 < asyncio.get_running_loop().time() - began < 0.8
    if scene == "silent after a word":
        assert TextDelta(text="Hel") in events
    assert not any(isinstance(event, Finished) for event in events)


@pytest.mark.parametrize("scene", ["silent after a word", "silent from the start"])
async def test_cancelling_raises_nothing_else(subject: Subject, scene: str) -> None:
    async with subject(scene) as provider:
        task = spawn(answer(provider, a_request(idle_timeout_s=600)), name="test/answer")
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_call_that_must_be_made_is_made(subject: Subject) -> None:
    async with subject("calls") as provider:
        events = await answer(provider, a_request(must_call="look"))
    assert any(isinstance(part, Call) and part.tool == "look" for part in events[-1].parts)


async def test_it_says_what_it_knows_of_a_models_window(subject: Subject) -> None:
    async with subject("text") as provider:
        assert provider.window("no-such-model") is None


async def test_streams_of_one_provider_do_not_mix(subject: Subject) -> None:
    async with subject("calls") as provider:
        answers = await asyncio.gather(*(answer(provider, a_request()) for _ in range(4)))
    ids = [event.id for events in answers for event in events if isinstance(event, CallOpened)]
    assert len(set(ids)) == 8


CITED = {"type": "page_location", "cited_text": "Blue.", "document_title": "The sky", "file_id": "file_9"}


async def test_what_the_text_rests_on_is_named_between_its_pieces() -> None:
    cited = {**CITED, "start_page_number": 3, "end_page_number": 4}
    said = text_message("It is ", "blue.")
    said.insert(4, block_delta(0, type="citations_delta", citation=cited))
    async with model_server(Reply(said)) as server:
        provider = AnthropicProvider(api_key=None, base_url=server.base_url)
        events = await answer(provider, a_request())
        await provider.aclose()
    (found,) = [event for event in events if isinstance(event, Cited)]
    assert found.data == {"cited_text": "Blue.", "title": "The sky", "unit": "page", "start": 3, "end": 4}
    # The text is what goes back to the model, as it was.
    assert events[-1].parts == (Text(text="It is blue."),)


# Law 3 is about connections, so only who has one can break it.

CLOSED_WITHIN_S = 0.25


@pytest.mark.parametrize("way", ["cancel", "aclose"])
async def test_leaving_closes_the_connection_at_once(way: str) -> None:
    async with model_server(Reply([*text_message("Hel")[:3], STALL])) as server:
        provider = AnthropicProvider(api_key=None, base_url=server.base_url)
        heard = asyncio.Event()
        loop = asyncio.get_running_loop()

        async def listen() -> None:
            async with aclosing(provider.stream(a_request(idle_timeout_s=600))) as events:
                async for event in events:
                    if isinstance(event, TextDelta):
                        heard.set()
                        if way == "aclose":
                            return

        task = spawn(listen(), name="test/listen")
        await heard.wait()
        left_at = loop.time()
        if way == "cancel":
            task.cancel()
        await asyncio.wait([task])
        # The clock of the loop is the one the server notes the time with.
        assert await server.disconnected() - left_at < CLOSED_WITHIN_S
        await provider.aclose()


async def test_cancelling_before_the_reply_closes_the_connection() -> None:
    async with model_server(Reply(silent=True)) as server:
        provider = AnthropicProvider(api_key=None, base_url=server.base_url)
        task = spawn(answer(provider, a_request(idle_timeout_s=600)), name="test/answer")
        await server.requested()
        task.cancel()
        await asyncio.wait([task])
        await server.disconnected()
        await provider.aclose()


async def test_text_is_handed_on_before_the_next_comes() -> None:
    gate = asyncio.Event()
    whole = text_message("Hel", "lo")
    async with model_server(Reply([*whole[:3], gate, *whole[3:]])) as server:
        provider = AnthropicProvider(api_key=None, base_url=server.base_url)
        seen: list[ModelEvent] = []
        async for event in provider.stream(a_request()):
            seen.append(event)
            if event == TextDelta(text="Hel"):
                assert not gate.is_set()
                gate.set()
        assert TextDelta(text="lo") in seen
        await provider.aclose()


async def test_pings_are_a_sign_of_life_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("midstream.agents.providers.anthropic.PINGS_ONLY_FACTOR", 4)

    async def pings() -> AsyncIterator[bytes]:
        while True:
            yield ping()
            await asyncio.sleep(0.02)

    async with model_server(Reply([message_start(), pings()])) as server:
        provider = AnthropicProvider(api_key=None, base_url=server.base_url)
        began = asyncio.get_running_loop().time()
        with pytest.raises(ModelStalled):
            await answer(provider, a_request(idle_timeout_s=0.1))
        # Four times the idle timeout: the pings kept the connection up past the first.
        assert asyncio.get_running_loop().time() - began >= 0.35
        await provider.aclose()


@pytest.mark.local_model
@pytest.mark.skipif(local_available() is not None, reason=str(local_available()))
async def test_the_embedded_model_keeps_the_laws() -> None:
    provider = LocalProvider(max_tokens=12)
    try:
        events = await answer(provider, a_request(idle_timeout_s=60))
        pieces = [event.text for event in events if isinstance(event, TextDelta)]
        last = events[-1]
        assert isinstance(events[0], Opened)
        assert isinstance(last, Finished)
        assert len(pieces) > 1
        assert last.parts == (Text(text="".join(pieces)),)
        first_pid = provider.child_pid

        # Leaving early, then asking again: the child goes on, and is free.
        async with aclosing(provider.stream(a_request(idle_timeout_s=60))) as early:
            assert isinstance(await anext(early), Opened)
        assert isinstance((await answer(provider, a_request(idle_timeout_s=60)))[-1], Finished)
        assert provider.child_pid == first_pid
    finally:
        await provider.aclose()
    assert provider.child_pid is None
