"""The records of the store in memory."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence

from midstream.log import standing as rules
from midstream.log.contract import Record


class MemoryRecords:
    """`check` raises when the store is not open."""

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check
        self._kinds: dict[str, dict[str, Record]] = {}

    async def get(self, kind: str, id: str) -> Record | None:  # noqa: A002 - the contract's word
        self._check()
        return self._kinds.get(kind, {}).get(id)

    async def put(self, kind: str, id: str, data: bytes, *, expect_version: int | None = None) -> Record:  # noqa: A002
        known = await self.get(kind, id)
        version = rules.next_version(kind, id, at=0 if known is None else known.version, expect=expect_version)
        record = Record(id=id, version=version, data=data)
        self._kinds.setdefault(kind, {})[id] = record
        return record

    async def list(
        self, kind: str, *, after: str | None = None, limit: int = 100, descending: bool = False
    ) -> Sequence[Record]:
        self._check()
        records = self._kinds.get(kind, {})
        ids = sorted(records)  # by code point, which is the order of the UTF-8 bytes
        if descending:
            ids = ids[: len(ids) if after is None else bisect_left(ids, after)][::-1]
        elif after is not None:
            ids = ids[bisect_right(ids, after) :]
        return tuple(records[id] for id in ids[:limit])  # noqa: A001

    async def delete(self, kind: str, id: str, *, expect_version: int | None = None) -> bool:  # noqa: A002
        if (known := await self.get(kind, id)) is None:
            return False
        rules.check_removal(known, kind=kind, expect=expect_version)
        del self._kinds[kind][id]
        return True
