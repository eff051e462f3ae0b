"""How to ask each server for a run, and what of its answer is counted."""

import time
from typing import Final, Literal

from msgspec import Struct

EVENT: Final = '{"v":1,"seq":'
"""Only a run's events begin like this: the envelope's fields come in a fixed order."""

SALT: Final = f"{time.time_ns():x}"
"""Begins the ids of this process's commands: an id that was used before asks for nothing new."""


class Dialect(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """`ask` is a WebSocket message or the body of a POST; `{id}` and `{order}` in it are filled in.

    `ready` is what the server says when a connection can be used, `opening` what is said first. `follow` is the path
    that is read then, if the POST does not stream by itself; `{run_id}` is taken from its answer.
    """

    kind: Literal["ws", "http"]
    path: str
    ask: str
    ready: str = ""
    opening: tuple[str, ...] = ()
    accept: str = "*/*"
    follow: str = ""
    event: str = EVENT
    text: str = '"type":"message.delta"'
    end: str = '"type":"run.completed"'
    failed: tuple[str, ...] = ('"type":"run.failed"', '"type":"run.cancelled"', '"status":"rejected"', '"error":{')
    seqs: bool = True
    """Events are numbered without a gap: the last one's number is how many there were."""
    agent: str = ""


_SSE: Final = "text/event-stream"
_LINES: Final = "application/x-ndjson"

WS: Final = Dialect(
    kind="ws",
    path="/v1/ws?client_id=bench{id}",
    ready='"connection.ready"',
    ask='{"v":1,"type":"run.start","command_id":"{id}","payload":{"input":"{order}"}}',
)
SSE: Final = Dialect(
    kind="http", path="/v1/runs", ask='{"input":"{order}"}', accept=_SSE, follow="/v1/runs/{run_id}/events"
)
NDJSON: Final = Dialect(
    kind="http", path="/v1/runs", ask='{"input":"{order}"}', accept=_LINES, follow="/v1/runs/{run_id}/events"
)
# Written by hand, the POST answers with the stream: nothing is kept that could be read later.
HAND_SSE: Final = Dialect(kind="http", path="/v1/runs", ask='{"input":"{order}"}', accept=_SSE)
HAND_NDJSON: Final = Dialect(kind="http", path="/v1/runs", ask='{"input":"{order}"}', accept=_LINES)

OURS: Final = {"ws": WS, "sse": SSE, "ndjson": NDJSON}
BY_HAND: Final = {"ws": WS, "sse": HAND_SSE, "ndjson": HAND_NDJSON}


def filled(template: str, **values: str) -> str:
    """The template's own braces stay: it is JSON."""
    for name, value in values.items():
        template = template.replace(f"{{{name}}}", value)
    return template


def websocket_request(path: str, port: int) -> bytes:
    return (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


def masked(text: str) -> bytes:
    """A WebSocket message of a client. A mask of zeros is a mask, and leaves the bytes as they are."""
    body = text.encode()
    if len(body) < 126:
        return bytes((0x81, 0x80 | len(body), 0, 0, 0, 0)) + body
    return bytes((0x81, 0xFE)) + len(body).to_bytes(2, "big") + bytes(4) + body


def post_request(path: str, port: int, body: str, *, accept: str = "*/*") -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\nAccept: {accept}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


def get_request(path: str, port: int, *, accept: str = "*/*") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: {accept}\r\n\r\n".encode()
