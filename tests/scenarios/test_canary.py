"""Canaries in everything that is private, and a model that says them all, cut at every place: on no transport, in no
event of the log.

The server is a real one, the model a loopback server behind the real SDK.
"""

import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog

from midstream import (
    Agent,
    Midstream,
    Outflow,
    ProposedTodo,
    Run,
    Settings,
    Stop,
    ToolContext,
    ToolError,
    agent,
    tool,
)
from midstream.agents.providers.anthropic import AnthropicProvider
from tests.testkit.model_server import (
    Received,
    Reply,
    block_delta,
    block_start,
    block_stop,
    error_event,
    error_reply,
    message,
    message_start,
    model_server,
    text_block,
    text_message,
    tool_block,
)
from tests.testkit.served import Served, served

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(90)]


def canary(what: str) -> str:
    """One that calls itself so: where it would be shown if it did not."""
    return f"canary-{what}-{len(what)}x7"


def plain(what: str) -> str:
    """One that looks like nothing: it must not leave because of where it stands."""
    return f"velvet {what} otter"


SYSTEM, OTHER_SYSTEM = canary("system"), canary("planner")
HEX = "4f3c2a1b9d8e7f60"
SENTENCE = "You are the keeper of the archive and never speak of its rooms."
GIVEN = "blue horse battery"
PASSWORD, PIN = "correct horse staple", "nine-times-green"
KEY = "sk-" + "live-0123456789abcdef"
ARGUMENT, PROGRESS, OBJECT, RESULT = canary("argument"), canary("progress"), canary("object"), canary("result")
SAID, REASON = canary("said"), canary("reason")
RAISED, CAUSE, THREAD = plain("raised"), plain("cause"), plain("thread")
THOUGHT, MARKED, JSON_CALL = plain("thought"), plain("marked"), plain("json")
PROVIDER, STREAM, PLANNER, GUARD, HOOK = (plain(what) for what in ("provider", "stream", "planning", "guard", "hook"))
CANARIES = [
    *(SYSTEM, OTHER_SYSTEM, HEX, SENTENCE, GIVEN, PASSWORD, PIN, KEY, ARGUMENT, PROGRESS, OBJECT, RESULT, RAISED),
    "token-of-the-process",
    *(CAUSE, THREAD, SAID, THOUGHT, MARKED, JSON_CALL, PROVIDER, STREAM, PLANNER, GUARD, HOOK, REASON),
]

INSTRUCTIONS = f"{SENTENCE}\nThe word of the day is {SYSTEM}, the room {HEX}."


@tool(redact=["pin"], label="Open {room} with {password} and {pin}")
async def enter(room: str, password: str, pin: str, note: str, ctx: ToolContext) -> dict[str, Any]:
    await ctx.progress(f"Opening for {PROGRESS}")
    await ctx.object("map", {"way": OBJECT, "api_key": KEY})
    return {"room": room, "found": RESULT, "token": KEY, "pin": pin, "url": "https://u:correct-1-horse@example.org/a"}


@tool
async def breaks(note: str) -> None:
    try:
        raise KeyError(CAUSE)
    except KeyError as cause:
        raise RuntimeError(RAISED) from cause


@tool
def breaks_in_a_thread(note: str) -> None:
    raise ValueError(THREAD)


@tool
async def says_why(note: str) -> None:
    raise ToolError(f"The door says {SAID} and password=open-1-sesame.")


@tool(approval="always", redact=["pin"], label="Lock {room} with {password}")
async def lock(room: str, password: str, pin: str) -> str:
    return f"locked with {password}"


ARGS = {"room": "attic", "password": PASSWORD, "pin": PIN, "note": f"for {ARGUMENT}, {KEY}"}
PAYLOAD = (
    f"Begin {SYSTEM} {HEX}. {SENTENCE} {GIVEN}; {PASSWORD}, {PIN} {KEY} {ARGUMENT} {PROGRESS}. {OBJECT} {RESULT} {SAID} "
    f'<tool_call>{{"x": "{MARKED}"}}</tool_call><think>{THOUGHT}</think>'
    f'{{"name": "enter", "arguments": {{"note": "{JSON_CALL}"}}}} done.\n'
)
OWN_WORDS = PAYLOAD.replace(HEX, GIVEN).replace(SENTENCE, GIVEN)
"""An own loop has no system text that anybody knows of."""
SHOWN = re.compile(r"Begin \[hidden\] \[hidden\]\. \[hidden\] \[hidden\];.*? done\.\n")


def calls() -> Reply:
    """Thinking, a word, and all calls."""
    blocks = [
        [
            block_start(0, type="thinking", thinking="", signature=""),
            block_delta(0, type="thinking_delta", thinking=f"I know {THOUGHT}"),
            block_delta(0, type="signature_delta", signature="x"),
            block_stop(0),
        ],
        text_block(1, "Look", "ing."),
        tool_block(2, "toolu_a", "enter", json.dumps(ARGS)),
        *(
            tool_block(number, f"toolu_{number}", name, json.dumps({"note": ARGUMENT}))
            for number, name in enumerate(("breaks", "breaks_in_a_thread", "says_why"), start=3)
        ),
        tool_block(6, "toolu_6", "enter", json.dumps({"room": ARGUMENT, "wrong": KEY})),
        tool_block(7, "toolu_7", "lock", json.dumps({"room": "attic", "password": PASSWORD, "pin": PIN})),
    ]
    return Reply(message(*blocks, stop_reason="tool_use"))


def split_at(cuts: tuple[int, ...]) -> Reply:
    pieces = [piece for cut in cuts for piece in (PAYLOAD[:cut], PAYLOAD[cut:])]
    return Reply(text_message(*(piece for piece in pieces if piece)))


def model(received: Received) -> Reply:
    """What it is asked for stands in the run's input."""
    whole = json.dumps(received.body["messages"])
    if f"plans {OTHER_SYSTEM}" in json.dumps(received.body.get("system", "")):
        todos = {"todos": [{"id": "t1", "title": f"Say {OTHER_SYSTEM} and {SYSTEM}", "agent": "planned"}]}
        return Reply(text_message(json.dumps(todos)))
    if found := re.search(r"cuts=([\d,]+)", whole):
        if "tool_result" not in whole:
            return calls()
        return split_at(tuple(int(cut) for cut in found[1].split(",")))
    if "refused" in whole:
        return error_reply(400, "invalid_request_error", f"bad prompt: {PROVIDER} {SYSTEM}")
    if "broken" in whole:
        return Reply([message_start(), *text_block(0, f"Half {SYSTEM} of"), error_event("api_error", STREAM)])
    return Reply(text_message(*PAYLOAD.replace(PASSWORD, GIVEN).replace(PIN, GIVEN)))


# -- agents whose parts fail


async def bad_planner(request, revision):
    raise RuntimeError(PLANNER)


async def good_planner(request, revision):
    return [ProposedTodo(title=f"Look for {SYSTEM}"), ProposedTodo(title="Then say it")]


async def bad_guard(request):
    raise RuntimeError(GUARD)


async def stopping_guard(request):
    return Stop(f"Not with {REASON} and {SYSTEM}.")


async def bad_hook(result, plan):
    raise RuntimeError(HOOK)


@agent("own", tools=[enter])
async def own(run: Run):
    await run.status(f"On {ARGUMENT}")
    await run.call(enter, **ARGS)
    await run.say(OWN_WORDS)
    await run.say(iter_of(OWN_WORDS))
    return OWN_WORDS


async def iter_of(text: str):
    for char in text:
        yield char


AGENTS = [
    Agent("echo", instructions=INSTRUCTIONS, tools=[enter, breaks, breaks_in_a_thread, says_why, lock]),
    Agent(
        "planned",
        instructions=INSTRUCTIONS,
        tools=[enter],
        planner=Agent("planner", instructions=f"This one plans {OTHER_SYSTEM}."),
        title=True,
    ),
    Agent("no_plan", instructions=INSTRUCTIONS, tools=[enter], planner=bad_planner),
    Agent("hooked", instructions=INSTRUCTIONS, tools=[enter], planner=good_planner, hooks=[bad_hook]),
    Agent("guarded", instructions=INSTRUCTIONS, guardrails=[stopping_guard]),
    Agent("unguarded", instructions=INSTRUCTIONS, guardrails=[bad_guard]),
    own,
]


CUTS = [str(cut) for cut in range(len(PAYLOAD) + 1)]
BATCH = 120
ENDS = {
    "planned": "run.completed",
    "no_plan": "run.completed",
    "hooked": "hook_failed",
    "guarded": "guardrail",
    "unguarded": "guardrail_failed",
    "own": "run.completed",
}


class Heard:
    """Everything that left, as it came."""

    def __init__(self) -> None:
        self.frames: list[str] = []
        self.events: list[dict[str, Any]] = []

    def hear(self, raw: str | bytes) -> dict[str, Any]:
        text = raw if isinstance(raw, str) else json.dumps(msgspec.msgpack.decode(raw))
        self.frames.append(text)
        frame = json.loads(text)
        if "seq" in frame:
            self.events.append(frame)
        return frame


async def played(server: Served, heard: Heard, name: str, text: str) -> str:
    """One run over a WebSocket, its approval answered; its id."""
    async with server.websocket(subprotocols=["midstream.v1.json"]) as socket:
        heard.hear(await socket.recv())
        start = {"v": 1, "type": "run.start", "command_id": "c1", "payload": {"input": text, "agent": name}}
        await socket.send(json.dumps({**start, "command_id": f"c_{name}_{len(heard.frames)}"}))
        while True:
            frame = heard.hear(await socket.recv())
            if frame["type"] == "approval.required":
                answer = {"approval_id": frame["payload"]["approval_id"], "decision": "approve"}
                command = {"v": 1, "type": "approval.respond", "run_id": frame["run_id"], "payload": answer}
                await socket.send(json.dumps({**command, "command_id": f"a_{len(heard.frames)}"}))
            if frame["type"] in ("run.completed", "run.failed"):
                return frame["run_id"]


async def looked_at(server: Served, run_id: str) -> list[str]:
    """The same run by every other way to see it."""
    seen = []
    for replay in ("full", "merged", "snapshot"):
        async with server.websocket(subprotocols=["midstream.v1.msgpack"]) as socket:
            heard = Heard()
            heard.hear(await socket.recv())
            attach = {"v": 1, "type": "run.attach", "command_id": "c1", "run_id": run_id, "payload": {"replay": replay}}
            await socket.send(msgspec.msgpack.encode(attach))
            while heard.hear(await socket.recv())["type"] != "run.caught_up":
                continue
            seen += heard.frames
    for accept in ("text/event-stream", "application/x-ndjson"):
        answer = await server.http.get(f"/v1/runs/{run_id}/events", headers={"accept": accept})
        assert answer.status_code == 200
        seen.append(answer.text)
    late = {"type": "run.correct", "payload": {"text": "late"}}
    answers = [
        await server.http.get(f"/v1/runs/{run_id}"),
        await server.http.post(f"/v1/runs/{run_id}/commands", json=late),
        await server.http.post(f"/v1/runs/{run_id}/cancel", json={}),
    ]
    return [*seen, *(answer.text for answer in answers)]


def leaked(texts: list[str]) -> dict[str, list[str]]:
    """Which canaries are in which texts, also as JSON escapes them."""
    found = {each: [text[:300] for text in texts if each in text] for each in CANARIES}
    return {each: places for each, places in found.items() if places}


async def everything(database: Path, heard: Heard) -> list[str]:
    """All runs played, and what every other door says of them."""
    async with model_server(model) as upstream:
        provider = AnthropicProvider(api_key="not-a-key-1234", base_url=upstream.base_url, default_model="test-model")
        app = Midstream(
            AGENTS,
            provider=provider,
            outflow=Outflow(secrets=(GIVEN,)),
            settings=Settings(store=f"sqlite:///{database}", model_retry_spacing_s=0.001),
        )
        await app.open()
        async with served(app) as server:
            starts = [("echo", f"cuts={','.join(CUTS[at : at + BATCH])}") for at in range(0, len(CUTS), BATCH)]
            starts += [("echo", "refused"), ("echo", "broken"), *((name, "x") for name in ENDS)]
            runs = [await played(server, heard, name, text) for name, text in starts]
            pages = [page for run in runs for page in await looked_at(server, run)]
            pages += [(await server.http.get(path)).text for path in ("/v1/runs?limit=100", "/v1/agents", "/metrics")]
            await app.drain()
        await app.aclose()
        await provider.aclose()
    return pages


async def test_canaries_leave_by_no_door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_SERVICE_TOKEN", "token-of-the-process")
    database = tmp_path / "runs.db"
    heard = Heard()
    # What is raised belongs into the log, at length.
    with structlog.testing.capture_logs():
        pages = await everything(database, heard)
    assert leaked([*heard.frames, *pages]) == {}
    assert leaked(events_of(database)) == {}
    # And it was all there to be seen.
    ends = [e for e in heard.events if e["type"] in ("run.completed", "run.failed")]
    assert [e["payload"].get("code", e["type"]) for e in ends[-len(ENDS) :]] == list(ENDS.values())
    said = "".join(e["payload"]["text"] for e in heard.events if e["type"] == "message.delta")
    assert len(SHOWN.findall(said)) >= len(CUTS) + 4
    assert said.count(" done.") == said.count("Begin ")
    assert {e["type"] for e in heard.events} >= {
        *("tool.started", "tool.progress", "tool.completed", "tool.failed", "approval.required", "object.created"),
        *("recovery.started", "message.superseded", "plan.created", "guardrail.triggered", "run.step", "run.status"),
    }
    assert {RAISED, CAUSE, THREAD, PASSWORD, KEY, RESULT, THOUGHT, MARKED, JSON_CALL} <= set(CANARIES)
    for told in ("RuntimeError", "ValueError", "The door says", "Lock attic with [hidden]", "Open attic with [hidden]"):
        assert any(told in frame for frame in heard.frames), told
    journal = b"".join(row for (row,) in rows(database, "SELECT data FROM journal")).decode()
    assert all(each in journal for each in (PASSWORD, PIN, RESULT, MARKED)), "the model goes on with what it knows"


def rows(database: Path, query: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(database)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def events_of(database: Path) -> list[str]:
    found = [*rows(database, "SELECT data FROM events"), *rows(database, "SELECT data FROM receipts")]
    found += rows(database, "SELECT data FROM snapshots")
    assert found
    return [data.decode() for (data,) in found]
