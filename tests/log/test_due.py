"""A look for due runs that found none does not hide those that become due after it."""

import pytest

from midstream.log import Store
from tests.log.batches import LEASE_MS, batch, begin
from tests.log.conftest import START_MS, Shelf

pytestmark = pytest.mark.asyncio

RUN = "alice.run_1"


async def due(store: Store, now_ms: int = START_MS) -> str | None:
    lease = await store.leases.claim(None, owner="poller", now_ms=now_ms, lease_ms=LEASE_MS)
    return None if lease is None else lease.run


async def test_one_that_is_given_back(store: Store) -> None:
    lease = await begin(store, RUN)
    assert await due(store) is None
    await store.leases.release(lease)
    assert await due(store) == RUN


async def test_one_whose_lease_ends(store: Store) -> None:
    lease = await begin(store, RUN)
    assert await due(store) is None
    assert await due(store, lease.expires_at - 1) is None
    assert await due(store, lease.expires_at) == RUN
    assert await due(store, lease.expires_at) is None
    assert await due(store, lease.expires_at + LEASE_MS) == RUN


async def test_one_that_is_made(store: Store) -> None:
    assert await due(store) is None
    lease = await begin(store, RUN, batch("x", status="waiting", wake_at=START_MS))
    await store.leases.release(lease)
    assert await due(store) == RUN


async def test_one_that_is_set_to_wake_sooner(store: Store) -> None:
    lease = await begin(store, RUN, batch("x", status="waiting", wake_at=START_MS * 3))
    await store.leases.release(lease)
    assert await due(store) is None
    await store.log.append(RUN, fence=lease.fence, prev_seq=1, batch=batch(status="waiting", wake_at=START_MS * 2))
    assert await due(store) is None
    assert await due(store, START_MS * 2) == RUN


async def test_one_that_starts_to_run(store: Store) -> None:
    lease = await begin(store, RUN, batch("x", status="waiting"))
    await store.leases.release(lease)
    assert await due(store) is None
    await store.log.append(RUN, fence=lease.fence, prev_seq=1, batch=batch(status="running"))
    assert await due(store) == RUN


async def test_one_of_a_server_that_stopped(shelf: Shelf) -> None:
    await begin(shelf.store, RUN)
    assert await due(shelf.store) is None
    store = await shelf.restart()
    assert await due(store) == RUN
