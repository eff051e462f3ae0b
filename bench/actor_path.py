"""Events a second through the actor: program → mailbox → beat → log → feed → one subscriber a run. No sockets.

Run it as `python bench/actor_path.py`; `--profile` adds the top costs of the run with the most runs in memory.
Deltas that wait together are written as one event, so `drafts/s` is what programs said and `events/s` what was logged.
"""

import argparse
import asyncio
import cProfile
import pstats
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from midstream.clock import SystemClock
from midstream.log import MemoryStore, SqliteStore, Store
from midstream.runs import Limits, Port, Principal, Registry, StartRecord
from midstream_protocol.commands import Command, RunStart
from midstream_protocol.errors import FieldError
from midstream_protocol.events import MessageCompleted, MessageDelta, MessageStarted

DELTAS = 200
RUNS = (1, 200)
ROUNDS = 5
TEXT = "Checking the "
WHO = Principal(id="bench", name="bench")


class Talk:
    """A program that says one message of `DELTAS` parts, as fast as it may or one a turn of the loop."""

    def __init__(self, *, paced: bool) -> None:
        self._paced = paced

    async def run(self, port: Port) -> None:
        await port.emit(MessageStarted(message_id="m", role="assistant", agent="talk"))
        for _ in range(DELTAS):
            await port.emit(MessageDelta(message_id="m", text=TEXT))
            if self._paced:
                await asyncio.sleep(0)
        await port.record(MessageCompleted(message_id="m", role="assistant", text=TEXT * DELTAS, state="complete"))
        await port.end(None)


class Rules:
    steerable = True

    def is_server_tool(self, tool: str) -> bool:
        return bool(tool)

    def check_args(self, tool: str, args: Mapping[str, Any]) -> list[FieldError]:
        del tool, args
        return []

    def shown_args(self, tool: str, args: Mapping[str, Any]) -> dict[str, Any]:
        del tool
        return dict(args)

    def check_value(self, schema: Mapping[str, Any], value: object) -> list[FieldError]:
        del schema, value
        return []


class Agents:
    default = "talk"

    def __init__(self, *, paced: bool) -> None:
        self._talk = Talk(paced=paced)

    def names(self) -> list[str]:
        return ["talk"]

    def program(self, start: StartRecord) -> Talk:
        del start
        return self._talk

    def rules(self, agent: str) -> Rules:
        del agent
        return Rules()


async def follow(registry: Registry, number: int, waits: list[float]) -> int:
    """Start one run and read it to its end; how many events it had. `waits`: seconds to its first event."""
    began = time.perf_counter()
    ask = Command(type=RunStart.TYPE, command_id=f"c{number}", payload=RunStart(input="go"))
    receipt = await registry.start(WHO, ask, client_id="bench")
    moved = asyncio.Event()
    attachment = await registry.attach(WHO, receipt.run_id or "", wake=moved.set)
    subscription = attachment.subscription
    seen = 0
    while not subscription.ended:
        batch = await subscription.pull()
        if batch and not seen:
            waits.append(time.perf_counter() - began)
        seen += len(batch)
        if not batch and not subscription.ended:
            await moved.wait()
            moved.clear()
    subscription.close()
    return seen


async def measure(store: Store, *, runs: int, paced: bool, waits: list[float]) -> tuple[float, float]:
    """Drafts and events a second."""
    registry = Registry(store=store, agents=Agents(paced=paced), limits=Limits(), clock=SystemClock())
    await registry.open()
    began = time.perf_counter()
    events = sum(await asyncio.gather(*(follow(registry, number, waits) for number in range(runs))))
    took = time.perf_counter() - began
    await registry.aclose()
    return runs * (DELTAS + 4) / took, events / took


def report(name: str, make: Callable[[], Store], *, runs: int, paced: bool) -> None:
    waits: list[float] = []
    rates = [asyncio.run(measure(make(), runs=runs, paced=paced, waits=waits)) for _ in range(ROUNDS)]
    drafts = statistics.median(rate for rate, _ in rates)
    events = [rate for _, rate in rates]
    waits.sort()
    print(
        f"{name:<8}{'paced' if paced else 'burst':>7}{runs:>6}{drafts:>11,.0f}{statistics.median(events):>11,.0f}"
        f"{min(events):>10,.0f}{max(events):>10,.0f}{waits[len(waits) // 2] * 1e3:>9.2f}{waits[-1] * 1e3:>9.2f}"
    )


def profile(run: Callable[[], Awaitable[Any]]) -> None:
    profiler = cProfile.Profile()
    profiler.enable()
    asyncio.run(run())  # type: ignore[arg-type]
    profiler.disable()
    pstats.Stats(profiler).sort_stats("tottime").print_stats(25)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", action="store_true")
    asked = parser.parse_args()
    print(
        f"{'store':<8}{'':>7}{'runs':>6}{'drafts/s':>11}{'events/s':>11}{'[min':>10}{'max]':>10}"
        f"{'1st p50':>9}{'max ms':>9}"
    )
    with tempfile.TemporaryDirectory(prefix="midstream-bench-") as folder:
        files = (Path(folder) / f"{number}.db" for number in range(1_000_000))
        stores: dict[str, Callable[[], Store]] = {"memory": MemoryStore, "sqlite": lambda: SqliteStore(next(files))}
        for name, make in stores.items():
            for paced in (True, False):
                for runs in RUNS:
                    report(name, make, runs=runs, paced=paced)
    if asked.profile:
        profile(lambda: measure(MemoryStore(), runs=RUNS[-1], paced=True, waits=[]))


if __name__ == "__main__":
    main()
