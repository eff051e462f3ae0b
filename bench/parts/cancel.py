"""From `run.cancel` to the provider's connection being closed, with the real SDK against a model server on loopback."""

from typing import Final

from clients.cancel import Cancelled, Order, Whom
from figures import Aim, Section, median, percentile, ratios, spread, table
from msgspec import Struct
from parts.plan import VARIANTS, Plan
from processes import Beside

NAME: Final = "cancel"
TITLE: Final = "Cancel"
TIMES: Final = 60
CHECKED: Final = ("memory", "sqlite", "full")


class Row(Struct, kw_only=True, frozen=True):
    variant: str
    p50_ms: float
    p99_ms: float
    echo_ms: float
    times: int
    durable: int | None


class Result(Struct, kw_only=True, frozen=True):
    rows: list[Row]


def measure(plan: Plan) -> Result:
    rows = []
    times = TIMES // 3 if plan.quick else TIMES
    for number in range(plan.rounds):
        for variant in CHECKED[:2] if plan.quick else CHECKED:
            plan.say(f"cancel, round {number + 1} of {plan.rounds}: {VARIANTS[variant].label}")
            path = None if variant == "memory" else plan.file()
            with (
                Beside("clients/cancel.py", Order(times=times)) as client,
                plan.running("raw") as raw,
                plan.running(variant, f"model={client.said}", path=path) as server,
            ):
                client.tell(Whom(port=server.port, echo_port=raw.port, path=path))
                found = client.finish(Cancelled)
            rows.append(
                Row(
                    variant=variant,
                    p50_ms=median(found.close_ms),
                    p99_ms=percentile(found.close_ms, 99),
                    echo_ms=median(found.echo_ms),
                    times=times,
                    durable=found.durable,
                )
            )
    return Result(rows=rows)


def section(result: Result) -> Section:
    lines, aims = [], []
    for variant in CHECKED:
        mine = [row for row in result.rows if row.variant == variant]
        if not mine:
            continue
        over = ratios([row.p50_ms for row in mine], [row.echo_ms for row in mine])
        times = sum(row.times for row in mine)
        counted = [row.durable for row in mine if row.durable is not None]
        durable = f"{sum(counted)} of {times}" if counted else "–"
        lines.append(
            [
                VARIANTS[variant].label,
                spread(over, ".2f"),
                spread([row.p50_ms for row in mine], ".2f"),
                spread([row.p99_ms for row in mine], ".2f"),
                f"{median(row.echo_ms for row in mine):.2f}",
                durable,
            ]
        )
        if variant == "full":
            continue
        p99 = [row.p99_ms for row in mine]
        aims.append(
            Aim(
                figure=f"cancel to the provider's connection closed: {VARIANTS[variant].short}",
                aim="p50 ≤ 3 × echo, p99 ≤ 50 ms",
                landed=f"p50 {spread(over, '.2f')} ×, p99 {spread(p99, '.1f')} ms",
                met=median(over) <= 3 and median(p99) <= 50 if over else None,
            )
        )
        if counted:
            aims.append(
                Aim(
                    figure="the cancel is in the file before the close is seen",
                    aim="always",
                    landed=durable,
                    met=sum(counted) == times,
                )
            )
    columns = ("", "p50 ÷ echo", "p50 ms", "p99 ms", "echo p50 ms", "durable before the close")
    text = [
        (
            "From sending `run.cancel` to the model server's seeing its connection closed, both in one process; the "
            "model had said three words and was silent. The echo is that of the raw stack to the same process. "
            "*Durable*: when the close was seen, another process found `run.cancelling` in the file."
        ),
        table(columns, lines),
    ]
    return Section(text="\n\n".join(text), aims=aims)
