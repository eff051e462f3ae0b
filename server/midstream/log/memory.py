"""The store that keeps everything in this process: for tests, demos and runs that need not outlive the server."""

import secrets
from bisect import bisect_right
from collections.abc import Sequence

from midstream.clock import Clock, SystemClock
from midstream.log import standing as rules
from midstream.log.contract import (
    TERMINAL,
    Batch,
    Created,
    Inbound,
    Inbox,
    JournalRecord,
    Lease,
    Leases,
    Loaded,
    Log,
    LogUnavailable,
    NoSuchRun,
    Page,
    Records,
    Reset,
    Snapshot,
    StoredReceipt,
)
from midstream.log.memory_records import MemoryRecords


class _Run:
    """One run. `events[0]` is event `first_seq`."""

    def __init__(self, standing: rules.Standing, batch: Batch) -> None:
        self.standing = standing
        self.events: list[bytes] = []
        self.journal: list[JournalRecord] = []
        self.receipts: list[StoredReceipt] = []
        self.snapshot: Snapshot | None = None
        self.inbox: list[Inbound] = []
        self.take(standing, batch)

    def take(self, standing: rules.Standing, batch: Batch) -> None:
        self.standing = standing
        self.events += batch.events
        self.journal += batch.journal
        self.receipts += batch.receipts
        if batch.snapshot is not None:
            self.snapshot = Snapshot(seq=standing.header.head_seq, data=batch.snapshot)
        if batch.mailbox is not None:
            self.inbox = self.after(standing.header.mailbox)

    def after(self, position: int) -> list[Inbound]:
        return self.inbox[bisect_right(self.inbox, position, key=lambda inbound: inbound.position) :]


class _Runs:
    """Every run by key, and those not ended, so that looking for due work does not visit the others; `earliest`: before
    that (Unix ms) there is none, so that it does not visit those either.
    """

    def __init__(self) -> None:
        self.by_key: dict[str, _Run] = {}
        self.open: dict[str, _Run] = {}
        self.earliest: float = 0
        self.usable = False

    def check(self) -> None:
        if not self.usable:
            raise LogUnavailable("the store is not open")

    def get(self, run: str) -> _Run | None:
        self.check()
        return self.by_key.get(run)

    def note(self, run: _Run) -> None:
        """It is new, or more of it changed than its head."""
        header = run.standing.header
        self.by_key[header.run] = run
        if header.status in TERMINAL:
            self.open.pop(header.run, None)
            return
        self.open[header.run] = run
        if (since := rules.claimable_at(run.standing)) is not None and since < self.earliest:
            self.earliest = since


class _Log:
    def __init__(self, runs: _Runs, records: MemoryRecords, clock: Clock) -> None:
        self._runs = runs
        self._records = records
        self._clock = clock

    async def create(self, run: str, *, fingerprint: str, batch: Batch, owner: str, lease_ms: int) -> Created:
        rules.check_batch(batch)
        if (known := self._runs.get(run)) is not None:
            return rules.start_again(known.standing, fingerprint=fingerprint, batch=batch, owner=owner)
        standing, created = rules.start(
            run,
            epoch=secrets.token_hex(8),
            fingerprint=fingerprint,
            batch=batch,
            owner=owner,
            now_ms=self._clock.now_ms(),
            lease_ms=lease_ms,
        )
        if batch.records:
            self._records.write(batch.records)
        self._runs.note(_Run(standing, batch))
        return created

    async def append(self, run: str, *, fence: int, prev_seq: int, batch: Batch) -> int:
        rules.check_batch(batch)
        if (known := self._runs.get(run)) is None:
            raise NoSuchRun(run)
        standing = rules.advance(known.standing, fence=fence, prev_seq=prev_seq, batch=batch)
        if standing is not None:
            if batch.records:
                self._records.write(batch.records)
            was, now = known.standing.header, standing.header
            known.take(standing, batch)
            if was.status != now.status or was.wake_at != now.wake_at or was.mailbox != now.mailbox:
                self._runs.note(known)
        return known.standing.header.head_seq

    async def load(self, run: str) -> Loaded | None:
        if (known := self._runs.get(run)) is None:
            return None
        return Loaded(
            header=known.standing.header,
            fingerprint=known.standing.fingerprint,
            journal=tuple(known.journal),
            receipts=tuple(known.receipts),
            snapshot=known.snapshot,
        )

    async def read(
        self, run: str, *, after: int, epoch: str | None = None, max_events: int = 256, max_bytes: int = 1 << 20
    ) -> Page | Reset:
        known = self._runs.get(run)
        header = None if known is None else known.standing.header
        if (reset := rules.reset_for(header, after=after, epoch=epoch)) is not None:
            return reset
        assert known is not None
        assert header is not None
        events: list[bytes] = []
        size = 0
        start = after + 1 - header.first_seq
        for event in known.events[start : start + max_events]:
            size += len(event)
            if events and size > max_bytes:
                break
            events.append(event)
        return Page(first=after + 1, events=tuple(events), header=header)

    async def compact(self, run: str, *, first_seq: int, snapshot: bytes) -> bool:
        known = self._runs.get(run)
        standing = None if known is None else rules.compact(known.standing, first_seq=first_seq)
        if known is None or standing is None:
            return False
        del known.events[: first_seq - known.standing.header.first_seq]
        known.standing = standing
        known.snapshot = Snapshot(seq=standing.header.head_seq, data=snapshot)
        return True

    async def delete(self, run: str) -> bool:
        self._runs.check()
        self._runs.open.pop(run, None)
        return self._runs.by_key.pop(run, None) is not None


class _Leases:
    def __init__(self, runs: _Runs) -> None:
        self._runs = runs

    async def claim(self, run: str | None, *, owner: str, now_ms: int, lease_ms: int) -> Lease | None:
        known = self._runs.get(run) if run is not None else self._due(now_ms)
        if known is None:
            return None
        taken = rules.claim(known.standing, owner=owner, now_ms=now_ms, lease_ms=lease_ms)
        if taken is None:
            return None
        known.standing, lease = taken
        self._runs.note(known)
        return lease

    def _due(self, now_ms: int) -> _Run | None:
        self._runs.check()
        if now_ms < self._runs.earliest:
            return None
        longest: tuple[int, _Run] | None = None
        later = float("inf")
        for run in self._runs.open.values():
            since = rules.due_at(run.standing)
            if since is None:
                continue
            if since > now_ms or rules.held(run.standing, now_ms=now_ms):
                later = min(later, rules.claimable_at(run.standing) or later)
            elif longest is None or since < longest[0]:
                longest = since, run
        if longest is not None:
            return longest[1]
        self._runs.earliest = later
        return None

    async def renew(self, lease: Lease, *, now_ms: int, lease_ms: int) -> Lease | None:
        if (known := self._runs.get(lease.run)) is None:
            return None
        renewed = rules.renew(known.standing, lease, now_ms=now_ms, lease_ms=lease_ms)
        if renewed is None:
            return None
        known.standing, later = renewed
        self._runs.note(known)
        return later

    async def release(self, lease: Lease) -> None:
        known = self._runs.get(lease.run)
        if known is not None and (released := rules.release(known.standing, lease)) is not None:
            known.standing = released
            self._runs.note(known)


class _Inbox:
    def __init__(self, runs: _Runs) -> None:
        self._runs = runs

    async def submit(self, run: str, data: bytes) -> int:
        if (known := self._runs.get(run)) is None:
            raise NoSuchRun(run)
        known.standing = rules.submit(known.standing)
        self._runs.note(known)
        known.inbox.append(Inbound(position=known.standing.submitted, data=data))
        return known.standing.submitted

    async def pending(self, run: str, *, after: int) -> Sequence[Inbound]:
        known = self._runs.get(run)
        return () if known is None else tuple(known.after(after))


class MemoryStore:
    """A `Store` in memory. Closing keeps what it holds, so opening it again is a restart of the server.

    Args:
        clock: what time it is when `create` gives its lease; the other calls are told.
    """

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._runs = _Runs()
        records = MemoryRecords(self._runs.check)
        self.log: Log = _Log(self._runs, records, clock or SystemClock())
        self.leases: Leases = _Leases(self._runs)
        self.inbox: Inbox = _Inbox(self._runs)
        self.records: Records = records

    @property
    def name(self) -> str:
        return "memory"

    async def open(self) -> None:
        if not self._runs.usable:
            self._runs.usable = True
            for run in self._runs.by_key.values():
                if run.standing.owner is not None or run.standing.header.status == "running":
                    run.standing = rules.void(run.standing)
            self._runs.earliest = 0

    async def shrink(self) -> int:
        """Nothing is kept of what was erased."""
        self._runs.check()
        return 0

    async def aclose(self) -> None:
        self._runs.usable = False
