"""What the server says about a connection: never logged, no `seq`, no part in a run's order."""

from typing import Any, ClassVar, Final, Literal

from msgspec import Struct

from midstream_protocol.errors import FieldError


class FramePayload(Struct, kw_only=True, omit_defaults=True, frozen=True):
    """The body of one connection frame. `TYPE` is its name on the wire."""

    TYPE: ClassVar[str] = ""


class PrincipalInfo(Struct, kw_only=True, frozen=True):
    id: str
    name: str


class ConnectionLimits(Struct, kw_only=True, frozen=True):
    max_frame_bytes: int
    max_input_bytes: int
    max_tool_result_bytes: int
    max_runs: int
    commands_in_flight: int
    command_memory_s: int


class ConnectionReady(FramePayload, kw_only=True, frozen=True):
    """First; a client sends nothing before it."""

    TYPE = "connection.ready"
    connection_id: str
    client_id: str
    server: str
    now: str
    heartbeat_s: float
    principal: PrincipalInfo
    limits: ConnectionLimits


class RunAttached(FramePayload, kw_only=True, frozen=True):
    """`pending` items are the opening payload of what waits, with `kind` and fresh `expires_in_s`."""

    TYPE = "run.attached"
    command_id: str
    run_id: str
    thread_id: str
    epoch: str
    head_seq: int
    first_seq: int
    status: str
    can: list[str]
    pending: list[dict[str, Any]]
    queue_position: int | None = None


class RunReset(FramePayload, kw_only=True, frozen=True):
    """Forget what you had and start from the snapshot; the next event is `snapshot_seq` + 1."""

    TYPE = "run.reset"
    run_id: str
    reason: Literal["requested", "epoch", "ahead", "trimmed", "too_far", "gone"]
    epoch: str | None = None
    snapshot: dict[str, Any] | None = None
    snapshot_seq: int | None = None


class RunCaughtUp(FramePayload, kw_only=True, frozen=True):
    """Live from here. Not the end."""

    TYPE = "run.caught_up"
    run_id: str
    seq: int


class Receipt(FramePayload, kw_only=True, frozen=True, rename={"as_": "as"}):
    """The one answer to a command. `accepted` = decided and durable; its effect is at or before `at_seq`."""

    TYPE = "receipt"
    command_id: str
    status: Literal["accepted", "rejected"]
    run_id: str | None = None
    thread_id: str | None = None
    at_seq: int | None = None
    as_: Literal["started", "queued", "corrected"] | None = None
    code: str | None = None
    text: str | None = None
    errors: list[FieldError] | None = None
    resolution: dict[str, Any] | None = None
    retryable: bool | None = None


class Pong(FramePayload, kw_only=True, frozen=True):
    TYPE = "pong"
    t: Any = None


class Heartbeat(FramePayload, kw_only=True, frozen=True):
    """`runs`: the last seq written to this connection, ordered with the events."""

    TYPE = "heartbeat"
    now: str
    runs: dict[str, int]


class ErrorFrame(FramePayload, kw_only=True, frozen=True):
    """Only for a frame without a readable `command_id`; the connection goes on."""

    TYPE = "error"
    code: str
    text: str


class ConnectionDraining(FramePayload, kw_only=True, frozen=True):
    """Commands are still taken until the close."""

    TYPE = "connection.draining"
    reconnect_in_s: float


class AuthExpiring(FramePayload, kw_only=True, frozen=True):
    TYPE = "auth.expiring"
    in_s: float


FRAMES: Final[dict[str, type[FramePayload]]] = {cls.TYPE: cls for cls in FramePayload.__subclasses__()}
"""Every connection frame by its wire name."""


class Frame(Struct, kw_only=True, frozen=True):
    """The envelope of a connection frame."""

    v: int
    type: str
    payload: Any
