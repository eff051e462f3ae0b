"""A long result made short: its beginning and its end, and where the whole of it is."""

import math
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from midstream.agents.budget.tokens import RESULT_TOKENS, part_tokens
from midstream.agents.conversation import Result

READ_RESULT: Final = "read_result"

_HEAD: Final = 2 / 3


def shortened(result: Result, kept: int) -> Result:
    """At most `kept` characters of its content, and a note of how to read all of it."""
    content = result.content
    if len(content) <= kept:
        return result
    head = math.ceil(kept * _HEAD)
    tail = kept - head
    note = f'[… left out here; {READ_RESULT}(call_id="{result.call_id}") reads the whole result …]'
    parts = (content[:head], note, content[len(content) - tail :] if tail else "")
    return msgspec.structs.replace(result, content="\n".join(part for part in parts if part))


def as_kept(result: Result, kept: Mapping[str, int]) -> Result:
    """The result as it was shortened before, if it was."""
    chars = kept.get(result.call_id)
    return result if chars is None else shortened(result, chars)


def chars_for(result: Result, tokens: int) -> int:
    """How many characters of it come to some `tokens` with the note; 0 where the note alone is more."""
    note = part_tokens(shortened(result, 0))
    room = tokens - note
    size = part_tokens(result) - RESULT_TOKENS
    kept = min(len(result.content), len(result.content) * room // max(1, size)) if room > 0 else 0
    while kept > 0 and (size := part_tokens(shortened(result, kept))) > tokens:
        # The beginning and the end are denser than the middle.
        kept = min(kept - 1, kept * room // (size - note))
    return kept


def level(sizes: Sequence[int], room: int) -> int:
    """The size above which each of them has to be cut, so that together they need no more than `room`."""
    left = room
    for index, size in enumerate(ordered := sorted(sizes)):
        share = left // (len(ordered) - index)
        if size > share:
            return max(0, share)
        left -= size
    return max(sizes, default=0)
