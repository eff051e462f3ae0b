"""The client's core as transcripts: frames in, actions out."""

from itertools import count

import msgspec
import pytest

from midstream.client.actions import Adopt, Answer, Changed, Deliver, Detached, Drop, Failed, Reconnect, Send, Warned
from midstream.client.core import ClientCore
from midstream.client.errors import Disconnected, Unreachable
from midstream.client.updates import Received
from midstream_protocol.commands import Command, RunCancel, RunCorrect, RunStart
from midstream_protocol.errors import NotFound, Unauthorized
from tests.client.server_model import attached, caught_up, event, frame, ready, receipt


class Playbook:
    """The core, and a clock that moves when told."""

    def __init__(self, *, fraction: float = 1.0, patient: bool = False) -> None:
        ids = count(1)
        self.core = ClientCore(new_id=lambda: f"own_{next(ids)}", fraction=lambda: fraction, patient=patient)
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
    usage = {"input_tokens": 0, "output_tokens": 0, "cached_input_tokens": 0, "total_tokens": 0, "by_model": {}}
    actions = play.get(event(1, "run.completed", result="ok", usage=usage, digest="d"))
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


def test_pause_detaches_and_resume_attaches_at_the_cursor():
    play = Playbook().following()
    play.get(event(1))
    assert sent(play.core.pause("run_1"))[0]["type"] == "run.detach"
    assert play.get(event(2)) == []
    play.lose()
    assert sent(play.connect()) == []
    assert sent(play.core.resume("run_1"))[0]["payload"]["since_seq"] == 1


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


def test_what_cannot_be_read_is_the_end_and_not_a_loop():
    play = Playbook().following()
    actions = play.get(b'{"v":1,"seq":"x"}')
    assert isinstance(actions[1], Failed)
    assert isinstance(actions[2], Drop)


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
