"""What a server remembers of a thread is never older than what it has written."""

import asyncio

import pytest

from midstream.log import MemoryStore, Record
from midstream.runs.threads import Thread, Threads


class SlowReads:
    """Records whose answer to a read arrives late, as it was when it was asked for."""

    def __init__(self, store: MemoryStore) -> None:
        self._records = store.records
        self.asked = asyncio.Event()
        self.arrive = asyncio.Event()

    async def get(self, kind: str, id: str) -> Record | None:  # noqa: A002 - the contract's word
        found = await self._records.get(kind, id)
        self.asked.set()
        await self.arrive.wait()
        return found


@pytest.mark.asyncio
@pytest.mark.parametrize("fresh", [False, True])
async def test_a_late_answer_does_not_take_the_place_of_what_was_written_meanwhile(fresh: bool) -> None:
    store = MemoryStore()
    await store.open()
    await store.records.put("thread.me", "t", b'{"queue":["second"]}')
    records = SlowReads(store)
    threads = Threads(records=records, log=store.log)  # type: ignore[arg-type]  # reads are all it is asked for here
    reading = asyncio.ensure_future(threads.see("me", "t", fresh=fresh))
    await records.asked.wait()
    threads.written("me", "t", Thread(queue=("second", "third")), version=2)
    records.arrive.set()
    assert (await reading).thread.queue == ("second", "third")
    assert (await threads.get("me", "t")).queue == ("second", "third")
    await store.aclose()
