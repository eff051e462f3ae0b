"""Where in a model's text something may begin that is not the answer: one pattern for all of it. Pure.

What resembles markup is everywhere in hostile text, and looking at each place in Python costs microseconds. So the
matchers are asked only where this pattern finds the beginning of what they know, whole or cut off by the text's end. It
may find too much, never too little: tests/agents/outflow/test_signs.py holds it to the matchers.
"""

import re
from collections.abc import Collection, Iterable
from typing import Final

from midstream.agents.outflow.markup import FENCES, LIKE, MARKS, TAGS, UNSEEN
from midstream.agents.outflow.raw_calls import FIRST_KEYS

_MOST_UNSEEN: Final = 100
"""Characters that nobody sees, between two letters of a tag's name: more than a name may have in all."""

_LETTERS: Final = 4
"""Of a name that are looked at here."""


def _beginnings(words: Iterable[str], *, letter: dict[str, str], between: str = "", whole: str = "") -> str:
    """A pattern of the texts that begin with one of these words, followed by `whole`, or end inside of one. `letter`:
    how a character may be written, where not only so; `between`: what may stand between two.
    """
    return _branch(frozenset(words), letter, between, whole)


def _branch(words: Collection[str], letter: dict[str, str], between: str, whole: str) -> str:
    if "" in words and not whole:
        # What it begins with is enough: longer words need not be told apart.
        return ""
    branches = [r"\Z"] + ([whole] if "" in words else [])
    for first in sorted({word[0] for word in words if word}):
        rest = frozenset(word[1:] for word in words if word.startswith(first))
        branches.append(letter.get(first, re.escape(first)) + between + _branch(rest, letter, between, whole))
    return f"(?:{'|'.join(branches)})"


def _cases(words: Iterable[str]) -> dict[str, str]:
    """Each letter in both cases, and what looks like it."""
    letters = {char for word in words for char in word if char.isalpha()}
    return {char: f"[{char}{char.upper()}{LIKE.get(char, '')}]" for char in letters}


def _firsts(words: Iterable[str], letter: dict[str, str]) -> str:
    """The inside of a class of all characters that these words may begin with."""
    return "".join(letter.get(first, re.escape(first)).strip("[]") for first in sorted({word[0] for word in words}))


_BETWEEN: Final = f"[{UNSEEN}]{{0,{_MOST_UNSEEN}}}+"
# A name's first letters are enough to spare nearly all looks; the whole names would make a pattern that takes long to
# compile.
_NAMES: Final = frozenset(name[:_LETTERS] for name in TAGS)
_IN_NAMES: Final = _cases(_NAMES)
_TAG: Final = (
    # One look at the next character spares all others in most places; none is there at the end.
    rf"(?![^/\uff0f{UNSEEN}{_firsts(_NAMES, _IN_NAMES)}])"
    rf"(?:\Z|[/\uff0f]?+{_BETWEEN}{_beginnings(_NAMES, letter=_IN_NAMES, between=_BETWEEN)})"
)
_SPECIAL: Final = r"[|｜](?:\Z|/?+(?:\Z|[A-Za-z][A-Za-z0-9_▁ -]{0,39}+(?:\Z|[|｜](?:\Z|>))))"
_MARK: Final = {
    first: _beginnings([mark[len(first) :] for mark in MARKS if mark.startswith(first)], letter={})
    for first in ("<<", "[", "◁")
}
_QUOTE: Final = "[\"']"
_KEY: Final = rf"\s{{0,64}}+(?:\Z|{_QUOTE}{_beginnings(FIRST_KEYS, letter={}, whole=_QUOTE)})"
_FENCED: Final = frozenset(info[:_LETTERS] for info in (*FENCES, "json"))
_IN_FENCED: Final = _cases(_FENCED)
_INFO: Final = rf"(?![^{_firsts(_FENCED, _IN_FENCED)}]){_beginnings(_FENCED, letter=_IN_FENCED)}"

MAY_BEGIN: Final = re.compile(
    # Each begins with one character, so that the search for them is the engine's own.
    rf"<(?:<{_MARK['<<']}|{_SPECIAL}|{_TAG})"
    rf"|\uff1c{_TAG}"
    rf"|◁{_MARK['◁']}"
    rf"|\[(?:{_MARK['[']}|\s{{0,64}}+(?:\Z|\{{{_KEY}))"
    rf"|\{{{_KEY}"
    rf"|`(?:\Z|`(?:\Z|`{_INFO}))"
)
"""Matches wherever a matcher of `markup`, or `raw_calls.opening`, may say anything but no."""
