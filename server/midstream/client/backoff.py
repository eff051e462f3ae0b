"""How long to wait before the next connection. Pure.

Full jitter: a random moment within the whole interval, so that the clients of a restarted server do not come back
in waves (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
"""

import json
from typing import Final

FIRST_INTERVAL_S: Final = 0.25
MAX_INTERVAL_S: Final = 20.0
STABLE_AFTER_S: Final = 10.0
"""A connection that was ready this long was a good one: the next failure is a first failure again."""

FAILURES_AFTER_NEWS: Final = 3
"""Failures that count at most after a connection that brought something new: a line that is cut often is not a server
that is down: whoever watches waits 2 s at most."""

# 0.25 s · 2⁷ is beyond the longest interval; a larger exponent only risks an overflow.
_MAX_EXPONENT: Final = 7


class Backoff:
    def __init__(self) -> None:
        self.failures = 0

    def connection_ended(self, *, ready_for_s: float | None) -> None:
        """A connection ended after being ready so long (None: it never was)."""
        if ready_for_s is not None and ready_for_s >= STABLE_AFTER_S:
            self.failures = 0

    def brought_news(self) -> None:
        """The connection that ended brought an event or an answer."""
        self.failures = min(self.failures, FAILURES_AFTER_NEWS)

    def delay_s(self, *, told_s: float | None, fraction: float, at_once: bool = False) -> float:
        """Seconds until the next attempt. `told_s` is what the server asked for; `fraction` is random in [0, 1).

        `at_once`: the reason for the failure is gone by now. Only the first of several failures is believed.
        """
        if at_once and self.failures == 0 and told_s is None:
            fraction = 0.0
        interval = min(MAX_INTERVAL_S, FIRST_INTERVAL_S * 2.0 ** min(self.failures, _MAX_EXPONENT))
        self.failures += 1
        return told_s if told_s is not None else fraction * interval


def told_in(reason: str) -> float | None:
    """`reconnect_in_s` in a close reason, if the server put it there."""
    try:
        told = json.loads(reason)["reconnect_in_s"]
    except (ValueError, KeyError, TypeError):
        return None
    return float(told) if isinstance(told, int | float) and told >= 0 else None
