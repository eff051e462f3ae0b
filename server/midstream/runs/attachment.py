"""What a client is told when it attaches: where the run stands, what waits, and from where it can follow."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from midstream.runs.subscription import Subscription
from midstream_protocol.codec import parse_iso
from midstream_protocol.events import TERMINAL_STATUSES
from midstream_protocol.frames import RunAttached, RunReset
from midstream_protocol.view import View, view_to_builtins

ResetReason = Literal["requested", "epoch", "ahead", "trimmed", "too_far", "gone"]


class Attachment:
    """One attach: its frame, the reset that replaces the replay if there is one, and the subscription."""

    def __init__(
        self,
        *,
        view: View,
        epoch: str,
        first_seq: int,
        now_ms: int,
        steerable: bool,
        queue_position: int | None,
        reset: RunReset | None,
        subscription: Subscription,
    ) -> None:
        self.reset = reset
        self.subscription = subscription
        self._attached = RunAttached(
            command_id="",
            run_id=view.run_id,
            thread_id=view.thread_id,
            epoch=epoch,
            head_seq=view.cursor.seq,
            first_seq=first_seq,
            status=view.status,
            queue_position=queue_position,
            can=_can(view, steerable=steerable),
            pending=fresh(view.pending, now_ms=now_ms),
        )

    def frame(self, command_id: str) -> RunAttached:
        return msgspec.structs.replace(self._attached, command_id=command_id)


def fresh(pending: Sequence[Mapping[str, Any]], *, now_ms: int) -> list[dict[str, Any]]:
    """What waits, with the seconds it still has."""
    return [{**item, "expires_in_s": max(0.0, (parse_iso(item["expires_at"]) - now_ms) / 1000)} for item in pending]


def reset_reason(
    *, view: View, epoch: str, first_seq: int, since_seq: int, asked_epoch: str | None, replay: str
) -> ResetReason | None:
    """Why the replay cannot begin at `since_seq`; None: it can."""
    if replay == "snapshot":
        return "requested"
    if asked_epoch is not None and asked_epoch != epoch:
        return "epoch"
    if since_seq > view.cursor.seq:
        return "ahead"
    return "trimmed" if since_seq + 1 < first_seq else None


def reset_frame(view: View, *, epoch: str, reason: ResetReason) -> RunReset:
    return RunReset(
        run_id=view.run_id,
        reason=reason,
        epoch=epoch,
        snapshot=view_to_builtins(view),
        snapshot_seq=view.cursor.seq,
    )


def _can(view: View, *, steerable: bool) -> list[str]:
    if view.status in TERMINAL_STATUSES:
        return []
    return [*(["correct"] if steerable else []), "cancel", "approve", "input"]
