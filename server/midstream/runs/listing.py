"""The list of a principal's runs: a record each, in the order they were started. What they are now is in their logs."""

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from midstream.log import Records, RecordWrite
from midstream_protocol.view import View


class Entry(Struct, kw_only=True, frozen=True):
    """`id` orders by time of start; it is also where a page ended."""

    id: str
    run_id: str
    thread_id: str

    @property
    def created_ms(self) -> int:
        return int(self.id.partition(".")[0])


def listed(space: str, *, run_id: str, thread_id: str, created_ms: int) -> RecordWrite:
    """What is written with a run so that it is listed."""
    entry = Entry(id=f"{created_ms:013d}.{run_id}", run_id=run_id, thread_id=thread_id)
    return RecordWrite(kind=f"runs.{space}", id=entry.id, data=msgspec.json.encode(entry))


MAX_INPUT_SHOWN: Final = 200
"""Characters of a run's input in a list: what people know a run without a title by."""


class Listed(Struct, kw_only=True, frozen=True):
    """One run of a list: its view without messages, calls and steps, and how it began."""

    view: View
    started_ms: int
    input: str


def shown(entry: Entry, view: View) -> Listed:
    asked = next((message.text for message in view.messages if message.role == "user"), "")
    return Listed(
        view=replace(view, messages=(), calls=(), steps=()),
        started_ms=entry.created_ms,
        input=asked[:MAX_INPUT_SHOWN],
    )


class RunList:
    def __init__(self, records: Records) -> None:
        self._records = records

    async def remove(self, space: str, *, run_id: str, created_ms: int) -> None:
        await self._records.delete(f"runs.{space}", f"{created_ms:013d}.{run_id}")

    async def page(self, space: str, *, after: str | None, limit: int) -> Sequence[Entry]:
        """Newest first."""
        records = await self._records.list(f"runs.{space}", after=after, limit=limit, descending=True)
        return [msgspec.json.decode(record.data, type=Entry) for record in records]
