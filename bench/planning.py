"""How long until the plan is there: `make bench`, or `python bench/planning.py [--rounds N]`.

Plan, title and guardrail are three calls of a model that takes 300 ms for each. The time from `run.start` to
`plan.created` is set beside one such call made with the same SDK and nothing around it: what is over 1 is what
Midstream adds, and what the calls wait for each other.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

import anthropic
import httpx2
import msgspec
from planning_servers import CALL_S
from processes import CLIENT_CORE, machine, serving, spread
from websockets.asyncio.client import connect

VARIANTS: Final = {"memory": "Midstream, memory", "sqlite": "Midstream, SQLite"}
ROUNDS: Final = 5
RUNS: Final = 20
"""Runs, and raw calls, of a round; each after the end of the one before."""
WARM: Final = 3
AIM: Final = 1.15
LIMIT_S: Final = 60.0

Measured = dict[str, list[list[float]]]
"""Variant (`raw` is the one call) → rounds → seconds."""


async def raw(model_port: int, times: int) -> list[float]:
    """Seconds of one planning call, made by itself and read to its end."""
    tool: Any = {
        "name": "propose_plan",
        "description": "Propose the plan.",
        "input_schema": {"type": "object", "properties": {"todos": {"type": "array"}}},
    }
    found = []
    async with anthropic.AsyncAnthropic(
        api_key="none",
        base_url=f"http://127.0.0.1:{model_port}",
        max_retries=0,
        http_client=httpx2.AsyncClient(trust_env=False, timeout=LIMIT_S),
    ) as client:
        for _ in range(times):
            begun = time.perf_counter()
            stream = await client.messages.create(
                model="bench",
                max_tokens=100,
                messages=[{"role": "user", "content": "go"}],
                tools=[tool],
                tool_choice={"type": "tool", "name": "propose_plan"},
                stream=True,
            )
            async for _event in stream:
                pass
            found.append(time.perf_counter() - begun)
    return found


async def planned(port: int, times: int, *, name: str) -> list[float]:
    """Seconds from asking for a run to its `plan.created`. Each run is read to its end before the next."""
    found = []
    async with connect(f"ws://127.0.0.1:{port}/v1/ws?client_id=bench", proxy=None) as socket:
        for number in range(times):
            payload = {"input": "Please do both parts."}
            command = {"v": 1, "type": "run.start", "command_id": f"{name}-{number}", "payload": payload}
            begun = time.perf_counter()
            await socket.send(msgspec.json.encode(command).decode())
            at = 0.0
            while True:
                frame = msgspec.json.decode(await socket.recv())
                match frame["type"]:
                    case "plan.created":
                        at = time.perf_counter() - begun
                    case "run.completed":
                        break
                    case "run.failed" | "run.cancelled":
                        sys.exit(f"a run ended as {frame['type']}: {frame['payload']}")
                    case "receipt" if frame["payload"]["status"] == "rejected":
                        sys.exit(f"a run was refused: {frame['payload']}")
            if not at:
                sys.exit("a run ended without a plan")
            found.append(at)
    return found


def measure(*, rounds: int, runs: int = RUNS) -> Measured:
    found: Measured = defaultdict(list)
    with (
        tempfile.TemporaryDirectory(prefix="midstream-bench-") as folder,
        serving("planning_servers.py", "model", core=CLIENT_CORE) as (_, model_port),
    ):
        asyncio.run(raw(model_port, WARM))
        for number in range(rounds):
            print(f"round {number + 1} of {rounds}: planning", file=sys.stderr, flush=True)
            found["raw"].append(asyncio.run(raw(model_port, runs)))
            for variant in VARIANTS:
                path = str(Path(folder) / f"{number}.db")
                with serving("planning_servers.py", variant, str(model_port), path) as (_, port):
                    asyncio.run(planned(port, WARM, name="warm"))
                    found[variant].append(asyncio.run(planned(port, runs, name="run")))
    return found


HEAD: Final = "## Until the plan is there"


def section(found: Measured, *, rounds: int) -> str:
    calls = [statistics.median(each) for each in found["raw"]]
    slowest = {name: f"{1e3 * max(max(each) for each in found[name]):.1f}" for name in ("raw", *VARIANTS)}
    rows = [
        "| | ÷ one call | median ms | slowest ms |",
        "|---|---|---|---|",
        f"| one call, raw | 1.00 | {spread([1e3 * each for each in calls], '.1f')} | {slowest['raw']} |",
    ]
    for variant, name in VARIANTS.items():
        medians = [statistics.median(each) for each in found[variant]]
        ratios = [mine / call for mine, call in zip(medians, calls, strict=True)]
        rows.append(
            f"| {name}, until `plan.created` | {spread(ratios, '.3f')} | {spread([1e3 * m for m in medians], '.1f')} "
            f"| {slowest[variant]} |"
        )
    how = (
        f"Plan, title and guardrail at once, each one call of {1e3 * CALL_S:.0f} ms, in `gate` mode; one run after the "
        f"other, {RUNS} a round, {rounds} rounds. Medians of rounds [lowest–highest], ratios taken within a round. The "
        f"aim is at most {AIM}."
    )
    return "\n\n".join([HEAD, how, "\n".join(rows)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    print(section(measure(rounds=rounds), rounds=rounds), machine(), sep="\n\n")


if __name__ == "__main__":
    main()
