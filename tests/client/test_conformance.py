"""The client's view against the language-neutral cases, over a real attach."""

import asyncio
import json
from pathlib import Path

import msgspec
import pytest

from midstream.client import Received, connect
from midstream_protocol.view import view_to_builtins
from tests.client.peer import PATIENCE_S

pytestmark = pytest.mark.asyncio

CASES = sorted((Path(__file__).parents[2] / "protocol" / "conformance" / "fold").glob("*.json"))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
async def test_the_view_is_the_cases_at_every_event(path, peer, clock):
    case = json.loads(path.read_text(encoding="utf-8"))
    views = {}
    async with asyncio.timeout(PATIENCE_S), connect(peer.url, clock=clock) as client:
        run = await client.attach(case["events"][0]["run_id"])

        def look(update):
            if isinstance(update, Received):
                views[str(update.event.seq)] = view_to_builtins(run.view)

        run.on_update(look)
        peer.model.out += [msgspec.json.encode(event) for event in case["events"]]
        await peer.push()
        last = case["events"][-1]["seq"]
        await run.until(lambda run: run.view.cursor.seq == last)
    for seq, view in case["views"].items():
        # An attach says the epoch also where the case does not.
        view["cursor"].setdefault("epoch", "e1")
        assert views[seq] == view
