"""Finding given texts in a stream: the leftmost first, of those the longest, wherever the stream is cut. Pure."""

import re
from bisect import bisect_left
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

HIDDEN: Final = "[hidden]"
"""Stands where something was hidden."""


class Exact:
    """A set of texts to be hidden. False when there are none."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._sorted = sorted({text for text in texts if text})
        self._longest = max(map(len, self._sorted), default=0)
        firsts = "".join(sorted({text[0] for text in self._sorted}))
        self._first = re.compile(f"[{re.escape(firsts)}]") if firsts else None
        by_length = sorted(self._sorted, key=len, reverse=True)
        self._any = re.compile("|".join(map(re.escape, by_length))) if by_length else None

    def __bool__(self) -> bool:
        return self._any is not None

    def replaced(self, text: str) -> str:
        """The whole text with `HIDDEN` for each of them."""
        return text if self._any is None else self._any.sub(HIDDEN, text)

    def scan(self, text: str) -> tuple[str, str]:
        """(what may be shown now, what must wait for more)."""
        if self._any is None or self._first is None or self._first.search(text) is None:
            # Most texts have not even the first character of one.
            return text, ""
        out: list[str] = []
        at = 0
        while True:
            found = self._any.search(text, at)
            waits = self._waits(text, at)
            # One that begins before anything that may still grow cannot grow itself.
            if found is None or found.start() >= waits:
                return "".join([*out, text[at:waits]]), text[waits:]
            out += (text[at : found.start()], HIDDEN)
            at = found.end()

    def _waits(self, text: str, at: int) -> int:
        """Where the first beginning of one of them stands that the text's end cuts off."""
        assert self._first is not None
        for first in self._first.finditer(text, max(at, len(text) - self._longest + 1)):
            if self._begins(text[first.start() :]):
                return first.start()
        return len(text)

    def _begins(self, tail: str) -> bool:
        """Whether one of them begins with `tail` and goes on."""
        place = bisect_left(self._sorted, tail)
        if place < len(self._sorted) and self._sorted[place] == tail:
            place += 1
        return place < len(self._sorted) and self._sorted[place].startswith(tail)


@lru_cache(maxsize=128)
def exact(texts: frozenset[str]) -> Exact:
    """Runs of one agent look for the same texts, so what finds them is made once."""
    return Exact(texts)
