"""Joining text deltas that stand next to each other in one beat: fewer events for a reader that is behind anyway. Pure.

Only drafts that nobody waits for and that carry no journal, of one message and step, with nothing between them.
"""

from collections.abc import Sequence

from midstream.runs.inputs import Drafted
from midstream.runs.mailbox import Posted
from midstream_protocol.events import MessageDelta


def coalesce(posted: Sequence[Posted]) -> Sequence[Posted]:
    """The same inputs in the same order, adjacent deltas of one message as one."""
    if len(posted) < 2:
        return posted
    out: list[Posted] = []
    parts: list[str] = []
    for item in posted:
        delta = _delta(item)
        last = _delta(out[-1]) if out and parts else None
        if delta is not None and last is not None and last[0] == delta[0]:
            parts.append(delta[1].text)
            continue
        _flush(out, parts)
        out.append(item)
        parts = [delta[1].text] if delta is not None else []
    _flush(out, parts)
    return out


def _delta(posted: Posted) -> tuple[tuple[str, str | None], MessageDelta] | None:
    item = posted.item
    if not isinstance(item, Drafted) or posted.reply is not None or item.journal or len(item.payloads) != 1:
        return None
    payload = item.payloads[0]
    return ((payload.message_id, item.step_id), payload) if isinstance(payload, MessageDelta) else None


def _flush(out: list[Posted], parts: list[str]) -> None:
    if len(parts) > 1:
        item = out[-1].item
        assert isinstance(item, Drafted)
        first = item.payloads[0]
        assert isinstance(first, MessageDelta)
        joined = MessageDelta(message_id=first.message_id, text="".join(parts))
        out[-1] = Posted(Drafted(payloads=(joined,), step_id=item.step_id), None)
