"""The records of the store in memory."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Sequence

from midstream.log import standing as rules
from midstream.log.contract import Record, RecordWrite


class _Kind:
    """The records of one kind. `ids` is in order, and kept only of kinds that somebody lists."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.ids: list[str] | None = None

    def put(self, record: Record) -> None:
        if self.ids is not None and record.id not in self.records:
            insort(self.ids, record.id)
        self.records[record.id] = record

    def remove(self, id: str) -> None:  # noqa: A002 - the contract's word
        del self.records[id]
        if self.ids is not None:
            del self.ids[bisect_left(self.ids, id)]

    def sorted(self) -> list[str]:
        """By code point, which is the order of the UTF-8 bytes."""
        if self.ids is None:
            self.ids = sorted(self.records)
        return self.ids


class MemoryRecords:
    """`check` raises when the store is not open."""

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check
        self._kinds: dict[str, _Kind] = {}

    def find(self, kind: str, id: str) -> Record | None:  # noqa: A002 - the contract's word
        known = self._kinds.get(kind)
        return None if known is None else known.records.get(id)

    def write(self, writes: Sequence[RecordWrite]) -> None:
        """All of them, or none. Raises `VersionConflict`."""
        outcomes = [(write, rules.written(write, self.find(write.kind, write.id))) for write in writes]
        for write, record in outcomes:
            if record is not None:
                self._kind(write.kind).put(record)
            elif self.find(write.kind, write.id) is not None:
                self._kinds[write.kind].remove(write.id)

    async def get(self, kind: str, id: str) -> Record | None:  # noqa: A002
        self._check()
        return self.find(kind, id)

    async def put(self, kind: str, id: str, data: bytes, *, expect_version: int | None = None) -> Record:  # noqa: A002
        self._check()
        known = self.find(kind, id)
        version = rules.next_version(kind, id, at=0 if known is None else known.version, expect=expect_version)
        record = Record(id=id, version=version, data=data)
        self._kind(kind).put(record)
        return record

    async def list(
        self, kind: str, *, after: str | None = None, limit: int = 100, descending: bool = False
    ) -> Sequence[Record]:
        self._check()
        if (known := self._kinds.get(kind)) is None:
            return ()
        ids = known.sorted()
        if descending:
            end = len(ids) if after is None else bisect_left(ids, after)
            page = ids[max(0, end - limit) : end][::-1]
        else:
            start = 0 if after is None else bisect_right(ids, after)
            page = ids[start : start + limit]
        return tuple(known.records[id] for id in page)  # noqa: A001

    async def delete(self, kind: str, id: str, *, expect_version: int | None = None) -> bool:  # noqa: A002
        self._check()
        if (known := self.find(kind, id)) is None:
            return False
        rules.check_removal(known, kind=kind, expect=expect_version)
        self._kinds[kind].remove(id)
        return True

    def _kind(self, name: str) -> _Kind:
        kind = self._kinds.get(name)
        if kind is None:
            kind = self._kinds[name] = _Kind()
        return kind
