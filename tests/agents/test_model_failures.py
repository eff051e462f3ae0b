"""Every way a model's service can fail, through the real SDK from a real socket: what the run does, what people see.

Nothing that the service says of a failure is shown, every run ends, and no partial answer is joined to another.
"""

import asyncio
import contextlib
import email.utils
import itertools
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import pytest

from midstream import Agent, tool
from midstream.agents.definition import AgentLimits
from midstream.agents.providers.anthropic import AnthropicProvider
from midstream.tasks import spawn, stop
from midstream.testing import ManualClock, PlayedRun, staged
from midstream_protocol.order import verify
from tests.testkit.model_server import (
    HANG_UP,
    STALL,
    ModelServer,
    Reply,
    block_delta,
    block_start,
    error_event,
    error_reply,
    event,
    message,
    message_end,
    message_start,
    model_server,
    ping,
    text_block,
    text_message,
    tool_block,
)

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(60)]

CANARY = "sk-c4nary-17"
IDLE_S = 0.25
"""Real seconds: for the silent ones, and long enough for the answer that follows on a busy machine."""
DONE = Reply(text_message("All ", "done."))
HALF = [message_start(), *text_block(0, "Half an ")[:2]]
CALLING = [message_start(), *tool_block(0, "toolu_1", "look", '{"at": ')[:2]]


def refused(status: int, kind: str, text: str = "no", **headers: str) -> Reply:
    return error_reply(status, kind, f"{text} {CANARY}", headers={n.replace("_", "-"): v for n, v in headers.items()})


def sent(*steps: Any, **options: Any) -> Reply:
    return Reply(steps, **options)


def in_seconds(seconds: int) -> str:
    return email.utils.formatdate(time.time() + seconds, usegmt=True)


async def pings() -> AsyncIterator[bytes]:
    while True:
        yield ping()
        await asyncio.sleep(0.01)


# What fails and goes on failing → the code of the run's failure, and whether it was tried again.
LASTING: dict[str, tuple[Reply, str, bool]] = {
    "400": (refused(400, "invalid_request_error"), "model_bad_request", False),
    "400 too long": (refused(400, "invalid_request_error", "prompt is too long"), "context_too_long", False),
    "401": (refused(401, "authentication_error"), "model_denied", False),
    "402": (refused(402, "billing_error"), "model_denied", False),
    "403": (refused(403, "permission_error"), "model_denied", False),
    "404 model not found": (refused(404, "not_found_error"), "model_bad_request", False),
    "405": (refused(405, "method_not_allowed"), "model_bad_request", False),
    "408": (refused(408, "timeout_error"), "model_error", True),
    "409": (refused(409, "conflict_error"), "model_error", True),
    "413": (refused(413, "request_too_large"), "context_too_long", False),
    "418": (refused(418, "teapot"), "model_bad_request", False),
    "422": (refused(422, "invalid_request_error"), "model_bad_request", False),
    "429": (refused(429, "rate_limit_error"), "rate_limited", True),
    "429 retry-after in s": (refused(429, "rate_limit_error", retry_after="2"), "rate_limited", True),
    "429 retry-after in ms": (refused(429, "rate_limit_error", retry_after_ms="1500"), "rate_limited", True),
    "429 retry-after date": (refused(429, "rate_limit_error", retry_after=in_seconds(20)), "rate_limited", True),
    "429 retry-after nonsense": (refused(429, "rate_limit_error", retry_after="soon"), "rate_limited", True),
    "429 retry-after too long": (refused(429, "rate_limit_error", retry_after="600"), "rate_limited", False),
    "500": (refused(500, "api_error"), "model_error", True),
    "500 overloaded": (refused(500, "overloaded_error"), "overloaded", True),
    "502 page": (
        sent(f"<html>{CANARY}".encode(), status=502, headers={"content-type": "text/html"}),
        "model_error",
        True,
    ),
    "503": (refused(503, "api_error", retry_after="3"), "overloaded", True),
    "504": (refused(504, "timeout_error"), "model_error", True),
    "529": (refused(529, "overloaded_error"), "overloaded", True),
    "599": (refused(599, "strange_error"), "model_error", True),
    "500 without a body": (sent(status=500), "model_error", True),
    "redirect in a circle": (sent(status=307, headers={"location": "/v1/messages"}), "model_unreachable", True),
    "redirect to nowhere": (sent(status=302), "model_error", True),
    "error event first": (sent(error_event("overloaded_error", CANARY)), "overloaded", True),
    "error event after the start": (sent(message_start(), error_event("api_error", CANARY)), "model_error", True),
    "error event after text": (sent(*HALF, error_event("overloaded_error", CANARY)), "overloaded", True),
    "error event in a call": (sent(*CALLING, error_event("rate_limit_error", CANARY)), "rate_limited", True),
    "error event that denies": (sent(*HALF, error_event("permission_error", CANARY)), "model_denied", False),
    "200 with an error body": (
        sent(f'{{"type": "error", "error": {{"type": "api_error", "message": "{CANARY}"}}}}'.encode()),
        "model_unreachable",
        True,
    ),
    "200 with a page": (
        sent(f"<html>{CANARY}".encode(), headers={"content-type": "text/html"}),
        "model_unreachable",
        True,
    ),
    "200 without a body": (sent(), "model_unreachable", True),
    "hung up at once": (sent(raw=True), "model_unreachable", True),
    "hung up after the headers": (sent(HANG_UP), "model_unreachable", True),
    "hung up in the text": (sent(*HALF, HANG_UP), "model_unreachable", True),
    "hung up in a call": (sent(*CALLING, HANG_UP), "model_unreachable", True),
    "closed in the text": (sent(*HALF), "model_unreachable", True),
    "closed in a chunk": (
        sent(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\nff\r\n",
            message_start()[:20],
            raw=True,
        ),
        "model_unreachable",
        True,
    ),
    "no HTTP": (sent(b"\x16\x03\x01 garbage \x00\xff\r\n\r\n", raw=True), "model_unreachable", True),
    "bytes that are no text": (sent(message_start(), b"data: \xff\xfe\x00\n\n"), "model_error", True),
    "truncated JSON": (
        sent(message_start(), b'event: content_block_start\ndata: {"type": "con\n\n'),
        "model_error",
        True,
    ),
    "no JSON object": (sent(b"event: message_start\ndata: [1]\n\n"), "model_error", True),
    "blocks of one number": (sent(*text_message("a")[:-2], *text_block(0, "b")), "model_error", True),
    "delta of no block": (sent(message_start(), block_delta(9, type="text_delta", text="a")), "model_error", True),
    "begins twice": (sent(message_start(), message_start()), "model_error", True),
    "ends before it begins": (sent(*message_end()), "model_error", True),
    "silence": (sent(silent=True), "model_stalled", True),
    "silence after the headers": (sent(STALL), "model_stalled", True),
    "silence in the text": (sent(*HALF, STALL), "model_stalled", True),
    "silence in a call": (sent(*CALLING, STALL), "model_stalled", True),
    "refusal": (sent(*text_message("I will not.", stop_reason="refusal")), "refused", False),
    "refusal without a word": (sent(message_start(), *message_end("refusal")), "refused", False),
    "window full": (
        sent(*text_message("Half", stop_reason="model_context_window_exceeded")),
        "context_too_long",
        False,
    ),
    "cut off in a call, always": (
        sent(*message(tool_block(0, "toolu_1", "look", '{"at": "s'), stop_reason="max_tokens")),
        "truncated",
        False,
    ),
}

# What is no failure of the run, or not for long → its result.
PASSING: dict[str, tuple[Sequence[Reply], str]] = {
    "unknown stop reason": ([sent(*text_message("Well.", stop_reason="moon_phase"))], "Well."),
    "no stop reason": ([sent(message_start(), *text_block(0, "Well."), event("message_stop"))], "Well."),
    "cut off in the text": ([sent(*text_message("Well", stop_reason="max_tokens"))], "Well"),
    "empty answer": ([sent(message_start(), *message_end())], ""),
    "unknown events": ([sent(message_start(), event("dream"), *text_block(0, "Well."), *message_end())], "Well."),
    "unknown block": (
        [sent(message_start(), block_start(0, type="dream", of="sheep"), *text_block(1, "Well."), *message_end())],
        "Well.",
    ),
    "pause_turn": ([sent(*text_message("One ", stop_reason="pause_turn")), DONE], "All done."),
    "cut off in a call, once": (
        [sent(*message(tool_block(0, "toolu_1", "look", '{"at": "s'), stop_reason="max_tokens")), DONE],
        "All done.",
    ),
    "a call of no tool": ([sent(*message(tool_block(0, "t", "fly", "{}"), stop_reason="tool_use")), DONE], "All done."),
    "text after the end": ([sent(*text_message("Well."), b"data: more\n\n")], "Well."),
}


@tool
async def look(at: str) -> str:
    return at


@contextlib.asynccontextmanager
async def running(
    *replies: Reply, port: int | None = None, idle_s: float = 10.0
) -> AsyncIterator[tuple[PlayedRun, ModelServer]]:
    clock = ManualClock()
    limits = AgentLimits(idle_timeout_s=idle_s, max_turns=12)
    agent = Agent("tester", instructions="Be brief.", tools=[look], limits=limits)
    async with model_server(*replies) as server:
        url = server.base_url if port is None else f"http://127.0.0.1:{port}"
        provider = AnthropicProvider(api_key=CANARY, base_url=url, default_model="test-model")
        async with staged(agent, provider, clock=clock) as stage:
            ticking = spawn(_tick(clock), name="test/clock")
            try:
                yield await stage.start("Go."), server
            finally:
                await stop(ticking)


def idle_of(kind: str) -> float:
    return IDLE_S if "silence" in kind else 10.0


async def _tick(clock: ManualClock) -> None:
    # The model's silence is real, the waits between tries are not.
    while True:
        await clock.advance(0.5)
        await asyncio.sleep(0.001)


def check(run: PlayedRun) -> None:
    assert verify(run.events) == []
    for each in run.events:
        shown = msgspec.json.encode(each).decode()
        assert CANARY not in shown
        assert "Traceback" not in shown
    # Every message that began is whole, or taken back.
    begun = {p.message_id for p in run.of_type("message.started")}
    ended = {p.message_id for p in run.of_type("message.completed") if p.role == "assistant"}
    assert begun == ended | {p.message_id for p in run.of_type("message.superseded")}


@pytest.mark.parametrize("kind", LASTING)
async def test_what_goes_on_failing_ends_the_run_with_its_code(kind: str):
    reply, code, again = LASTING[kind]
    async with running(reply, idle_s=idle_of(kind)) as (run, server):
        failed = (await run.ended()).payload
        assert (failed.code, failed.retryable) == (code, again or kind == "429 retry-after too long")
        check(run)
        recoveries = run.of_type("recovery.started")
        assert [p.attempt for p in recoveries] == ([2, 3] if again else [])
        if kind not in ("redirect in a circle", "cut off in a call, always"):
            assert len(server.requests) == (3 if again else 1)
        steps = run.of_type("run.step")
        assert len([p for p in steps if p.kind == "retry" and p.state == "started"]) == (2 if again else 0)


@pytest.mark.parametrize(
    "kind", [kind for kind, (_, _, again) in LASTING.items() if again and kind != "redirect in a circle"]
)
async def test_what_fails_once_is_tried_again_and_the_answer_is_whole(kind: str):
    async with running(LASTING[kind][0], DONE, idle_s=idle_of(kind)) as (run, _):
        assert await run.result() == "All done."
        assert len(run.of_type("recovery.started")) == 1
        assert [p.text for p in run.of_type("message.completed") if p.role == "assistant"] == ["All done."]
        check(run)


@pytest.mark.parametrize("kind", PASSING)
async def test_what_is_odd_but_no_failure(kind: str):
    replies, result = PASSING[kind]
    async with running(*replies) as (run, _):
        assert await run.result() == result
        assert run.of_type("recovery.started") == []
        check(run)


async def test_nobody_there():
    async with model_server() as gone:
        pass
    async with running(port=int(gone.base_url.rpartition(":")[2])) as (run, _):
        failed = (await run.ended()).payload
        assert (failed.code, failed.retryable) == ("model_unreachable", True)
        check(run)


async def test_only_signs_of_life(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("midstream.agents.providers.anthropic.PINGS_ONLY_FACTOR", 2)
    replies = [sent(message_start(), pings()) for _ in range(3)]
    async with running(*replies, idle_s=IDLE_S) as (run, server):
        assert (await run.ended()).payload.code == "model_stalled"
        assert len(server.requests) == 3
        await server.disconnected(3)
        check(run)


async def test_the_time_that_the_provider_asks_for_is_kept():
    waits = {"retry_after": "7"}, {"retry_after_ms": "9500"}, {"retry_after": in_seconds(40)}
    for headers, least in zip(waits, (7, 9.5, 37), strict=True):
        async with running(refused(429, "rate_limit_error", **headers), DONE) as (run, _):
            assert await run.result() == "All done."
            (started,) = run.of_type("recovery.started")
            assert started.kind == "rate_limit"
            assert least <= started.wait_s <= 41


async def test_a_hundred_runs_that_are_refused_together_come_back_apart():
    served: list[float] = []
    clock = ManualClock()

    together = asyncio.Event()

    def reply(_: Any) -> Reply:
        served.append(clock.monotonic())
        if len(served) > 100:
            return DONE
        if len(served) == 100:
            together.set()
        no = refused(429, "rate_limit_error", retry_after="5")
        # Who was told first would keep the others from asking.
        return Reply([together, *no.steps], status=no.status, headers=no.headers)

    async with model_server(reply) as server:
        provider = AnthropicProvider(api_key=None, base_url=server.base_url, default_model="test-model")
        async with staged(Agent("tester", instructions=""), provider, clock=clock) as stage:
            runs = [await stage.start("Go.") for _ in range(100)]
            await server.requested(100)
            for run in runs:
                await run.until("recovery.started")
            ticking = spawn(_finely(clock), name="test/clock")
            for run in runs:
                assert await run.result() == "All done."
            await stop(ticking)
    back = served[100:]
    assert len(back) == 100
    assert min(back) >= 5
    # Apart, and nowhere a crowd. The sockets are real, so what arrives may be told late; `test_limiter` is exact.
    assert max(back) - min(back) >= 3
    assert max(len(list(group)) for _, group in itertools.groupby(back, key=lambda at: int(at * 10))) <= 20


async def _finely(clock: ManualClock) -> None:
    while True:
        await clock.advance(0.02)
        await asyncio.sleep(0.002)
