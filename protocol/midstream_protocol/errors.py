"""Every refusal that crosses the wire, as one tree. `code` is what a client branches on.

ProtocolError            status  remembered
├── Malformed            400     no    the bytes or the fields are not of the protocol's form
├── TooLarge             413     no    a frame, an input or a result is over its limit
├── Unauthorized         401     no
├── UnknownCommand       404     no    `unknown_command`
├── NotFound             404     no    also when it is somebody else's
├── Forbidden            403     yes
├── UnknownAgent         404     no
├── UnknownCall          404     yes
├── Conflict             409     yes   this id was used for something else
├── AlreadyResolved      409     yes   with `resolution`
├── Expired              409     yes
├── AlreadyApplied       409     yes
├── RunEnded             409     yes
├── RunActive            409     no    it has not ended: cancel it first
├── NotSteerable         409     yes
├── DigestMismatch       422     yes
├── InvalidArgs          422     yes   with `errors`
├── TooManyPending       429     no
├── Busy                 429     no
├── RateLimited          429     no
├── QuotaExceeded        429     no
├── Draining             503     no
└── Unavailable          503     no    the log cannot be written now

"Remembered" refusals are durable receipts: the same command gets the same answer for ever. The others say
`retryable`: resend with the same `command_id`. `errors` items are `FieldError`.
"""

from typing import Any, ClassVar, Final

from msgspec import Struct


class FieldError(Struct, kw_only=True, frozen=True):
    """One thing wrong with one field. `path` is a JSON Pointer ("" is the whole)."""

    path: str
    code: str
    text: str


class ProtocolError(Exception):
    """A refusal with a wire code. `text` is safe to show and says what to do."""

    code: ClassVar[str] = "invalid"
    status: ClassVar[int] = 422
    remembered: ClassVar[bool] = False
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        text: str,
        *,
        errors: tuple[FieldError, ...] = (),
        resolution: dict[str, Any] | None = None,
        command_id: str | None = None,
    ) -> None:
        super().__init__(text)
        self.text = text
        self.errors = errors
        self.resolution = resolution
        self.command_id = command_id
        """Set by the decoder when the frame's `command_id` was readable although the frame was not."""


class Malformed(ProtocolError):
    code = "malformed"
    status = 400


class TooLarge(Malformed):
    code = "too_large"
    status = 413


class Unauthorized(ProtocolError):
    code = "unauthorized"
    status = 401


class UnknownCommand(ProtocolError):
    code = "unknown_command"
    status = 404


class NotFound(ProtocolError):
    code = "not_found"
    status = 404


class Forbidden(ProtocolError):
    code = "forbidden"
    status = 403
    remembered = True


class UnknownAgent(ProtocolError):
    code = "unknown_agent"
    status = 404


class UnknownCall(ProtocolError):
    code = "unknown_call"
    status = 404
    remembered = True


class Conflict(ProtocolError):
    code = "conflict"
    status = 409


class AlreadyResolved(ProtocolError):
    code = "already_resolved"
    status = 409
    remembered = True


class Expired(ProtocolError):
    code = "expired"
    status = 409
    remembered = True


class AlreadyApplied(ProtocolError):
    code = "already_applied"
    status = 409
    remembered = True


class RunEnded(ProtocolError):
    code = "run_ended"
    status = 409
    remembered = True


class RunActive(ProtocolError):
    code = "run_active"
    status = 409


class NotSteerable(ProtocolError):
    code = "not_steerable"
    status = 409
    remembered = True


class DigestMismatch(ProtocolError):
    code = "digest_mismatch"
    status = 422
    remembered = True


class InvalidArgs(ProtocolError):
    code = "invalid_args"
    status = 422
    remembered = True


class TooManyPending(ProtocolError):
    code = "too_many_pending"
    status = 429
    retryable = True


class Busy(ProtocolError):
    code = "busy"
    status = 429
    retryable = True


class RateLimited(ProtocolError):
    code = "rate_limited"
    status = 429
    retryable = True


class QuotaExceeded(ProtocolError):
    code = "quota_exceeded"
    status = 429
    retryable = True


class Draining(ProtocolError):
    code = "draining"
    status = 503
    retryable = True


class Unavailable(ProtocolError):
    code = "unavailable"
    status = 503
    retryable = True


def _leaves(root: type[ProtocolError]) -> list[type[ProtocolError]]:
    below = root.__subclasses__()
    return [root, *(leaf for child in below for leaf in _leaves(child))]


ERRORS: Final[dict[str, type[ProtocolError]]] = {leaf.code: leaf for leaf in _leaves(ProtocolError)}
"""Every refusal by its wire code."""


def http_status(code: str) -> int:
    """The HTTP status of a receipt's `code` (422 for one this version does not know)."""
    found = ERRORS.get(code)
    return found.status if found is not None else ProtocolError.status
