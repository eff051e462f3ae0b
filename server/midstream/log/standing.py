"""What is decided about a run before anything is written: the laws of the contract, pure.

Every store keeps a `Standing` in its own way and lets these functions say what becomes of it, so that two stores
cannot read the laws differently.
"""

from msgspec import Struct
from msgspec.structs import replace

from midstream.log.contract import (
    TERMINAL,
    Batch,
    Created,
    Fenced,
    Header,
    Lease,
    Record,
    RecordWrite,
    Reset,
    StartConflict,
    VersionConflict,
)


class Standing(Struct, kw_only=True, frozen=True):
    """A run's one mutable row. `leased_at` is when a lease was last given or renewed, so it is never in the future."""

    header: Header
    fingerprint: str
    batch_id: str
    submitted: int
    owner: str | None
    leased_at: int
    lease_until: int | None


def check_batch(batch: Batch) -> None:
    """Refuse what no store can write as it is meant.

    Raises:
        ValueError: an event has a raw newline (stores join events by newlines, which no compact JSON text contains),
            or one record is written twice.
    """
    events = batch.events
    if events and b"\n" in (events[0] if len(events) == 1 else b"".join(events)):
        raise ValueError("an event must be one line of JSON text")
    if len(batch.records) > 1 and len({(write.kind, write.id) for write in batch.records}) < len(batch.records):
        raise ValueError("a batch may write each record once")


def start(
    run: str, *, epoch: str, fingerprint: str, batch: Batch, owner: str, now_ms: int, lease_ms: int
) -> tuple[Standing, Created]:
    """A run that was not there."""
    if batch.mailbox:
        raise Fenced(f"{run} has no inbox yet, so nothing of it was consumed")
    header = Header(
        run=run,
        epoch=epoch,
        fence=1,
        head_seq=len(batch.events),
        first_seq=1,
        status=batch.status,
        mailbox=0,
        wake_at=batch.wake_at,
    )
    standing = Standing(
        header=header,
        fingerprint=fingerprint,
        batch_id=batch.batch_id,
        submitted=0,
        owner=owner,
        leased_at=now_ms,
        lease_until=now_ms + lease_ms,
    )
    return standing, Created(header=header, new=True, lease=_lease(standing))


def start_again(standing: Standing, *, fingerprint: str, batch: Batch, owner: str) -> Created:
    """A start of a run that is there: the same request, or a conflict."""
    if standing.fingerprint != fingerprint:
        raise StartConflict(f"{standing.header.run} was started by another request")
    # The very batch that made the run, and nothing since: its reply was lost, so the lease is still its sender's.
    if standing.batch_id == batch.batch_id and standing.owner == owner:
        return Created(header=standing.header, new=True, lease=_lease(standing))
    return Created(header=standing.header, new=False, lease=None)


def advance(standing: Standing, *, fence: int, prev_seq: int, batch: Batch) -> Standing | None:
    """The run after `batch`, or None if this very batch is the last one written (law 4)."""
    header = standing.header
    if fence != header.fence:
        raise Fenced(f"{header.run} is at fence {header.fence}, not {fence}")
    if batch.batch_id == standing.batch_id and prev_seq == header.head_seq - len(batch.events):
        return None
    if prev_seq != header.head_seq:
        raise Fenced(f"{header.run} is at event {header.head_seq}, not {prev_seq}")
    if header.status in TERMINAL and (batch.events or batch.status != header.status):
        raise Fenced(f"{header.run} has ended ({header.status}): no more events, no other status")
    if batch.mailbox is not None and batch.mailbox > standing.submitted:
        raise Fenced(f"{header.run} has {standing.submitted} commands in its inbox, {batch.mailbox} cannot be consumed")
    return replace(
        standing,
        batch_id=batch.batch_id,
        header=Header(
            run=header.run,
            epoch=header.epoch,
            fence=fence,
            head_seq=prev_seq + len(batch.events),
            first_seq=header.first_seq,
            status=batch.status,
            mailbox=header.mailbox if batch.mailbox is None else max(header.mailbox, batch.mailbox),
            wake_at=batch.wake_at,
        ),
    )


def claim(standing: Standing, *, owner: str, now_ms: int, lease_ms: int) -> tuple[Standing, Lease] | None:
    if held(standing, now_ms=now_ms) and standing.owner != owner:
        return None
    taken = replace(
        standing,
        header=replace(standing.header, fence=standing.header.fence + 1),
        owner=owner,
        leased_at=now_ms,
        lease_until=now_ms + lease_ms,
    )
    return taken, _lease(taken)


def renew(standing: Standing, lease: Lease, *, now_ms: int, lease_ms: int) -> tuple[Standing, Lease] | None:
    if standing.owner is None or standing.lease_until is None or standing.header.fence != lease.fence:
        return None
    renewed = replace(standing, leased_at=now_ms, lease_until=max(standing.lease_until, now_ms + lease_ms))
    return renewed, _lease(renewed)


def release(standing: Standing, lease: Lease) -> Standing | None:
    """None if the lease was lost already."""
    if standing.header.fence != lease.fence:
        return None
    return replace(standing, owner=None, lease_until=None)


def void(standing: Standing) -> Standing:
    """The store was opened again: whoever held the run is gone, and a write of theirs must not count any more."""
    header = replace(standing.header, fence=standing.header.fence + 1)
    # Due at once, also when the clock was set back since: times of an earlier life order nothing any more.
    return replace(standing, header=header, owner=None, lease_until=None, leased_at=0)


def held(standing: Standing, *, now_ms: int) -> bool:
    return standing.owner is not None and standing.lease_until is not None and standing.lease_until > now_ms


def due_at(standing: Standing) -> int | None:
    """Since when the run is to be claimed once nobody holds it; the order of `claim(None)`. None: never.

    Where the true moment is not told (`release` and `submit` come without a time) the last claim or renewal stands
    for it. So a run that is claimed in vain again and again goes to the back of the queue each time.
    """
    header = standing.header
    if header.status in TERMINAL:
        return None
    if header.status == "running":
        return standing.leased_at if standing.lease_until is None else standing.lease_until
    if standing.submitted > header.mailbox:
        return standing.leased_at if header.wake_at is None else min(standing.leased_at, header.wake_at)
    return header.wake_at


def compact(standing: Standing, *, first_seq: int) -> Standing | None:
    """The ended run with `first_seq` as its oldest event; None if it cannot be."""
    header = standing.header
    if header.status not in TERMINAL or not header.first_seq <= first_seq <= header.head_seq:
        return None
    return replace(standing, header=replace(header, first_seq=first_seq))


def claimable_at(standing: Standing) -> int | None:
    """From when on `claim(None)` may find the run as it is now. None: never."""
    due = due_at(standing)
    if due is None or standing.owner is None or standing.lease_until is None:
        return due
    return max(due, standing.lease_until)


def submit(standing: Standing) -> Standing:
    """With one more command in the inbox, at position `submitted`."""
    return replace(standing, submitted=standing.submitted + 1)


def reset_for(header: Header | None, *, after: int, epoch: str | None) -> Reset | None:
    """Why there is nothing to read after `after`; None: there is, or it is the head."""
    if header is None:
        return Reset(reason="gone", header=None)
    if epoch is not None and epoch != header.epoch:
        return Reset(reason="epoch", header=header)
    if after > header.head_seq:
        return Reset(reason="ahead", header=header)
    if after < header.first_seq - 1:
        return Reset(reason="trimmed", header=header)
    return None


def next_version(kind: str, id: str, *, at: int, expect: int | None) -> int:  # noqa: A002 - the contract's word
    """The version after `at` (0: not there)."""
    if expect is not None and expect != at:
        raise VersionConflict(f"{kind}/{id} is at version {at}, not {expect}")
    return at + 1


def check_removal(record: Record, *, kind: str, expect: int | None) -> None:
    if expect is not None and expect != record.version:
        raise VersionConflict(f"{kind}/{record.id} is at version {record.version}, not {expect}")


def written(write: RecordWrite, known: Record | None) -> Record | None:
    """What a record of a batch becomes; None: it is gone. Raises `VersionConflict`."""
    if write.data is not None:
        version = next_version(
            write.kind, write.id, at=0 if known is None else known.version, expect=write.expect_version
        )
        return Record(id=write.id, version=version, data=write.data)
    if known is not None:
        check_removal(known, kind=write.kind, expect=write.expect_version)
    return None


def _lease(standing: Standing) -> Lease:
    assert standing.lease_until is not None
    return Lease(run=standing.header.run, fence=standing.header.fence, expires_at=standing.lease_until)
