"""Added latency: from the model's saying a delta to the client's having it, idle, coalescing off, over the raw loop."""

from typing import Final

from clients.dialects import WS
from clients.single import Found, Late, Target
from figures import Aim, Section, median, percentile, spread, table
from msgspec import Struct
from parts.plan import VARIANTS, Plan
from processes import asked

NAME: Final = "added"
TITLE: Final = "Added latency"
DELTAS: Final = 300
EVERY_MS: Final = 10
CHECKED: Final = ("raw", "memory-off", "sqlite-off", "full-off")
LIMIT_S: Final = 60.0


class Result(Struct, kw_only=True, frozen=True):
    """Milliseconds: variant → rounds → (p50, p99, worst)."""

    late: dict[str, list[tuple[float, float, float]]]


def measure(plan: Plan) -> Result:
    late: dict[str, list[tuple[float, float, float]]] = {name: [] for name in CHECKED}
    deltas = DELTAS // 3 if plan.quick else DELTAS
    for number in range(plan.rounds):
        plan.say(f"added latency, round {number + 1} of {plan.rounds}")
        for variant in CHECKED[:3] if plan.quick else CHECKED:
            with plan.running(variant) as server:
                target = Target(name=variant, port=server.port, dialect=WS)
                for order in ("say 30 every 5 stamped", f"say {deltas} every {EVERY_MS} stamped"):
                    found = asked("clients/single.py", Late(targets=[target], order=order), Found, limit_s=LIMIT_S)
                took = found.ms[variant]
                late[variant].append((median(took), percentile(took, 99), max(took)))
    return Result(late=late)


def section(result: Result) -> Section:
    def over(name: str, at: int) -> list[float]:
        return [mine[at] - raw[at] for mine, raw in zip(result.late[name], result.late["raw"], strict=False)]

    rows = [
        [
            VARIANTS[name].label,
            spread(over(name, 0), "+.2f"),
            spread(over(name, 1), "+.2f"),
            spread([each[0] for each in result.late[name]], ".2f"),
            spread([each[1] for each in result.late[name]], ".2f"),
            f"{max(each[2] for each in result.late[name]):.1f}",
        ]
        for name in CHECKED
        if result.late[name]
    ]
    columns = ("", "p50 over raw, ms", "p99 over raw, ms", "p50 ms", "p99 ms", "worst ms")
    text = [
        f"One run, a delta each {EVERY_MS} ms with the time it was said in its text, read by a blocking socket.",
        table(columns, rows),
    ]
    aims = []
    for name in ("memory-off", "sqlite-off"):
        p50, p99 = over(name, 0), over(name, 1)
        aims.append(
            Aim(
                figure=f"added latency, model to client, idle: {VARIANTS[name].short}, over the raw loop",
                aim="p50 ≤ 1 ms, p99 ≤ 5 ms",
                landed=f"p50 {spread(p50, '+.2f')} ms, p99 {spread(p99, '+.2f')} ms",
                met=median(p50) <= 1 and median(p99) <= 5 if p50 else None,
            )
        )
    return Section(text="\n\n".join(text), aims=aims)
