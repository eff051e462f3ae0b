"""What a client is told when it attaches: where the run stands, what waits, and from where it can follow."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from midstream.runs.contract import Limits
from midstream.runs.state import OpenQuestion
from midstream.runs.subscription import Subscription
from midstream_protocol.codec import parse_iso
from midstream_protocol.events import TERMINAL_STATUSES, ApprovalRequired, InputRequired, ToolRequested
from midstream_protocol.frames import RunAttached, RunReset
from midstream_protocol.view import View, view_to_builtins

ResetReason = Literal["requested", "epoch", "ahead", "trimmed", "too_far", "gone"]

MERGED_FACTOR: Final = 10
"""A merged replay may span so many times the events of a full one: what it comes to is known only when it is made."""

_KINDS: Final = {ApprovalRequired: "approval", InputRequired: "input", ToolRequested: "tool"}


class Standing(Struct, kw_only=True, frozen=True):
    """What is told of a run beside where it is: known without folding its log, from its writer or from its end."""

    thread_id: str
    agent: str
    status: str
    pending: Sequence[Mapping[str, Any]] = ()
    """As in the view."""


class Place(Struct, kw_only=True, frozen=True):
    """How far a run is."""

    epoch: str
    head_seq: int
    status: str


class Attachment:
    """One attach: its frame, the reset that replaces the replay if there is one, and the subscription."""

    def __init__(
        self,
        *,
        standing: Standing,
        epoch: str,
        head_seq: int,
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
            run_id=subscription.run_id,
            thread_id=standing.thread_id,
            epoch=epoch,
            head_seq=head_seq,
            first_seq=first_seq,
            status=standing.status,
            queue_position=queue_position,
            can=_can(standing.status, steerable=steerable),
            pending=fresh(standing.pending, now_ms=now_ms),
        )

    def frame(self, command_id: str) -> RunAttached:
        return msgspec.structs.replace(self._attached, command_id=command_id)


def standing_of(view: View) -> Standing:
    return Standing(thread_id=view.thread_id, agent=view.agent, status=view.status, pending=view.pending)


def asked(questions: Sequence[OpenQuestion]) -> list[dict[str, Any]]:
    """What waits, as the view's `pending` has it."""
    return [{"kind": _KINDS[type(q.payload)], **msgspec.to_builtins(q.payload)} for q in questions]


def fresh(pending: Sequence[Mapping[str, Any]], *, now_ms: int) -> list[dict[str, Any]]:
    """What waits, with the seconds it still has."""
    return [{**item, "expires_in_s": max(0.0, (parse_iso(item["expires_at"]) - now_ms) / 1000)} for item in pending]


def reset_reason(
    *,
    head_seq: int,
    epoch: str,
    first_seq: int,
    since_seq: int,
    asked_epoch: str | None,
    replay: str,
    limits: Limits,
) -> ResetReason | None:
    """Why the replay cannot begin at `since_seq`; None: it can."""
    if replay == "snapshot":
        return "requested"
    if asked_epoch is not None and asked_epoch != epoch:
        return "epoch"
    if since_seq > head_seq:
        return "ahead"
    if since_seq + 1 < first_seq:
        return "trimmed"
    most = limits.max_replay_events * (MERGED_FACTOR if replay == "merged" else 1)
    return "too_far" if head_seq - since_seq > most else None


def reset_frame(view: View, *, epoch: str, reason: ResetReason) -> RunReset:
    return RunReset(
        run_id=view.run_id,
        reason=reason,
        epoch=epoch,
        snapshot=view_to_builtins(view),
        snapshot_seq=view.cursor.seq,
    )


def _can(status: str, *, steerable: bool) -> list[str]:
    if status in TERMINAL_STATUSES:
        return []
    return [*(["correct"] if steerable else []), "cancel", "approve", "input"]
