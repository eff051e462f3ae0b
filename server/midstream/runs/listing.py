"""The list of a principal's runs: a record each, in the order they were started. What they are now is in their logs."""

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from midstream.log import Records


class Entry(Struct, kw_only=True, frozen=True):
    """`id` orders by time of start; it is also where a page ended."""

    id: str
    run_id: str
    thread_id: str

    @property
    def created_ms(self) -> int:
        return int(self.id.partition(".")[0])


class RunList:
    def __init__(self, records: Records) -> None:
        self._records = records

    async def add(self, space: str, *, run_id: str, thread_id: str, created_ms: int) -> None:
        entry = Entry(id=f"{created_ms:013d}.{run_id}", run_id=run_id, thread_id=thread_id)
        await self._records.put(f"runs.{space}", entry.id, msgspec.json.encode(entry))

    async def page(self, space: str, *, after: str | None, limit: int) -> Sequence[Entry]:
        """Newest first."""
        records = await self._records.list(f"runs.{space}", after=after, limit=limit, descending=True)
        return [msgspec.json.decode(record.data, type=Entry) for record in records]
