"""The log: what every store must do, whatever it is made of. The contract suite in tests/log holds them to it.

The unit is a `Batch`: everything one beat of a run's actor decided, written in one atomic, fenced, contiguous step.
A store never looks inside an event: to it an event is bytes with a place.

`run` is the store's key of a run: `<namespace>.<run_id>`, both of the id grammar, so that two principals may use one
run_id and a key needs no escaping in any store.

Laws (each has a test in the contract suite):

1. Durable before visible: `create` and `append` return after what they wrote would survive the death of the process.
2. All or nothing: after a failure, a crash included, a batch is there whole or not at all.
3. One writer: a batch of an older fence is refused with `Fenced`, whoever sends it and however late.
4. Contiguous: a batch starts at head + 1; another `prev_seq` is refused with `Fenced` - except that the very batch
   that was written last, sent again because its reply was lost, is recognised (`Batch.batch_id`) and answered as done.
5. `read` never skips: it returns the events after a seq without a hole, or says why it cannot (`Reset`).
6. A terminal status closes a run: later batches may carry receipts and journal, but no events and no other status;
   such a batch is refused with `Fenced`.
"""

from collections.abc import Sequence
from typing import Final, Literal, Protocol

from msgspec import Struct

TERMINAL: Final = frozenset({"completed", "failed", "cancelled"})


class LogError(Exception):
    """The tree of what a store raises.

    LogError
    ├── Fenced           another writer owns the run, or it is not where the caller thinks: stop at once, emit nothing
    ├── StartConflict    a run of this key exists and was started by another request
    ├── NoSuchRun        no run of this key
    ├── VersionConflict  a record changed since it was read
    ├── LogUnavailable   it could not be written or read now (disk full, connection lost); nothing was changed
    └── StoreInUse       another process has this store open
    """


class Fenced(LogError):
    pass


class StartConflict(LogError):
    pass


class NoSuchRun(LogError):
    pass


class VersionConflict(LogError):
    pass


class LogUnavailable(LogError):
    pass


class StoreInUse(LogError):
    pass


class JournalRecord(Struct, kw_only=True, frozen=True):
    """One private record beside the log, never sent to a client.

    `kind` names the schema of `data` (JSON bytes), `key` the thing it is about. Records are kept in the order they
    were written; the same kind and key may come again (a reader takes the order into account, the store does not).
    """

    kind: str
    key: str
    data: bytes


class StoredReceipt(Struct, kw_only=True, frozen=True):
    """The remembered answer to one command. `data` are the very bytes of the receipt's payload (JSON)."""

    command_id: str
    fingerprint: str
    data: bytes


class RecordWrite(Struct, kw_only=True, frozen=True):
    """One record to write with a batch, in the same step. As `Records.put`; `data` None deletes it."""

    kind: str
    id: str
    data: bytes | None
    expect_version: int | None = None


class Batch(Struct, kw_only=True, frozen=True):
    """What one beat decided. Empty parts are normal: a refused command is a batch of one receipt.

    `batch_id`: made by the caller, different for every batch (law 4).
    `events`: encoded, seqs prev_seq + 1 and on. Each is one line (`ValueError`): compact JSON has no raw newline.
    `journal`, `receipts`: added to those kept, in this order.
    `mailbox`: the inbox position consumed up to (inclusive); None leaves it, and it never goes back. Consumed commands
    are forgotten. Beyond what was submitted: `Fenced`.
    `wake_at`: Unix milliseconds at which the run wants to be claimed although nobody asks; None: never.
    `status`: the run's status after this batch (`queued` `running` `waiting` or a terminal one).
    `snapshot`: the working state after this batch, opaque; None keeps the one before.
    `records`: written in the same step as the rest, whole or not at all; `VersionConflict` if one of them is not as
    expected, and then nothing of the batch was written.
    """

    batch_id: str
    status: str
    events: tuple[bytes, ...] = ()
    journal: tuple[JournalRecord, ...] = ()
    receipts: tuple[StoredReceipt, ...] = ()
    mailbox: int | None = None
    wake_at: int | None = None
    snapshot: bytes | None = None
    records: tuple[RecordWrite, ...] = ()


class Header(Struct, kw_only=True, frozen=True):
    """Where a run stands. `epoch` is the identity of this history (opaque, of the id grammar).

    `first_seq` is the oldest event kept, `mailbox` the inbox position consumed, `fence` the current writer's token.
    """

    run: str
    epoch: str
    fence: int
    head_seq: int
    first_seq: int
    status: str
    mailbox: int
    wake_at: int | None


class Snapshot(Struct, kw_only=True, frozen=True):
    """The working state as it was after event `seq`."""

    seq: int
    data: bytes


class Loaded(Struct, kw_only=True, frozen=True):
    """All of a run but its events: the journal in order, every receipt kept, the newest snapshot if one was written."""

    header: Header
    fingerprint: str
    journal: tuple[JournalRecord, ...]
    receipts: tuple[StoredReceipt, ...]
    snapshot: Snapshot | None


class Page(Struct, kw_only=True, frozen=True):
    """Events `first`, `first` + 1, … (empty at the head). `header` is as it was in the same moment."""

    first: int
    events: tuple[bytes, ...]
    header: Header


class Reset(Struct, kw_only=True, frozen=True):
    """Why `read` cannot go on from there: `epoch` (another history), `ahead` (beyond the head), `trimmed`, `gone`."""

    reason: Literal["epoch", "ahead", "trimmed", "gone"]
    header: Header | None


class Lease(Struct, kw_only=True, frozen=True):
    """The right to write one run: `fence` goes with every append. Ends at `expires_at` (Unix ms) unless renewed."""

    run: str
    fence: int
    expires_at: int


class Created(Struct, kw_only=True, frozen=True):
    """`new` False: the run was there already, started by the same request; then `lease` is None."""

    header: Header
    new: bool
    lease: Lease | None


class Inbound(Struct, kw_only=True, frozen=True):
    """One command on its way to the owner. Positions start at 1 and grow."""

    position: int
    data: bytes


class Log(Protocol):
    """The ordered log of every run. All methods may be called concurrently from one event loop."""

    async def create(self, run: str, *, fingerprint: str, batch: Batch, owner: str, lease_ms: int) -> Created:
        """Make the run with its first batch, and lease it to `owner`. Raises `StartConflict`, `LogUnavailable`.

        This alone is the idempotency of a start: the same key and fingerprint again return the run as it is. The
        very same batch again, with nothing written since, is a lost reply (law 4) and returns the lease once more.
        The lease begins now, by the clock that the store was made with.
        """
        ...

    async def append(self, run: str, *, fence: int, prev_seq: int, batch: Batch) -> int:
        """Write one batch after event `prev_seq`; returns the new head.

        A caller that is cancelled while it waits does not take the batch back. Raises `Fenced`, `NoSuchRun`,
        `LogUnavailable`.
        """
        ...

    async def load(self, run: str) -> Loaded | None: ...

    async def read(
        self, run: str, *, after: int, epoch: str | None = None, max_events: int = 256, max_bytes: int = 1 << 20
    ) -> Page | Reset:
        """A page of events after seq `after`: at most `max_events` and, past the first, `max_bytes`.

        `epoch` None does not check the history's identity.
        """
        ...

    async def compact(self, run: str, *, first_seq: int, snapshot: bytes) -> bool:
        """Erase the events before `first_seq` of an ended run and keep `snapshot` (opaque, at the head) instead.

        From then on `Header.first_seq` says so, and `read` from before it answers `Reset("trimmed")`. False: there is
        no such run, it has not ended, or it has no event `first_seq`. Again is no harm. Raises `LogUnavailable`.
        """
        ...

    async def delete(self, run: str) -> bool:
        """Erase a run and all beside it. Whether it was there."""
        ...


class Leases(Protocol):
    """Who writes which run."""

    async def claim(self, run: str | None, *, owner: str, now_ms: int, lease_ms: int) -> Lease | None:
        """Take `run`, or with None the unowned run that has been due longest. Returns None if there is none, or if
        `run` is held by another owner or does not exist. An ended run can be claimed by name, never as due.

        Due: `running` (its owner is gone), or `queued`/`waiting` with `wake_at` <= now or with unread inbox.
        A fence grows with every claim. The same owner claiming what it holds by name gets a new fence; a run that
        anybody holds, the caller too, is not found as due.
        """
        ...

    async def renew(self, lease: Lease, *, now_ms: int, lease_ms: int) -> Lease | None:
        """The lease with a later end, or None if it was lost: stop writing at once."""
        ...

    async def release(self, lease: Lease) -> None:
        """Give it back (no error if it was lost). Another may claim it at once; until then the fence still writes."""
        ...


class Inbox(Protocol):
    """Commands for a run's owner when the one who received them is not it. Transport only: what wins is decided
    by the run itself, in one place.
    """

    async def submit(self, run: str, data: bytes) -> int:
        """Durably queue one command; returns its position. Raises `NoSuchRun`, `LogUnavailable`."""
        ...

    async def pending(self, run: str, *, after: int) -> Sequence[Inbound]:
        """What waits after position `after`, in order."""
        ...


class Record(Struct, kw_only=True, frozen=True):
    """One versioned document. Versions start at 1."""

    id: str
    version: int
    data: bytes


class Records(Protocol):
    """Small facts that cross runs: threads, grants, dead letters, run lists, the server's key."""

    async def get(self, kind: str, id: str) -> Record | None: ...  # noqa: A002 - the field's name

    async def put(self, kind: str, id: str, data: bytes, *, expect_version: int | None = None) -> Record:  # noqa: A002
        """Write it. `expect_version` 0: must not exist; n: must be at n; None: whatever is there.

        Raises `VersionConflict`, `LogUnavailable`.
        """
        ...

    async def list(
        self, kind: str, *, after: str | None = None, limit: int = 100, descending: bool = False
    ) -> Sequence[Record]:
        """Ordered by id (bytewise), those after `after` in that order."""
        ...

    async def delete(self, kind: str, id: str, *, expect_version: int | None = None) -> bool:  # noqa: A002
        """Whether it was there. Raises `VersionConflict` if it is there at another version."""
        ...


class Store(Protocol):
    """One store: its four faces, opened and closed as one."""

    @property
    def name(self) -> str:
        """What it is, for people: `memory`, `sqlite:///path`."""
        ...

    @property
    def log(self) -> Log: ...

    @property
    def leases(self) -> Leases: ...

    @property
    def inbox(self) -> Inbox: ...

    @property
    def records(self) -> Records: ...

    async def open(self) -> None:
        """Ready for use. A store for one process holds no lease then: whoever held one is gone, and fenced off.

        Raises `StoreInUse`, `LogUnavailable`.
        """
        ...

    async def shrink(self) -> int:
        """Give back room that erased runs left, a bounded piece of it; how many bytes that were."""
        ...

    async def aclose(self) -> None:
        """Flush and close; what was acknowledged stays. May be called twice."""
        ...
