"""Coming late to a run: what it costs, where a replay gives way to a snapshot, and merged replays of any length."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream.log import Batch, Log, MemoryStore
from midstream.runs import Limits, Port, SubscriptionLost, subscription
from midstream.runs.attachment import asked, standing_of
from midstream.runs.keys import namespace
from midstream.runs.subscription import Subscription, Window
from midstream.runs.tail import Feed
from midstream_protocol.codec import decode_event, event_bytes, iso_ms
from midstream_protocol.commands import ApprovalRespond, InputRespond
from midstream_protocol.events import (
    Event,
    MessageCompleted,
    MessageDelta,
    MessageStarted,
    ReasoningDelta,
    RunCompleted,
    RunStarted,
    ToolProgress,
    Usage,
)
from midstream_protocol.frames import RunReset
from midstream_protocol.view import fold_all, view_from_builtins
from tests.runs.conftest import Open
from tests.runs.house import types
from tests.runs.say import approval, call_record, completed, delta, message, question, said, started
from tests.runs.simple import ME

NO_USAGE = Usage(input_tokens=0, output_tokens=0, cached_input_tokens=0, total_tokens=0, by_model={})


def encoded(payloads: list[Any]) -> list[bytes]:
    return [event_bytes(seq=seq, run_id="r", ts=iso_ms(seq), payload=p) for seq, p in enumerate(payloads, 1)]


def talk(words: list[Any]) -> list[bytes]:
    """A whole run in which `words` were said."""
    opened = [MessageStarted(message_id=m, role="assistant", agent="a") for m in "xy"]
    ended = [
        *(MessageCompleted(message_id=m, role="assistant", text="…", state="complete") for m in "xy"),
        RunCompleted(result=None, usage=NO_USAGE, digest="d"),
    ]
    return encoded([RunStarted(agent="a", thread_id="t"), *opened, *words, *ended])


async def stored(events: list[bytes]) -> tuple[Log, str]:
    """An ended run with these events, and its epoch."""
    store = MemoryStore()
    await store.open()
    batch = Batch(batch_id="b", status="completed", events=tuple(events))
    made = await store.log.create("n.r", fingerprint="f", batch=batch, owner="o", lease_ms=1)
    return store.log, made.header.epoch


def cold(events: list[bytes], *, epoch: str) -> Feed:
    """The feed of a run that nobody here has written."""
    return Feed(run="n.r", run_id="r", epoch=epoch, head=len(events), ended=True, events=8, size=1 << 20)


async def everything(reader: Subscription) -> list[bytes]:
    lines: list[bytes] = []
    while not reader.ended:
        pulled = await reader.pull()
        assert pulled
        lines += pulled
    return lines


def gapless(events: list[Event], since: int) -> int:
    cursor = since
    for event in events:
        assert (event.from_ if event.from_ is not None else event.seq) == cursor + 1
        cursor = event.seq
    return cursor


WORDS = st.lists(
    st.one_of(
        st.builds(MessageDelta, message_id=st.sampled_from("xy"), text=st.text(max_size=4)),
        st.builds(ReasoningDelta, message_id=st.sampled_from("xy"), text=st.text(max_size=4)),
        st.builds(ToolProgress, tool_call_id=st.just("c"), text=st.none() | st.text(max_size=3)),
    ),
    max_size=40,
)


@pytest.fixture(scope="module", autouse=True)
def _small_pages() -> Iterator[None]:
    """Pages of three events, so that nearly everything crosses their borders."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subscription, "MERGE_EVENTS", 3)
        patch.setattr(subscription, "MERGE_BYTES", 700)
        yield


@given(WORDS, st.booleans())
def test_a_merged_replay_from_every_seq_folds_to_the_same_view(words: list[Any], in_memory: bool) -> None:
    async def check() -> None:
        events = talk(words)
        log, epoch = await stored(events)
        decoded = [decode_event(data) for data in events]
        whole = fold_all(decoded)
        for since in range(len(events) + 1):
            feed = cold(events, epoch=epoch)
            if in_memory:
                feed = Feed(run="n.r", run_id="r", epoch=epoch, head=0, ended=False, events=999, size=1 << 20)
                feed.publish(events, ended=True)
            reader = Subscription(feed=feed, log=log, cursor=since, wake=lambda: None, merge_until=len(events))
            short = [decode_event(data) for data in await everything(reader)]
            assert gapless(short, since) == len(events)
            assert fold_all(short, fold_all(decoded[:since])) == whole
            # What was not joined kept its bytes.
            assert all(event == decoded[event.seq - 1] for event in short if event.from_ is None)

    asyncio.run(check())


@pytest.mark.asyncio
async def test_a_message_over_many_pages_is_a_few_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscription, "MERGE_EVENTS", 100)
    monkeypatch.setattr(subscription, "MERGE_BYTES", 16 * 1024)
    words = [MessageDelta(message_id="x", text=f"{n:04} ") for n in range(10_000)]
    events = talk(words)
    log, epoch = await stored(events)
    feed = cold(events, epoch=epoch)
    reader = Subscription(feed=feed, log=log, cursor=0, wake=lambda: None, merge_until=len(events))
    pulls = []
    while not reader.ended:
        pulls.append(await reader.pull())
        # Bounded: what is joined is handed out before it is much more than so much.
        assert sum(map(len, pulls[-1])) <= 16 * 1024 + 100 * 20 + 1000
    # 50 kB of text.
    assert len(pulls) <= 5
    assert gapless([decode_event(data) for pulled in pulls for data in pulled], 0) == len(events)


@pytest.mark.asyncio
async def test_how_a_run_stands_is_told_as_its_view_has_it(house: Open) -> None:
    async def body(port: Port) -> None:
        await port.ask(approval(port), journal=[call_record()])
        await port.record(started(port))
        await port.record(completed())
        await port.ask(question(port))
        await port.end("ok")

    server = await house(body)
    run = await server.start()
    feed = server.registry._living._feeds[f"{namespace(ME.id)}.{run}"]

    async def same() -> str:
        attached = (await server.attach(run)).attachment.frame("c")
        standing = standing_of(await server.registry.view(ME, run))
        assert (attached.status, attached.thread_id) == (standing.status, standing.thread_id)
        assert asked(feed.questions) == list(standing.pending)
        assert [item["kind"] for item in attached.pending] == [item["kind"] for item in standing.pending]
        return attached.status

    first = await server.attach(run)
    await first.until("run.status")
    assert await same() == "waiting"
    await server.send(run, ApprovalRespond(approval_id="a1", decision="approve"))
    await first.until("input.required")
    await first.until("run.status")
    assert await same() == "waiting"
    await server.send(run, InputRespond(input_id="i1", answer="x"))
    await first.all()
    assert await same() == "completed"


@pytest.mark.asyncio
async def test_attaching_folds_nothing(house: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(port: Port) -> None:
        await port.emit(message())
        for n in range(50):
            await port.record(delta(f"{n} "))
        await port.record(said("".join(f"{n} " for n in range(50))))
        await port.end((await port.ask(question(port))).value)

    async def never(*_: Any) -> None:
        raise AssertionError("the log was folded")

    server = await house(body)
    run = await server.start()
    live = await server.attach(run)
    await live.until("run.status")
    monkeypatch.setattr(server.registry, "_view_now", never)
    for replay in ("full", "merged"):
        attached = (await server.attach(run, replay=replay)).attachment.frame("c")
        assert (attached.status, len(attached.pending)) == ("waiting", 1)
    await server.send(run, InputRespond(input_id="i1", answer="x"))
    await live.all()
    thread = live.attachment.frame("c").thread_id
    live.close()
    await server.shut()
    await server.open()
    monkeypatch.setattr(server.registry, "_view_now", never)
    # Nobody here knows it: its first event and its header say enough.
    for replay in ("full", "merged"):
        late = await server.attach(run, replay=replay)
        attached = late.attachment.frame("c")
        assert (attached.status, attached.thread_id, attached.can) == ("completed", thread, [])
        assert types(await late.all())[-1] == "run.completed"
    assert (await server.registry.place(ME, run)).head_seq == len(live.lines)


async def chatter(port: Port) -> None:
    await port.emit(message())
    for n in range(60):
        await port.record(delta(f"{n} "))
    await port.record(said("".join(f"{n} " for n in range(60))))
    await port.end("ok")


@pytest.mark.asyncio
async def test_too_much_to_replay_is_a_snapshot(house: Open) -> None:
    server = await house(chatter, limits=Limits(max_replay_events=20, coalesce_ms=0))
    run = await server.start()
    reader = await server.attach(run)
    await reader.all()
    head = (await server.registry.place(ME, run)).head_seq
    for since, reason in ((head - 21, "too_far"), (head - 20, None), (head, None)):
        late = await server.attach(run, since_seq=since)
        reset = late.attachment.reset
        assert (reset.reason if reset is not None else None) == reason
        if reset is not None:
            assert reset.snapshot is not None
            assert reset.snapshot["status"] == "completed"
            assert reset.snapshot_seq == head
            assert await late.all() == []
        else:
            assert [event.seq for event in await late.all()] == list(range(since + 1, head + 1))
    # Merged it comes to a few events.
    joined = await server.attach(run, since_seq=0, replay="merged")
    assert joined.attachment.reset is None
    assert gapless(await joined.all(), 0) == head
    # An epoch that is another says so first.
    assert (await server.attach(run, since_seq=0, epoch="other")).attachment.reset.reason == "epoch"


@pytest.mark.asyncio
async def test_a_live_reader_that_falls_too_far_behind_goes_on_from_a_snapshot(house: Open) -> None:
    server = await house(chatter, limits=Limits(max_replay_events=20, tail_events=4, coalesce_ms=0))
    run = await server.start()
    reader = (await server.attach(run)).attachment.subscription
    everything_ = await server.attach(run)
    first = list(await reader.pull(max_events=1))
    while not reader._feed.ended:
        # It may fall behind itself where the log is slow.
        with contextlib.suppress(SubscriptionLost):
            await everything_.all()
    with pytest.raises(SubscriptionLost) as lost_:
        await reader.pull()
    reset = lost_.value.reset
    assert reset.reason == "too_far"
    assert reset.snapshot is not None
    assert reader.cursor == reset.snapshot_seq
    rest = [decode_event(line) for line in await everything(reader)]
    assert fold_all(rest, view_from_builtins(reset.snapshot)) == await server.registry.view(ME, run)
    assert len(first) == 1


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("text", "count", "fits"), [("x" * 1000, 2000, False), ("x" * 1000, 900, True), ("x", 2000, True)]
)
async def test_a_replay_that_turns_out_too_big_stops_early(text: str, count: int, fits: bool) -> None:
    async def resync(reason: str) -> RunReset:
        return RunReset(run_id="r", reason=reason, epoch=epoch, snapshot={}, snapshot_seq=count)

    events = encoded([MessageDelta(message_id="x", text=text)] * count)
    log, epoch = await stored(events)
    reader = Subscription(
        feed=cold(events, epoch=epoch),
        log=log,
        cursor=0,
        wake=lambda: None,
        window=Window(events=5_000, size=1_200_000),
        resync=resync,
    )
    if fits:
        assert await everything(reader) == events
        return
    with pytest.raises(SubscriptionLost) as lost:
        await everything(reader)
    assert lost.value.reset.reason == "too_far"


@pytest.mark.asyncio
async def test_how_big_a_replay_will_be_is_known_before_megabytes_were_sent() -> None:
    events = encoded([MessageDelta(message_id="x", text="x" * 1000)] * 2000)
    log, epoch = await stored(events)
    window = Window(events=5_000, size=1_200_000)
    reader = Subscription(feed=cold(events, epoch=epoch), log=log, cursor=0, wake=lambda: None, window=window)
    with pytest.raises(SubscriptionLost):
        await everything(reader)
    assert sum(map(len, events[: reader.cursor])) < 400_000


@pytest.mark.asyncio
async def test_a_compacted_run_is_read_from_its_snapshot(house: Open) -> None:
    server = await house(chatter)
    run = await server.start()
    reader = await server.attach(run)
    await reader.all()
    view = await server.registry.view(ME, run)
    head, epoch = len(reader.lines), reader.attachment.frame("c").epoch
    key = f"{namespace(ME.id)}.{run}"
    reader.close()
    assert await server.store.log.compact(key, first_seq=head, snapshot=msgspec.json.encode(view))
    await server.shut()
    await server.open()
    assert await server.registry.view(ME, run) == view
    late = await server.attach(run, since_seq=3)
    reset = late.attachment.reset
    assert reset is not None
    assert (reset.reason, reset.snapshot_seq, reset.epoch) == ("trimmed", head, epoch)
    assert view_from_builtins(reset.snapshot) == view
    assert late.attachment.frame("c").first_seq == head
    assert late.attachment.frame("c").status == "completed"
    assert await late.all() == []
    # The last event is there still.
    last = await server.attach(run, since_seq=head - 1)
    assert last.attachment.reset is None
    assert types(await last.all()) == ["run.completed"]
    assert last.lines == reader.lines[-1:]


@pytest.mark.asyncio
async def test_a_run_that_goes_while_it_is_read_is_gone() -> None:
    events = talk([])
    log, epoch = await stored(events)
    reader = Subscription(feed=cold(events, epoch=epoch), log=log, cursor=0, wake=lambda: None)
    await reader.pull(max_events=1)
    await log.delete("n.r")
    with pytest.raises(SubscriptionLost) as lost:
        await reader.pull()
    assert (lost.value.reset.reason, lost.value.reset.snapshot) == ("gone", None)
