"""Envelopes: frames to bytes and back. Decoding raises `ProtocolError` subclasses and nothing else.

JSON bytes are the truth; MessagePack is a transcoding of the same map. What is wrong inside a command's payload is
`checks`'s to say.
"""

from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec

from midstream_protocol.checks import payload_of
from midstream_protocol.commands import COMMANDS, AuthRefresh, Command, CommandPayload, Ping, RunStart, ToolsOffer
from midstream_protocol.errors import Malformed, ProtocolError, UnknownCommand
from midstream_protocol.events import EVENTS, Event, Origin, Payload
from midstream_protocol.frames import FRAMES, Frame, FramePayload
from midstream_protocol.ids import is_id
from midstream_protocol.limits import MAX_FRAME_BYTES, MAX_INPUT_BYTES, MAX_TOOL_RESULT_BYTES
from midstream_protocol.parse import parse_json, parse_msgpack
from midstream_protocol.safe import json_safe
from midstream_protocol.times import iso_ms, parse_iso
from midstream_protocol.version import PROTOCOL_VERSION

__all__ = [
    "decode_command",
    "decode_command_msgpack",
    "decode_event",
    "decode_frame",
    "encode",
    "encode_command",
    "event_bytes",
    "frame_bytes",
    "iso_ms",
    "json_safe",
    "json_to_msgpack",
    "parse_iso",
    "parse_json",
    "parse_msgpack",
]

_T = TypeVar("_T")

_ID_RULE: Final = "1 to 64 letters, digits, `_` or `-`"
_WITHOUT_RUN: Final = frozenset({RunStart.TYPE, AuthRefresh.TYPE, Ping.TYPE})
_RUN_IN_PAYLOAD: Final = frozenset({RunStart.TYPE, ToolsOffer.TYPE})

# A server's answer may be larger than what it accepts: a whole view, a message as long as a model writes.
_MAX_RECEIVED_BYTES: Final = 64 * MAX_FRAME_BYTES


class _OnlyId(msgspec.Struct):
    command_id: str | None = None


# Of a frame that is refused as a whole (too large, an integer too big, a key twice): these pass over all the rest.
_id_of_json = msgspec.json.Decoder(_OnlyId).decode
_id_of_msgpack = msgspec.msgpack.Decoder(_OnlyId).decode

_encoder = msgspec.json.Encoder()
_json_decoder = msgspec.json.Decoder()
_msgpack_encoder = msgspec.msgpack.Encoder()


# -- commands


def decode_command(
    data: bytes | str,
    *,
    max_bytes: int = MAX_FRAME_BYTES,
    max_input_bytes: int = MAX_INPUT_BYTES,
    max_tool_result_bytes: int = MAX_TOOL_RESULT_BYTES,
) -> Command:
    """One inbound JSON frame as a `Command`.

    Raises `Malformed`, `TooLarge` or `UnknownCommand`; their `command_id` is set when the frame's was readable.
    """
    try:
        tree = parse_json(data, max_bytes=max_bytes)
    except ProtocolError as refused:
        refused.command_id = _id_in(data, _id_of_json)
        raise
    return _command(tree, max_input_bytes=max_input_bytes, max_tool_result_bytes=max_tool_result_bytes)


def decode_command_msgpack(
    data: bytes,
    *,
    max_bytes: int = MAX_FRAME_BYTES,
    max_input_bytes: int = MAX_INPUT_BYTES,
    max_tool_result_bytes: int = MAX_TOOL_RESULT_BYTES,
) -> Command:
    """One inbound MessagePack frame as a `Command`; as `decode_command`."""
    try:
        tree = parse_msgpack(data, max_bytes=max_bytes)
    except ProtocolError as refused:
        refused.command_id = _id_in(data, _id_of_msgpack)
        raise
    return _command(tree, max_input_bytes=max_input_bytes, max_tool_result_bytes=max_tool_result_bytes)


def encode_command(command: Command) -> bytes:
    """The frame a client sends for `command`. An empty `command_id` (a ping's) is left out."""
    envelope: dict[str, Any] = {"v": PROTOCOL_VERSION, "type": command.type}
    if command.command_id:
        envelope["command_id"] = command.command_id
    if command.run_id is not None:
        envelope["run_id"] = command.run_id
    envelope["payload"] = command.payload
    return _encode(envelope)


def _id_in(data: bytes | str, decode: Callable[[bytes], _OnlyId]) -> str | None:
    """The frame's command_id, so that whoever waits for its receipt gets one; None where it cannot be told."""
    try:
        raw = data.encode() if isinstance(data, str) else data
        # Said twice, or said again further in: which one was meant is a guess.
        found = decode(raw).command_id if raw.count(b"command_id") == 1 else None
    except (msgspec.DecodeError, ValueError, OverflowError, RecursionError):
        return None
    return found if is_id(found) else None


def _command(tree: Any, *, max_input_bytes: int, max_tool_result_bytes: int) -> Command:
    if type(tree) is not dict:
        raise Malformed("$: expected an object; send {v, type, command_id, run_id, payload}")
    command_id = tree.get("command_id")
    try:
        return _checked(tree, command_id, max_input_bytes, max_tool_result_bytes)
    except ProtocolError as refused:
        if is_id(command_id):
            refused.command_id = command_id
        raise


def _checked(tree: dict[str, Any], command_id: Any, max_input_bytes: int, max_tool_result_bytes: int) -> Command:
    version, name, run_id, fields = (tree.get(key) for key in ("v", "type", "run_id", "payload"))
    # `True == 1`, and a JSON true is no version.
    if type(version) is not int or version != PROTOCOL_VERSION:
        raise Malformed(f"$.v: this server speaks version {PROTOCOL_VERSION}; send v: {PROTOCOL_VERSION}")
    if type(name) is not str:
        raise Malformed("$.type: expected a string; send the command's name, such as run.start")
    # A ping gets no receipt, so it needs no id to find one by.
    if not (is_id(command_id) or (command_id is None and name == Ping.TYPE)):
        raise Malformed(f"$.command_id: expected an id of {_ID_RULE}; send a fresh one with each command")
    if run_id is not None and not is_id(run_id):
        raise Malformed(f"$.run_id: expected an id of {_ID_RULE}; send the run's id")
    if fields is None:
        fields = {}
    if type(fields) is not dict:
        raise Malformed("$.payload: expected an object; send the command's fields in it")
    if name not in COMMANDS:
        raise UnknownCommand(f"$.type: no command is called {_shown(name)}; send one of {', '.join(COMMANDS)}")
    if name in _RUN_IN_PAYLOAD:
        run_id = _run_in_payload(fields, run_id)
    elif name in _WITHOUT_RUN:
        run_id = None
    elif run_id is None:
        raise Malformed(f"$.run_id: {name} speaks of one run; send its id")
    payload = payload_of(
        COMMANDS[name], fields, max_input_bytes=max_input_bytes, max_tool_result_bytes=max_tool_result_bytes
    )
    return Command(type=name, command_id=command_id or "", payload=payload, run_id=_speaks_of(payload, run_id))


def _run_in_payload(fields: dict[str, Any], run_id: str | None) -> str | None:
    inside = fields.get("run_id")
    if run_id is not None and inside is not None and inside != run_id:
        raise Malformed("$.payload.run_id: another run than $.run_id; send the run's id once")
    if run_id is not None:
        fields["run_id"] = run_id
    return run_id


def _speaks_of(payload: CommandPayload, run_id: str | None) -> str | None:
    if isinstance(payload, ToolsOffer):
        return payload.run_id
    return None if isinstance(payload, RunStart) else run_id


def _shown(text: str) -> str:
    return repr(text if len(text) <= 64 else f"{text[:64]}…")


# -- events and connection frames


def event_bytes(
    *, seq: int, run_id: str, ts: str, payload: Payload, step_id: str | None = None, origin: Origin | None = None
) -> bytes:
    """The bytes of one event: what the log keeps and every transport sends.

    Open values in `payload` (`Any`, `dict`) must have gone through `json_safe`; plain text need not.
    """
    return _encode(
        Event(
            v=PROTOCOL_VERSION,
            seq=seq,
            run_id=run_id,
            type=payload.TYPE,
            ts=ts,
            payload=payload,
            step_id=step_id,
            origin=origin,
        )
    )


def frame_bytes(payload: FramePayload) -> bytes:
    """The bytes of one connection frame."""
    return _encode(Frame(v=PROTOCOL_VERSION, type=payload.TYPE, payload=payload))


def encode(value: Event | Frame | Command) -> bytes:
    """The JSON of an event, a connection frame or a command: UTF-8, no whitespace."""
    return encode_command(value) if isinstance(value, Command) else _encode(value)


def decode_event(data: bytes | str, *, max_bytes: int = _MAX_RECEIVED_BYTES) -> Event:
    """One event. Its payload is the struct of its type, or a dict for a type that this version does not know.

    Raises `Malformed` or `TooLarge`.
    """
    return _event(parse_json(data, max_bytes=max_bytes))


def decode_frame(data: bytes | str, *, max_bytes: int = _MAX_RECEIVED_BYTES) -> Event | Frame:
    """What a client received: an event (it has a `seq`) or a connection frame. Raises `Malformed` or `TooLarge`.

    As with events, the payload of a frame type that this version does not know is a dict.
    """
    tree = parse_json(data, max_bytes=max_bytes)
    if type(tree) is dict and "seq" in tree:
        return _event(tree)
    frame = _convert(tree, Frame)
    return msgspec.structs.replace(frame, payload=_body(frame.payload, FRAMES.get(frame.type)))


def json_to_msgpack(json_bytes: bytes) -> bytes:
    """The same map in MessagePack. For JSON that this package encoded; raises `Malformed` for other text."""
    try:
        return _msgpack_encoder.encode(_json_decoder.decode(json_bytes))
    except (msgspec.DecodeError, ValueError, OverflowError, RecursionError) as refused:
        raise Malformed(f"not valid JSON: {refused}") from None


def _event(tree: Any) -> Event:
    event = _convert(tree, Event)
    return msgspec.structs.replace(event, payload=_body(event.payload, EVENTS.get(event.type)))


def _body(payload: Any, kind: type[Payload] | type[FramePayload] | None) -> Any:
    if type(payload) is not dict:
        raise Malformed("$.payload: expected an object")
    return payload if kind is None else _convert(payload, kind, at="$.payload")


def _convert(tree: Any, kind: type[_T], *, at: str = "$") -> _T:
    try:
        return msgspec.convert(tree, kind)
    except msgspec.ValidationError as refused:
        raise Malformed(f"{refused}".replace("`$", f"`{at}", 1)) from None


def _encode(value: Any) -> bytes:
    try:
        return _encoder.encode(value)
    except UnicodeEncodeError:
        # A model's text can hold half of a surrogate pair; one character is replaced rather than the event refused.
        return _encoder.encode(json_safe(msgspec.to_builtins(value), max_depth=64))
