"""pydantic-ai with AG-UI over server-sent events: its agent loop on a model in the same process. Nothing is kept."""

import asyncio
import socket
from collections.abc import AsyncIterator

import uvicorn
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.ui.ag_ui import AGUIAdapter
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

DELTAS = 200
PIECE = "some words "


async def say(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str]:
    del messages, info
    for _ in range(DELTAS):
        await asyncio.sleep(0)
        yield PIECE


agent = Agent(FunctionModel(stream_function=say))


async def run(request: Request) -> Response:
    return await AGUIAdapter.dispatch_request(request, agent=agent)


def main() -> None:
    app = Starlette(routes=[Route("/", run, methods=["POST"])])
    config = uvicorn.Config(app, log_level="warning", access_log=False)
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        print(listener.getsockname()[1], flush=True)
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
