import time

import pytest

from midstream_protocol import (
    Event,
    Malformed,
    MessageDelta,
    MessageStarted,
    RunStarted,
    ToolStarted,
    View,
    decode_event,
    encode,
    fold,
    fold_all,
    view_from_builtins,
    view_to_builtins,
)

TS = "2026-06-12T12:00:00.000Z"


def event(seq, payload, **more):
    return Event(v=1, seq=seq, run_id="run_1", type=payload.TYPE, ts=TS, payload=payload, **more)


def opening(*message_ids):
    events = [event(1, RunStarted(agent="a", thread_id="th_1"))]
    for message_id in message_ids:
        events.append(event(len(events) + 1, MessageStarted(message_id=message_id, role="assistant", agent="a")))
    return events


def started(seq, tool_call_id):
    return event(
        seq,
        ToolStarted(tool_call_id=tool_call_id, tool="t", label="T", args_preview={}, args_digest="d", attempt=1),
    )


def test_what_did_not_change_keeps_its_identity():
    before = fold_all([*opening("m1", "m2"), started(4, "call_1")])
    after = fold(before, event(5, MessageDelta(message_id="m2", text="x")))
    assert after is not before
    assert after.messages[0] is before.messages[0]
    assert after.messages[1] is not before.messages[1]
    assert after.calls is before.calls
    assert before.messages[1].text == ""


def test_a_seq_seen_before_returns_the_very_same_view():
    view = fold_all(opening("m1"))
    assert fold(view, event(2, MessageDelta(message_id="m1", text="again"))) is view


def test_an_event_of_another_run_is_an_error_not_a_mix():
    view = fold_all(opening())
    with pytest.raises(ValueError, match="run_2"):
        fold(view, Event(v=1, seq=2, run_id="run_2", type="notice", ts=TS, payload={}))


def test_an_event_whose_payload_was_not_decoded_folds_the_same():
    plain = Event(v=1, seq=1, run_id="run_1", type="run.started", ts=TS, payload={"agent": "a", "thread_id": "th_1"})
    assert fold(None, plain) == fold(None, opening()[0])


def test_the_epoch_is_kept_until_another_is_told():
    view = fold(None, opening()[0], epoch="e1")
    view = fold(view, event(2, MessageDelta(message_id="m", text="")))
    assert view.cursor.epoch == "e1"
    assert fold(view, event(3, MessageDelta(message_id="m", text="")), epoch="e2").cursor.epoch == "e2"


def test_nothing_folds_to_nothing():
    assert fold_all([]) is None


def test_fold_all_joins_deltas_of_interleaved_messages():
    deltas = [event(4 + at, MessageDelta(message_id=f"m{at % 2 + 1}", text=f"{at} ")) for at in range(101)]
    log = [*opening("m1", "m2"), *deltas, started(105, "call_1")]
    view = None
    for each in log:
        view = fold(view, each)
    assert fold_all(log) == view
    for cut in (3, 4, 50, 104, 105):
        assert fold_all(log[cut:], fold_all(log[:cut])) == view


def test_ten_thousand_deltas_fold_in_a_blink():
    log = [*opening("m1"), *(event(3 + at, MessageDelta(message_id="m1", text="0123456789")) for at in range(10_000))]
    begun = time.process_time()
    assert len(fold_all(log).messages[0].text) == 100_000
    # Joined once: about 10 ms; joining anew for each delta of each fold would still be far below a second.
    assert time.process_time() - begun < 1


def test_a_view_survives_its_json_shape():
    view = fold_all([*opening("m1"), started(3, "call_1")], epoch="e1")
    assert view_from_builtins(view_to_builtins(view)) == view
    assert all(value is not None for value in view_to_builtins(view).values())


@pytest.mark.parametrize("value", [None, [], {}, {"run_id": 1}])
def test_what_is_no_view_is_refused(value):
    with pytest.raises(Malformed):
        view_from_builtins(value)


def test_a_view_of_a_later_version_is_read():
    shape = view_to_builtins(fold(None, opening()[0]))
    assert isinstance(view_from_builtins({**shape, "weather": "clear"}), View)


def test_merged_replay_keeps_from():
    merged = event(7, MessageDelta(message_id="m1", text="abc"), from_=4)
    assert decode_event(encode(merged)).from_ == 4
