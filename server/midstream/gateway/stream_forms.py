"""A run's events as server-sent events, and as one JSON text a line. Bytes in, bytes out; the events are the log's."""

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from midstream_protocol.codec import frame_bytes
from midstream_protocol.frames import ConnectionDraining, FramePayload, RunReset

RECONNECT_MS: Final = 1000
"""What an EventSource is told to wait before it comes back."""

# How `event_bytes` begins. What does not begin like that is decoded.
_PLACE: Final = re.compile(rb'\{"v":1,"seq":(\d+),"run_id":"[^"\\]*","type":"([^"\\]*)"')


class _Place(msgspec.Struct):
    seq: int
    type: str


# The `q` of a media type in an `Accept` header.
_WEIGHT: Final = re.compile(r"(?:^|;)\s*q\s*=\s*([01](?:\.[0-9]{0,3})?)\s*(?:;|$)")

_decoded = msgspec.json.Decoder(_Place).decode


class ServerSentEvents:
    """Each event with its `id` (`<epoch>.<seq>`) and its type as `event`."""

    media_type: Final = "text/event-stream"
    transport: Final = "sse"
    # Something at once: proxies and clients learn that the stream is there before its first event.
    opening: Final = b"retry: %d\n: connected\n\n" % RECONNECT_MS

    def __init__(self, epoch: str, *, frames: bool = False) -> None:
        """`frames`: its reader wants to be told by frames what comments and the end of the stream tell others."""
        self._epoch = epoch.encode()
        self._frames = frames

    def events(self, pulled: Sequence[bytes]) -> bytes:
        # JSON bytes hold no line break, so one `data:` line carries an event whole.
        epoch, parts = self._epoch, []
        for event in pulled:
            found = _PLACE.match(event)
            seq, kind = found.groups() if found is not None else _place(event)
            parts.append(b"id: %b.%b\nevent: %b\ndata: %b\n\n" % (epoch, seq, kind, event))
        return b"".join(parts)

    def reset(self, reset: RunReset) -> bytes:
        if reset.epoch is not None:
            self._epoch = reset.epoch.encode()
        place = b"" if reset.snapshot_seq is None else b"id: %b.%d\n" % (self._epoch, reset.snapshot_seq)
        return b"%bevent: run.reset\ndata: %b\n\n" % (place, frame_bytes(reset))

    def frame(self, payload: FramePayload) -> bytes:
        return b"event: %b\ndata: %b\n\n" % (payload.TYPE.encode(), frame_bytes(payload))

    def keep_alive(self, sign: FramePayload) -> bytes:
        return self.frame(sign) if self._frames else b": keep-alive\n\n"

    def come_back(self, in_s: float) -> bytes:
        """The server ends the stream, and this is when to open it again."""
        told = self.frame(ConnectionDraining(reconnect_in_s=in_s)) if self._frames else b""
        return told + b"retry: %d\n\n" % round(in_s * 1000)


class Lines:
    """Each event on a line of its own; between them frames as on a socket, which have no `seq`."""

    media_type: Final = "application/x-ndjson"
    transport: Final = "ndjson"
    opening: Final = b""

    def __init__(self, *, frames: bool = False) -> None:
        self._frames = frames

    def events(self, pulled: Sequence[bytes]) -> bytes:
        return b"\n".join((*pulled, b"")) if pulled else b""

    def reset(self, reset: RunReset) -> bytes:
        return self.frame(reset)

    def frame(self, payload: FramePayload) -> bytes:
        return frame_bytes(payload) + b"\n"

    def keep_alive(self, sign: FramePayload) -> bytes:
        # Never a blank line: it would break a reader that parses every one.
        return self.frame(sign)

    def come_back(self, in_s: float) -> bytes:
        return self.frame(ConnectionDraining(reconnect_in_s=in_s)) if self._frames else b""


Form = ServerSentEvents | Lines


def wants_lines(accept: Sequence[str]) -> bool:
    """Whether these `Accept` headers ask for NDJSON: by name, and not less than for server-sent events."""
    weights = {"text/event-stream": 0.0, "application/x-ndjson": 0.0, "application/ndjson": 0.0}
    for each in ",".join(accept).lower().split(","):
        named, _, parameters = each.partition(";")
        if (kind := named.strip()) in weights:
            found = _WEIGHT.search(parameters)
            weights[kind] = max(weights[kind], float(found[1]) if found is not None else 1.0)
    lines = max(weights["application/x-ndjson"], weights["application/ndjson"])
    return lines > 0 and lines >= weights["text/event-stream"]


def _place(event: bytes) -> tuple[bytes, bytes]:
    place = _decoded(event)
    return b"%d" % place.seq, place.type.encode()
