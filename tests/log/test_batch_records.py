"""Records that are written with a batch: in the same step as the rest of it, or not at all."""

import asyncio

import pytest

from midstream.log import Batch, Fenced, RecordWrite, StartConflict, Store, VersionConflict
from tests.log.batches import again, batch, begin, events

pytestmark = pytest.mark.asyncio

RUN = "alice.run_1"


def write(id_: str, data: bytes | None, *, expect: int | None = None) -> RecordWrite:
    return RecordWrite(kind="k", id=id_, data=data, expect_version=expect)


async def kept(store: Store) -> list[tuple[str, int, bytes]]:
    return [(record.id, record.version, record.data) for record in await store.records.list("k")]


async def test_a_run_is_made_with_its_records(store: Store) -> None:
    await store.records.put("k", "old", b"1")
    await begin(store, RUN, batch("a", records=(write("new", b"2", expect=0), write("old", b"3", expect=1))))
    assert await kept(store) == [("new", 1, b"2"), ("old", 2, b"3")]
    found = await store.records.get("k", "old")
    assert found is not None
    assert found.version == 2


async def test_a_batch_changes_and_removes_records(store: Store) -> None:
    for id_ in ("a", "b", "c"):
        await store.records.put("k", id_, b"1")
    lease = await begin(store, RUN)
    records = (write("a", b"2"), write("b", None, expect=1), write("c", None), write("absent", None, expect=4))
    await store.log.append(RUN, fence=lease.fence, prev_seq=1, batch=batch("b", records=records))
    assert await kept(store) == [("a", 2, b"2")]
    assert (await store.records.put("k", "b", b"again", expect_version=0)).version == 1


@pytest.mark.parametrize(
    "wrong", [write("old", b"x", expect=0), write("new", b"x", expect=1), write("old", None, expect=2)]
)
async def test_a_record_that_changed_stops_the_whole_batch(store: Store, wrong: RecordWrite) -> None:
    await store.records.put("k", "old", b"1")
    records = (write("first", b"x"), wrong, write("last", b"x"))
    with pytest.raises(VersionConflict):
        await begin(store, RUN, batch("a", records=records))
    assert await store.log.load(RUN) is None
    lease = await begin(store, RUN)
    with pytest.raises(VersionConflict):
        await store.log.append(RUN, fence=lease.fence, prev_seq=1, batch=batch("b", status="waiting", records=records))
    loaded = await store.log.load(RUN)
    assert loaded is not None
    assert (loaded.header.head_seq, loaded.header.status) == (1, "running")
    assert await kept(store) == [("old", 1, b"1")]
    assert await store.log.append(RUN, fence=lease.fence, prev_seq=1, batch=batch("b")) == 2


async def test_a_refused_batch_writes_no_record(store: Store) -> None:
    lease = await begin(store, RUN)
    refused = batch("b", records=(write("a", b"x"),))
    with pytest.raises(Fenced):
        await store.log.append(RUN, fence=lease.fence - 1, prev_seq=1, batch=refused)
    with pytest.raises(Fenced):
        await store.log.append(RUN, fence=lease.fence, prev_seq=3, batch=refused)
    with pytest.raises(StartConflict):
        await again(store, RUN, refused, fingerprint="another")
    assert not (await again(store, RUN, refused)).new
    assert await kept(store) == []


async def test_a_batch_sent_again_writes_its_records_once(store: Store) -> None:
    first = batch("a", records=(write("a", b"1"),))
    lease = await begin(store, RUN, first)
    assert (await again(store, RUN, first)).lease == lease
    second = batch("b", records=(write("a", b"2", expect=1), write("b", b"1", expect=0)))
    for _ in range(3):
        assert await store.log.append(RUN, fence=lease.fence, prev_seq=1, batch=second) == 2
    assert await kept(store) == [("a", 2, b"2"), ("b", 1, b"1")]


async def test_starts_that_need_one_record_have_one_winner(store: Store) -> None:
    outcomes = await asyncio.gather(
        *(
            begin(store, f"alice.run_{n}", batch("a", records=(write("thread", b"%d" % n, expect=0),)))
            for n in range(20)
        ),
        return_exceptions=True,
    )
    winners = [n for n, outcome in enumerate(outcomes) if not isinstance(outcome, BaseException)]
    assert len(winners) == 1
    assert all(isinstance(outcome, VersionConflict) for n, outcome in enumerate(outcomes) if n not in winners)
    assert await kept(store) == [("thread", 1, b"%d" % winners[0])]
    assert await events(store, f"alice.run_{winners[0]}") == ["a"]


async def test_batches_and_single_writes_of_one_turn_see_each_other(store: Store) -> None:
    lease = await begin(store, RUN)
    outcomes = await asyncio.gather(
        store.records.put("k", "a", b"1", expect_version=0),
        store.log.append(RUN, fence=lease.fence, prev_seq=1, batch=batch("b", records=(write("a", b"2", expect=1),))),
        begin(store, "alice.run_2", batch("a", records=(write("a", b"3", expect=2), write("b", b"1", expect=0)))),
        store.records.put("k", "a", b"4", expect_version=3),
        store.records.delete("k", "b", expect_version=1),
        store.log.append(RUN, fence=lease.fence, prev_seq=2, batch=batch("c", records=(write("b", b"2", expect=0),))),
        return_exceptions=True,
    )
    assert [outcome for outcome in outcomes if isinstance(outcome, BaseException)] == []
    assert await kept(store) == [("a", 4, b"4"), ("b", 1, b"2")]


async def test_a_record_is_written_once_in_a_batch(store: Store) -> None:
    twice = (write("a", b"1"), write("a", b"2"))
    with pytest.raises(ValueError, match="each record once"):
        await begin(store, RUN, batch("a", records=twice))
    lease = await begin(store, RUN, batch("a", records=(write("a", b"1"), RecordWrite(kind="l", id="a", data=b"1"))))
    with pytest.raises(ValueError, match="each record once"):
        await store.log.append(RUN, fence=lease.fence, prev_seq=1, batch=batch("b", records=twice))


async def test_the_end_of_a_run_may_write_a_record(store: Store) -> None:
    lease = await begin(store, RUN)
    end = Batch(batch_id="end", status="completed", events=(b"end",), records=(write("ended", b"x"),))
    await store.log.append(RUN, fence=lease.fence, prev_seq=1, batch=end)
    late = batch(status="completed", records=(write("ended", None),))
    await store.log.append(RUN, fence=lease.fence, prev_seq=2, batch=late)
    assert await kept(store) == []
