"""`replay: merged`: fewer events for who comes late, and the same view (PROTOCOL.md §4). Pure.

Only directly consecutive events are joined: `message.delta` or `reasoning.delta` of one message, `tool.progress` of one
call without chunks. A joined event has the `seq` and `ts` of the last one and says with `from` where it begins, so a
reader still sees that nothing is missing. What stands alone keeps its bytes.
"""

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from midstream.runs.replay import own_event
from midstream_protocol.codec import encode
from midstream_protocol.events import Event, MessageDelta, ReasoningDelta, ToolProgress

# A text delta as `event_bytes` writes it: seq, type, message_id, text (as it is escaped), step_id. Any other (with an
# origin, or a field of a later version) does not match and stands alone.
_ID: Final = rb"[A-Za-z0-9_-]+"
_DELTA: Final = re.compile(
    rb'\{"v":1,"seq":(\d+),"run_id":"%b","type":"(%b)","ts":"[^"]*",'
    rb'"payload":\{"message_id":"([^"\\]*)","text":"([^"\\]*+(?:\\.[^"\\]*+)*+)"\}(?:,"step_id":"([^"\\]*)")?\}'
    % (_ID, b"|".join(re.escape(kind.TYPE.encode()) for kind in (MessageDelta, ReasoningDelta)))
)
# Compared before anything is decoded. Inside a string its quotes would be escaped; a nested key costs one decoding.
_PROGRESS: Final = f'"type":"{ToolProgress.TYPE}"'.encode()

_Key = tuple[bytes, bytes, bytes | None]


class Joiner:
    """Takes events one after the other, and keeps no more of them than their texts. `size` are the bytes it holds."""

    def __init__(self) -> None:
        self.size = 0
        self._out: list[bytes] = []
        self._alone = b""
        """The newest event of the group, which is all of it so long as it has no other."""
        self._key: _Key | None = None
        self._first: int = 0
        self._head = b""
        self._tail = b""
        self._texts: list[bytes] = []
        self._progress: Event | None = None

    def add(self, events: Sequence[bytes]) -> None:
        """The next ones of the log."""
        for data in events:
            found = _DELTA.fullmatch(data)
            if found is None:
                self._other(data)
                continue
            seq, kind, message_id, text, step_id = found.groups()
            key = (kind, message_id, step_id)
            if key != self._key:
                self._close()
                self._key, self._first = key, int(seq)
                self.size += len(data)
            else:
                self.size += len(text)
            self._alone = data
            self._head, self._tail = data[: found.start(4)], data[found.end(4) : -1]
            self._texts.append(text)
        # Many short texts cost more than what is in them.
        if len(self._texts) > 1:
            self._texts = [b"".join(self._texts), b""]

    def closed(self) -> list[bytes]:
        """All that was added, joined; begins anew."""
        self._close()
        out, self._out, self.size = self._out, [], 0
        return out

    def _other(self, data: bytes) -> None:
        event = _progress(data) if _PROGRESS in data else None
        if event is not None and self._progress is not None and _goes_on(self._progress, event):
            self._progress, self._alone = _over(self._progress, event), b""
            return
        self._close()
        self.size += len(data)
        if event is None:
            self._out.append(data)
        else:
            self._progress, self._first, self._alone = event, event.seq, data

    def _close(self) -> None:
        if self._texts:
            if len(self._texts) == 1:
                self._out.append(self._alone)
            else:
                self._out.append(b'%b%b%b,"from":%d}' % (self._head, b"".join(self._texts), self._tail, self._first))
        elif self._progress is not None:
            self._out.append(self._alone or encode(msgspec.structs.replace(self._progress, from_=self._first)))
        self._key, self._texts, self._progress = None, [], None


def merged(events: Sequence[bytes]) -> list[bytes]:
    """The same events, encoded as they came or joined."""
    joiner = Joiner()
    joiner.add(events)
    return joiner.closed()


def _progress(data: bytes) -> Event | None:
    event = own_event(data)
    payload = event.payload
    # An origin would be lost, and it says which command did this.
    joinable = isinstance(payload, ToolProgress) and payload.chunk is None and event.origin is None
    return event if joinable else None


def _goes_on(last: Event, event: Event) -> bool:
    return (last.payload.tool_call_id, last.step_id) == (event.payload.tool_call_id, event.step_id)


def _over(last: Event, event: Event) -> Event:
    """`event`, with what `last` said and it does not: that stays as it was."""
    before, payload = last.payload, event.payload
    payload = msgspec.structs.replace(
        payload,
        text=payload.text if payload.text is not None else before.text,
        fraction=payload.fraction if payload.fraction is not None else before.fraction,
    )
    return msgspec.structs.replace(event, payload=payload)
