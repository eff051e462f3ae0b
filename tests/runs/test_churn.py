"""Thousands of runs come and go in one process, and nothing of them stays in it."""

import asyncio
import gc
from collections import Counter
from itertools import chain
from pathlib import Path

import pytest

from midstream.runs import Limits, Port
from midstream.runs.actor import STRAYS, Actor
from midstream.runs.keys import namespace
from midstream.runs.mailbox import Mailbox
from midstream.runs.recent import RecentCommands
from midstream.runs.state import RunState
from midstream.runs.tail import Feed
from midstream_protocol.commands import ApprovalRespond, RunCancel
from tests.runs.conftest import Open
from tests.runs.house import House
from tests.runs.say import approval, call_record, speak
from tests.runs.simple import ME

ROUND = 60
KINDS = (Actor, Port, Mailbox, Feed, RunState)


async def body(port: Port) -> None:
    match port.start.input:
        case "asks":
            await port.ask(approval(port, seconds=10_000), journal=[call_record()])
        case "cancelled":
            await asyncio.Event().wait()
        case "fails":
            raise RuntimeError
    await speak(port)
    await port.end(None)


async def one_round(server: House, *, number: int) -> None:
    """Runs of each kind, from their start to their erasing."""
    registry, clock = server.registry, server.clock
    runs = {
        text: [
            await server.start(text, thread_id=f"{text}-{number}-{n % 7}", if_busy="queue" if n % 2 else "parallel")
            for n in range(ROUND // 4)
        ]
        for text in ("asks", "ends", "cancelled", "fails")
    }
    readers = [await server.attach(run) for run in runs["asks"] + runs["ends"]]
    await clock.advance(40)
    for run in runs["asks"]:
        while (await server.registry.view(ME, run)).status == "queued":
            await clock.advance(1)
        await server.send(run, ApprovalRespond(approval_id="a1", decision="deny"))
    for run in runs["cancelled"]:
        await server.send(run, RunCancel())
    for reader in readers:
        await reader.all()
        reader.close()
    for run in chain(*runs.values()):
        await server.log(run)
        await server.send(run, RunCancel())
        await registry.delete(ME, run)
    await clock.advance(2)
    for _ in range(100):
        await asyncio.sleep(0)


def held(server: House) -> dict[str, int]:
    """What this process holds: by name, how much of it."""
    registry = server.registry
    living, clock = registry._living, server.clock
    server.ports.clear()
    gc.collect()
    alive = Counter(type(each).__name__ for each in gc.get_objects() if isinstance(each, KINDS))
    return {
        **{kind.__name__: alive[kind.__name__] for kind in KINDS},
        "actors": len(living.actors),
        "feeds": len(living._feeds),
        "waking": len(living._waking),
        "leaving": len(living._leaving),
        "background": len(living._background),
        "retries": len(living._retries),
        "timers": len(living._timers),
        "live of": len(living.live_of),
        "making": len(living.threads.making._made),
        "views": len(registry._views._views),
        "erasing": len(registry._erasing._under_way),
        "strays": len(STRAYS),
        "tasks": len(asyncio.all_tasks()),
        "clock": len(clock._callbacks),
        "files": sum(1 for _ in Path("/proc/self/fd").iterdir()),
    }


@pytest.mark.asyncio
async def test_nothing_stays_of_runs_that_have_gone(house: Open) -> None:
    server = await house(body, limits=Limits(park_after_s=5))
    # Earlier tests of this process may have left something that only looks like ours.
    begin = held(server)
    await one_round(server, number=0)
    before = held(server)
    for number in range(1, 6):
        await one_round(server, number=number)
    after = held(server)
    # Views and feeds are kept for who comes back, a bounded number of them.
    assert after.pop("feeds") <= 64
    assert after.pop("Feed") <= begin["Feed"] + 64
    # Those of the server's own rounds: whether it sleeps or works just now.
    assert after.pop("clock") <= 4
    assert after == {name: count for name, count in before.items() if name in after}
    assert all(after[kind.__name__] <= begin[kind.__name__] for kind in KINDS if kind is not Feed)
    assert {after["actors"], after["views"]} == {0}
    space = namespace(ME.id)
    for kind in ("ended", "erasing", f"runs.{space}", f"thread.{space}", f"start.{space}"):
        assert not await server.store.records.list(kind)


def test_recent_commands_are_bounded() -> None:
    recent = RecentCommands(keep=10)
    for n in range(100):
        recent.note("me", f"c{n}", "run")
    assert len(recent._runs) == 10
