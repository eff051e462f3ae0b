"""A bot: asks an agent, and shows its run in a chat as it goes on.

`python examples/chat_forwarder/bot.py ["QUESTION"]` writes into the chat of chat_server.py. With SLACK_TOKEN and
SLACK_CHANNEL in the environment it writes into that channel of Slack.
"""

import asyncio
import os
import sys
from pathlib import Path
from typing import Final

import httpx2

from midstream import Agent, Midstream
from midstream.outbound import SlackChannel
from midstream.settings import load_settings

SCRIPT: Final = Path(__file__).with_name("script.yaml")
QUESTION: Final = "Why is the sky blue?"

# As in chat_server.py.
CHAT_URL: Final = "http://127.0.0.1:8490/api"
CHAT_TOKEN: Final = "xoxb-example"  # noqa: S105 - nobody's
CHANNEL: Final = "C1"


def bot(model: str = f"scripted:{SCRIPT}") -> Midstream:
    agent = Agent("explainer", instructions="Explain it to a curious child, in a few sentences.")
    return Midstream([agent], settings=load_settings(store="memory:", model=model))


def chat() -> SlackChannel:
    token, channel = os.environ.get("SLACK_TOKEN"), os.environ.get("SLACK_CHANNEL")
    if token and channel:
        return SlackChannel(token=token, chat=channel)
    return SlackChannel(token=CHAT_TOKEN, chat=CHANNEL, url=CHAT_URL)


async def ask(midstream: Midstream, question: str) -> str:
    """The id of a new run. The server is asked as over the network, without one."""
    inside = httpx2.ASGITransport(app=midstream)
    async with httpx2.AsyncClient(transport=inside, base_url="http://127.0.0.1") as client:
        answer = await client.post("/v1/runs", json={"input": question})
        answer.raise_for_status()
        return str(answer.json()["run_id"])


async def main() -> None:
    midstream = bot()
    async with midstream.lifespan(), chat() as channel:
        run_id = await ask(midstream, sys.argv[1] if len(sys.argv) > 1 else QUESTION)
        # A bot that must outlive its process keeps the handle: midstream.forward(…, opened=keep), and then handle=kept.
        await midstream.forward(run_id, channel)


if __name__ == "__main__":
    asyncio.run(main())
