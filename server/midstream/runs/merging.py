"""`replay: merged`: fewer events for who comes late, and the same view (PROTOCOL.md §4). Pure.

Only directly consecutive events are joined: `message.delta` or `reasoning.delta` of one message, `tool.progress` of one
call without chunks. A joined event has the `seq` and `ts` of the last one and says with `from` where it begins, so a
reader still sees that nothing is missing. What stands alone keeps its bytes.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from midstream.runs.replay import own_event
from midstream_protocol.codec import encode
from midstream_protocol.events import Event, MessageDelta, ReasoningDelta, ToolProgress

# Compared before anything is decoded. Inside a string its quotes would be escaped; a nested key costs one decoding.
_CANDIDATES: Final = tuple(f'"type":"{kind.TYPE}"'.encode() for kind in (MessageDelta, ReasoningDelta, ToolProgress))


def merged(events: Sequence[bytes]) -> list[bytes]:
    """The same events, encoded as they came or joined."""
    out: list[bytes] = []
    alone = b""
    group: list[Event] = []
    for data in events:
        event = _joinable(data)
        if event is not None and group and _goes_on(group[-1], event):
            group.append(event)
            continue
        _close(out, group, alone)
        group = [event] if event is not None else []
        alone = data
        if event is None:
            out.append(data)
    _close(out, group, alone)
    return out


def _joinable(data: bytes) -> Event | None:
    if not any(mark in data for mark in _CANDIDATES):
        return None
    event = own_event(data)
    # An origin would be lost, and it says which command did this.
    if event.origin is not None:
        return None
    payload = event.payload
    if isinstance(payload, ToolProgress):
        return event if payload.chunk is None else None
    return event if isinstance(payload, MessageDelta | ReasoningDelta) else None


def _goes_on(last: Event, event: Event) -> bool:
    return type(last.payload) is type(event.payload) and _subject(last) == _subject(event)


def _subject(event: Event) -> tuple[str, str | None]:
    payload = event.payload
    return (payload.tool_call_id if isinstance(payload, ToolProgress) else payload.message_id), event.step_id


def _close(out: list[bytes], group: list[Event], alone: bytes) -> None:
    if len(group) > 1:
        out.append(encode(_joined(group)))
    elif group:
        out.append(alone)


def _joined(group: Sequence[Event]) -> Event:
    first, last = group[0], group[-1]
    payload = last.payload
    if isinstance(payload, ToolProgress):
        # What an event does not say stays as it was before: the newest text, and the newest fraction.
        text = next((e.payload.text for e in reversed(group) if e.payload.text is not None), None)
        fraction = next((e.payload.fraction for e in reversed(group) if e.payload.fraction is not None), None)
        payload = msgspec.structs.replace(payload, text=text, fraction=fraction)
    else:
        payload = msgspec.structs.replace(payload, text="".join(e.payload.text for e in group))
    return msgspec.structs.replace(last, payload=payload, from_=first.seq)
