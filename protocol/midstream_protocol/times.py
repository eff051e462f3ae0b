"""Times on the wire: UTC with milliseconds and `Z`. Inside, a time is integer milliseconds since 1970."""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

from midstream_protocol.errors import Malformed

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FORM: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z", re.ASCII)


@lru_cache(maxsize=256)
def _second(seconds: int) -> str:
    # Formatting a date costs more than encoding an event, and thousands of events share a second.
    return (_EPOCH + timedelta(seconds=seconds)).isoformat()[:19]


@lru_cache(maxsize=64)
def iso_ms(unix_ms: int) -> str:
    """`2026-06-12T12:00:01.234Z`. Raises OverflowError outside the years 1 to 9999."""
    seconds, millis = divmod(unix_ms, 1000)
    return f"{_second(seconds)}.{millis:03d}Z"


def parse_iso(text: str) -> int:
    """Milliseconds since 1970 of a time on the wire; finer digits are cut. Raises `Malformed`."""
    if _FORM.fullmatch(text) is None:
        raise Malformed("not a time; send one such as 2026-06-12T12:00:01.234Z")
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Malformed("no such time; send one such as 2026-06-12T12:00:01.234Z") from None
    return (moment - _EPOCH) // timedelta(milliseconds=1)
