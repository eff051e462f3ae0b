"""How long until the plan is there.

Plan, title and guardrail are three calls of a model that takes 300 ms for each. The time from `run.start` to
`plan.created` is set beside one such call made with the same SDK and nothing around it: what is over 1 is what
Midstream adds, and what the calls wait for each other.
"""

import asyncio
import time
from typing import Any, Final

import anthropic
import httpx2
import msgspec
from figures import Aim, Section, median, ratios, spread, table
from msgspec import Struct
from parts.plan import Plan
from processes import CLIENT_CORE, Failed, serving
from servers.planning import CALL_S
from websockets.asyncio.client import connect

NAME: Final = "planning"
TITLE: Final = "Until the plan is there"
VARIANTS: Final = {"memory": "Midstream, memory", "sqlite": "Midstream, SQLite"}
RUNS: Final = 8
"""Runs, and raw calls, of a round; each after the end of the one before."""
WARM: Final = 3
MOST: Final = 1.15
LIMIT_S: Final = 60.0
SERVER: Final = "servers/planning.py"


class Result(Struct, kw_only=True, frozen=True):
    """Variant (`raw` is the one call) → rounds → milliseconds."""

    ms: dict[str, list[list[float]]]


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
                        raise Failed(f"a run ended as {frame['type']}: {frame['payload']}")
                    case "receipt" if frame["payload"]["status"] == "rejected":
                        raise Failed(f"a run was refused: {frame['payload']}")
            if not at:
                raise Failed("a run ended without a plan")
            found.append(at)
    return found


def measure(plan: Plan, *, runs: int = RUNS) -> Result:
    found: dict[str, list[list[float]]] = {"raw": [], **{variant: [] for variant in VARIANTS}}
    runs = max(runs // 3, 1) if plan.quick else runs
    with serving(SERVER, "model", core=CLIENT_CORE) as model:
        asyncio.run(raw(model.port, WARM))
        for number in range(plan.rounds):
            plan.say(f"planning, round {number + 1} of {plan.rounds}")
            found["raw"].append(asyncio.run(raw(model.port, runs)))
            for variant in VARIANTS:
                with serving(SERVER, variant, str(model.port), plan.file()) as server:
                    asyncio.run(planned(server.port, WARM, name="warm"))
                    found[variant].append(asyncio.run(planned(server.port, runs, name="run")))
    return Result(ms={name: [[1e3 * each for each in times] for times in rounds] for name, rounds in found.items()})


def section(result: Result) -> Section:
    calls = [median(each) for each in result.ms["raw"]]
    rows = [["one call, raw", "1.00", spread(calls, ".1f"), f"{max(map(max, result.ms['raw'])):.1f}"]]
    aims = []
    for variant, name in VARIANTS.items():
        medians = [median(each) for each in result.ms[variant]]
        over = ratios(medians, calls)
        slowest = f"{max(map(max, result.ms[variant])):.1f}"
        rows.append([f"{name}, until `plan.created`", spread(over, ".3f"), spread(medians, ".1f"), slowest])
        aims.append(
            Aim(
                figure=f"until `plan.created` ÷ one call: {name.partition(', ')[2]}",
                aim=f"≤ {MOST}",
                landed=spread(over, ".3f"),
                met=median(over) <= MOST if over else None,
            )
        )
    text = [
        (
            f"Plan, title and guardrail at once, each one call of {1e3 * CALL_S:.0f} ms, in `gate` mode; one run after "
            "the other."
        ),
        table(("", "÷ one call", "median ms", "slowest ms"), rows),
    ]
    return Section(text="\n\n".join(text), aims=aims)
