"""How one connection writes: JSON text, or the same maps as MessagePack. The bytes of an event are made once."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Final, Protocol

from midstream.gateway.auth import BEARER_SUBPROTOCOL
from midstream_protocol.codec import decode_command, decode_command_msgpack, frame_bytes, json_to_msgpack
from midstream_protocol.commands import Command
from midstream_protocol.errors import Malformed
from midstream_protocol.frames import ConnectionLimits, FramePayload
from midstream_protocol.version import SUBPROTOCOL_JSON, SUBPROTOCOL_MSGPACK

CACHED_EVENT_BYTES: Final = 2048
"""Events up to this size are transcoded once for all MessagePack connections: deltas, which are most of them."""

CACHED_EVENTS: Final = 2048
"""So the cache holds 8 MiB at most, both forms counted."""


class Wire(Protocol):
    """One encoding. `text`: whether its frames are text frames."""

    text: bool

    def command(self, data: str | bytes, limits: ConnectionLimits) -> Command:
        """Raises a `ProtocolError` for everything that is not a command."""
        ...

    def frame(self, payload: FramePayload) -> bytes: ...

    def event(self, event: bytes) -> bytes:
        """An event's JSON bytes as this encoding writes them."""
        ...


class JsonWire:
    text = True

    def command(self, data: str | bytes, limits: ConnectionLimits) -> Command:
        if isinstance(data, bytes):
            raise Malformed(f"this connection speaks JSON in text frames; {SUBPROTOCOL_MSGPACK} is for binary ones")
        return decode_command(
            data,
            max_bytes=limits.max_frame_bytes,
            max_input_bytes=limits.max_input_bytes,
            max_tool_result_bytes=limits.max_tool_result_bytes,
        )

    def frame(self, payload: FramePayload) -> bytes:
        return frame_bytes(payload)

    def event(self, event: bytes) -> bytes:
        return event


class MsgpackWire:
    text = False

    def command(self, data: str | bytes, limits: ConnectionLimits) -> Command:
        if isinstance(data, str):
            raise Malformed(f"this connection speaks MessagePack in binary frames; {SUBPROTOCOL_JSON} is for text ones")
        return decode_command_msgpack(
            data,
            max_bytes=limits.max_frame_bytes,
            max_input_bytes=limits.max_input_bytes,
            max_tool_result_bytes=limits.max_tool_result_bytes,
        )

    def frame(self, payload: FramePayload) -> bytes:
        return json_to_msgpack(frame_bytes(payload))

    def event(self, event: bytes) -> bytes:
        return _transcoded(event) if len(event) <= CACHED_EVENT_BYTES else json_to_msgpack(event)


# All readers of a run are handed the same bytes object, so the key's hash is computed once.
_transcoded = lru_cache(maxsize=CACHED_EVENTS)(json_to_msgpack)

_WIRES: Final[dict[str, type[Wire]]] = {SUBPROTOCOL_JSON: JsonWire, SUBPROTOCOL_MSGPACK: MsgpackWire}


def negotiate(offered: Iterable[str]) -> tuple[str | None, Wire | None]:
    """The subprotocol to echo and the encoding it means: the first known one in the client's order.

    Nothing offered is JSON with nothing to echo; so is a bearer token alone. Only unknown ones: no encoding (None).
    """
    names = [name for name in offered if not name.startswith(BEARER_SUBPROTOCOL)]
    for name in names:
        if name in _WIRES:
            return name, _WIRES[name]()
    return None, (None if names else JsonWire())
