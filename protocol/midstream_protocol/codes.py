"""Close codes in bands. One comparison tells a client what to do: see `may_retry`.

4000-4499 come back (with the cursor), 4500-4999 do not until something has changed.
"""

from enum import IntEnum
from typing import Final


class Close(IntEnum):
    """Close codes this server sends, beside 1000 (done) and 1009 (one frame was too big)."""

    DRAINING = 4001
    INTERNAL = 4004
    TOKEN_EXPIRED = 4005
    TOO_SLOW = 4008
    RATE_LIMITED = 4013
    BAD_CREDENTIALS = 4500
    BAD_REQUEST = 4501
    FORBIDDEN = 4503
    TOO_MANY_CONNECTIONS = 4504
    TOO_MANY_ERRORS = 4509


NORMAL: Final = 1000
TOO_BIG: Final = 1009
_FIRST_FINAL: Final = 4500


def may_retry(code: int) -> bool:
    """Whether a client should reconnect after `code`; unknown codes included, so new ones need no new client."""
    return code < _FIRST_FINAL and code not in (NORMAL, TOO_BIG)
