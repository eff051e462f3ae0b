"""JSON in what a model wrote: plain, in a fence, or amid prose. Pure.

Lenient in finding, strict in taking: what is found must fit, and the first that fits is it.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, Final

MAX_TEXT_CHARS: Final = 1_000_000
"""Characters of an answer that are searched."""

MAX_PLACES: Final = 256
"""Places in a text where a value may begin that are tried: enough for prose, few enough for a hostile text."""

MAX_SEARCHED_CHARS: Final = 4_000_000
"""Characters that all these tries together may read."""

_FENCE: Final = re.compile(r"```[\w-]*[ \t]*\n(.*?)```", re.DOTALL)


def values_in(text: str) -> Iterator[Any]:
    """The JSON values that may be meant, the likeliest first: the whole text, each fenced block, then each object or
    array that stands anywhere in it.
    """
    text = text[:MAX_TEXT_CHARS]
    for whole in (text, *(match[1] for match in _FENCE.finditer(text))):
        found, value = _decoded(whole.strip())
        if found:
            yield value
    room = MAX_SEARCHED_CHARS
    for places, match in enumerate(re.finditer(r"[{\[]", text)):
        if places >= MAX_PLACES or room <= 0:
            return
        try:
            value, end = _DECODER.raw_decode(text, match.start())
        except ValueError as error:
            # How far it came, as far as it says; a text that fails late is what makes trying dear.
            room -= max(1, getattr(error, "pos", len(text)) - match.start())
        except RecursionError:
            room -= len(text) - match.start()
        else:
            room -= end - match.start()
            yield value


def _decoded(text: str) -> tuple[bool, Any]:
    try:
        return True, _DECODER.decode(text)
    except (ValueError, RecursionError):
        return False, None


def _refuse(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")


_DECODER: Final = json.JSONDecoder(parse_constant=_refuse)
