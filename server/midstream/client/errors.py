"""What a client raises beside the refusals of `midstream_protocol.errors`.

Disconnected       the connection is gone for good: `code` and `reason` of its close, and what to do
└── Unreachable    no connection could be made
Pending            a command sent over HTTP is not decided yet: send it again with the same id
"""

from typing import Final

from midstream_protocol.codes import Close
from midstream_protocol.errors import ERRORS, Forbidden, ProtocolError, Unauthorized
from midstream_protocol.frames import Receipt

_BY_CLOSE: Final[dict[int, type[ProtocolError]]] = {
    Close.BAD_CREDENTIALS: Unauthorized,
    Close.FORBIDDEN: Forbidden,
}


class Disconnected(Exception):
    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"disconnected ({code}): {reason}" if reason else f"disconnected ({code})")
        self.code = code
        self.reason = reason


class Unreachable(Disconnected):
    """`status` is the HTTP status of a refused upgrade; None when there was no answer at all."""

    def __init__(self, reason: str, *, status: int | None = None) -> None:
        super().__init__(1006, reason)
        self.status = status


class Pending(Exception):
    pass


def refusal(receipt: Receipt) -> ProtocolError:
    """The typed error of a rejected receipt. A code this version does not know keeps its name in `code`."""
    code = receipt.code or ProtocolError.code
    kind = ERRORS.get(code, ProtocolError)
    error = kind(
        receipt.text or code,
        errors=tuple(receipt.errors or ()),
        resolution=receipt.resolution,
        command_id=receipt.command_id,
    )
    if kind.code != code:
        vars(error)["code"] = code
    return error


def closing(code: int, reason: str) -> Exception:
    """The error that a final close means."""
    if (kind := _BY_CLOSE.get(code)) is not None:
        return kind(reason or kind.code)
    return Disconnected(code, reason)
