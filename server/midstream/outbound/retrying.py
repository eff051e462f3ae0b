"""What an answer to a webhook means, and how long to wait before the next try. Pure."""

from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Final

FIRST_INTERVAL_S: Final = 1.0
MAX_INTERVAL_S: Final = 300.0
"""Between two tries of a place that cannot be reached or says that it cannot now."""

SLOW_FIRST_INTERVAL_S: Final = 60.0
SLOW_MAX_INTERVAL_S: Final = 3600.0
"""The same for a place that says no: that needs somebody to change something."""

MAX_TOLD_S: Final = 3600.0
"""The longest `Retry-After` that is waited for in one piece."""

# 1 s · 2¹² is beyond the longest interval; a larger exponent only risks an overflow.
_MAX_EXPONENT: Final = 12
_TRY_AGAIN: Final = frozenset({408, 425, 429})


class Verdict(Enum):
    """`TAKEN`: it has it. `GONE`: it wants no more of this run. `LATER`, `REFUSED`: try again, soon or seldom."""

    TAKEN = "taken"
    GONE = "gone"
    LATER = "later"
    REFUSED = "refused"


def verdict(status: int) -> Verdict:
    """What an HTTP status says. A redirect is a refusal: following it would leave the place that was checked."""
    if 200 <= status < 300:
        return Verdict.TAKEN
    if status == 410:
        return Verdict.GONE
    return Verdict.LATER if status >= 500 or status in _TRY_AGAIN else Verdict.REFUSED


def told_s(headers: Mapping[str, str], *, now_ms: int) -> float | None:
    """Seconds that `Retry-After` asks for, given as such or as a date; None: it says nothing that can be read."""
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return min(float(value[:9]), MAX_TOLD_S)
    try:
        at = parsedate_to_datetime(value).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return min(max(0.0, at - now_ms / 1000), MAX_TOLD_S)


def delay_s(failures: int, *, slow: bool, told: float | None, fraction: float) -> float:
    """Seconds until the next try after so many failures in a row (1 and more). `fraction` is random in [0, 1).

    Full jitter over an interval that doubles, so that what failed together does not come back together; never before
    the time that the place `told`.
    """
    first, longest = (SLOW_FIRST_INTERVAL_S, SLOW_MAX_INTERVAL_S) if slow else (FIRST_INTERVAL_S, MAX_INTERVAL_S)
    interval = min(longest, first * 2.0 ** min(failures - 1, _MAX_EXPONENT))
    if told is None:
        return fraction * interval
    return told + fraction * min(interval, 1.0 + told / 10)
