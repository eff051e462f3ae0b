"""Short ways to say what a test writes."""

from itertools import count
from typing import Any

from midstream.log import Batch, Created, Lease, Page, Reset, Store

LEASE_MS = 10_000

_ids = count(1)


def batch(*events: str, status: str = "running", **parts: Any) -> Batch:
    """A batch with an id of its own."""
    named = {"batch_id": f"batch-{next(_ids)}", **parts}
    return Batch(status=status, events=tuple(event.encode() for event in events), **named)


async def begin(store: Store, run: str, first: Batch | None = None, *, owner: str = "one") -> Lease:
    created = await store.log.create(
        run, fingerprint="request", batch=first or batch('{"seq":1}'), owner=owner, lease_ms=LEASE_MS
    )
    assert created.lease is not None
    return created.lease


async def again(store: Store, run: str, first: Batch, *, fingerprint: str = "request", owner: str = "one") -> Created:
    return await store.log.create(run, fingerprint=fingerprint, batch=first, owner=owner, lease_ms=LEASE_MS)


async def events(store: Store, run: str, *, after: int = 0, **limits: Any) -> list[str]:
    """One page; the run must be readable from there."""
    page = await store.log.read(run, after=after, **limits)
    assert isinstance(page, Page), page
    assert page.first == after + 1
    return [event.decode() for event in page.events]


async def reset_reason(store: Store, run: str, *, after: int = 0, epoch: str | None = None) -> str:
    reset = await store.log.read(run, after=after, epoch=epoch)
    assert isinstance(reset, Reset), reset
    assert (reset.header is None) == (reset.reason == "gone")
    return reset.reason
