"""Compaction, deletion and giving room back, in every store."""

import asyncio
from typing import Any

import pytest

from midstream.log import JournalRecord, Lease, Page, Store, StoredReceipt, sqlite_erasing
from tests.log.batches import batch, begin, events, reset_reason
from tests.log.conftest import Shelf

pytestmark = pytest.mark.asyncio

RUN = "alice.run_1"


async def ended(store: Store, run: str = RUN, *, batches: int = 4) -> Lease:
    """A run of `batches` batches of three events each, "e1" and on, the last of them its end."""
    kept: dict[str, Any] = {
        "journal": (JournalRecord(kind="k", key="1", data=b"x"),),
        "receipts": (StoredReceipt(command_id="c", fingerprint="f", data=b"{}"),),
        "snapshot": b"working state",
    }
    lease = await begin(store, run, batch("e1", "e2", "e3", **kept))
    for n in range(1, batches):
        lines = [f"e{3 * n + at}" for at in (1, 2, 3)]
        status = "completed" if n == batches - 1 else "running"
        await store.log.append(run, fence=lease.fence, prev_seq=3 * n, batch=batch(*lines, status=status))
    return lease


@pytest.fixture(params=["whole", "in pieces"])
def pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "in pieces":
        monkeypatch.setattr(sqlite_erasing, "PIECE_ROWS", 1)


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("first_seq", [1, 2, 4, 11, 12])
async def test_a_compacted_run_keeps_its_last_events_and_the_snapshot(shelf: Shelf, first_seq: int) -> None:
    await ended(shelf.store)
    await ended(shelf.store, "alice.other")
    for _ in range(2):
        assert await shelf.store.log.compact(RUN, first_seq=first_seq, snapshot=b"view")
    for restarted in (False, True):
        store = await shelf.restart() if restarted else shelf.store
        every = [f"e{seq}" for seq in range(1, 13)]
        for after in range(first_seq - 1, 13):
            assert await events(store, RUN, after=after) == every[after:]
        for after in range(first_seq - 1):
            assert await reset_reason(store, RUN, after=after) == "trimmed"
        loaded = await store.log.load(RUN)
        assert loaded is not None
        assert (loaded.header.first_seq, loaded.header.head_seq) == (first_seq, 12)
        assert (loaded.header.status, len(loaded.journal), len(loaded.receipts)) == ("completed", 1, 1)
        assert loaded.snapshot is not None
        assert (loaded.snapshot.seq, loaded.snapshot.data) == (12, b"view")
        other = await store.log.load("alice.other")
        assert other is not None
        assert other.snapshot is not None
        assert other.snapshot.data == b"working state"
        assert await events(store, "alice.other") == every


async def test_what_cannot_be_compacted_stays_as_it_is(store: Store) -> None:
    lease = await begin(store, RUN, batch("a", "b"))
    assert not await store.log.compact(RUN, first_seq=2, snapshot=b"x")
    assert not await store.log.compact("alice.nobody", first_seq=1, snapshot=b"x")
    await store.log.append(RUN, fence=lease.fence, prev_seq=2, batch=batch("c", status="failed"))
    for first_seq in (0, 4):
        assert not await store.log.compact(RUN, first_seq=first_seq, snapshot=b"x")
    assert await store.log.compact(RUN, first_seq=3, snapshot=b"x")
    assert not await store.log.compact(RUN, first_seq=2, snapshot=b"y")
    loaded = await store.log.load(RUN)
    assert loaded is not None
    assert loaded.snapshot is not None
    assert (loaded.header.first_seq, loaded.snapshot.data) == (3, b"x")


async def test_a_compacted_run_still_takes_receipts_and_can_be_claimed(shelf: Shelf) -> None:
    lease = await ended(shelf.store)
    assert await shelf.store.log.compact(RUN, first_seq=12, snapshot=b"view")
    late = batch(status="completed", receipts=(StoredReceipt(command_id="late", fingerprint="f", data=b"{}"),))
    assert await shelf.store.log.append(RUN, fence=lease.fence, prev_seq=12, batch=late) == 12
    store = await shelf.restart()
    assert await store.leases.claim(RUN, owner="two", now_ms=0, lease_ms=1) is not None
    loaded = await store.log.load(RUN)
    assert loaded is not None
    assert loaded.header.first_seq == 12
    assert [answer.command_id for answer in loaded.receipts] == ["c", "late"]


@pytest.mark.usefixtures("pieces")
async def test_a_deleted_run_makes_room_for_another_of_its_key(store: Store) -> None:
    await ended(store)
    assert await store.log.compact(RUN, first_seq=8, snapshot=b"view")
    await store.inbox.submit(RUN, b"late")
    deleted, lease = await asyncio.gather(store.log.delete(RUN), begin(store, RUN, batch("new")))
    assert deleted
    await store.log.append(RUN, fence=lease.fence, prev_seq=1, batch=batch("b"))
    assert await store.log.delete("alice.nobody") is False
    page = await store.log.read(RUN, after=0)
    assert isinstance(page, Page)
    assert (page.events, page.header.first_seq) == ((b"new", b"b"), 1)
    loaded = await store.log.load(RUN)
    assert loaded is not None
    assert (loaded.journal, loaded.receipts, loaded.snapshot) == ((), (), None)
    assert await store.inbox.pending(RUN, after=0) == ()


async def test_shrinking_changes_nothing_that_is_kept(shelf: Shelf) -> None:
    for n in range(30):
        lease = await begin(shelf.store, f"a.run_{n}", batch("x" * 20_000))
        await shelf.store.log.append(
            lease.run, fence=lease.fence, prev_seq=1, batch=batch(f"last of {n}", status="completed")
        )
    for n in range(0, 30, 2):
        assert await shelf.store.log.delete(f"a.run_{n}")
    while await shelf.store.shrink():
        pass
    for restarted in (False, True):
        store = await shelf.restart() if restarted else shelf.store
        for n in range(1, 30, 2):
            assert await events(store, f"a.run_{n}") == ["x" * 20_000, f"last of {n}"]
        assert await store.shrink() == 0
