"""A merged replay is the same run told in fewer events: nothing missing, nothing twice, the same view."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream.log import MemoryStore
from midstream.runs.merging import merged
from midstream.runs.subscription import Subscription
from midstream.runs.tail import Feed
from midstream_protocol.codec import decode_event, event_bytes, iso_ms
from midstream_protocol.events import (
    Chunk,
    MessageCompleted,
    MessageDelta,
    MessageStarted,
    Notice,
    Origin,
    ReasoningDelta,
    RunStarted,
    RunStep,
    ToolProgress,
    ToolRetrying,
    ToolStarted,
)
from midstream_protocol.order import verify
from midstream_protocol.view import fold_all

MESSAGES = ("m1", "m2")
CALLS = ("t1", "t2")


def begun() -> list[Any]:
    """Everything that may be added to is open."""
    return [
        RunStarted(agent="a", thread_id="t"),
        RunStep(step_id="s1", state="started", kind="turn", title="", agent="a"),
        *(MessageStarted(message_id=m, role="assistant", agent="a") for m in MESSAGES),
        *(ToolStarted(tool_call_id=c, tool="x", label="X", args_preview={}, args_digest="d", attempt=1) for c in CALLS),
    ]


TEXT = st.text(max_size=3)
FRACTION = st.none() | st.floats(0, 1)
PAYLOADS = st.one_of(
    st.builds(MessageDelta, message_id=st.sampled_from(MESSAGES), text=TEXT),
    st.builds(ReasoningDelta, message_id=st.sampled_from(MESSAGES), text=TEXT),
    st.builds(
        ToolProgress,
        tool_call_id=st.sampled_from(CALLS),
        text=st.none() | TEXT,
        fraction=FRACTION,
        chunk=st.sampled_from([None, None, None, Chunk(index=0, data="c")]),
    ),
    st.builds(
        ToolRetrying, tool_call_id=st.sampled_from(CALLS), attempt=st.just(2), max_attempts=st.just(3),
        wait_s=st.just(1.0), code=st.just("timeout"),
    ),
    # A text that looks like the envelope of an event is only a text.
    st.just(Notice(level="info", code="x", text='"type":"message.delta"')),
)  # fmt: skip
STEPS = st.sampled_from([None, None, None, "s1"])
ORIGINS = st.sampled_from([None, None, None, Origin(client_id="c", command_id="k")])
SAID = st.lists(st.tuples(PAYLOADS, STEPS, ORIGINS), max_size=30)


def log(said: list[Any]) -> list[bytes]:
    whole = [(payload, None, None) for payload in begun()] + said
    return [
        event_bytes(seq=seq, run_id="r", ts=iso_ms(seq), payload=payload, step_id=step, origin=origin)
        for seq, (payload, step, origin) in enumerate(whole, 1)
    ]


@given(SAID, st.integers(0, 40))
def test_nothing_is_missing_and_the_view_is_the_same(said: list[Any], since: int) -> None:
    events = log(said)
    since = min(since, len(events))
    decoded = [decode_event(data) for data in events]
    short = [decode_event(data) for data in merged(events[since:])]
    cursor = since
    for event in short:
        # The check that PROTOCOL.md §4 tells every client to make.
        assert (event.from_ if event.from_ is not None else event.seq) == cursor + 1
        assert event.ts == decoded[event.seq - 1].ts
        cursor = event.seq
    assert cursor == len(events)
    before = fold_all(decoded[:since])
    assert fold_all(short, before) == fold_all(decoded)
    if since == 0:
        assert verify(short, ended=False) == verify(decoded, ended=False)


@given(SAID)
def test_what_may_be_joined_is_and_the_rest_keeps_its_bytes(said: list[Any]) -> None:
    events = log(said)
    short = merged(events)
    assert [data for data in short if decode_event(data).from_ is None] == [d for d in short if d in events]
    for one, other in pairwise(short):
        assert _subject(one) is None or _subject(one) != _subject(other)
    # What a command caused says so still.
    assert [d for d in short if decode_event(d).origin] == [d for d in events if decode_event(d).origin]


def _subject(data: bytes) -> Any:
    event = decode_event(data)
    payload = event.payload
    if event.origin is not None or getattr(payload, "chunk", None) is not None:
        return None
    match payload:
        case MessageDelta() | ReasoningDelta():
            return type(payload), payload.message_id, event.step_id
        case ToolProgress():
            return type(payload), payload.tool_call_id, event.step_id
        case _:
            return None


def test_the_newest_text_and_fraction_stand() -> None:
    said = [ToolProgress(tool_call_id="t1", **fields) for fields in ({"text": "a"}, {"fraction": 0.5}, {"text": "b"})]
    last = decode_event(merged(log([(p, None, None) for p in said]))[-1])
    assert (last.payload.text, last.payload.fraction) == ("b", 0.5)
    assert (last.from_, last.seq) == (7, 9)


@pytest.mark.asyncio
async def test_a_subscription_merges_until_the_head_of_its_attach_and_not_beyond() -> None:
    feed = Feed(run="n.r", run_id="r", epoch="e", head=0, ended=False, events=100, size=1 << 20)
    words = [(MessageDelta(message_id="m1", text=str(n)), None, None) for n in range(6)]
    events = log([*words, (MessageCompleted(message_id="m1", role="assistant", text="", state="complete"), None, None)])
    head = len(events) - 3
    feed.publish(events, ended=False)
    reader = Subscription(feed=feed, log=MemoryStore().log, cursor=7, wake=lambda: None, merge_until=head)
    replay = [decode_event(data) for data in await reader.pull()]
    assert [(event.from_, event.seq) for event in replay] == [(8, head)]
    assert reader.cursor == head
    assert await reader.pull() == events[head:]
