"""What a stream writes, and how long it waits for a reader who is slow."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream.gateway.ndjson_sse import Out
from midstream.gateway.stream_forms import Lines, ServerSentEvents
from midstream_protocol.codec import decode_event, event_bytes, iso_ms
from midstream_protocol.events import EVENTS, MessageDelta, Notice, Origin, RunStarted
from midstream_protocol.frames import Heartbeat, RunReset

PAYLOADS = st.one_of(
    st.builds(MessageDelta, message_id=st.just("m"), text=st.text()),
    st.builds(Notice, level=st.just("info"), code=st.just("c"), text=st.text() | st.just('","type":"run.completed"')),
    st.just(RunStarted(agent="a", thread_id="t")),
)


@given(st.lists(PAYLOADS), st.integers(1, 10**9))
def test_server_sent_events_carry_place_type_and_bytes(payloads: list[Any], seq: int) -> None:
    events = [
        event_bytes(seq=seq + n, run_id="run_1", ts=iso_ms(0), payload=payload, origin=Origin(command_id="c"))
        for n, payload in enumerate(payloads)
    ]
    body = ServerSentEvents("e_1").events(events)
    told = body.decode().split("\n\n")[:-1]
    for n, (block, event) in enumerate(zip(told, events, strict=True)):
        kind = decode_event(event).type
        assert kind in EVENTS
        assert block == f"id: e_1.{seq + n}\nevent: {kind}\ndata: {event.decode()}"
    assert Lines().events(events) == b"".join(event + b"\n" for event in events)


def test_an_event_that_begins_otherwise_is_told_all_the_same() -> None:
    event = b'{"type":"new.kind","v":2,"run_id":"r","seq":7,"payload":{}}'
    assert ServerSentEvents("e").events([event]) == b"id: e.7\nevent: new.kind\ndata: " + event + b"\n\n"


def test_a_reset_moves_the_place_to_its_history() -> None:
    form = ServerSentEvents("old")
    reset = RunReset(run_id="r", reason="epoch", epoch="new", snapshot={}, snapshot_seq=4)
    assert form.reset(reset).startswith(b"id: new.4\nevent: run.reset\ndata: {")
    event = event_bytes(seq=5, run_id="r", ts=iso_ms(0), payload=RunStarted(agent="a", thread_id="t"))
    assert form.events([event]).startswith(b"id: new.5\n")
    # Without a snapshot there is no place to come back to.
    assert form.reset(RunReset(run_id="r", reason="gone")).startswith(b"event: run.reset\n")


def test_signs_of_life_are_no_events() -> None:
    sign = Heartbeat(now=iso_ms(0), runs={"r": 3})
    assert ServerSentEvents("e").keep_alive(sign).startswith(b":")
    line = Lines().keep_alive(sign)
    assert line.endswith(b"}\n")
    assert b'"type":"heartbeat"' in line
    assert ServerSentEvents("e").come_back(1.5) == b"retry: 1500\n\n"


class SlowReader:
    """A server whose socket takes `takes` bytes whenever a send gave up waiting."""

    def __init__(self, *, held: int, takes: int) -> None:
        self.held = held
        self.takes = takes
        self.sent: list[bytes] = []

    def extension(self) -> dict[str, Any]:
        return {"ready": lambda: self.held <= 0, "held": lambda: self.held, "abort": lambda: None}

    async def send(self, message: Any) -> None:
        if self.held > 0:
            self.held -= self.takes
            if self.held > 0:
                await asyncio.Event().wait()
        self.sent.append(message["body"])


@pytest.mark.asyncio
async def test_a_reader_that_takes_something_is_waited_for() -> None:
    reader = SlowReader(held=100, takes=30)
    out = Out(reader.send, reader.extension(), timeout_s=0.001)
    await out.put(b"x")
    await out.put(b"y", last=True)
    assert reader.sent == [b"x", b"y"]


@pytest.mark.asyncio
@pytest.mark.parametrize("known", [True, False])
async def test_a_reader_that_takes_nothing_is_not(known: bool) -> None:
    reader = SlowReader(held=100, takes=0)
    out = Out(reader.send, reader.extension() if known else {}, timeout_s=0.001)
    with pytest.raises(TimeoutError):
        await out.put(b"x")
    assert reader.sent == []
