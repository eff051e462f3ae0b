"""From an event of the log to the body of a webhook. Pure."""

from typing import Any, Final, get_args

import msgspec
from msgspec import Struct

from midstream_protocol.codec import parse_iso
from midstream_protocol.commands import WebhookEvent
from midstream_protocol.events import RunCancelled, RunCompleted, RunFailed

EVENTS: Final[tuple[str, ...]] = get_args(WebhookEvent)
"""The events that can be told of."""

ENDS: Final = frozenset({RunCompleted.TYPE, RunFailed.TYPE, RunCancelled.TYPE})

MAX_PAYLOAD_BYTES: Final = 64 * 1024
"""Of an event's payload as JSON; fields that do not fit are left out and named in `left_out`."""

_TYPE: Final = b'"type":"'
_TOLD: Final = tuple(f'{name}"'.encode() for name in EVENTS)


class Told(Struct, kw_only=True, frozen=True):
    """One event that can be told of. `payload` is its JSON as the log has it; `ts` its time (Unix milliseconds)."""

    seq: int
    type: str
    ts: str
    payload: msgspec.Raw

    @property
    def at_ms(self) -> int:
        return parse_iso(self.ts)


class _Kind(Struct, kw_only=True, frozen=True):
    seq: int
    type: str


_told = msgspec.json.Decoder(Told)
_kind = msgspec.json.Decoder(_Kind)


def is_told(event: bytes) -> bool:
    """Whether this encoded event is of a type that can be told of. Fast: it is asked of every event of a server."""
    # Before its type an event of ours has numbers and ids, which hold no quotation marks.
    return event.startswith(_TOLD, event.find(_TYPE) + len(_TYPE))


def kind_of(event: bytes) -> tuple[int, str]:
    """An encoded event's seq and type."""
    kind = _kind.decode(event)
    return kind.seq, kind.type


def read_told(event: bytes) -> Told:
    return _told.decode(event)


def body(told: Told, *, run_id: str, thread_id: str, user: str) -> bytes:
    """The JSON that is sent. The paths in `links` are the server's own, below wherever it is mounted."""
    payload, left_out = _bounded(told.payload)
    base = f"/v1/runs/{run_id}"
    fields: dict[str, Any] = {
        "type": told.type,
        "run_id": run_id,
        "thread_id": thread_id,
        "user": user,
        "seq": told.seq,
        "ts": told.ts,
        "payload": payload,
        **({"left_out": left_out} if left_out else {}),
        "links": {"self": base, "events": f"{base}/events?since_seq={told.seq - 1}", "commands": f"{base}/commands"},
    }
    return msgspec.json.encode(fields)


def _bounded(payload: msgspec.Raw) -> tuple[Any, list[str]]:
    """The payload without its largest fields, as many as it takes to fit; and their names."""
    if len(bytes(payload)) <= MAX_PAYLOAD_BYTES:
        return payload, []
    fields: dict[str, msgspec.Raw] = msgspec.json.decode(payload, type=dict[str, msgspec.Raw])
    sizes = {name: len(bytes(value)) + len(name) + 4 for name, value in fields.items()}
    left_out: list[str] = []
    while sum(sizes.values()) > MAX_PAYLOAD_BYTES:
        largest = max(sizes, key=lambda name: sizes[name])
        del sizes[largest]
        left_out.append(largest)
    return {name: value for name, value in fields.items() if name in sizes}, left_out
