"""A server in a thread of its own, for clients that block; a peer that says what it is told, for all others."""

import pytest
import pytest_asyncio
from websockets.asyncio.server import serve

from midstream.agents.definition import Agent
from midstream.agents.providers.scripted import ScriptedProvider
from midstream.agents.tools.definition import client_tool, tool
from midstream.app import Midstream
from midstream.client.portal import Portal
from midstream.log import MemoryStore
from midstream.settings import Settings
from tests.client.peer import Impatient, Peer
from tests.testkit.served import served


@tool(approval="always", label="Pay <b>{amount}</b>")
async def pay(amount: int) -> str:
    """Pay."""
    return f"paid {amount}"


@client_tool(label="Where am I")
async def locate() -> str:
    """Where the user is."""
    raise AssertionError("runs in the client")


SCRIPT = {
    "loop": True,
    "turns": [
        {"steps": [{"text": "Done."}]},
        {"match": {"last_user_contains": "pay"}, "steps": [{"call": {"tool": "pay", "args": {"amount": 5}}}]},
        {"match": {"last_user_contains": "locate"}, "steps": [{"call": {"tool": "locate", "args": {}}}]},
    ],
}


@pytest.fixture(scope="module")
def url():
    """A server whose loop is another thread's."""
    portal = Portal("server")
    started = served_shop()
    found = portal.call(started.__anext__())
    yield found
    portal.call(started.aclose())
    portal.close()


async def served_shop():
    settings = Settings(store="memory:")
    agent = Agent("shop", instructions="Sell.", tools=[pay, locate])
    app = Midstream([agent], settings=settings, store=MemoryStore(), provider=ScriptedProvider(SCRIPT))
    async with app.lifespan(), served(app, settings=settings, drain=app.drain) as running:
        yield running.url


@pytest_asyncio.fixture
async def peer():
    found = Peer()
    async with serve(found, "127.0.0.1", 0, process_request=found.answer_upgrade) as server:
        found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        found.server = server
        yield found


@pytest.fixture
def clock():
    return Impatient()
