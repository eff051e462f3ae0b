"""The adapter against a real loopback server: what is sent, what each failure becomes, any cutting of the bytes."""

import asyncio
import itertools
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from midstream.agents.conversation import Call, Opaque, Reasoning, Text, UserMessage
from midstream.agents.providers.anthropic import NO_KEY, AnthropicProvider
from midstream.agents.providers.anthropic_answer import Answer
from midstream.agents.providers.contract import (
    BadModelRequest,
    ContextTooLong,
    Finished,
    ModelDenied,
    ModelError,
    ModelEvent,
    ModelFailed,
    ModelOverloaded,
    ModelRateLimited,
    ModelRequest,
    ModelUnreachable,
    Opened,
    ReasoningDelta,
    TextDelta,
    TokenUsage,
    ToolSpec,
)
from tests.testkit.model_server import (
    HANG_UP,
    STALL,
    Reply,
    block_delta,
    block_start,
    block_stop,
    error_event,
    error_reply,
    event,
    interleaved,
    message,
    message_end,
    message_start,
    model_server,
    ping,
    split,
    text_block,
    text_message,
    tool_block,
)

pytestmark = pytest.mark.asyncio


def a_request(**changes: Any) -> ModelRequest:
    fields: dict[str, Any] = {"model": "test-model", "system": "", "messages": (UserMessage(parts=(Text(text="Hi"),)),)}
    return ModelRequest(**{**fields, "idle_timeout_s": 5.0, **changes})


def a_provider(base_url: str, **changes: Any) -> AnthropicProvider:
    numbers = itertools.count(1)
    fields = {"api_key": None, "base_url": base_url, "new_call_id": lambda: f"call_{next(numbers)}", **changes}
    return AnthropicProvider(**fields)


async def answer(reply: Reply, **changes: Any) -> list[ModelEvent]:
    async with model_server(reply) as server:
        provider = a_provider(server.base_url)
        try:
            return [one async for one in provider.stream(a_request(**changes))]
        finally:
            await provider.aclose()


async def whole(*blocks: list[bytes], stop_reason: str = "end_turn") -> Finished:
    last = (await answer(Reply(message(*blocks, stop_reason=stop_reason))))[-1]
    assert isinstance(last, Finished)
    return last


# What is sent.


async def test_only_core_fields_are_sent() -> None:
    tool = ToolSpec(name="look", description="Look.", input_schema={"type": "object"})
    async with model_server() as server:
        provider = a_provider(server.base_url)
        for request in (a_request(), a_request(system="Be kind.", tools=(tool,), conversation_id="run_1")):
            [_ async for _ in provider.stream(request)]
        await provider.aclose()
    bare, full = (received.body for received in server.requests)
    assert server.requests[0].path == "/v1/messages"
    assert bare == {
        "model": "test-model",
        "max_tokens": 4096,
        "stream": True,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
    }
    assert full["system"] == "Be kind."
    assert full["tools"] == [{"name": "look", "description": "Look.", "input_schema": {"type": "object"}}]
    assert set(full) == {*bare, "system", "tools"}


async def test_a_call_that_must_be_made_is_chosen_if_there_is_such_a_tool() -> None:
    tool = ToolSpec(name="look", description="Look.", input_schema={"type": "object"})
    async with model_server() as server:
        provider = a_provider(server.base_url)
        for must_call in ("look", "another"):
            [_ async for _ in provider.stream(a_request(tools=(tool,), must_call=must_call))]
        await provider.aclose()
    assert server.requests[0].body["tool_choice"] == {"type": "tool", "name": "look"}
    assert "tool_choice" not in server.requests[1].body


@pytest.mark.parametrize(("model", "tokens"), [("claude-sonnet-5-5", 200_000), ("qwen3:8b", None), ("", None)])
async def test_the_window_of_its_own_models_is_known(model: str, tokens: int | None) -> None:
    provider = a_provider("http://127.0.0.1:1")
    assert provider.window(model) == tokens
    await provider.aclose()


async def test_without_a_key_a_dummy_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "a-real-key-of-the-environment")
    async with model_server() as server:
        provider = a_provider(server.base_url)
        [_ async for _ in provider.stream(a_request())]
        await provider.aclose()
    assert server.requests[0].headers["authorization"] == f"Bearer {NO_KEY}"
    assert "a-real-key" not in str(server.requests[0].headers)


async def test_a_proxy_of_the_environment_is_not_asked_for_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    async with model_server() as proxy, model_server() as server:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.base_url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        provider = a_provider(server.base_url)
        [_ async for _ in provider.stream(a_request())]
        await provider.aclose()
    assert len(server.requests) == 1
    assert proxy.connections == 0


async def test_the_sdk_does_not_retry_behind_our_back() -> None:
    async with model_server(error_reply(529, "overloaded_error")) as server:
        provider = a_provider(server.base_url)
        with pytest.raises(ModelOverloaded):
            [_ async for _ in provider.stream(a_request())]
        await provider.aclose()
    assert len(server.requests) == 1


async def test_a_connection_is_used_again_for_the_next_answer() -> None:
    async with model_server() as server:
        provider = a_provider(server.base_url)
        for _ in range(3):
            [_ async for _ in provider.stream(a_request())]
        await provider.aclose()
    assert len(server.requests) == 3
    assert server.connections == 1


async def test_a_server_that_keeps_the_reply_open_after_its_end_is_not_waited_for() -> None:
    events = await answer(Reply([*text_message("Hello"), STALL]))
    assert isinstance(events[-1], Finished)


async def test_a_model_must_be_named() -> None:
    async with model_server() as server:
        provider = a_provider(server.base_url)
        with pytest.raises(BadModelRequest):
            [_ async for _ in provider.stream(a_request(model=""))]
        await provider.aclose()
    assert not server.requests


@pytest.mark.parametrize("base_url", ["localhost:8080", "ftp://localhost", "http://"])
async def test_a_base_url_that_is_none_is_refused(base_url: str) -> None:
    with pytest.raises(ValueError, match="base URL"):
        AnthropicProvider(api_key=None, base_url=base_url)


async def test_neither_key_nor_base_url_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_BASE_URL", raising=False)
    with pytest.raises(ValueError, match="key"):
        AnthropicProvider(api_key=None, base_url=None)


# What comes back.


async def test_usage_counts_the_cache_in() -> None:
    start = message_start(input_tokens=10, cache_read_input_tokens=100, cache_creation_input_tokens=1000)
    events = await answer(Reply([start, *text_block(0, "a"), *message_end(output_tokens=7)]))
    assert events[0] == Opened(
        model="test-model", usage=TokenUsage(input_tokens=1110, output_tokens=1, cached_input_tokens=100)
    )
    last = events[-1]
    assert isinstance(last, Finished)
    assert last.usage == TokenUsage(input_tokens=1110, output_tokens=7, cached_input_tokens=100)


async def test_thinking_is_kept_word_for_word() -> None:
    thinking = [
        block_start(0, type="thinking", thinking="", signature=""),
        block_delta(0, type="thinking_delta", thinking="Let me "),
        block_delta(0, type="thinking_delta", thinking="see."),
        block_delta(0, type="signature_delta", signature="c2ln"),
        block_stop(0),
    ]
    redacted = [block_start(1, type="redacted_thinking", data="b3BhcXVl"), block_stop(1)]
    events = await answer(Reply(message(thinking, redacted, text_block(2, "Yes."))))
    assert [one.text for one in events if isinstance(one, ReasoningDelta)] == ["Let me ", "see."]
    last = events[-1]
    assert isinstance(last, Finished)
    assert last.parts == (
        Reasoning(raw={"type": "thinking", "thinking": "Let me see.", "signature": "c2ln"}),
        Reasoning(raw={"type": "redacted_thinking", "data": "b3BhcXVl"}),
        Text(text="Yes."),
    )


async def test_blocks_that_only_the_provider_knows_are_kept() -> None:
    search = [
        block_start(0, type="server_tool_use", id="srv_1", name="web_search", input={}),
        block_delta(0, type="input_json_delta", partial_json='{"query": '),
        block_delta(0, type="input_json_delta", partial_json='"x"}'),
        block_stop(0),
    ]
    found = [block_start(1, type="web_search_tool_result", tool_use_id="srv_1", content=[{"a": None}]), block_stop(1)]
    future = [
        block_start(2, type="dream", deep={"er": [1, 2.5, None]}, tale="once "),
        block_delta(2, type="dream_delta", tale="upon", mood="calm"),
        block_stop(2),
    ]
    finished = await whole(search, found, future, stop_reason="pause_turn")
    assert finished.stop_reason == "pause_turn"
    assert finished.parts == (
        Opaque(raw={"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": {"query": "x"}}),
        Opaque(raw={"type": "web_search_tool_result", "tool_use_id": "srv_1", "content": [{"a": None}]}),
        Opaque(raw={"type": "dream", "deep": {"er": [1, 2.5, None]}, "tale": "once upon", "mood": "calm"}),
    )


@pytest.mark.parametrize(
    "stop_reason",
    [
        "end_turn",
        "tool_use",
        "max_tokens",
        "stop_sequence",
        "pause_turn",
        "refusal",
        "model_context_window_exceeded",
        "new",
    ],
)
async def test_every_stop_reason_comes_through(stop_reason: str) -> None:
    finished = await whole(text_block(0, "a"), stop_reason=stop_reason)
    assert finished.stop_reason == stop_reason


@pytest.mark.parametrize(
    ("pieces", "stop_reason", "args"),
    [
        (['{"a": 1}'], "tool_use", {"a": 1}),
        (['{"a"', ": ", "1}"], "max_tokens", {"a": 1}),  # it was complete before the message was cut
        ([], "tool_use", {}),
        ([""], "end_turn", {}),
        ([], "max_tokens", None),
        ([""], "refusal", None),
        ([], "model_context_window_exceeded", None),
        ([], "unheard_of", None),
        (['{"a": '], "max_tokens", None),
        (['{"a": '], "tool_use", None),
        (["[1]"], "tool_use", None),
        (['"text"'], "tool_use", None),
        (["null"], "tool_use", None),
        (['{"a": NaN}'], "tool_use", None),
        (['{"a": 1e999}'], "tool_use", None),
        (['{"a": "\\ud800"}'], "tool_use", None),
        (['{"a": 9007199254740992}'], "tool_use", None),
        (['{"a": 9007199254740991}'], "tool_use", {"a": 9007199254740991}),
        (['{"a":' * 30 + "1" + "}" * 30], "tool_use", None),
        (['{"a":' * 20_000], "tool_use", None),
        (['{"a": 1} and more'], "tool_use", None),
    ],
)
async def test_arguments_are_an_object_or_nothing(
    pieces: list[str], stop_reason: str, args: dict[str, Any] | None
) -> None:
    finished = await whole(tool_block(0, "toolu_1", "look", *pieces), stop_reason=stop_reason)
    (call,) = finished.parts
    assert isinstance(call, Call)
    assert call.args == args
    assert call.raw == ("".join(pieces) if args is None else None)


async def test_only_the_last_call_of_a_cut_message_can_be_cut() -> None:
    finished = await whole(tool_block(0, "toolu_1", "now"), tool_block(1, "toolu_2", "now"), stop_reason="max_tokens")
    assert [call.args for call in finished.parts if isinstance(call, Call)] == [{}, None]


async def test_an_input_sent_with_the_block_is_taken() -> None:
    block = [block_start(0, type="tool_use", id="toolu_1", name="look", input={"at": "sky"}), block_stop(0)]
    (call,) = (await whole(block, stop_reason="tool_use")).parts
    assert isinstance(call, Call)
    assert call.args == {"at": "sky"}


async def test_provider_ids_are_kept_and_doubled_ones_replaced() -> None:
    blocks = [tool_block(0, "toolu_1", "a"), tool_block(1, "toolu_1", "b"), tool_block(2, "", "c")]
    finished = await whole(*blocks, stop_reason="tool_use")
    calls = [part for part in finished.parts if isinstance(part, Call)]
    assert [call.provider_id for call in calls] == ["toolu_1", "call_2", "call_3"]
    assert [call.id for call in calls] == ["call_1", "call_2", "call_3"]


async def test_parts_stand_in_the_order_of_their_index() -> None:
    finished = await whole(text_block(1, "second"), text_block(0, "first"))
    assert finished.parts == (Text(text="first"), Text(text="second"))


async def test_surrogates_are_joined_or_replaced() -> None:
    events = await answer(Reply(message(text_block(0, "a\ud83d", "\ude00b", "\ud800", "c", "\udfff", "d\ud83d"))))
    text = "".join(one.text for one in events if isinstance(one, TextDelta))
    assert text == "a\U0001f600b\ufffdc\ufffdd\ufffd"
    last = events[-1]
    assert isinstance(last, Finished)
    assert last.parts == (Text(text=text),)


# What goes wrong.


@pytest.mark.parametrize(
    ("status", "kind", "text", "error"),
    [
        (400, "invalid_request_error", "messages: first must be user", BadModelRequest),
        (400, "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum", ContextTooLong),
        (400, "invalid_request_error", "input length and `max_tokens` exceed context limit: 1 + 2 > 2", ContextTooLong),
        (400, "exceed_context_size_error", "request (9031 tokens) exceeds the available context size", ContextTooLong),
        (400, "BadRequestError", "This model's maximum context length is 4096 tokens.", ContextTooLong),
        (401, "authentication_error", "invalid key", ModelDenied),
        (402, "billing_error", "pay", ModelDenied),
        (403, "permission_error", "no", ModelDenied),
        (404, "not_found_error", "model: x", BadModelRequest),
        (405, "", "no", BadModelRequest),
        (408, "timeout_error", "slow", ModelFailed),
        (409, "conflict_error", "again", ModelFailed),
        (413, "request_too_large", "big", ContextTooLong),
        (413, "", "<html>", ContextTooLong),
        (422, "", "no", BadModelRequest),
        (429, "rate_limit_error", "slow down", ModelRateLimited),
        (429, "", "slow down", ModelRateLimited),
        (500, "api_error", "oops", ModelFailed),
        (500, "overloaded_error", "busy", ModelOverloaded),
        (501, "not_supported_error", "no", ModelFailed),
        (502, "", "<html>", ModelFailed),
        (503, "unavailable_error", "Loading model", ModelOverloaded),
        (504, "timeout_error", "slow", ModelFailed),
        (529, "overloaded_error", "busy", ModelOverloaded),
        (529, "api_error", "busy", ModelOverloaded),
    ],
)
async def test_the_table_of_failed_replies(status: int, kind: str, text: str, error: type[ModelError]) -> None:
    with pytest.raises(ModelError) as caught:
        await answer(error_reply(status, kind, text))
    assert type(caught.value) is error
    assert text not in caught.value.text
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("overloaded_error", ModelOverloaded),
        ("rate_limit_error", ModelRateLimited),
        ("api_error", ModelFailed),
        ("timeout_error", ModelFailed),
        ("authentication_error", ModelDenied),
        ("permission_error", ModelDenied),
        ("billing_error", ModelDenied),
        ("invalid_request_error", BadModelRequest),
        ("not_found_error", BadModelRequest),
        ("request_too_large", ContextTooLong),
        ("something_new", ModelFailed),
    ],
)
async def test_the_table_of_error_events(kind: str, error: type[ModelError]) -> None:
    with pytest.raises(ModelError) as caught:
        await answer(Reply([*text_message("Hel")[:3], error_event(kind)]))
    assert type(caught.value) is error


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "999999999"}, 3600.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({}, None),
    ],
)
async def test_the_time_to_wait_is_handed_on(headers: dict[str, str], seconds: float | None) -> None:
    with pytest.raises(ModelRateLimited) as caught:
        await answer(error_reply(429, "rate_limit_error", headers=headers))
    assert caught.value.retry_after_s == seconds


@pytest.mark.parametrize(
    "reply",
    [
        Reply(text_message("Hello")[:-1]),
        Reply([message_start()]),
        Reply([]),
        Reply([*text_message("Hel")[:3], HANG_UP]),
        Reply([b"<html>a proxy's page</html>"], headers={"content-type": "text/html"}),
    ],
    ids=["no message_stop", "only a start", "nothing", "broken off", "no event stream"],
)
async def test_a_message_without_its_end_is_unreachable(reply: Reply) -> None:
    with pytest.raises(ModelUnreachable):
        await answer(reply)


async def test_no_server_is_unreachable() -> None:
    async with model_server() as server:
        pass
    provider = a_provider(server.base_url)
    with structlog.testing.capture_logs() as logged, pytest.raises(ModelUnreachable):
        [_ async for _ in provider.stream(a_request())]
    await provider.aclose()
    (entry,) = logged
    assert entry["at"] == server.base_url
    assert "connection attempts failed" in entry["cause"]


async def test_the_servers_log_does_not_quote_the_provider() -> None:
    reply = error_reply(401, "authentication_error", "the key s3cret is wrong")
    with structlog.testing.capture_logs() as logged, pytest.raises(ModelDenied):
        await answer(reply)
    assert [(entry["code"], entry["cause"]) for entry in logged] == [
        (ModelDenied.code, "AuthenticationError: status 401")
    ]


@pytest.mark.parametrize(
    "steps",
    [
        [b"event: message_start\ndata: {\n\n"],
        [b"event: message_start\ndata: \xff\xfe\n\n"],
        [b"event: message_start\ndata: [1, 2]\n\n"],
        [b'event: message_start\ndata: "text"\n\n'],
        [event("message_start")],
        [message_start(), message_start()],
        [event("message_stop")],
        [message_start(), block_delta(0, type="text_delta", text="a")],
        [message_start(), block_stop(3)],
        [message_start(), event("content_block_start", index=0)],
        [message_start(), event("content_block_start", index="x", content_block={"type": "text"})],
        [message_start(), *text_block(0, "a"), *text_block(0, "b")],
        [message_start(), event("content_block_delta", index=0, delta=7)],
        [block_start(0, type="text", text="")],
        [message_start(), block_start(0, type="dream", tale="\ud800"), block_stop(0), *message_end()],
    ],
)
async def test_events_that_make_no_sense_are_the_providers_failure(steps: list[bytes]) -> None:
    with pytest.raises(ModelFailed):
        await answer(Reply(steps))


async def test_unknown_events_are_passed_over() -> None:
    said = text_message("Hello")
    events = await answer(Reply([ping(), said[0], event("weather", index=0), b": a comment\n\n", *said[1:]]))
    assert [one.text for one in events if isinstance(one, TextDelta)] == ["Hello"]


# Any cutting of the same bytes is the same answer.

_RICH = message(
    [
        block_start(0, type="thinking", thinking="", signature=""),
        block_delta(0, type="thinking_delta", thinking="Hm – 深い."),
        block_delta(0, type="signature_delta", signature="c2ln"),
        block_stop(0),
    ],
    interleaved(
        text_block(1, "Grüße, ", "\u2028 and 😀", "."),
        tool_block(2, "toolu_a", "look", '{"at": "', 'sky"', "}"),
        tool_block(3, "toolu_b", "look", '{"at": "sé', 'a"'),
    ),
    stop_reason="max_tokens",
)
_BYTES = b"".join(_RICH)


@pytest.fixture(scope="module")
def expected() -> list[ModelEvent]:
    return asyncio.run(answer(Reply(_RICH)))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(1, len(_BYTES) - 1), max_size=12))
async def test_any_cutting_of_the_bytes_is_the_same_answer(expected: list[ModelEvent], cuts: list[int]) -> None:
    assert await answer(Reply(split(_BYTES, cuts))) == expected


@pytest.mark.parametrize("eol", [b"\r\n", b"\r"])
async def test_byte_by_byte_with_any_line_end(expected: list[ModelEvent], eol: bytes) -> None:
    whole = b": hello\n\n" + _BYTES
    assert await answer(Reply(split(whole.replace(b"\n", eol), range(len(whole) * 2)))) == expected


@pytest.mark.parametrize("kind", ["text", "tool_use", "thinking", "new"])
async def test_blocks_without_end_are_no_answer(kind: str) -> None:
    answer = Answer(new_call_id=lambda: "call_1")

    def begin(blocks: int) -> None:
        answer.feed({"type": "message_start", "message": {}})
        for index in range(blocks):
            answer.feed({"type": "content_block_start", "index": index, "content_block": {"type": kind}})

    with pytest.raises(ModelFailed, match="longer than any model writes"):
        begin(10_000)
