"""The laws of `midstream.log.contract`, held against every store."""

import asyncio
import random
from typing import Any

import pytest

from midstream.log import (
    Batch,
    Fenced,
    JournalRecord,
    LogUnavailable,
    NoSuchRun,
    Page,
    StartConflict,
    Store,
    StoredReceipt,
    VersionConflict,
)
from midstream.tasks import spawn
from tests.log.batches import LEASE_MS, again, batch, begin, events, reset_reason
from tests.log.conftest import START_MS, Shelf, StillClock

pytestmark = pytest.mark.asyncio

RUN = "alice.run_1"


async def full(store: Store, run: str) -> dict[str, Any]:
    loaded = await store.log.load(run)
    assert loaded is not None
    return {
        "journal": [(record.kind, record.key, record.data) for record in loaded.journal],
        "receipts": [answer.command_id for answer in loaded.receipts],
        "snapshot": loaded.snapshot,
        "header": loaded.header,
    }


# ── start ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_new_run_stands_at_its_first_batch_and_is_leased(store: Store) -> None:
    first = batch("a", "b", status="queued", wake_at=77, journal=(JournalRecord(kind="plan", key="p", data=b"{}"),))
    created = await again(store, RUN, first)
    assert created.new
    assert created.lease is not None
    assert created.lease.expires_at == START_MS + LEASE_MS
    header = created.header
    assert (header.run, header.head_seq, header.first_seq, header.status) == (RUN, 2, 1, "queued")
    assert (header.fence, header.mailbox, header.wake_at) == (created.lease.fence, 0, 77)
    assert await events(store, RUN) == ["a", "b"]
    assert (await full(store, RUN))["journal"] == [("plan", "p", b"{}")]


async def test_the_same_start_again_is_the_same_run_and_writes_nothing(store: Store) -> None:
    await begin(store, RUN, batch("a"))
    answer = await again(store, RUN, batch("other bytes"))
    assert (answer.new, answer.lease, answer.header.head_seq) == (False, None, 1)
    assert await events(store, RUN) == ["a"]


async def test_another_start_of_the_same_key_conflicts(store: Store) -> None:
    await begin(store, RUN)
    with pytest.raises(StartConflict):
        await again(store, RUN, batch("x"), fingerprint="another request")


async def test_a_start_whose_reply_was_lost_gets_its_lease_again(store: Store) -> None:
    first = batch("a")
    lease = await begin(store, RUN, first)
    answer = await again(store, RUN, first)
    assert (answer.new, answer.lease) == (True, lease)
    assert (await again(store, RUN, first, owner="another")).lease is None
    await store.log.append(RUN, fence=lease.fence, prev_seq=1, batch=batch("b"))
    assert (await again(store, RUN, first)).lease is None


async def test_racing_starts_have_one_winner(store: Store) -> None:
    answers = await asyncio.gather(*(again(store, RUN, batch(f"by {n}"), owner=f"{n}") for n in range(20)))
    assert sum(answer.new for answer in answers) == 1
    assert len({answer.header.epoch for answer in answers}) == 1


async def test_two_runs_have_two_epochs(store: Store) -> None:
    first, second = await again(store, RUN, batch("a")), await again(store, "bob.run_1", batch("a"))
    assert first.header.epoch != second.header.epoch


# ── append ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_batch_is_kept_whole(store: Store) -> None:
    lease = await begin(store, RUN, batch("a", snapshot=b"s1"))
    head = await store.log.append(
        RUN,
        fence=lease.fence,
        prev_seq=1,
        batch=batch(
            "b",
            "c",
            status="waiting",
            journal=(JournalRecord(kind="k", key="1", data=b"x"), JournalRecord(kind="k", key="1", data=b"y\n\x00")),
            receipts=(StoredReceipt(command_id="c1", fingerprint="f1", data=b'{"status":"accepted"}'),),
            wake_at=123,
            snapshot=b"s2",
        ),
    )
    assert head == 3
    loaded = await store.log.load(RUN)
    assert loaded is not None
    assert loaded.fingerprint == "request"
    assert [record.data for record in loaded.journal] == [b"x", b"y\n\x00"]
    assert loaded.receipts == (StoredReceipt(command_id="c1", fingerprint="f1", data=b'{"status":"accepted"}'),)
    assert loaded.snapshot is not None
    assert (loaded.snapshot.seq, loaded.snapshot.data) == (3, b"s2")
    assert (loaded.header.status, loaded.header.wake_at, loaded.header.head_seq) == ("waiting", 123, 3)
    await store.log.append(RUN, fence=lease.fence, prev_seq=3, batch=batch("d"))
    after = await full(store, RUN)
    assert (after["snapshot"].seq, after["header"].wake_at, after["header"].status) == (3, None, "running")


async def test_a_tool_result_of_ten_megabytes_comes_back_and_does_not_weigh_on_events(store: Store) -> None:
    lease = await begin(store, RUN)
    large = random.Random(1).randbytes(10 << 20)
    record = JournalRecord(kind="tool.result", key="call_1", data=large)
    await store.log.append(RUN, fence=lease.fence, prev_seq=1, batch=batch("b", journal=(record,), snapshot=large))
    assert await events(store, RUN) == ['{"seq":1}', "b"]
    loaded = await store.log.load(RUN)
    assert loaded is not None
    assert loaded.journal == (record,)
    assert loaded.snapshot is not None
    assert loaded.snapshot.data == large


async def test_law_1_what_was_acknowledged_is_there_after_a_restart(shelf: Shelf) -> None:
    lease = await begin(shelf.store, RUN, batch("a"))
    await shelf.store.log.append(
        RUN,
        fence=lease.fence,
        prev_seq=1,
        batch=batch("b", journal=(JournalRecord(kind="k", key="1", data=b"x"),), snapshot=b"s"),
    )
    await shelf.store.inbox.submit(RUN, b"stop")
    await shelf.store.records.put("thread", "t", b"{}")
    before = await shelf.store.log.load(RUN)
    store = await shelf.restart()
    after = await store.log.load(RUN)
    assert before is not None
    assert after is not None
    assert (after.journal, after.snapshot, after.fingerprint) == (before.journal, before.snapshot, before.fingerprint)
    assert (after.header.epoch, after.header.head_seq) == (before.header.epoch, 2)
    assert await events(store, RUN) == ["a", "b"]
    assert [inbound.data for inbound in await store.inbox.pending(RUN, after=0)] == [b"stop"]
    record = await store.records.get("thread", "t")
    assert record is not None
    assert record.data == b"{}"


@pytest.mark.parametrize("part", ["events", "receipts", "journal", "snapshot", "mailbox"])
async def test_law_2_a_refused_batch_leaves_no_part_behind(store: Store, part: str) -> None:
    lease = await begin(store, RUN)
    before = await full(store, RUN)
    parts: dict[str, Any] = {
        "events": (b"x",),
        "receipts": (StoredReceipt(command_id="c", fingerprint="f", data=b"{}"),),
        "journal": (JournalRecord(kind="k", key="1", data=b"x"),),
        "snapshot": b"s",
        "mailbox": 1,
    }
    refused = Batch(batch_id=f"refused-{part}", status="waiting", wake_at=5, **{part: parts[part]})
    with pytest.raises(Fenced):
        await store.log.append(RUN, fence=lease.fence - 1, prev_seq=1, batch=refused)
    with pytest.raises(Fenced):
        await store.log.append(RUN, fence=lease.fence, prev_seq=7, batch=refused)
    assert await full(store, RUN) == before
    assert await events(store, RUN) == ['{"seq":1}']


async def test_law_2_refusals_do_not_touch_the_batches_written_beside_them(store: Store) -> None:
    leases = [await begin(store, f"alice.run_{n}") for n in range(20)]
    outcomes = await asyncio.gather(
        *(
            store.log.append(lease.run, fence=lease.fence - n % 2, prev_seq=1, batch=batch(f"event of {n}"))
            for n, lease in enumerate(leases)
        ),
        store.log.append("alice.nobody", fence=1, prev_seq=1, batch=batch("x")),
        store.records.put("k", "r", b"", expect_version=9),
        again(store, "alice.run_3", batch("x"), fingerprint="another"),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes[-3:]] == [NoSuchRun, VersionConflict, StartConflict]
    for n, lease in enumerate(leases):
        assert isinstance(outcomes[n], Fenced) == bool(n % 2)
        assert await events(store, lease.run, after=1) == ([] if n % 2 else [f"event of {n}"])


async def test_law_3_the_writer_before_is_fenced_after_another_claims(store: Store) -> None:
    old = await begin(store, RUN)
    sent = batch("b")
    await store.log.append(RUN, fence=old.fence, prev_seq=1, batch=sent)
    new = await store.leases.claim(RUN, owner="two", now_ms=old.expires_at, lease_ms=LEASE_MS)
    assert new is not None
    assert new.fence > old.fence
    for late in (batch("c"), sent):  # also the batch that was written: its sender must learn that it is out
        with pytest.raises(Fenced):
            await store.log.append(RUN, fence=old.fence, prev_seq=2 if late is not sent else 1, batch=late)
    assert await store.log.append(RUN, fence=new.fence, prev_seq=2, batch=batch("c")) == 3


async def test_law_3_a_restart_fences_the_writers_before_it(shelf: Shelf) -> None:
    old = await begin(shelf.store, RUN)
    store = await shelf.restart()
    with pytest.raises(Fenced):
        await store.log.append(RUN, fence=old.fence, prev_seq=1, batch=batch("late"))
    assert await store.leases.renew(old, now_ms=START_MS, lease_ms=LEASE_MS) is None
    assert await store.leases.claim(RUN, owner="two", now_ms=START_MS, lease_ms=LEASE_MS) is not None


@pytest.mark.parametrize("prev_seq", [0, 1, 3, 99])
async def test_law_4_a_batch_from_another_place_is_refused(store: Store, prev_seq: int) -> None:
    lease = await begin(store, RUN, batch("a", "b"))
    with pytest.raises(Fenced):
        await store.log.append(RUN, fence=lease.fence, prev_seq=prev_seq, batch=batch("c"))


@pytest.mark.parametrize("lines", [("b", "c"), ()])
async def test_law_4_a_batch_sent_again_is_done_once(store: Store, lines: tuple[str, ...]) -> None:
    lease = await begin(store, RUN)
    sent = batch(*lines, receipts=(StoredReceipt(command_id="c1", fingerprint="f", data=b"{}"),))
    heads = [await store.log.append(RUN, fence=lease.fence, prev_seq=1, batch=sent) for _ in range(3)]
    assert set(heads) == {1 + len(lines)}
    assert await events(store, RUN, after=1) == list(lines)
    assert (await full(store, RUN))["receipts"] == ["c1"]


async def test_law_4_only_the_last_batch_is_recognised(store: Store) -> None:
    lease = await begin(store, RUN)
    first = batch("b")
    await store.log.append(RUN, fence=lease.fence, prev_seq=1, batch=first)
    await store.log.append(RUN, fence=lease.fence, prev_seq=2, batch=batch("c"))
    with pytest.raises(Fenced):
        await store.log.append(RUN, fence=lease.fence, prev_seq=1, batch=first)


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
async def test_law_6_an_ended_run_takes_receipts_and_journal_but_no_events(store: Store, status: str) -> None:
    lease = await begin(store, RUN)
    await store.inbox.submit(RUN, b"late command")
    await store.log.append(RUN, fence=lease.fence, prev_seq=1, batch=batch("the end", status=status))
    for refused in (batch("one more", status=status), batch(status="running")):
        with pytest.raises(Fenced):
            await store.log.append(RUN, fence=lease.fence, prev_seq=2, batch=refused)
    late = batch(
        status=status,
        mailbox=1,
        receipts=(StoredReceipt(command_id="late", fingerprint="f", data=b"{}"),),
        journal=(JournalRecord(kind="k", key="1", data=b"x"),),
    )
    assert await store.log.append(RUN, fence=lease.fence, prev_seq=2, batch=late) == 2
    after = await full(store, RUN)
    assert (after["receipts"], after["journal"], after["header"].status) == (["late"], [("k", "1", b"x")], status)


async def test_a_run_that_is_not_there(store: Store) -> None:
    with pytest.raises(NoSuchRun):
        await store.log.append(RUN, fence=1, prev_seq=0, batch=batch("a"))
    with pytest.raises(NoSuchRun):
        await store.inbox.submit(RUN, b"x")
    assert await store.log.load(RUN) is None
    assert await store.log.delete(RUN) is False
    assert await store.inbox.pending(RUN, after=0) == ()
    assert await store.leases.claim(RUN, owner="one", now_ms=0, lease_ms=1) is None
    assert await reset_reason(store, RUN) == "gone"


async def test_an_event_of_two_lines_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="one line"):
        await begin(store, RUN, batch("a\nb"))
    lease = await begin(store, RUN)
    with pytest.raises(ValueError, match="one line"):
        await store.log.append(RUN, fence=lease.fence, prev_seq=1, batch=batch("a", "b\n"))


async def test_a_cancelled_caller_does_not_take_its_batch_back(store: Store) -> None:
    lease = await begin(store, RUN)
    tasks = [
        spawn(store.log.append(RUN, fence=lease.fence, prev_seq=1 + n, batch=batch(f"{n}")), name=f"append {n}")
        for n in range(10)
    ]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    # Written after them by the same store, so what they began is settled.
    await store.records.put("k", "after", b"")
    assert await events(store, RUN, after=1) == [f"{n}" for n in range(10)]


async def test_fifty_runs_at_once_stay_apart_and_in_order(store: Store) -> None:
    async def drive(run: str) -> list[str]:
        randomly = random.Random(run)
        lease = await begin(store, run, batch(f"{run} 1"))
        written = [f"{run} 1"]
        for _ in range(20):
            more = [f"{run} {len(written) + n}" for n in range(1, 1 + randomly.randrange(4))]
            head = await store.log.append(run, fence=lease.fence, prev_seq=len(written), batch=batch(*more))
            written += more
            assert head == len(written)
            # Durable before visible also means: visible once acknowledged.
            assert await events(store, run, after=max(0, head - 3)) == written[max(0, head - 3) :]
        return written

    runs = [f"alice.run_{n}" for n in range(50)]
    written = await asyncio.gather(*map(drive, runs))
    for run, lines in zip(runs, written, strict=True):
        assert await events(store, run) == lines


# ── read ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_law_5_every_page_begins_where_the_one_before_ended(store: Store) -> None:
    lease = await begin(store, RUN, batch(*(f"e{n}" for n in range(1, 8))))
    await store.log.append(RUN, fence=lease.fence, prev_seq=7, batch=batch("e8"))
    await store.log.append(RUN, fence=lease.fence, prev_seq=8, batch=batch("e9", "e10", "e11"))
    every = [f"e{n}" for n in range(1, 12)]
    for after in range(12):  # from the middle of a batch too
        assert await events(store, RUN, after=after) == every[after:]
        for max_events in (1, 2, 5):
            assert await events(store, RUN, after=after, max_events=max_events) == every[after : after + max_events]


async def test_a_page_is_bounded_by_bytes_but_has_one_event(store: Store) -> None:
    lease = await begin(store, RUN, batch("12345", "67890", "abc"))
    await store.log.append(RUN, fence=lease.fence, prev_seq=3, batch=batch("d", "x" * 50, "e"))
    assert await events(store, RUN, max_bytes=0) == ["12345"]
    assert await events(store, RUN, max_bytes=9) == ["12345"]
    assert await events(store, RUN, max_bytes=10) == ["12345", "67890"]
    assert await events(store, RUN, max_bytes=14) == ["12345", "67890", "abc", "d"]
    assert await events(store, RUN, after=4, max_bytes=10) == ["x" * 50]
    assert await events(store, RUN, after=1, max_bytes=8) == ["67890", "abc"]


async def test_large_events_are_read_back_from_anywhere(store: Store) -> None:
    large = [f"{n}" * 100_000 for n in range(10)]
    lease = await begin(store, RUN, batch(*large))
    await store.log.append(RUN, fence=lease.fence, prev_seq=10, batch=batch("small", "", "last"))
    every = [*large, "small", "", "last"]
    for after in range(13):
        assert await events(store, RUN, after=after, max_bytes=1 << 30) == every[after:]
    assert await events(store, RUN, after=4, max_bytes=250_000) == every[4:6]


async def test_the_head_is_an_empty_page_with_the_header_of_that_moment(store: Store) -> None:
    lease = await begin(store, RUN)
    await store.log.append(RUN, fence=lease.fence, prev_seq=1, batch=batch("end", status="completed"))
    page = await store.log.read(RUN, after=2)
    assert isinstance(page, Page)
    assert (page.first, page.events, page.header.head_seq, page.header.status) == (3, (), 2, "completed")


async def test_what_cannot_be_read_says_why(shelf: Shelf) -> None:
    created = await again(shelf.store, RUN, batch("a", "b", "c", "d"))
    epoch = created.header.epoch
    assert isinstance(await shelf.store.log.read(RUN, after=0, epoch=epoch), Page)
    assert await reset_reason(shelf.store, RUN, after=0, epoch="another") == "epoch"
    assert await reset_reason(shelf.store, RUN, after=5) == "ahead"
    assert await reset_reason(shelf.store, RUN, after=99, epoch="another") == "epoch"
    store = await shelf.trim(RUN, 3)
    for after in (0, 1):
        assert await reset_reason(store, RUN, after=after, epoch=epoch) == "trimmed"
    assert await events(store, RUN, after=2) == ["c", "d"]
    await store.log.delete(RUN)
    assert await reset_reason(store, RUN, after=0, epoch=epoch) == "gone"


async def test_delete_erases_everything_of_the_run_and_nothing_else(store: Store) -> None:
    parts: dict[str, Any] = {
        "journal": (JournalRecord(kind="k", key="1", data=b"x"),),
        "receipts": (StoredReceipt(command_id="c", fingerprint="f", data=b"{}"),),
        "snapshot": b"s",
    }
    for run in (RUN, "alice.other"):
        await begin(store, run, batch("a", **parts))
        await store.inbox.submit(run, b"cmd")
    old = await store.log.load(RUN)
    # In one turn with what surrounds it: the run that comes after it under the same key is another one.
    deleted, lease = await asyncio.gather(store.log.delete(RUN), begin(store, RUN, batch("new")))
    assert deleted is True
    fresh = await store.log.load(RUN)
    assert fresh is not None
    assert old is not None
    assert (fresh.journal, fresh.receipts, fresh.snapshot) == ((), (), None)
    assert fresh.header.epoch != old.header.epoch
    assert await events(store, RUN) == ["new"]
    assert await store.inbox.pending(RUN, after=0) == ()
    assert await store.inbox.submit(RUN, b"first") == 1
    assert await store.log.append(RUN, fence=lease.fence, prev_seq=1, batch=batch("b")) == 2
    kept = await full(store, "alice.other")
    assert (len(kept["journal"]), kept["receipts"], kept["snapshot"].data) == (1, ["c"], b"s")
    assert len(await store.inbox.pending("alice.other", after=0)) == 1


async def test_a_batch_written_just_before_a_delete_goes_with_it(store: Store) -> None:
    lease = await begin(store, RUN)
    last = batch("b", journal=(JournalRecord(kind="k", key="1", data=b"x"),))
    outcomes = await asyncio.gather(
        store.records.put("k", "r", b""),  # may be taken alone; what follows is one group
        store.log.append(RUN, fence=lease.fence, prev_seq=1, batch=last),
        store.log.delete(RUN),
        begin(store, RUN, batch("new")),
    )
    assert (outcomes[1], outcomes[2]) == (2, True)
    loaded = await store.log.load(RUN)
    assert loaded is not None
    assert loaded.journal == ()
    assert await events(store, RUN) == ["new"]


# ── leases ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_held_run_is_not_given_to_another(store: Store) -> None:
    lease = await begin(store, RUN)
    for now_ms in (START_MS, lease.expires_at - 1):
        assert await store.leases.claim(RUN, owner="two", now_ms=now_ms, lease_ms=1) is None
        assert await store.leases.claim(None, owner="two", now_ms=now_ms, lease_ms=1) is None
        assert await store.leases.claim(None, owner="one", now_ms=now_ms, lease_ms=1) is None
    taken = await store.leases.claim(RUN, owner="two", now_ms=lease.expires_at, lease_ms=50)
    assert taken is not None
    assert (taken.run, taken.expires_at) == (RUN, lease.expires_at + 50)
    assert taken.fence > lease.fence


async def test_the_same_owner_claiming_by_name_gets_a_new_fence(store: Store) -> None:
    lease = await begin(store, RUN)
    anew = await store.leases.claim(RUN, owner="one", now_ms=START_MS, lease_ms=LEASE_MS)
    assert anew is not None
    assert anew.fence > lease.fence
    with pytest.raises(Fenced):
        await store.log.append(RUN, fence=lease.fence, prev_seq=1, batch=batch("b"))


async def test_renewal_moves_the_end_until_the_lease_is_lost(store: Store) -> None:
    lease = await begin(store, RUN)
    later = await store.leases.renew(lease, now_ms=START_MS + 5_000, lease_ms=LEASE_MS)
    assert later is not None
    assert (later.fence, later.expires_at) == (lease.fence, START_MS + 15_000)
    assert await store.leases.claim(RUN, owner="two", now_ms=lease.expires_at, lease_ms=1) is None
    taken = await store.leases.claim(RUN, owner="two", now_ms=later.expires_at, lease_ms=LEASE_MS)
    assert taken is not None
    assert await store.leases.renew(later, now_ms=later.expires_at, lease_ms=LEASE_MS) is None
    await store.leases.release(later)  # lost: no error, and it takes nothing from the new owner
    assert await store.leases.claim(RUN, owner="three", now_ms=later.expires_at, lease_ms=1) is None
    await store.log.delete(RUN)
    assert await store.leases.renew(taken, now_ms=later.expires_at, lease_ms=LEASE_MS) is None
    await store.leases.release(taken)


async def test_a_released_run_is_free_at_once(store: Store) -> None:
    lease = await begin(store, RUN)
    await store.leases.release(lease)
    assert await store.leases.renew(lease, now_ms=START_MS, lease_ms=LEASE_MS) is None
    taken = await store.leases.claim(RUN, owner="two", now_ms=START_MS, lease_ms=LEASE_MS)
    assert taken is not None
    assert taken.fence > lease.fence


async def due(store: Store, now_ms: int, *, lease_ms: int = LEASE_MS) -> str | None:
    lease = await store.leases.claim(None, owner="poller", now_ms=now_ms, lease_ms=lease_ms)
    return None if lease is None else lease.run


async def let_go(store: Store, run: str, first: Any) -> None:
    await store.leases.release(await begin(store, run, first))


async def test_due_timers_come_in_their_order(store: Store) -> None:
    for name, wake_at in (("late", 3_000), ("first", 1_000), ("never", None), ("second", 2_000)):
        await let_go(store, f"a.{name}", batch("x", status="waiting", wake_at=wake_at))
    assert await due(store, 999) is None
    assert await due(store, 2_500) == "a.first"
    assert await due(store, 2_500) == "a.second"
    assert await due(store, 2_500) is None
    assert await due(store, 3_000) == "a.late"
    assert await due(store, 4_000) is None


async def test_a_running_run_is_due_when_its_owner_is_gone(store: Store) -> None:
    lease = await begin(store, RUN, batch("x", status="running"))
    assert await due(store, lease.expires_at - 1) is None
    assert await due(store, lease.expires_at, lease_ms=7) == RUN
    assert await due(store, lease.expires_at + 6) is None
    assert await due(store, lease.expires_at + 7) == RUN


async def test_a_running_run_given_back_is_due_at_once(store: Store) -> None:
    await let_go(store, RUN, batch("x", status="running"))
    assert await due(store, START_MS) == RUN


async def test_a_running_run_is_due_after_a_restart(shelf: Shelf) -> None:
    await begin(shelf.store, RUN, batch("x", status="running"))
    store = await shelf.restart()
    assert await due(store, START_MS) == RUN


@pytest.mark.parametrize("status", ["queued", "waiting"])
async def test_unread_inbox_makes_a_run_due(store: Store, status: str) -> None:
    await let_go(store, RUN, batch("x", status=status))
    assert await due(store, START_MS) is None
    await store.inbox.submit(RUN, b"wake up")
    lease = await store.leases.claim(None, owner="poller", now_ms=START_MS, lease_ms=LEASE_MS)
    assert lease is not None
    await store.log.append(RUN, fence=lease.fence, prev_seq=1, batch=batch(status=status, mailbox=1))
    await store.leases.release(lease)
    assert await due(store, START_MS) is None


async def test_unread_inbox_does_not_wait_for_a_timer(store: Store) -> None:
    await let_go(store, RUN, batch("x", status="waiting", wake_at=START_MS * 2))
    assert await due(store, START_MS) is None
    await store.inbox.submit(RUN, b"wake up")
    assert await due(store, START_MS) == RUN


async def test_a_timer_that_was_set_anew_is_not_due(store: Store) -> None:
    lease = await begin(store, RUN, batch("x", status="waiting", wake_at=500))
    await store.log.append(RUN, fence=lease.fence, prev_seq=1, batch=batch(status="waiting", wake_at=2_000))
    await store.leases.release(lease)
    assert await due(store, 1_999) is None
    assert await due(store, 2_000) == RUN


async def test_an_ended_run_is_claimed_by_name_only(store: Store) -> None:
    await let_go(store, RUN, batch("x", status="completed", wake_at=1))
    await store.inbox.submit(RUN, b"late command")
    assert await due(store, START_MS * 10) is None
    assert await store.leases.claim(RUN, owner="one", now_ms=START_MS, lease_ms=1) is not None


async def test_a_run_claimed_in_vain_lets_the_others_go_first(store: Store) -> None:
    for name in ("a.broken", "a.good"):
        await let_go(store, name, batch("x", status="running"))
    lease = await store.leases.claim(None, owner="poller", now_ms=START_MS + 1, lease_ms=LEASE_MS)
    assert lease is not None
    await store.leases.release(lease)
    assert await due(store, START_MS + 2) != lease.run


async def test_many_pollers_never_get_the_same_run(store: Store) -> None:
    for n in range(10):
        await let_go(store, f"a.run_{n}", batch("x", status="running"))
    found = await asyncio.gather(
        *(store.leases.claim(None, owner=f"{n}", now_ms=START_MS, lease_ms=LEASE_MS) for n in range(15))
    )
    claimed = [lease.run for lease in found if lease is not None]
    assert sorted(claimed) == [f"a.run_{n}" for n in range(10)]


# ── inbox ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_commands_keep_their_positions_and_are_forgotten_when_consumed(shelf: Shelf) -> None:
    store = shelf.store
    lease = await begin(store, RUN)
    assert [await store.inbox.submit(RUN, b"%d" % n) for n in (1, 2, 3)] == [1, 2, 3]
    waiting = await store.inbox.pending(RUN, after=1)
    assert [(inbound.position, inbound.data) for inbound in waiting] == [(2, b"2"), (3, b"3")]
    await store.log.append(RUN, fence=lease.fence, prev_seq=1, batch=batch("b", mailbox=2))
    assert [inbound.position for inbound in await store.inbox.pending(RUN, after=0)] == [3]
    await store.log.append(RUN, fence=lease.fence, prev_seq=2, batch=batch("c", mailbox=3))
    await store.log.append(RUN, fence=lease.fence, prev_seq=3, batch=batch("d"))
    store = await shelf.restart()
    assert (await full(store, RUN))["header"].mailbox == 3
    assert await store.inbox.pending(RUN, after=0) == ()
    assert await store.inbox.submit(RUN, b"4") == 4  # a position is never used twice


async def test_what_was_not_submitted_cannot_be_consumed(store: Store) -> None:
    lease = await begin(store, RUN)
    await store.inbox.submit(RUN, b"1")
    with pytest.raises(Fenced):
        await store.log.append(RUN, fence=lease.fence, prev_seq=1, batch=batch("b", mailbox=2))
    with pytest.raises(Fenced):
        await begin(store, "alice.new", batch("a", mailbox=1))
    await store.log.append(RUN, fence=lease.fence, prev_seq=1, batch=batch("b", mailbox=1))
    await store.log.append(RUN, fence=lease.fence, prev_seq=2, batch=batch("c", mailbox=0))
    assert (await full(store, RUN))["header"].mailbox == 1


async def test_racing_commands_get_different_positions(store: Store) -> None:
    await begin(store, RUN)
    positions = await asyncio.gather(*(store.inbox.submit(RUN, b"%d" % n) for n in range(50)))
    assert sorted(positions) == list(range(1, 51))
    waiting = await store.inbox.pending(RUN, after=0)
    assert [inbound.position for inbound in waiting] == list(range(1, 51))
    assert {inbound.position: inbound.data for inbound in waiting} == {
        position: b"%d" % n for n, position in enumerate(positions)
    }


# ── records ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_record_changes_only_from_the_version_that_was_read(store: Store) -> None:
    assert await store.records.get("thread", "t") is None
    first = await store.records.put("thread", "t", b"1", expect_version=0)
    assert (first.id, first.version, first.data) == ("t", 1, b"1")
    with pytest.raises(VersionConflict):
        await store.records.put("thread", "t", b"x", expect_version=0)
    assert (await store.records.put("thread", "t", b"2", expect_version=1)).version == 2
    with pytest.raises(VersionConflict):
        await store.records.put("thread", "t", b"x", expect_version=1)
    with pytest.raises(VersionConflict):
        await store.records.put("thread", "absent", b"x", expect_version=1)
    assert (await store.records.put("thread", "t", b"3")).version == 3
    found = await store.records.get("thread", "t")
    assert found is not None
    assert (found.version, found.data) == (3, b"3")
    assert await store.records.get("grant", "t") is None


async def test_racing_changes_of_a_record_have_one_winner(store: Store) -> None:
    await store.records.put("thread", "t", b"0")
    outcomes = await asyncio.gather(
        *(store.records.put("thread", "t", b"%d" % n, expect_version=1) for n in range(20)), return_exceptions=True
    )
    assert sum(isinstance(outcome, VersionConflict) for outcome in outcomes) == 19


async def test_records_are_listed_by_id_in_both_directions(store: Store) -> None:
    ids = ["b", "a", "Z", "é", "aa", "z", "\U0001f600", "￿"]
    for id_ in ids:
        await store.records.put("k", id_, id_.encode())
    await store.records.put("other", "a", b"")
    bytewise = sorted(ids, key=str.encode)
    assert [record.id for record in await store.records.list("k")] == bytewise
    assert [record.id for record in await store.records.list("k", descending=True)] == bytewise[::-1]
    assert [record.id for record in await store.records.list("k", after="a", limit=2)] == ["aa", "b"]
    assert [record.id for record in await store.records.list("k", after="b", limit=2, descending=True)] == ["aa", "a"]
    assert [record.id for record in await store.records.list("k", after="ab", limit=1)] == ["b"]
    assert list(await store.records.list("k", after=bytewise[-1])) == []
    assert list(await store.records.list("k", after=bytewise[0], descending=True)) == []
    assert list(await store.records.list("none")) == []


async def test_a_record_is_deleted_at_the_version_that_was_read(store: Store) -> None:
    await store.records.put("k", "a", b"1")
    await store.records.put("k", "a", b"2")
    with pytest.raises(VersionConflict):
        await store.records.delete("k", "a", expect_version=1)
    assert await store.records.delete("k", "a", expect_version=2) is True
    assert await store.records.delete("k", "a", expect_version=2) is False
    assert await store.records.get("k", "a") is None
    assert (await store.records.put("k", "a", b"3", expect_version=0)).version == 1


# ── open and close ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_closed_store_refuses_and_closes_twice(shelf: Shelf) -> None:
    lease = await begin(shelf.store, RUN)
    await shelf.store.aclose()
    await shelf.store.aclose()
    calls = (
        shelf.store.log.append(RUN, fence=lease.fence, prev_seq=1, batch=batch("b")),
        shelf.store.log.load(RUN),
        shelf.store.log.delete(RUN),
        shelf.store.leases.claim(None, owner="one", now_ms=0, lease_ms=1),
        shelf.store.inbox.pending(RUN, after=0),
        shelf.store.records.list("k"),
    )
    for call in calls:
        with pytest.raises(LogUnavailable, match="not open"):
            await call
    await shelf.store.open()
    assert await events(shelf.store, RUN) == ['{"seq":1}']


async def test_closing_writes_what_was_begun(shelf: Shelf) -> None:
    lease = await begin(shelf.store, RUN)
    writes = [
        spawn(shelf.store.log.append(RUN, fence=lease.fence, prev_seq=1 + n, batch=batch(f"{n}")), name=f"append {n}")
        for n in range(30)
    ]
    await asyncio.sleep(0)
    store = await shelf.restart()
    assert await asyncio.gather(*writes) == list(range(2, 32))
    assert await events(store, RUN, after=1) == [f"{n}" for n in range(30)]


async def test_a_lease_begins_by_the_clock_the_store_was_made_with(store: Store, clock: StillClock) -> None:
    clock.ms = START_MS + 3
    assert (await begin(store, RUN)).expires_at == START_MS + 3 + LEASE_MS
