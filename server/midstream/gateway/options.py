"""What a gateway is told at its start. The server's settings (settings.py) are where a person sets these."""

from typing import Final

from msgspec import Struct

from midstream_protocol.frames import ConnectionLimits
from midstream_protocol.limits import (
    COMMANDS_IN_FLIGHT,
    MAX_FRAME_BYTES,
    MAX_INPUT_BYTES,
    MAX_TOOL_RESULT_BYTES,
)

OVERSIZE_FACTOR: Final = 4
"""A frame up to so many times the limit is read and refused by name; beyond it the transport closes with 1009."""


class GatewayOptions(Struct, kw_only=True, frozen=True):
    server: str = "midstream"
    """How the server names itself in `connection.ready`."""
    console: bool = True
    """Whether the console is served at `/`, and the protocol's page at `/docs`."""
    heartbeat_s: float = 10.0
    send_timeout_s: float = 20.0
    """How long a client may take nothing of what it is sent before its connection is closed as too slow."""
    receipt_wait_s: float = 10.0
    """How long an HTTP command waits for its receipt before it is answered as pending."""
    max_connections: int = 10_000
    """WebSockets and event streams together."""
    max_connections_per_user: int = 0
    max_connections_per_address: int = 0
    """Of one principal, of one network address (0: no bound of its own; behind a proxy all share one address)."""
    max_connection_age_s: float = 0.0
    """A connection older than this, and up to a tenth more, is told to come back (0: never), so that load balancers
    can move it.
    """
    write_buffer_bytes: int = 32 * 1024
    """Bytes of one connection that wait for its socket before its writer waits; the kernel's buffers come on top."""
    frames_per_write: int = 512
    """Frames of one connection handed to its socket in one go at most."""
    ping_interval_s: float = 20.0
    ping_timeout_s: float = 20.0
    """Protocol pings: a peer that answers none for that long is dead."""
    max_wait_s: float = 300.0
    """How long a `POST /v1/runs` may ask to wait for the run's end."""
    poll_after_s: float = 1.0
    """What who polls a run under way is told to wait (`Retry-After`)."""
    feed_events_s: float = 50.0
    """Events a second that one reader of `GET /v1/feed` is given at most; more are dropped and counted."""
    max_feeds: int = 16
    """Readers of `GET /v1/feed` at once."""
    max_runs: int = 1000
    """Runs one connection may be attached to."""
    max_errors: int = 256
    """Malformed frames in a row before a connection is closed: a client in a loop, not one with a bug."""
    commands_in_flight: int = COMMANDS_IN_FLIGHT
    command_memory_s: int = 604_800
    max_frame_bytes: int = MAX_FRAME_BYTES
    max_input_bytes: int = MAX_INPUT_BYTES
    max_tool_result_bytes: int = MAX_TOOL_RESULT_BYTES

    @property
    def connection_limits(self) -> ConnectionLimits:
        """What a client is told, and what its connection is held to."""
        return ConnectionLimits(
            max_frame_bytes=self.max_frame_bytes,
            max_input_bytes=self.max_input_bytes,
            max_tool_result_bytes=self.max_tool_result_bytes,
            max_runs=self.max_runs,
            commands_in_flight=self.commands_in_flight,
            command_memory_s=self.command_memory_s,
        )
