"""A server's worth of writing in a process of its own, to be killed: prints what was acknowledged, line by line.

Usage: log_writer.py PATH LIFE
"""

import asyncio
import os
import sys

from midstream.log import Batch, JournalRecord, Page, SqliteStore, StoredReceipt

RUNS = 8


async def drive(store: SqliteStore, run: str, life: str) -> None:
    answer = await store.log.create(
        run,
        fingerprint="request",
        batch=Batch(batch_id=f"{life}-first", status="running", events=(b"1 of life %s" % life.encode(),)),
        owner=life,
        lease_ms=60_000,
    )
    lease = answer.lease or await store.leases.claim(run, owner=life, now_ms=0, lease_ms=60_000)
    assert lease is not None
    head = answer.header.head_seq
    while True:
        seqs = range(head + 1, head + 2 + head % 5)
        head = await store.log.append(
            run,
            fence=lease.fence,
            prev_seq=head,
            batch=Batch(
                batch_id=f"{life}-{head}",
                status="running",
                events=tuple(b"%d of life %s" % (seq, life.encode()) for seq in seqs),
                journal=(JournalRecord(kind="head", key=str(seqs[-1]), data=b"x" * 2_000),),
                receipts=(StoredReceipt(command_id=f"c{seqs[-1]}", fingerprint="f", data=b"{}"),),
                snapshot=b"%d" % seqs[-1],
            ),
        )
        # One write call a line: what the reader of this pipe has seen was acknowledged before the kill.
        os.write(1, f"{run} {head} {life}\n".encode())


async def main(path: str, life: str) -> None:
    store = SqliteStore(path)
    await store.open()
    for run in range(RUNS):
        assert isinstance(await store.log.read(f"a.run_{run}", after=0, max_events=1), Page) or life == "0"
    await asyncio.gather(*(drive(store, f"a.run_{run}", life) for run in range(RUNS)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
