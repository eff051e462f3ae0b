"""Hostile bytes meet only our own error; what we write is what is read; a snapshot anywhere changes nothing."""

import json
from contextlib import suppress

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from midstream_protocol import (
    COMMANDS,
    EVENTS,
    FRAMES,
    MAX_DEPTH,
    MAX_INTEGER,
    Command,
    Event,
    Frame,
    ProtocolError,
    decode_command,
    decode_command_msgpack,
    decode_event,
    decode_frame,
    encode,
    event_bytes,
    fold,
    fold_all,
    frame_bytes,
    json_safe,
    json_to_msgpack,
    parse_json,
    parse_msgpack,
    verify,
    view_from_builtins,
    view_to_builtins,
)

IDS = st.from_regex(r"[A-Za-z0-9_-]{1,12}", fullmatch=True)
# JSON text escapes and raw, valid and not: what a mutation of bytes would take long to find.
NASTY = st.sampled_from(
    ["\\ud800", "\\udc00", "\\ud83d\\ude00", "\\u0000", "\x00", "\ufeff", "\ud800", '"', "\\", "NaN", "1e999", "9" * 400,
     "-0", "1E+2", "[" * 50, "{" * 50, '{"a":1,"a":2}', "]", "}", ":", ",", "null", "true", '"v":1', "9007199254740993"]
)  # fmt: skip
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-MAX_INTEGER, MAX_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)
FRAMES_OF_COMMANDS = st.fixed_dictionaries(
    {"v": st.just(1) | PLAIN, "type": st.sampled_from(sorted(COMMANDS)) | PLAIN, "command_id": IDS | PLAIN},
    optional={
        "run_id": IDS | PLAIN,
        "payload": PLAIN
        | st.dictionaries(
            st.sampled_from(
                sorted({field.name for kind in COMMANDS.values() for field in msgspec.structs.fields(kind)})
            ),
            PLAIN | IDS | st.sampled_from(["now", "approve", [{"type": "text", "text": "a"}], ["tool"]]),
            max_size=6,
        ),
    },
)
DECODERS = (decode_command, decode_event, decode_frame, parse_json, decode_command_msgpack, parse_msgpack)


def survives(data):
    """Every decoder either reads `data` or raises our own error; what JSON decoders read, they can write again."""
    for decode in DECODERS:
        try:
            value = decode(data)
        except ProtocolError as refused:
            refused.text.encode()
            continue
        if isinstance(value, Command | Event | Frame):
            encode(value).decode()
        else:
            assert parse_json(msgspec.json.encode(value), max_bytes=10**8) == value


@given(st.binary(max_size=200))
@example(b"[" * 100_000)
@example(b'{"a":' * 100_000)
@example(b"9" * 1_000_000)
@example(b"-" + b"9" * 1_000_000)
@example(b"1e" + b"9" * 1_000_000)
@example(b"0." + b"9" * 1_000_000)
@example(b'"' + b"\\" * 100_001)
@example(b'"' * 100_001)
@example(b"\x81" * 100_000)
@example(b"\x91" * 1_000_000)
def test_any_bytes(data):
    survives(data)


@given(FRAMES_OF_COMMANDS, st.data())
@settings(max_examples=150)
def test_frames_that_are_nearly_right(frame, data):
    text = json.dumps(frame, ensure_ascii=data.draw(st.booleans()))
    at = data.draw(st.integers(0, len(text)))
    cut = data.draw(st.integers(0, 4))
    for hostile in (text, text[:at], text[:at] + data.draw(NASTY) + text[at + cut :]):
        survives(hostile.encode("utf-8", "surrogatepass"))
        with suppress(ProtocolError):
            decode_command(hostile)
    packed = bytearray(msgspec.msgpack.encode(frame))
    survives(bytes(packed))
    packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    survives(bytes(packed))


@given(PLAIN)
def test_both_forms_mean_the_same(value):
    text = msgspec.json.encode(value)
    assert parse_msgpack(json_to_msgpack(text)) == parse_json(text) == value


ANYTHING = st.recursive(
    st.none() | st.floats() | st.integers() | st.text() | st.binary() | st.datetimes() | st.decimals() | st.uuids(),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner)
        | st.dictionaries(st.integers() | st.text() | st.none() | st.booleans(), inner)
    ),
    max_leaves=20,
)


@given(ANYTHING)
def test_whatever_is_made_safe_is_accepted(value):
    safe = json_safe(value)
    assert parse_json(msgspec.json.encode(safe)) == safe


def _value(kind):
    """Payloads by the schema of their struct: msgspec types Hypothesis does not know are spelled out."""
    info = msgspec.inspect.type_info(kind)
    return _of(info)


def _of(info):
    match info:
        case msgspec.inspect.StructType():
            required = {field.encode_name: _of(field.type) for field in info.fields if field.required}
            optional = {field.encode_name: _of(field.type) for field in info.fields if not field.required}
            shape = st.fixed_dictionaries(required, optional=optional)
            return shape.map(lambda fields: msgspec.convert(fields, info.cls))
        case msgspec.inspect.UnionType():
            return st.one_of(*(_of(kind) for kind in info.types if not isinstance(kind, msgspec.inspect.NoneType)))
        case msgspec.inspect.LiteralType():
            return st.sampled_from(info.values)
        case msgspec.inspect.ListType():
            return st.lists(_of(info.item_type), max_size=2)
        case msgspec.inspect.DictType():
            return st.dictionaries(
                st.text(st.characters(exclude_categories=["Cs"]), max_size=4), _of(info.value_type), max_size=2
            )
        case msgspec.inspect.StrType():
            return st.sampled_from(["m1", "m2", "c1"]) | st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
        case msgspec.inspect.IntType():
            return st.integers(0, MAX_INTEGER)
        case msgspec.inspect.FloatType():
            return st.floats(0, 1e9, allow_nan=False)
        case msgspec.inspect.BoolType():
            return st.booleans()
        case msgspec.inspect.AnyType():
            return PLAIN.filter(lambda value: value is not None)
    raise AssertionError(info)


PAYLOADS = st.sampled_from(sorted(EVENTS.values(), key=lambda kind: kind.TYPE)).flatmap(_value)
FRAME_PAYLOADS = st.sampled_from(sorted(FRAMES.values(), key=lambda kind: kind.TYPE)).flatmap(_value)


def _wire(value):
    """`value` as any reader of JSON has it: `5.0` is `5`."""
    return parse_json(msgspec.json.encode(value))


@given(PAYLOADS)
def test_every_event_is_read_as_it_was_written(payload):
    written = event_bytes(seq=1, run_id="r", ts="2026-06-12T12:00:01.234Z", payload=payload)
    event = decode_event(written)
    assert type(event.payload) is type(payload)
    assert _wire(event.payload) == _wire(payload)
    assert decode_event(encode(event)) == event
    assert b"null" not in encode(event) or b"null" in written


@given(FRAME_PAYLOADS)
def test_every_frame_is_read_as_it_was_written(payload):
    frame = decode_frame(frame_bytes(payload))
    assert type(frame.payload) is type(payload)
    assert _wire(frame.payload) == _wire(payload)


LOGS = st.lists(PAYLOADS, min_size=1, max_size=12).map(
    lambda payloads: [
        decode_event(event_bytes(seq=seq, run_id="r", ts="2026-06-12T12:00:01.234Z", payload=payload))
        for seq, payload in enumerate(payloads, 1)
    ]
)


@given(LOGS)
@settings(max_examples=80)
def test_a_snapshot_anywhere_changes_nothing(log):
    views = []
    view = None
    for event in log:
        view = fold(view, event)
        views.append(view)
    assert fold_all(log) == view
    for at, snapshot in enumerate(views):
        read_back = view_from_builtins(json.loads(msgspec.json.encode(view_to_builtins(snapshot))))
        assert _wire(read_back) == _wire(snapshot)
        assert _wire(fold_all(log[at + 1 :], read_back)) == _wire(view)
        assert fold_all(log[: at + 1], snapshot) is snapshot


@given(LOGS)
@settings(max_examples=50)
def test_verify_judges_any_log(log):
    assert all(isinstance(problem, str) for problem in verify(log))


def test_the_depth_of_a_snapshot_stays_within_the_limit():
    deep = {}
    for _ in range(200):
        deep = {"x": deep}
    chunk = {"tool_call_id": "c", "chunk": {"index": 0, "data": json_safe(deep)}}
    event = {"v": 1, "seq": 1, "run_id": "r", "type": "tool.progress", "ts": "t", "payload": chunk}
    view = fold(None, decode_event(json.dumps(event)))
    payload = FRAMES["run.reset"](run_id="r", reason="requested", snapshot=view_to_builtins(view), snapshot_seq=1)
    parse_json(frame_bytes(payload), max_depth=MAX_DEPTH)
