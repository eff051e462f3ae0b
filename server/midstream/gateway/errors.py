"""The one boundary outwards: exceptions to refusals on the wire. What is not a refusal is logged, and not shown."""

from typing import Any

import msgspec

from midstream.log import LogError
from midstream.logs import Logger
from midstream_protocol.errors import ProtocolError, Unavailable
from midstream_protocol.frames import Receipt

_log = Logger("midstream.gateway")


class Internal(ProtocolError):
    """A defect of the server. Its text never carries a detail; the log does."""

    code = "internal"
    status = 500
    retryable = True


def as_refusal(error: Exception, *, doing: str) -> ProtocolError:
    """The refusal that `error` is, or stands for. `doing` names for the log what failed (never client data)."""
    if isinstance(error, ProtocolError):
        return error
    if isinstance(error, LogError):
        _log.warning("the store refused", doing=doing, error=str(error))
        return Unavailable("the run's log cannot be reached now; nothing was changed, send it again")
    _log.error("unexpected failure", doing=doing, exc_info=error)
    return Internal("the server failed on this; it is in its log. Sending it again with the same id is safe")


def refusal_receipt(error: ProtocolError, *, command_id: str, run_id: str | None = None) -> Receipt:
    return Receipt(
        command_id=command_id,
        run_id=run_id,
        status="rejected",
        code=error.code,
        text=error.text,
        errors=list(error.errors) or None,
        resolution=error.resolution,
        retryable=True if error.retryable else None,
    )


def error_body(error: ProtocolError) -> dict[str, Any]:
    """`{"error": {code, text, …}}`: the body of every HTTP answer that is not a success."""
    inner: dict[str, Any] = {"code": error.code, "text": error.text}
    if error.errors:
        inner["errors"] = msgspec.to_builtins(error.errors)
    if error.resolution is not None:
        inner["resolution"] = error.resolution
    if error.retryable:
        inner["retryable"] = True
    return {"error": inner}
