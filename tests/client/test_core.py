"""The client's core as transcripts: frames in, actions out."""

from itertools import count

import msgspec
import pytest

from midstream.client.actions import (
    Adopt,
    Answer,
    Changed,
    Deliver,
    Detached,
    Drop,
    Failed,
    Reconnect,
    Renew,
    Send,
    Warned,
)
from midstream.client.core import MAX_UNREADABLE, ClientCore
from midstream.client.errors import Disconnected, Unreachable
from midstream.client.updates import Received
from midstream_protocol.commands import ClientTool, Command, RunCancel, RunCorrect, RunStart
from midstream_protocol.errors import NotFound, TooLarge, Unauthorized
from midstream_protocol.frames import RunCaughtUp
from tests.client.server_model import USAGE, attached, caught_up, event, frame, ready, receipt


class Playbook:
    """The core, and a clock that moves when told."""

    def __init__(self, *, fraction: float = 1.0, **options) -> None:
        ids = count(1)
        self.core = ClientCore(new_id=lambda: f"own_{next(ids)}", fraction=lambda: fraction, **options)
        self.now = 100.0

    def get(self, *frames: bytes):
        return [action for each in frames for action in self.core.received(each, now=self.now)]

    def connect(self, **options):
        return [*self.core.opened(now=self.now), *self.get(ready(**options))]

    def lose(self, code: int = 1006, reason: str = ""):
        return self.core.closed(code, reason, now=self.now)

    def command(self, command_id: str, payload, run_id: str | None = "run_1"):
        return self.core.command(Command(type=payload.TYPE, command_id=command_id, payload=payload, run_id=run_id))

    def following(self, seq: int = 0):
        """Connected, attached and caught up."""
        self.connect()
        (attach,) = sent(self.core.attach("run_1", since_seq=seq))
        self.get(receipt(attach["command_id"]), attached(attach["command_id"], head=seq), caught_up(seq))
        return self


def sent(actions):
    return [msgspec.json.decode(action.data) for action in actions if isinstance(action, Send)]


def seqs(actions):
    return [a.update.event.seq for a in actions if isinstance(a, Deliver) and isinstance(a.update, Received)]


def only(actions, kind):
    return [action for action in actions if isinstance(action, kind)]


def test_nothing_is_sent_before_ready_then_attaches_go_first():
    play = Playbook()
    assert play.core.opened(now=play.now) == []
    assert play.command("c1", RunCancel()) == []
    assert play.core.attach("run_2") == []
    actions = play.get(ready())
    assert actions[0] == Changed("ready", "")
    assert [command["type"] for command in sent(actions)] == ["run.attach", "run.cancel"]


def test_a_start_adopts_its_run_and_delivers_it():
    play = Playbook()
    play.connect()
    (start,) = sent(play.command("c1", RunStart(input="hi"), run_id=None))
    assert start["payload"] == {"input": "hi"}
    assert "run_id" not in start
    actions = play.get(
        receipt("c1", run_id="run_1", at_seq=1), attached("c1", head=1), event(1), caught_up(1), event(2)
    )
    assert only(actions, Adopt) == [Adopt("run_1")]
    assert [action.command_id for action in only(actions, Answer)] == ["c1"]
    # The reader must exist before its receipt is told and before its first event.
    assert isinstance(actions[0], Adopt)
    assert seqs(actions) == [1, 2]


def test_the_text_of_an_event_is_the_text_that_came():
    play = Playbook().following()
    raw = b'{"v":1,"seq":1,"run_id":"run_1","type":"x.new","ts":"2026-01-01T00:00:00.000Z","payload":{"f":5.0}, "z":1}'
    (delivered,) = only(play.get(raw), Deliver)
    assert delivered.update.text.encode() == raw
    assert delivered.update.event.payload == {"f": 5}


def test_events_between_an_attach_and_its_attached_belong_to_the_one_before():
    play = Playbook().following(seq=2)
    (again,) = sent(play.get(event(5)))
    assert again["type"] == "run.attach"
    assert again["payload"]["since_seq"] == 2
    assert play.get(event(3), event(4)) == []
    actions = play.get(receipt(again["command_id"]), attached("own_1"), event(3))
    assert actions == [], "the old attachment's frames do not count"
    assert seqs(play.get(attached(again["command_id"]), event(3), event(4), event(5))) == [3, 4, 5]


def test_duplicates_are_dropped():
    play = Playbook().following()
    assert seqs(play.get(event(1), event(1), event(2), event(1), event(3))) == [1, 2, 3]


def test_a_merged_event_stands_for_its_range():
    play = Playbook().following()
    merged = msgspec.json.decode(event(4)) | {"from": 1}
    assert seqs(play.get(msgspec.json.encode(merged), event(5))) == [4, 5]


def test_holes_again_and_again_end_the_connection():
    play = Playbook().following()
    for _ in range(3):
        (attach,) = sent(play.get(event(9)))
        play.get(attached(attach["command_id"]))
    assert isinstance(play.get(event(9))[0], Drop)


def test_a_heartbeat_that_counts_more_than_came_means_attach_again():
    play = Playbook().following(seq=3)
    assert play.get(frame("heartbeat", now="2026-01-01T00:00:00.000Z", runs={"run_1": 3, "other": 9})) == []
    (attach,) = sent(play.get(frame("heartbeat", now="2026-01-01T00:00:00.000Z", runs={"run_1": 4})))
    assert attach["payload"]["since_seq"] == 3


def test_caught_up_beyond_the_cursor_means_attach_again():
    play = Playbook().following(seq=3)
    assert sent(play.get(caught_up(5)))[0]["type"] == "run.attach"


def test_a_reset_moves_the_cursor_and_the_epoch():
    play = Playbook().following(seq=7)
    snapshot = {"run_id": "run_1", "status": "running"}
    reset = frame("run.reset", run_id="run_1", reason="epoch", epoch="e2", snapshot=snapshot, snapshot_seq=4)
    actions = play.get(reset, event(5))
    assert actions[0].update.reason == "epoch"
    assert seqs(actions) == [5]
    play.lose()
    play.core.opened(now=play.now)
    (attach,) = sent(play.get(ready()))
    assert attach["payload"] == {"since_seq": 5, "epoch": "e2"}


def test_gone_detaches_with_a_reason():
    play = Playbook().following()
    (detached,) = play.get(frame("run.reset", run_id="run_1", reason="gone"))
    assert isinstance(detached, Detached)
    assert isinstance(detached.error, NotFound)
    assert play.get(event(1)) == []


def test_a_run_ends_with_its_terminal_event_and_is_not_attached_again():
    play = Playbook().following()
    actions = play.get(event(1, "run.completed", result="ok", usage=USAGE, digest="d"))
    assert actions[-1] == Detached("run_1", None)
    play.lose()
    play.core.opened(now=play.now)
    assert sent(play.get(ready())) == []


def test_attaching_at_the_end_of_an_ended_run_ends_at_caught_up():
    play = Playbook()
    play.connect()
    (attach,) = sent(play.core.attach("run_1", since_seq=5))
    actions = play.get(attached(attach["command_id"], head=5, status="completed"), caught_up(5))
    assert actions[-1] == Detached("run_1", None)


def test_a_refused_attach_says_why():
    play = Playbook()
    play.connect()
    (attach,) = sent(play.core.attach("run_1"))
    (detached,) = play.get(receipt(attach["command_id"], "rejected", code="not_found", text="no such run"))
    assert isinstance(detached.error, NotFound)
    assert detached.error.text == "no such run"


def test_a_retryable_refusal_of_a_later_attach_comes_back():
    play = Playbook().following(seq=2)
    (attach,) = sent(play.get(event(9)))
    refused = receipt(attach["command_id"], "rejected", code="unavailable", text="disk", retryable=True)
    assert isinstance(play.get(refused)[0], Drop)
    play.lose()
    assert sent(play.connect())[0]["payload"]["since_seq"] == 2


def test_pending_commands_are_resent_in_order_under_their_ids_and_answered_once():
    play = Playbook().following()
    play.command("c1", RunCorrect(text="a"))
    play.command("c2", RunCancel())
    assert [a.command_id for a in only(play.get(receipt("c1", run_id="run_1")), Answer)] == ["c1"]
    play.lose()
    play.command("c3", RunCancel())
    again = sent(play.connect())
    assert [(each["type"], each["command_id"]) for each in again[1:]] == [("run.cancel", "c2"), ("run.cancel", "c3")]
    assert again[0]["type"] == "run.attach"
    answers = only(play.get(receipt("c2"), receipt("c2"), receipt("c3"), receipt("c1")), Answer)
    assert [answer.command_id for answer in answers] == ["c2", "c3"]


def test_a_command_refused_by_a_draining_server_waits_for_the_next_one():
    play = Playbook().following()
    play.command("c1", RunStart(input="x"), run_id=None)
    refused = receipt("c1", "rejected", code="draining", text="going down", retryable=True)
    assert play.get(refused) == []
    play.lose(4001)
    assert [each["command_id"] for each in sent(play.connect()) if each["type"] == "run.start"] == ["c1"]


def test_other_refusals_are_answers():
    play = Playbook().following()
    play.command("c1", RunCancel())
    (answer,) = play.get(receipt("c1", "rejected", code="busy", text="busy", retryable=True))
    assert answer.receipt.code == "busy"


def test_no_more_unanswered_commands_than_the_server_allows():
    play = Playbook()
    play.connect(in_flight=2)
    first = [sent(play.command(f"c{n}", RunCancel())) for n in range(4)]
    assert [len(each) for each in first] == [1, 1, 0, 0]
    assert [each["command_id"] for each in sent(play.get(receipt("c1")))] == ["c2"]


def test_a_command_that_makes_another_run_follows_it():
    play = Playbook().following()
    play.command("c1", RunCorrect(text="more", if_ended="start"))
    actions = play.get(
        receipt("c1", run_id="run_9", **{"as": "started"}), attached("c1", run_id="run_9"), event(1, run_id="run_9")
    )
    assert only(actions, Adopt) == [Adopt("run_9")]
    assert seqs(actions) == [1]


def test_reading_again_is_an_attach_that_replaces_the_one_before():
    play = Playbook().following()
    play.get(event(1), event(2))
    (again,) = sent(play.core.reread("run_1", since_seq=0, epoch="e1"))
    assert again["payload"] == {"epoch": "e1"}
    assert play.get(event(3)) == [], "of the attachment before"
    assert seqs(play.get(attached(again["command_id"]), event(1), event(2), event(3))) == [1, 2, 3]


def test_a_run_that_has_ended_can_be_read_again():
    play = Playbook().following()
    play.get(event(1, "run.completed", result="ok", usage=USAGE, digest="d"))
    (again,) = sent(play.core.reread("run_1", since_seq=0, epoch=None))
    ended = event(1, "run.completed", result="ok", usage=USAGE, digest="d")
    actions = play.get(attached(again["command_id"], status="completed"), ended)
    assert seqs(actions) == [1]
    assert actions[-1] == Detached("run_1", None)


def test_a_heartbeat_that_leaves_a_run_out_means_attach_again():
    play = Playbook().following(seq=3)
    (attach,) = sent(play.get(frame("heartbeat", now="2026-01-01T00:00:00.000Z", runs={})))
    assert attach["payload"]["since_seq"] == 3


def test_an_attach_that_nothing_came_of_is_made_again_at_the_second_heartbeat():
    play = Playbook()
    play.connect()
    play.core.attach("run_1")
    beat = frame("heartbeat", now="2026-01-01T00:00:00.000Z", runs={"run_1": 4})
    assert play.get(beat) == []
    (again,) = sent(play.get(beat))
    assert again["type"] == "run.attach"
    assert play.get(beat) == []


def beat(**runs):
    return frame("heartbeat", now="2026-01-01T00:00:00.000Z", runs=runs)


def test_a_receipt_that_does_not_come_is_asked_for_again_under_the_same_id():
    play = Playbook().following()
    (first,) = sent(play.command("c1", RunCancel()))
    assert [sent(play.get(beat(run_1=0))) for _ in range(4)] == [[], [first], [], [first]]
    assert only(play.get(receipt("c1")), Answer)
    assert [sent(play.get(beat(run_1=0))) for _ in range(2)] == [[], []]


def test_the_newest_offer_is_made_again_and_what_needs_no_answer_is_forgotten():
    play = Playbook().following()
    play.core.offer("run_1", [ClientTool(name="old")])
    play.core.offer("run_1", [ClientTool(name="new")])
    play.core.attach("run_2")
    play.core.detach("run_2")
    play.get(beat(run_1=0))
    (again,) = sent(play.get(beat(run_1=0)))
    assert again["payload"]["client_tools"] == [{"name": "new"}]
    # All others made room: as many commands as ever may be on their way.
    assert sum(len(sent(play.command(f"c{each}", RunCancel()))) for each in range(64)) == 63


def test_an_offer_that_is_refused_is_not_made_again_with_the_next_attach():
    play = Playbook().following()
    (good,) = sent(play.core.offer("run_1", [ClientTool(name="good")]))
    play.get(receipt(good["command_id"]))
    (bad,) = sent(play.core.offer("run_1", [ClientTool(name="good"), ClientTool(name="bad")]))
    assert only(play.get(receipt(bad["command_id"], "rejected", code="conflict", text="taken")), Warned)
    play.lose()
    (attach,) = sent(play.connect())
    assert attach["payload"]["client_tools"] == [{"name": "good"}]


def test_who_has_all_has_caught_up_even_if_nobody_said_so():
    play = Playbook()
    play.connect()
    (attach,) = sent(play.core.attach("run_1"))
    play.get(attached(attach["command_id"], head=1), event(1))
    (delivered,) = only(play.get(beat(run_1=1)), Deliver)
    assert delivered.update == RunCaughtUp(run_id="run_1", seq=1)
    assert play.get(beat(run_1=1)) == []


@pytest.mark.parametrize("said", [event(4), caught_up(3), beat(run_1=3)])
def test_another_history_is_not_taken_for_the_own_one_when_the_reset_is_lost(said):
    play = Playbook().following(seq=3)
    (again,) = sent(play.get(beat()))
    play.get(attached(again["command_id"], head=3, epoch="e2"))
    (attach,) = sent(play.get(said))
    assert (attach["payload"]["since_seq"], attach["payload"]["epoch"]) == (3, "e1")


def test_a_run_that_is_attached_before_the_receipt_of_its_start_is_attached_again():
    play = Playbook()
    play.connect()
    play.command("c1", RunStart(input="hi"), run_id=None)
    assert play.get(attached("c1", head=1), event(1)) == []
    actions = play.get(receipt("c1", run_id="run_1"))
    assert only(actions, Adopt) == [Adopt("run_1")]
    (attach,) = sent(actions)
    assert seqs(play.get(attached(attach["command_id"]), event(1))) == [1]


def test_an_attach_that_a_draining_server_refuses_is_made_on_the_next_connection():
    play = Playbook()
    play.connect()
    (attach,) = sent(play.core.attach("run_1"))
    assert play.get(receipt(attach["command_id"], "rejected", code="draining", text="bye", retryable=True)) == []
    play.lose(4001)
    assert [each["type"] for each in sent(play.connect())] == ["run.attach"]


def test_frames_that_come_twice_do_nothing_twice():
    play = Playbook().following(seq=3)
    assert play.get(ready()) == []
    reset = frame(
        "run.reset", run_id="run_1", reason="epoch", epoch="e2", snapshot={"status": "running"}, snapshot_seq=4
    )
    assert len(play.get(reset)) == 1
    assert seqs(play.get(event(5))) == [5]
    assert play.get(reset) == []
    assert seqs(play.get(event(6))) == [6]


def test_merged_replay_goes_on_after_a_reconnect():
    play = Playbook()
    play.connect()
    assert sent(play.core.attach("run_1", replay="merged"))[0]["payload"]["replay"] == "merged"
    play.lose()
    assert sent(play.connect())[0]["payload"]["replay"] == "merged"


def test_what_is_much_too_large_is_refused_here_and_not_by_a_final_close():
    play = Playbook().following()
    with pytest.raises(TooLarge):
        play.command("c1", RunCorrect(text="x" * (1 << 20)))
    assert sent(play.command("c2", RunCorrect(text="x")))


# -- tokens


def test_an_expired_token_is_renewed_at_once():
    play = Playbook(renewable=True).following()
    assert play.lose(4005)[-1] == Reconnect(0)
    play.connect()
    assert play.lose(4005)[-1] == Reconnect(0.5), "not in a loop"


def test_bad_credentials_are_renewed_once_where_that_is_possible():
    play = Playbook(renewable=True)
    play.core.opened(now=play.now)
    assert play.lose(4500) == [Reconnect(0)]
    play.core.opened(now=play.now)
    failed = play.lose(4500, "still bad")[-1]
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, Unauthorized)


def test_a_token_that_worked_may_be_renewed_again_later():
    play = Playbook(renewable=True).following()
    for _ in range(3):
        assert isinstance(play.lose(4500)[-1], Reconnect)
        play.connect()


def test_expiring_asks_for_a_new_token_only_where_there_is_one():
    expiring = frame("auth.expiring", in_s=60)
    assert Playbook().following().get(expiring) == []
    play = Playbook(renewable=True).following()
    assert play.get(expiring) == [Renew()]
    (refresh,) = sent(play.core.refresh("t2"))
    assert (refresh["type"], refresh["payload"]) == ("auth.refresh", {"token": "t2"})
    assert play.get(receipt(refresh["command_id"])) == []
    (refresh,) = sent(play.core.refresh("t3"))
    refused = receipt(refresh["command_id"], "rejected", code="forbidden", text="somebody else")
    assert play.get(refused) == [Warned("the new token was not taken: somebody else")]
    play.lose()
    assert play.core.refresh("t4") == []


# -- transports


def test_without_a_server_both_ways_are_tried_and_the_websocket_says_why():
    play = Playbook(transport="auto")
    assert play.core.unreachable(Unreachable("ws 1")) == [Reconnect(0)]
    assert play.core.transport == "websocket"
    play.core.unreachable(Unreachable("ws 2"))
    assert play.core.transport == "http"
    failed = play.core.unreachable(Unreachable("http"))[-1]
    assert failed.error.reason == "ws 2"


def test_a_definite_refusal_of_the_upgrade_goes_to_http_at_once():
    play = Playbook(transport="auto")
    play.core.unreachable(Unreachable("no upgrades here", status=404))
    assert play.core.transport == "http"
    play.connect()
    assert play.core.state == "ready"


def test_from_http_a_websocket_is_tried_again_later_and_less_and_less_often():
    play = Playbook(transport="auto")
    for wait_s in (30, 60, 120, 240, 480, 600, 600):
        while play.core.transport == "websocket":
            play.core.unreachable(Unreachable("blocked"))
        play.connect()
        again_at = play.now + wait_s
        while play.now + 10 < again_at:
            play.now += 10
            play.get(frame("heartbeat", now="2026-01-01T00:00:00.000Z", runs={}))
            assert play.core.tick(now=play.now) == []
        assert play.core.wake_at == again_at
        play.now = again_at
        assert play.core.tick(now=play.now) == [Drop(1006, "trying a WebSocket again")]
        play.lose()
        assert play.core.transport == "websocket"
    play.connect()
    play.lose()
    assert play.core.transport == "websocket", "it works: one failure is no reason to leave it"
    play.core.unreachable(Unreachable("an accident"))
    assert play.core.transport == "websocket"


def test_a_server_that_is_away_is_looked_for_on_both_ways():
    play = Playbook(transport="auto").following()
    play.lose()
    seen = []
    for _ in range(6):
        seen.append(play.core.transport)
        play.core.unreachable(Unreachable("refused"))
    assert seen == ["websocket", "websocket", "http", "websocket", "http", "websocket"]


@pytest.mark.parametrize("transport", ["websocket", "http"])
def test_a_transport_that_was_asked_for_is_the_only_one(transport):
    play = Playbook(transport=transport, patient=True)
    for _ in range(4):
        assert play.core.transport == transport
        assert isinstance(play.core.unreachable(Unreachable("refused"))[-1], Reconnect)


# -- closes, backoff, silence


@pytest.mark.parametrize(
    ("code", "error"), [(4500, Unauthorized), (4501, Disconnected), (1000, Disconnected), (1009, Disconnected)]
)
def test_final_close_codes_end_it(code, error):
    play = Playbook().following()
    changed, failed = play.lose(code, "because")
    assert changed.state == "closed"
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, error)
    assert "because" in str(failed.error)
    assert play.get(event(1)) == []
    assert play.lose() == []


@pytest.mark.parametrize("code", [1001, 1006, 1012, 4001, 4008, 4013, 4499])
def test_other_close_codes_come_back(code):
    assert Playbook().following().lose(code)[-1] == Reconnect(0.25)


def test_backoff_grows_to_twenty_seconds_and_starts_over_after_ten_good_ones():
    play = Playbook().following()
    ends = [play.lose(), *(play.core.unreachable(Unreachable("refused")) for _ in range(9))]
    assert [actions[-1].delay_s for actions in ends] == [0.25, 0.5, 1, 2, 4, 8, 16, 20, 20, 20]
    play.connect()
    play.now += 9.9
    assert play.lose()[-1].delay_s == 20
    play.connect()
    play.now += 10
    assert play.lose()[-1].delay_s == 0.25


def test_a_line_that_is_cut_often_but_brings_something_is_not_waited_for_long():
    play = Playbook().following()
    for _ in range(9):
        play.core.unreachable(Unreachable("refused"))
    for seq in (1, 2, 3):
        play.connect()
        again = play.core.runs["run_1"].attach_id
        play.get(receipt(again), attached(again, head=seq), event(seq))
        assert play.lose()[-1].delay_s == 2
    play.connect()
    assert play.lose()[-1].delay_s == 4, "this one brought nothing"


def test_backoff_is_jittered_over_the_whole_interval():
    assert Playbook(fraction=0.0).following().lose()[-1].delay_s == 0.0
    assert Playbook(fraction=0.5).following().lose()[-1].delay_s == 0.125


def test_what_the_server_told_wins():
    play = Playbook().following()
    play.get(frame("connection.draining", reconnect_in_s=3.5))
    assert play.lose(4001)[-1].delay_s == 3.5
    play.connect()
    assert play.lose(4001, '{"reconnect_in_s":1.25}')[-1].delay_s == 1.25
    play.connect()
    assert play.lose(1006)[-1].delay_s == 1.0, "told once, used once; the failures before count"


def test_a_first_connection_that_cannot_be_made_is_the_end_unless_patient():
    assert isinstance(Playbook().core.unreachable(Unreachable("refused"))[-1], Failed)
    assert isinstance(Playbook(patient=True).core.unreachable(Unreachable("refused"))[-1], Reconnect)


@pytest.mark.parametrize(("status", "kind"), [(404, Failed), (403, Failed), (429, Reconnect), (503, Reconnect)])
def test_a_refused_upgrade_says_by_its_status_whether_to_come_back(status, kind):
    play = Playbook().following()
    play.lose()
    assert isinstance(play.core.unreachable(Unreachable("no", status=status))[-1], kind)


def test_silence_is_a_dead_connection():
    play = Playbook()
    play.connect(heartbeat_s=10)
    assert play.core.wake_at == 125
    play.now += 20
    play.get(frame("heartbeat", now="2026-01-01T00:00:00.000Z", runs={}))
    assert play.core.tick(now=125) == []
    assert play.core.wake_at == 145
    assert isinstance(play.core.tick(now=145)[0], Drop)
    assert play.core.tick(now=146) == [], "once"


def test_a_socket_that_never_gets_ready_is_dead_too():
    play = Playbook(patient=True)
    play.core.opened(now=play.now)
    assert isinstance(play.core.tick(now=110)[0], Drop)


def test_what_cannot_be_read_means_come_back_and_not_for_ever():
    play = Playbook().following()
    for _ in range(MAX_UNREADABLE - 1):
        assert play.get(b'{"v":1,"seq":"x"}', b"again", event(1)) == [Drop(1002, "unreadable frame")]
        assert isinstance(play.lose(1002)[-1], Reconnect)
        play.connect()
    actions = play.get(b'{"v":1,"seq":"x"}')
    assert isinstance(actions[1], Failed)
    assert "cannot read" in str(actions[1].error)
    assert isinstance(actions[2], Drop)


def test_an_event_between_two_unreadable_frames_makes_them_accidents():
    play = Playbook().following()
    for seq in range(1, 2 * MAX_UNREADABLE):
        assert isinstance(play.get(b"{")[-1], Drop)
        play.lose(1002)
        (attach,) = sent(play.connect())
        assert seqs(play.get(attached(attach["command_id"]), event(seq))) == [seq]


def test_unknown_frames_are_a_sign_of_life_and_nothing_else():
    play = Playbook().following()
    assert play.get(frame("something.new", a=1)) == []
    assert play.get(frame("error", code="malformed", text="bad")) == [Warned("malformed: bad")]


def test_close_is_final():
    play = Playbook().following()
    changed, failed, drop = play.core.close()
    assert changed.state == "closed"
    assert isinstance(failed, Failed)
    assert drop == Drop(1000, "")
    assert play.core.close() == []
    assert play.lose(1000) == []
