"""A store as one server sees it, until that server dies: then nothing of it reaches the store any more."""

from midstream.log import Batch, Created, Lease, Leases, Log, LogUnavailable, Store


class MortalStore:
    """The store as one server sees it; once `dead`, nothing of that server reaches it."""

    def __init__(self, store: Store) -> None:
        self.dead = False
        self.held: dict[str, Lease] = {}
        self.name = store.name
        self.inbox = store.inbox
        self.records = store.records
        self.log: Log = _MortalLog(self, store.log)
        self.leases: Leases = _MortalLeases(self, store.leases)
        self._store = store

    async def open(self) -> None:
        await self._store.open()

    async def shrink(self) -> int:
        return await self._store.shrink()

    async def aclose(self) -> None:
        """The store outlives its servers."""

    async def bury(self) -> None:
        """Its leases are free, as they are when a machine sees that their owner's process is gone."""
        for lease in self.held.values():
            await self._store.leases.release(lease)


class _MortalLog:
    def __init__(self, owner: MortalStore, log: Log) -> None:
        self._owner = owner
        self._log = log
        self.load = log.load
        self.read = log.read
        self.compact = log.compact
        self.delete = log.delete

    async def create(self, run: str, *, fingerprint: str, batch: Batch, owner: str, lease_ms: int) -> Created:
        if self._owner.dead:
            raise LogUnavailable("this server is dead")
        created = await self._log.create(run, fingerprint=fingerprint, batch=batch, owner=owner, lease_ms=lease_ms)
        if created.lease is not None:
            self._owner.held[run] = created.lease
        return created

    async def append(self, run: str, *, fence: int, prev_seq: int, batch: Batch) -> int:
        if self._owner.dead:
            raise LogUnavailable("this server is dead")
        return await self._log.append(run, fence=fence, prev_seq=prev_seq, batch=batch)


class _MortalLeases:
    def __init__(self, owner: MortalStore, leases: Leases) -> None:
        self._owner = owner
        self._leases = leases
        self.release = leases.release

    async def claim(self, run: str | None, *, owner: str, now_ms: int, lease_ms: int) -> Lease | None:
        return self._held(await self._leases.claim(run, owner=owner, now_ms=now_ms, lease_ms=lease_ms))

    async def renew(self, lease: Lease, *, now_ms: int, lease_ms: int) -> Lease | None:
        return self._held(await self._leases.renew(lease, now_ms=now_ms, lease_ms=lease_ms))

    def _held(self, lease: Lease | None) -> Lease | None:
        if lease is not None:
            self._owner.held[lease.run] = lease
        return lease
