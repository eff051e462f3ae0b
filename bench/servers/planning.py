"""The servers of the planning benchmark, each a process of its own.

python bench/servers/planning.py model                       a Messages API that thinks for `CALL_S` before every answer
python bench/servers/planning.py memory|sqlite MODEL_PORT [SQLITE_PATH]    Midstream, its models at that API

One line tells the port when it listens; it serves until it is terminated.
"""

import asyncio
import os
import sys
from typing import Any, Final

import msgspec
from servers.ours import print_port
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from midstream import Agent, Midstream
from midstream.agents.providers.anthropic import AnthropicProvider
from midstream.serving import serve
from midstream.settings import load_settings

CALL_S: Final = 0.3
"""How long a planning call takes."""

TODOS: Final = [{"id": f"todo_{number}", "title": f"Do part {number}", "agent": "worker"} for number in (1, 2)]
ANSWERS: Final[dict[str, Any]] = {"todos": TODOS, "title": "A title", "allow": True}


async def messages(request: Request) -> StreamingResponse:
    """Whoever must call a tool waits and gets all it may have asked for; others are answered at once."""
    body = msgspec.json.decode(await request.body())
    tool = body.get("tool_choice", {}).get("name")
    if tool is not None:
        await asyncio.sleep(CALL_S)
    return StreamingResponse(iter(said(tool, body)), media_type="text/event-stream")


def said(tool: str | None, body: dict[str, Any]) -> list[bytes]:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "bench", "content": []}
    usage = {"input_tokens": 1, "output_tokens": 1}
    if tool is None:
        block: dict[str, Any] = {"type": "text", "text": ""}
        delta: dict[str, Any] = {"type": "text_delta", "text": "Done."}
    else:
        schema = next(each["input_schema"] for each in body["tools"] if each["name"] == tool)
        given = {name: ANSWERS[name] for name in schema["properties"] if name in ANSWERS}
        block = {"type": "tool_use", "id": "toolu_1", "name": tool, "input": {}}
        delta = {"type": "input_json_delta", "partial_json": msgspec.json.encode(given).decode()}
    return [
        event("message_start", message={**message, "stop_reason": None, "stop_sequence": None, "usage": usage}),
        event("content_block_start", index=0, content_block=block),
        event("content_block_delta", index=0, delta=delta),
        event("content_block_stop", index=0),
        event(
            "message_delta",
            delta={"stop_reason": "end_turn" if tool is None else "tool_use", "stop_sequence": None},
            usage={"output_tokens": 1},
        ),
        event("message_stop"),
    ]


def event(kind: str, **fields: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), msgspec.json.encode({"type": kind, **fields}))


def serve_model() -> int:
    app = Starlette(routes=[Route("/v1/messages", messages, methods=["POST"])])
    settings = load_settings(port=0, log_level="warning")
    return serve(app, settings=settings, say=print_port)


def serve_midstream(store: str, model_port: str) -> int:
    settings = load_settings(port=0, log_level="warning", store=store)
    desk = Agent(
        "desk",
        instructions="Answer.",
        planner=Agent("planner", instructions="Plan."),
        specialists=[Agent("worker", instructions="Work.")],
        guardrails=[Agent("guard", instructions="Judge.")],
        title=Agent("titler", instructions="Name."),
    )
    provider = AnthropicProvider(api_key=None, base_url=f"http://127.0.0.1:{model_port}", default_model="bench")
    return serve(Midstream([desk], provider=provider, settings=settings), settings=settings, say=print_port)


def main(variant: str, model_port: str = "", path: str = "") -> int:
    # A proxy of the surroundings would be part of what is measured.
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]
    match variant:
        case "model":
            return serve_model()
        case "memory":
            return serve_midstream("memory:", model_port)
        case "sqlite":
            return serve_midstream(f"sqlite:///{path}", model_port)
        case _:
            sys.stderr.write(f"{variant!r} is no variant\n")
            return 2


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
