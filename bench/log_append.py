"""Events a second into the log: 50 runs that each wait for their batch before they send the next.

Run it as `python bench/log_append.py`; it takes about half a minute and writes to a temporary folder.
"""

import asyncio
import gc
import statistics
import tempfile
import time
from pathlib import Path

from midstream.log import Batch, MemoryStore, SqliteStore, Store

RUNS = 50
ROUNDS = 5
SECONDS = 0.6
LEASE_MS = 600_000
# What a message.delta of a few words takes on the wire.
EVENT = b'{"v":1,"seq":12345,"run_id":"run_019a4c1e2d3f","type":"message.delta","ts":"2026-01-01T12:00:00.000Z",'
EVENT += b'"payload":{"message_id":"msg_1","text":"Checking the "}}'


async def drive(store: Store, run: str, size: int, until: float, waits: list[float]) -> int:
    first = Batch(batch_id="first", status="running", events=(EVENT,))
    created = await store.log.create(run, fingerprint="f", batch=first, owner="bench", lease_ms=LEASE_MS)
    assert created.lease is not None
    head = 1
    while (before := time.perf_counter()) < until:
        batch = Batch(batch_id=f"{head}", status="running", events=(EVENT,) * size)
        head = await store.log.append(run, fence=created.lease.fence, prev_seq=head, batch=batch)
        waits.append(time.perf_counter() - before)
        if isinstance(store, MemoryStore):
            await asyncio.sleep(0)  # it never waits by itself, and the other runs would starve
    return head


async def measure(store: Store, size: int, *, runs: int) -> tuple[float, list[float]]:
    """Events a second, and what each append took."""
    await store.open()
    waits: list[float] = []
    start = time.perf_counter()
    heads = await asyncio.gather(*(drive(store, f"bench.{n}", size, start + SECONDS, waits) for n in range(runs)))
    rate = sum(heads) / (time.perf_counter() - start)
    await store.aclose()
    return rate, sorted(waits)


def main() -> None:
    columns = ("store", "events/batch", "runs", "events/s", "[min", "max]", "p50 ms", "p99 ms")
    print("{:<14}{:>13}{:>6}{:>11}{:>10}{:>10}{:>9}{:>9}".format(*columns))
    with tempfile.TemporaryDirectory(prefix="midstream-bench-") as folder:
        for name in ("memory", "sqlite NORMAL", "sqlite FULL"):
            for size, runs in ((1, RUNS), (10, RUNS), (100, RUNS), (1, 1)):
                rates, waits = [], []
                for number in range(ROUNDS):
                    path = Path(folder) / f"{name}-{size}-{runs}-{number}.db"
                    store: Store
                    if name == "memory":
                        store = MemoryStore()
                    elif name == "sqlite NORMAL":
                        store = SqliteStore(path, synchronous="NORMAL")
                    else:
                        store = SqliteStore(path, synchronous="FULL")
                    rate, waited = asyncio.run(measure(store, size, runs=runs))
                    rates.append(rate)
                    waits += waited
                    path.unlink(missing_ok=True)
                    gc.collect()
                waits.sort()
                p50, p99 = (waits[len(waits) * part // 100] * 1e3 for part in (50, 99))
                print(
                    f"{name:<14}{size:>13}{runs:>6}{statistics.median(rates):>11,.0f}{min(rates):>10,.0f}"
                    f"{max(rates):>10,.0f}{p50:>9.2f}{p99:>9.2f}"
                )


if __name__ == "__main__":
    main()
