"""Transcripts of a connection without a socket: bytes in, bytes out, in which order."""

import asyncio
import json
from typing import Any

import pytest
from msgspec.structs import replace

from midstream.gateway.connection import MAX_UNREAD_BYTES, Connection, Slot, Ticket
from midstream.gateway.errors import refusal_receipt
from midstream.gateway.wire import JsonWire
from midstream.log import MemoryStore
from midstream.runs import Attachment, Subscription
from midstream.runs.attachment import standing_of
from midstream.runs.tail import Feed
from midstream_protocol.codec import decode_event, event_bytes, iso_ms
from midstream_protocol.errors import NotFound
from midstream_protocol.events import MessageDelta, RunCompleted, RunStarted, Usage
from midstream_protocol.frames import ConnectionLimits, Receipt, RunReset
from midstream_protocol.view import Cursor, View, fold

LIMITS = ConnectionLimits(
    max_frame_bytes=4096,
    max_input_bytes=4096,
    max_tool_result_bytes=4096,
    max_runs=2,
    commands_in_flight=3,
    command_memory_s=60,
)
USAGE = Usage(input_tokens=0, output_tokens=0, cached_input_tokens=0, total_tokens=0, by_model={})


class Table:
    """One connection and the runs it may attach to. `sent()` is everything it would write now, as short words."""

    def __init__(self, *, max_errors: int = 4) -> None:
        self.notified = 0
        self.connection = Connection(wire=JsonWire(), limits=LIMITS, max_errors=max_errors, notify=self._notify)
        self.feeds: dict[str, Feed] = {}
        self.store = MemoryStore()

    def _notify(self) -> None:
        self.notified += 1

    def run(self, run_id: str) -> Feed:
        self.feeds[run_id] = Feed(
            run=f"n.{run_id}", run_id=run_id, epoch="e", head=0, ended=False, events=100, size=1 << 20
        )
        self.publish(run_id, RunStarted(agent="a", thread_id="t"))
        return self.feeds[run_id]

    def publish(self, run_id: str, *payloads: Any, ended: bool = False) -> None:
        feed = self.feeds[run_id]
        events = [
            event_bytes(seq=feed.head + n, run_id=run_id, ts=iso_ms(0), payload=payload)
            for n, payload in enumerate(payloads, 1)
        ]
        feed.publish(events, ended=ended)

    def receive(
        self, kind: str, command_id: str = "c1", run_id: str | None = None, payload: Any = None
    ) -> Ticket | None:
        frame: dict[str, Any] = {"v": 1, "type": kind, "command_id": command_id, "payload": payload or {}}
        return self.connection.receive(json.dumps(frame | ({"run_id": run_id} if run_id else {})))

    def attach(
        self, run_id: str, *, since: int = 0, command_id: str = "c1", reset: RunReset | None = None
    ) -> Subscription:
        ticket = self.receive("run.attach", command_id, run_id, {"since_seq": since})
        assert ticket is not None
        slot = Slot(run_id)
        feed = self.feeds[run_id]
        subscription = Subscription(
            feed=feed, log=self.store.log, cursor=since, wake=lambda: self.connection.wake(slot)
        )
        attachment = Attachment(
            standing=standing_of(view_at(run_id, feed.head)),
            head_seq=feed.head,
            epoch="e",
            first_seq=1,
            now_ms=0,
            steerable=True,
            queue_position=None,
            reset=reset,
            subscription=subscription,
        )
        self.connection.open(ticket, Receipt(command_id=command_id, run_id=run_id, status="accepted"), slot, attachment)
        return subscription

    def sent(self, *, turns: int = 100) -> list[str]:
        return asyncio.run(self._sent(turns))

    async def _sent(self, turns: int) -> list[str]:
        words = [_word(frame) for frame in self.connection.control()]
        while turns and (turn := self.connection.next_ready()) is not None:
            turns -= 1
            slot, subscription = turn
            words += [_word(f) for f in self.connection.events(slot, await subscription.pull(max_events=2))]
        return words


def _word(frame: bytes) -> str:
    decoded = json.loads(frame)
    payload = decoded["payload"]
    match decoded["type"]:
        case "receipt":
            return f"receipt {payload['command_id']} {payload.get('code', payload['status'])}"
        case "run.attached" | "run.caught_up" | "run.reset" as type_:
            return f"{type_} {payload['run_id']} {payload.get('seq', payload.get('head_seq', payload.get('reason')))}"
        case "error":
            return f"error {payload['code']}"
        case "pong":
            return f"pong {payload.get('t')}"
        case _:
            return f"{decoded['run_id']}#{decoded['seq']}"


def view_at(run_id: str, seq: int) -> View:
    started = event_bytes(seq=1, run_id=run_id, ts=iso_ms(0), payload=RunStarted(agent="a", thread_id="t"))
    return replace(fold(None, decode_event(started)), cursor=Cursor(seq=seq, epoch="e"))


def delta(text: str = "x") -> MessageDelta:
    return MessageDelta(message_id="m", text=text)


def test_attach_replay_caught_up_live() -> None:
    table = Table()
    table.run("r")
    table.publish("r", delta(), delta())
    table.attach("r")
    assert table.sent() == ["receipt c1 accepted", "run.attached r 3", "r#1", "r#2", "r#3", "run.caught_up r 3"]
    assert table.sent() == []
    table.publish("r", delta())
    assert table.sent() == ["r#4"]


def test_events_between_attach_and_replay_come_once_and_after_caught_up_or_with_it() -> None:
    table = Table()
    table.run("r")
    table.attach("r", since=1)
    table.publish("r", delta())
    assert table.sent() == ["receipt c1 accepted", "run.attached r 1", "r#2", "run.caught_up r 2"]


def test_a_reset_stands_in_place_of_the_replay() -> None:
    table = Table()
    table.run("r")
    table.attach("r", since=1, reset=RunReset(run_id="r", reason="epoch", epoch="e", snapshot={}, snapshot_seq=1))
    assert table.sent() == ["receipt c1 accepted", "run.attached r 1", "run.reset r epoch", "run.caught_up r 1"]


def test_attaching_again_restarts_and_nothing_of_the_old_one_follows() -> None:
    table = Table()
    table.run("r")
    old = table.attach("r", command_id="c1")
    table.publish("r", delta(), delta(), delta())
    assert table.sent(turns=1) == ["receipt c1 accepted", "run.attached r 1", "r#1", "r#2", "run.caught_up r 2"]
    table.attach("r", since=1, command_id="c2")
    assert table.sent() == ["receipt c2 accepted", "run.attached r 4", "r#2", "r#3", "r#4", "run.caught_up r 4"]
    assert table.feeds["r"].readers == 1
    assert old.cursor == 2


def test_what_was_pulled_for_a_slot_that_was_replaced_meanwhile_is_dropped() -> None:
    table = Table()
    table.run("r")
    table.attach("r", command_id="c1")
    table.connection.control()
    turn = table.connection.next_ready()
    assert turn is not None
    slot, subscription = turn
    pulled = asyncio.run(_pull(subscription))
    table.attach("r", command_id="c2")
    assert table.connection.events(slot, pulled) == []
    assert table.connection.lost(slot, RunReset(run_id="r", reason="gone")) == []
    assert table.sent() == ["receipt c2 accepted", "run.attached r 1", "r#1", "run.caught_up r 1"]


async def _pull(subscription: Subscription) -> Any:
    return await subscription.pull()


def test_an_ended_run_is_detached_after_caught_up() -> None:
    table = Table()
    table.run("r")
    table.publish("r", RunCompleted(result=1, usage=USAGE, digest="d"), ended=True)
    table.attach("r", since=2)
    assert table.sent() == ["receipt c1 accepted", "run.attached r 2", "run.caught_up r 2"]
    assert table.feeds["r"].idle
    assert json.loads(table.connection.heartbeat("now"))["payload"]["runs"] == {}


def test_a_live_run_is_detached_after_its_end() -> None:
    table = Table()
    table.run("r")
    table.attach("r")
    table.sent()
    table.publish("r", RunCompleted(result=1, usage=USAGE, digest="d"), ended=True)
    assert table.sent() == ["r#2"]
    assert table.feeds["r"].idle


def test_a_subscription_that_is_lost_live_is_reset_or_gone() -> None:
    table = Table()
    table.run("r")
    table.attach("r")
    table.connection.control()
    turn = table.connection.next_ready()
    assert turn is not None
    slot, subscription = turn
    again = RunReset(run_id="r", reason="too_far", epoch="e", snapshot={}, snapshot_seq=1)
    subscription.cursor = 1
    table.connection.control()
    assert [_word(f) for f in table.connection.lost(slot, again)] == ["run.reset r too_far"]
    assert table.sent() == ["run.caught_up r 1"]
    assert [_word(f) for f in table.connection.lost(slot, RunReset(run_id="r", reason="gone"))] == ["run.reset r gone"]
    table.publish("r", delta())
    assert table.sent() == []
    assert table.feeds["r"].idle


def test_runs_take_turns() -> None:
    table = Table()
    for run_id in "ab":
        table.run(run_id)
        table.publish(run_id, *[delta()] * 5)
        table.attach(run_id, command_id=run_id)
    order = [word for word in table.sent() if "#" in word]
    assert order[:8] == ["a#1", "a#2", "b#1", "b#2", "a#3", "a#4", "b#3", "b#4"]


def test_control_goes_before_events_and_heartbeats_tell_what_was_written() -> None:
    table = Table()
    table.run("r")
    table.publish("r", *[delta()] * 5)
    table.attach("r")
    table.sent(turns=1)
    table.receive("ping", payload={"t": 1})
    assert json.loads(table.connection.heartbeat("now"))["payload"]["runs"] == {"r": 2}
    assert table.sent(turns=1) == ["pong 1", "r#3", "r#4"]
    assert json.loads(table.connection.heartbeat("now"))["payload"]["runs"] == {"r": 4}


def test_in_flight_is_counted_until_the_receipt_is_taken_for_writing() -> None:
    table = Table()
    tickets = [table.receive("run.detach", f"c{n}", "r") for n in range(3)]
    assert all(tickets)
    assert table.receive("run.detach", "c3", "r") is None
    assert table.sent() == ["receipt c3 rate_limited"]
    assert tickets[0] is not None
    table.connection.answer(tickets[0], Receipt(command_id="c0", status="accepted"))
    # Answered and not yet written: its receipt is still memory that this client costs.
    assert table.receive("run.detach", "c4", "r") is None
    assert table.sent() == ["receipt c0 accepted", "receipt c4 rate_limited"]
    assert table.receive("run.detach", "c5", "r") is not None


def test_places_are_held_by_attaches_under_way_and_given_back_by_refusals() -> None:
    table = Table()
    table.run("r")
    table.attach("r")
    pending = table.receive("run.start", "s1", payload={"input": "x"})
    assert pending is not None
    assert table.receive("run.attach", "a1", "other") is None
    assert "receipt a1 quota_exceeded" in table.sent()
    table.connection.answer(pending, refusal_receipt(NotFound("no"), command_id="s1"))
    assert table.receive("run.attach", "a2", "other") is not None


def test_errors_in_a_row_end_the_connection_and_one_good_frame_forgives_them() -> None:
    table = Table(max_errors=3)
    for _ in range(2):
        table.connection.receive("nonsense")
    table.receive("ping")
    for _ in range(2):
        table.connection.receive("nonsense")
    assert table.connection.closing is None
    table.connection.receive('{"v":1,"type":"run.fly","command_id":"k"}')
    assert table.connection.closing is not None
    assert table.connection.closing.code == 4509
    words = [w for w in table.sent() if not w.startswith("pong")]
    assert words == ["error malformed"] * 4 + ["receipt k unknown_command"]
    assert table.receive("ping") is None
    assert table.sent() == []


def test_refusals_in_order_are_no_errors() -> None:
    table = Table(max_errors=2)
    for n in range(10):
        table.receive("run.detach", f"c{n}", "r")
    assert table.connection.closing is None


def test_unread_answers_are_bounded() -> None:
    table = Table()
    pings = 0
    while table.connection.closing is None:
        table.receive("ping", payload={"t": "x" * 1000})
        pings += 1
    assert table.connection.closing.code == 4008
    assert table.connection.overflowed
    assert pings < MAX_UNREAD_BYTES / 1000 + 2
    # A client that reads may send as many as it likes.
    table = Table()
    for _ in range(2 * pings):
        table.receive("ping", payload={"t": "x" * 1000})
        table.sent()
    assert table.connection.closing is None


def test_after_the_socket_is_gone_everything_is_given_back() -> None:
    table = Table()
    table.run("r")
    table.attach("r")
    late = table.receive("run.attach", "c2", "r")
    assert late is not None
    table.connection.shut()
    assert table.feeds["r"].idle
    slot = Slot("r")
    subscription = Subscription(feed=table.feeds["r"], log=table.store.log, cursor=0, wake=lambda: None)
    attachment = Attachment(
        standing=standing_of(view_at("r", 1)),
        head_seq=1,
        epoch="e",
        first_seq=1,
        now_ms=0,
        steerable=True,
        queue_position=None,
        reset=None,
        subscription=subscription,
    )
    table.connection.open(late, Receipt(command_id="c2", status="accepted"), slot, attachment)
    assert table.feeds["r"].idle


def test_waking_is_noticed_once_per_turn() -> None:
    table = Table()
    table.run("r")
    table.attach("r")
    table.sent()
    before = table.notified
    for _ in range(10):
        table.publish("r", delta())
    assert table.notified == before + 1
    assert table.sent() == [f"r#{n}" for n in range(2, 12)]


@pytest.mark.parametrize("data", [b"\x80", "{}", ""])
def test_every_bad_frame_is_answered_by_exactly_one_frame(data: str | bytes) -> None:
    table = Table()
    assert table.connection.receive(data) is None
    assert table.sent() == ["error malformed"]


def test_a_run_attached_while_another_is_read_from_the_log_says_nothing_before_its_run_attached() -> None:
    table = Table()
    for run_id in ("r", "s"):
        table.run(run_id)
    table.attach("r", command_id="c1")
    table.connection.control()
    turn = table.connection.next_ready()
    assert turn is not None
    slot, subscription = turn
    # Between the turn's beginning and its end the log is read, and everything else goes on.
    table.attach("s", command_id="c2")
    table.connection.events(slot, asyncio.run(_pull(subscription)))
    assert table.connection.next_ready() is None
    assert table.sent() == ["receipt c2 accepted", "run.attached s 1", "s#1", "run.caught_up s 1"]
