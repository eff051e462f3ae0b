"""Midstream as it is measured: `python bench/servers/ours.py STORE [NAME=VALUE …]`, each NAME a setting of the server.

One line tells its port when it listens; it serves until it is terminated. `plain=1` is no setting: the server is then
uvicorn as it comes, without our protocol class, so that frames go out by ASGI's own `send`. `model=PORT` asks an
Anthropic server at that port instead of the model in this process.
"""

import re
import socket
import sys
from typing import Any

import uvicorn
from processes import tidy_on_signal
from servers.model import OrderedModel, careful, own

from midstream import Agent, Midstream
from midstream.agents.providers.anthropic import AnthropicProvider
from midstream.serving import serve
from midstream.settings import load_settings


def print_port(line: str) -> None:
    if found := re.search(r"listens on http://127\.0\.0\.1:(\d+)", line):
        print(found[1], flush=True)
    elif "cannot start" in line:
        sys.stderr.write(line)


def main(store: str, *changes: str) -> int:
    tidy_on_signal()
    given: dict[str, Any] = dict(each.split("=", 1) for each in changes)
    plain, model = given.pop("plain", ""), given.pop("model", "")
    settings = load_settings(port=0, log_level="warning", store=store, **given)
    provider: Any = OrderedModel()
    if model:
        provider = AnthropicProvider(api_key="none", base_url=f"http://127.0.0.1:{model}", default_model="bench")
    agents = [Agent("bench", instructions="Answer.", tools=[careful]), own]
    app = Midstream(agents, provider=provider, settings=settings)
    if not plain:
        return serve(app, settings=settings, say=print_port)
    config = uvicorn.Config(
        app, lifespan="on", ws="websockets-sansio", ws_per_message_deflate=False, log_level="warning", access_log=False
    )
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        print(listener.getsockname()[1], flush=True)
        uvicorn.Server(config).run(sockets=[listener])
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
