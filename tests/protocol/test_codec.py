import json

import pytest

from midstream_protocol import (
    COMMANDS,
    Command,
    ErrorFrame,
    Event,
    FieldError,
    Frame,
    Malformed,
    MessageDelta,
    Notice,
    Origin,
    ProtocolError,
    Receipt,
    RunCancel,
    TooLarge,
    decode_command,
    decode_event,
    decode_frame,
    encode,
    encode_command,
    event_bytes,
    frame_bytes,
    iso_ms,
    json_to_msgpack,
    parse_iso,
    parse_json,
    parse_msgpack,
)

TS = "2026-06-12T12:00:01.234Z"


def test_an_event_is_these_bytes():
    written = event_bytes(
        seq=42,
        run_id="run_1",
        ts=TS,
        payload=MessageDelta(message_id="msg_1", text="Grüße "),
        step_id="step_1",
        origin=Origin(client_id="cl_1"),
    )
    assert (
        written
        == (
            '{"v":1,"seq":42,"run_id":"run_1","type":"message.delta","ts":"2026-06-12T12:00:01.234Z",'
            '"payload":{"message_id":"msg_1","text":"Grüße "},"step_id":"step_1","origin":{"client_id":"cl_1"}}'
        ).encode()
    )
    assert encode(decode_event(written)) == written
    assert decode_frame(written) == decode_event(written)


def test_a_frame_is_these_bytes():
    receipt = Receipt(
        command_id="c",
        status="rejected",
        code="invalid_args",
        as_="queued",
        errors=[FieldError(path="/amount", code="type", text="a number")],
    )
    written = frame_bytes(receipt)
    assert json.loads(written) == {
        "v": 1,
        "type": "receipt",
        "payload": {
            "command_id": "c",
            "status": "rejected",
            "as": "queued",
            "code": "invalid_args",
            "errors": [{"path": "/amount", "code": "type", "text": "a number"}],
        },
    }
    assert decode_frame(written) == Frame(v=1, type="receipt", payload=receipt)


def test_types_from_the_future_are_read_as_they_are():
    assert decode_frame(b'{"v":1,"type":"weather","payload":{"sky":"clear"}}').payload == {"sky": "clear"}
    event = decode_event(b'{"v":1,"seq":1,"run_id":"r","type":"weather","ts":"t","payload":{"sky":"clear"}}')
    assert isinstance(event, Event)
    assert event.payload == {"sky": "clear"}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"v":1,"type":"receipt"}',
        b'{"v":1,"type":"receipt","payload":[]}',
        b'{"v":1,"type":"receipt","payload":{"command_id":"c","status":"maybe"}}',
        b'{"v":1,"seq":"1","run_id":"r","type":"notice","ts":"t","payload":{}}',
        b'{"v":1,"seq":1,"run_id":"r","type":"notice","ts":"t","payload":{"level":"loud","code":"c","text":"t"}}',
    ],
)
def test_a_bad_frame_is_malformed(data):
    with pytest.raises(Malformed):
        decode_frame(data)


def test_a_refusal_says_where():
    with pytest.raises(Malformed, match=r"\$\.payload\.level"):
        decode_event(
            b'{"v":1,"seq":1,"run_id":"r","type":"notice","ts":"t","payload":{"level":"loud","code":"c","text":"t"}}'
        )
    with pytest.raises(Malformed, match=r"^\$\.payload\.input\[1\]\.text: .*send the command again$"):
        decode_command(
            '{"v":1,"type":"run.start","command_id":"c","payload":{"input":'
            '[{"type":"text","text":"a"},{"type":"text","text":5}]}}'
        )


def test_a_refusal_repeats_little_of_what_was_sent():
    for field in ("type", "mode"):
        frame = {"v": 1, "type": "run.cancel", "command_id": "c", "run_id": "r", "payload": {"mode": "now"}}
        (frame if field == "type" else frame["payload"])[field] = "x" * 100_000
        with pytest.raises(ProtocolError) as refused:
            decode_command(json.dumps(frame))
        assert len(refused.value.text) < 1_000


def test_half_a_surrogate_pair_costs_one_character_not_the_event():
    written = event_bytes(seq=1, run_id="r", ts=TS, payload=Notice(level="info", code="c", text="a\ud800b"))
    assert decode_event(written).payload.text == "a\ufffdb"
    assert decode_frame(frame_bytes(ErrorFrame(code="c", text="\udc00"))).payload.text == "\ufffd"


def test_a_command_is_these_bytes():
    command = Command(type="run.cancel", command_id="c", run_id="r", payload=RunCancel(mode="after_step"))
    written = b'{"v":1,"type":"run.cancel","command_id":"c","run_id":"r","payload":{"mode":"after_step"}}'
    assert encode_command(command) == encode(command) == written
    assert decode_command(written) == command


def test_the_limit_of_bytes_counts_bytes():
    assert parse_json('"é"', max_bytes=4) == "é"
    for data in ('"é"', '"é"'.encode()):
        with pytest.raises(TooLarge):
            parse_json(data, max_bytes=3)
    with pytest.raises(TooLarge):
        parse_msgpack(b"\xa3abc", max_bytes=3)


def test_the_limit_of_depth_is_the_same_in_both_forms():
    for levels, fits in ((3, True), (4, False)):
        text = "[" * levels + "]" * levels
        packed = json_to_msgpack(text.encode())
        for parse, data in ((parse_json, text), (parse_msgpack, packed)):
            if fits:
                parse(data, max_depth=3)
            else:
                with pytest.raises(Malformed, match="3 levels"):
                    parse(data, max_depth=3)


def test_a_lone_surrogate_in_a_str_frame_is_malformed():
    with pytest.raises(Malformed):
        decode_command('{"v":1,"type":"\ud800"}')


@pytest.mark.parametrize("data", [b"", b"{", b"nan", b"\xff", b'"\\ud800"'])
def test_only_json_is_transcoded(data):
    with pytest.raises(Malformed):
        json_to_msgpack(data)


def test_every_command_has_a_name_of_its_own():
    assert len(COMMANDS) == 12


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (1781265601234, "2026-06-12T12:00:01.234Z"),
        (253402300799999, "9999-12-31T23:59:59.999Z"),
        (-62135596800000, "0001-01-01T00:00:00.000Z"),
    ],
)
def test_times(moment, text):
    assert iso_ms(moment) == text
    assert parse_iso(text) == moment


@pytest.mark.parametrize(
    "text", ["", "2026-06-12", "2026-06-12T12:00:01.234", "2026-06-12T12:00:01+00:00", "2026-13-12T12:00:01Z",
             "2026-06-12 12:00:01Z", "２026-06-12T12:00:01Z", "2026-06-12T12:00:01.234Z\n", "2026-06-12T24:30:00Z"]
)  # fmt: skip
def test_no_times(text):
    with pytest.raises(Malformed):
        parse_iso(text)


def test_finer_digits_are_cut():
    assert parse_iso("1970-01-01T00:00:00.0019Z") == 1
    assert parse_iso("1970-01-01T00:00:00Z") == 0
