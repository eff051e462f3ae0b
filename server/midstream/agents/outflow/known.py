"""The secrets that one run knows: those it was given at its start, and those it has met since."""

import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

import msgspec

from midstream.agents.outflow.exact import Exact, exact
from midstream.agents.outflow.secrets import looks_secret, scrubbed, secret_item, secret_name
from midstream.log import JournalRecord
from midstream.runs.contract import CallRecord, ResultRecord

MIN_CHARS: Final = 8
"""Characters of a secret that is learned; a shorter one would be found in ordinary words."""

MAX_LEARNED: Final = 1_000
"""Secrets that one run learns."""


class Secrets:
    """What must not leave one run: `texts` from its start, and what it has met since. Shared by the parts of the run.

    `guess`: what only looks like a secret is hidden too.
    """

    def __init__(self, texts: Iterable[str] = (), *, guess: bool = True) -> None:
        self._texts = frozenset(text for text in texts if text)
        self._guess = guess
        self._learned = 0
        self._exact: Exact | None = None

    @property
    def exact(self) -> Exact:
        """All that is known now, ready to be searched for."""
        if self._exact is None:
            self._exact = exact(self._texts)
        return self._exact

    def learn(self, text: str) -> None:
        """Hide this from now on, wherever it stands, if it is no ordinary word."""
        if _searchable(text) and text not in self._texts and self._learned < MAX_LEARNED:
            self._texts |= {text}
            self._learned += 1
            self._exact = None

    def hide(self, value: Any) -> Any:
        """A JSON value as it may be shown: without known secrets and without what looks like one."""
        return scrubbed(self.told(value)) if self._guess else self.told(value)

    def told(self, value: Any) -> Any:
        """A JSON value without the known secrets; what only looks like one stays."""
        return _replaced(value, self.exact.replaced) if self.exact else value

    def meet(self, value: Any, names: Iterable[str] = ()) -> None:
        """Learn the secrets of a JSON value that a tool was given or gave: what stands under secret names (`names`
        too), and words that look like one. Whoever repeats them does not show them.
        """
        if self._guess:
            for text in _met(value, frozenset(names)):
                self.learn(text)

    def meet_all(self, journal: Iterable[JournalRecord], redact: Callable[[str], Collection[str]]) -> None:
        """The same for all calls of a run's journal. `redact`: the names that a tool hides."""
        tools: dict[str, str] = {}
        for record in journal:
            if record.kind == "call":
                call = msgspec.json.decode(record.data, type=CallRecord)
                tools[record.key] = call.tool
                self.meet(call.args, redact(call.tool))
            elif record.kind == "result":
                result = msgspec.json.decode(record.data, type=ResultRecord)
                self.meet(result.value if result.ok else result.text, redact(tools.get(record.key, "")))


def _replaced(value: Any, clean: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {clean(key): _replaced(item, clean) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, clean) for item in value]
    return value


def _met(value: Any, names: frozenset[str], *, hidden: bool = False) -> Iterable[str]:
    if isinstance(value, str):
        if hidden:
            yield value
        else:
            yield from (word for word in words_of(value) if looks_secret(word))
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _met(item, names, hidden=hidden or key in names or secret_item(key, item))
    elif isinstance(value, list):
        for item in value:
            yield from _met(item, names, hidden=hidden)


def words_of(text: str) -> list[str]:
    """Words that may be secrets: what has the length of one, without the marks around it."""
    return [word for each in _WORD.findall(text) if len(word := each.strip(".:")) >= MIN_CHARS]


_WORD: Final = re.compile(r"[A-Za-z0-9_.:+=-]{8,}")


def _searchable(text: str) -> bool:
    # A password that is a plain word cannot be told from the word.
    return len(text) >= MIN_CHARS and not text.isalpha()


# -- what is known at the start

_SENTENCE: Final = re.compile(r"[^.!?\n]+[.!?]?")
_ADDRESS: Final = re.compile(
    r"(?:You (?:are|must|will|should|have|can|may)|Your (?:job|task|role|goal|name|rules|instructions)|Never|Do not"
    r"|Don't|Always|Under no circumstances|These instructions|Keep (?:this|these))\b"
)
_MIN_SENTENCE_CHARS: Final = 40
_TOLD_TO_KEEP: Final = re.compile(
    r"\b(?:code|codeword|code ?word|key|password|passphrase|passcode|pin|secret|token|(?:secret|pass|safe) ?word)"
    r"(?: (?:is|was|are)|:| =|=)[ ]?[\"'`]?([A-Za-z0-9_.:+=-]{8,})",
    re.IGNORECASE,
)
"""“The launch code is zebra-77”: a word that a sentence calls a secret."""
_HEX: Final = re.compile(r"(?=[0-9a-fA-F-]*\d)(?=[0-9a-fA-F-]*[a-fA-F])[0-9a-fA-F-]{16,}")


def known_secrets(
    *,
    texts: Iterable[str] = (),
    system: Iterable[str] = (),
    environ: Mapping[str, str] | None = None,
    guess: bool = True,
) -> Secrets:
    """What a run must not show from its start: the app's own `texts`, the process's credentials, and of what the model
    was told (`system`) the secrets in it and the sentences that speak to the model itself.
    """
    found = {text for text in texts if text}
    found |= process_secrets(os.environ if environ is None else environ)
    for text in system:
        found.update(_of_system(text))
    return Secrets(found, guess=guess)


def process_secrets(environ: Mapping[str, str]) -> set[str]:
    """The credentials of a process, by the names of its environment."""
    return {value for name, value in environ.items() if secret_name(name) and _searchable(value)}


@lru_cache(maxsize=256)
def _of_system(text: str) -> frozenset[str]:
    # A hash or a UUID in a prompt has no business in an answer either; elsewhere they are ordinary.
    words = {word for word in words_of(text) if looks_secret(word) or _HEX.fullmatch(word)}
    words |= {word for each in _TOLD_TO_KEEP.findall(text) if any(map(str.isdigit, word := each.strip(".:")))}
    sentences = (each.strip() for each in _SENTENCE.findall(text))
    # Quoted words are there to be said.
    told = {s for s in sentences if len(s) >= _MIN_SENTENCE_CHARS and _ADDRESS.match(s) and not set('"“:') & set(s)}
    return frozenset(words | told)
