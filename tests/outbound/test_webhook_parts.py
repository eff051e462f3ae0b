"""The pure parts of webhooks: signature, body, what an answer means, when to try again, whose turn it is."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream.outbound.message import EVENTS, MAX_PAYLOAD_BYTES, body, is_told, kind_of, read_told
from midstream.outbound.options import WebhookOptions
from midstream.outbound.retrying import MAX_INTERVAL_S, SLOW_MAX_INTERVAL_S, Verdict, delay_s, told_s, verdict
from midstream.outbound.signing import key_of, signed
from midstream.outbound.turns import Turns
from midstream_protocol import events as ev
from midstream_protocol.codec import event_bytes

NOW_MS = 1_767_225_600_000
USAGE = ev.Usage(input_tokens=1, output_tokens=1, cached_input_tokens=0, total_tokens=2, by_model={})


def completed(result: object) -> ev.RunCompleted:
    return ev.RunCompleted(result=result, usage=USAGE, digest="sha256:0")


def encoded(payload: ev.Payload, *, run_id: str = "run_1", seq: int = 7) -> bytes:
    return event_bytes(seq=seq, run_id=run_id, ts="2026-01-01T00:00:00.000Z", payload=payload)


# -- signature


def test_the_signature_is_the_one_of_the_schemes_published_example() -> None:
    # From the test vectors of the scheme's own libraries.
    key = key_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = signed(key, message_id="msg_p5jXN8AQM9LWM0D4loKWxJek", at_s=1614265330, body=b'{"test": 2432232314}')
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert headers["webhook-timestamp"] == "1614265330"


def test_a_secret_is_text_or_base64_after_its_prefix() -> None:
    assert key_of("any words") == b"any words"
    assert key_of("whsec_YWJj") == b"abc"
    for wrong in ("whsec_", "whsec_not base64!"):
        with pytest.raises(ValueError, match="openssl"):
            key_of(wrong)


def test_options_do_not_show_what_is_secret() -> None:
    assert "s3cret" not in repr(WebhookOptions(secret="s3cret", urls=("https://example.org/s3cret",)))


# -- body


def test_which_events_are_told_is_seen_in_their_bytes() -> None:
    sly = ev.MessageDelta(message_id="m", text='"type":"run.completed"')
    assert not is_told(encoded(sly))
    assert not is_told(encoded(ev.RunStarted(agent="run.completed", thread_id="t")))
    told = encoded(ev.InputRequired(input_id="i", question="?", expires_at="x", expires_in_s=1.0))
    assert is_told(told)
    assert kind_of(told) == (7, "input.required")


@given(st.sampled_from(sorted(ev.EVENTS)), st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True), st.integers(1, 10**9))
def test_the_fast_look_agrees_with_the_event(name: str, run_id: str, seq: int) -> None:
    # The payload does not matter, only what stands before it.
    event = {"v": 1, "seq": seq, "run_id": run_id, "type": name, "ts": "x", "payload": {"type": "run.failed"}}
    assert is_told(json.dumps(event, separators=(",", ":")).encode()) == (name in EVENTS)


def test_a_body_has_the_events_own_payload() -> None:
    event = encoded(completed({"n": 1.5}))
    told = json.loads(body(read_told(event), run_id="run_1", thread_id="t", user="u"))
    assert told["payload"] == json.loads(event)["payload"]
    assert {name: told[name] for name in ("type", "run_id", "thread_id", "user", "seq", "ts")} == {
        "type": "run.completed", "run_id": "run_1", "thread_id": "t", "user": "u", "seq": 7,
        "ts": "2026-01-01T00:00:00.000Z",
    }  # fmt: skip
    assert "left_out" not in told
    assert told["links"] == {
        "self": "/v1/runs/run_1",
        "events": "/v1/runs/run_1/events?since_seq=6",
        "commands": "/v1/runs/run_1/commands",
    }


def test_a_body_is_bounded_and_says_what_is_left_out() -> None:
    sent = body(read_told(encoded(completed("x" * 2 * MAX_PAYLOAD_BYTES))), run_id="r", thread_id="t", user="u")
    told = json.loads(sent)
    assert len(sent) < MAX_PAYLOAD_BYTES + 1024
    assert told["left_out"] == ["result"]
    assert told["payload"]["usage"]["total_tokens"] == 2


# -- answers and waits


@pytest.mark.parametrize(
    ("status", "meant"),
    [
        (200, Verdict.TAKEN), (204, Verdict.TAKEN), (299, Verdict.TAKEN), (410, Verdict.GONE), (301, Verdict.REFUSED),
        (307, Verdict.REFUSED), (400, Verdict.REFUSED), (401, Verdict.REFUSED), (404, Verdict.REFUSED),
        (408, Verdict.LATER), (425, Verdict.LATER), (429, Verdict.LATER), (500, Verdict.LATER), (503, Verdict.LATER),
    ],
)  # fmt: skip
def test_what_a_status_means(status: int, meant: Verdict) -> None:
    assert verdict(status) is meant


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0), ("0", 0.0), ("99999999999999999999", 3600.0), ("Thu, 01 Jan 2026 00:00:30 GMT", 30.0),
        ("Thu, 01 Jan 2015 00:00:30 GMT", 0.0), ("", None), ("soon", None), ("-3", None), ("1.5", None), ("٣", None),
    ],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date(value: str, seconds: float | None) -> None:
    assert told_s({"retry-after": value}, now_ms=NOW_MS) == seconds


def test_no_retry_after_tells_nothing() -> None:
    assert told_s({}, now_ms=NOW_MS) is None


@given(
    st.integers(1, 10_000),
    st.booleans(),
    st.none() | st.floats(0, 3600),
    st.floats(0, 1, exclude_max=True),
)
def test_a_wait_is_within_its_interval_and_never_before_the_time_told(
    failures: int, slow: bool, told: float | None, fraction: float
) -> None:
    delay = delay_s(failures, slow=slow, told=told, fraction=fraction)
    longest = SLOW_MAX_INTERVAL_S if slow else MAX_INTERVAL_S
    assert (told or 0.0) <= delay <= (told or 0.0) + longest


def test_waits_double_up_to_a_bound_and_a_refusal_waits_longer() -> None:
    fast = [delay_s(n, slow=False, told=None, fraction=0.5) for n in range(1, 12)]
    assert fast[:4] == [0.5, 1.0, 2.0, 4.0]
    assert fast[-1] == MAX_INTERVAL_S / 2
    assert delay_s(1, slow=True, told=None, fraction=0.5) == 30.0


# -- turns


def test_lanes_take_turns_and_one_that_is_full_is_passed_over() -> None:
    turns: Turns[int] = Turns(together=3, each=2)
    for n in range(4):
        turns.wait("slow", n)
    turns.wait("quick", 10)
    assert turns.take() == ("slow", 0)
    assert turns.take() == ("quick", 10)
    assert turns.take() == ("slow", 1)
    assert turns.take() is None
    turns.wait("quick", 11)
    turns.done("quick")
    assert turns.take() == ("quick", 11)
    turns.done("slow")
    assert turns.take() == ("slow", 2)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60), st.integers(1, 4), st.integers(1, 4))
def test_turns_keep_their_bounds_and_lose_nobody(steps: list[tuple[str, bool]], together: int, each: int) -> None:
    turns: Turns[int] = Turns(together=together, each=each)
    at_work: Counter[str] = Counter()
    order: dict[str, list[int]] = {}
    put: dict[str, list[int]] = {}
    for n, (lane, coming) in enumerate(steps):
        if coming:
            turns.wait(lane, n)
            put.setdefault(lane, []).append(n)
        elif at_work[lane]:
            turns.done(lane)
            at_work[lane] -= 1
        while (taken := turns.take()) is not None:
            at_work[str(taken[0])] += 1
            order.setdefault(str(taken[0]), []).append(taken[1])
        assert at_work.total() == turns.at_work <= together
        assert all(count <= each for count in at_work.values())
    while at_work.total():
        lane = next(lane for lane, count in at_work.items() if count)
        turns.done(lane)
        at_work[lane] -= 1
        while (taken := turns.take()) is not None:
            at_work[str(taken[0])] += 1
            order.setdefault(str(taken[0]), []).append(taken[1])
    assert order == put
