"""What looks like a secret, and values without it. Pure.

Three questions: whether a word is a secret (`looks_secret`), whether a key's name says that its value is one
(`secret_name`), and what a JSON value is when both are hidden (`scrubbed`). A guess both ways: dates, versions, UUIDs,
hashes, paths and addresses stay, because tools speak of them all day.
"""

import math
import re
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final

from midstream.agents.outflow.exact import HIDDEN

_MIN_RANDOM_CHARS: Final = 24
_MIN_BITS: Final = 3.9
_MIN_CHANGES: Final = 0.45
"""How often the kind of character (upper, lower, digit) changes in a random word, per character; seldom in a name."""
_MIN_DIGITS: Final = 2

# -- words

_KEYS: Final = re.compile(
    r"""
      sk-[A-Za-z0-9_-]{12,}
    | [sprw]k_(?:live|test|prod)?_?[A-Za-z0-9]{16,}
    | gh[opusr]_[A-Za-z0-9]{16,} | github_pat_[A-Za-z0-9_]{16,}
    | gl(?:pat|dt|rt|ptt|cbt|soat)-[A-Za-z0-9_-]{12,}
    | xox[abeoprs]-[A-Za-z0-9-]{10,} | xapp-[A-Za-z0-9-]{10,}
    | A(?:KIA|SIA|GPA|IDA|ROA)[A-Z0-9]{12,}
    | AIza[A-Za-z0-9_-]{20,} | ya29\.[A-Za-z0-9_-]{20,} | GOCSPX-[A-Za-z0-9_-]{16,}
    | hf_[A-Za-z0-9]{16,} | npm_[A-Za-z0-9]{20,} | pypi-[A-Za-z0-9_-]{16,} | dop_v1_[a-f0-9]{16,}
    | eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?
    """,
    re.VERBOSE,
)
_NAMED: Final = re.compile(r"(?:^|[\W_\d])(canary|secret)s?(?=$|[\W_\d])", re.IGNORECASE)
_CANARY_WORK: Final = re.compile(
    r"analys|build|channel|config|deploy|image|island|pod|promot|release|rollout|service|stable|test|traffic|weight",
    re.IGNORECASE,
)
"""What “canary” stands beside when it is a way to release software."""
_ORDINARY: Final = re.compile(
    r"""
      [0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}     # a UUID
    | (?:0x|sha\d+[:-])?[0-9a-fA-F]+                            # a hash
    | [\d.,:+TZ_-]+                                            # numbers, dates, times
    | (?:run|th|call|msg|step|appr|input|grant|exec|err|obj|conn|art)_[A-Za-z0-9_-]{20}
    """,
    re.VERBOSE,
)
_RANDOM: Final = re.compile(rf"[A-Za-z0-9_+=-]{{{_MIN_RANDOM_CHARS},}}")


def looks_secret(word: str) -> bool:
    """Whether this word is a key, a token, or calls itself a secret (`canary-7f3a`; not the bare word, and no name of
    a program's variable).
    """
    word = word.strip(".,:;!?\"'`()[]{}<>")
    if _KEYS.fullmatch(word):
        return True
    return names_itself(word) or _random(word)


def names_itself(word: str) -> bool:
    """Whether it says that it is a secret."""
    found = _NAMED.search(word)
    if found is None or found[1].lower() == word.lower().rstrip("s") or "/" in word or _is_file(word):
        return False
    if found[1].lower() == "canary":
        return not _CANARY_WORK.search(word)
    rest = word[: found.start(1)] + word[found.end(1) :]
    # A variable's name (`AWS_SECRET_ACCESS_KEY`, `client_secret`) says where a secret is, and is none.
    return any(char.isdigit() for char in rest)


def _is_file(word: str) -> bool:
    return re.search(r"\.[a-z]{2,5}$", word) is not None


def _random(word: str) -> bool:
    if not _RANDOM.fullmatch(word) or _ORDINARY.fullmatch(word):
        return False
    kinds = [_kind(char) for char in word]
    if {"upper", "lower"} - set(kinds) or kinds.count("digit") < _MIN_DIGITS:
        return False
    changes = sum(a != b for a, b in pairwise(kinds))
    return changes >= _MIN_CHANGES * len(word) and _bits(word) >= _MIN_BITS


def _kind(char: str) -> str:
    if char.isdigit():
        return "digit"
    if not char.isalpha():
        return "sign"
    return "upper" if char.isupper() else "lower"


def _bits(word: str) -> float:
    return -sum(n / len(word) * math.log2(n / len(word)) for n in Counter(word).values())


# -- names of keys

_SECRET_ENDS: Final = frozenset(
    {
        *("password", "passwords", "passwd", "passphrase", "pwd", "secret", "secrets", "token", "apikey", "apikeys"),
        *("authorization", "cookie", "cookies", "credential", "credentials", "bearer", "canary", "jwt"),
    }
)
_SECRET_KEYS: Final = frozenset(
    {"access", "api", "auth", "encryption", "master", "private", "secret", "signing", "ssh"}
)
"""A key of these is a secret."""
_PLAIN_TOKENS: Final = frozenset(
    {"bos", "cls", "continuation", "end", "eos", "mask", "next", "pad", "page", "sep", "start", "stop", "sync", "unk"}
)
"""A token of these is none."""
_NAME_PARTS: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


@lru_cache(maxsize=4096)
def secret_name(name: str) -> bool:
    """Whether a key of this name holds a secret: `password`, `api_key`, `X-Auth-Token`; not `max_tokens`."""
    parts = [part.lower() for part in _NAME_PARTS.findall(name[:200])]
    while parts and parts[-1].isdigit():
        parts.pop()
    if not parts:
        return False
    *before, last = parts
    if last == "token" and before and before[-1] in _PLAIN_TOKENS:
        return False
    return last in _SECRET_ENDS or (last in ("key", "keys") and bool(before) and before[-1] in _SECRET_KEYS)


def secret_item(name: str, value: Any) -> bool:
    """Whether this value of an object is a secret by its name. Whether there is one at all is none."""
    return value is not None and not isinstance(value, bool) and value != "" and secret_name(name)


# -- texts and values

_PEM: Final = re.compile(
    r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----.*?(?:-----END (?:[A-Z0-9]+ )*PRIVATE KEY-----|\Z)", re.DOTALL
)
_IN_ADDRESS: Final = re.compile(r"(?<=://)([^\s/@:\"']*):([^\s/@\"']+)@")
_BEARER: Final = re.compile(r"\b(bearer|basic)( +)(?=[^\s\"',;]*[0-9=])[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE)
_ASSIGNED: Final = re.compile(
    r"""(?<![\w-])([\w-]{0,60}(?:password|passwd|passphrase|pwd|secret|token|key|authorization|cookie|credentials?))
        (["']?(?:=|[ ]?:[ ]?|[ ]=[ ]))
        (?!\[hidden\])("[^"\n]*"|'[^'\n]*'|[^\s"',;&)\]}]+)""",
    re.IGNORECASE | re.VERBOSE,
)
_LONG_WORD: Final = re.compile(
    rf"(?<![A-Za-z0-9_+=/-])[A-Za-z0-9_+=-]{{{_MIN_RANDOM_CHARS},}}|(?<![A-Za-z0-9])[\w.:-]{{0,64}}(?:canary|secret)[\w.:-]{{0,64}}",
    re.IGNORECASE,
)
_KEY_IN_TEXT: Final = re.compile(r"(?<![A-Za-z0-9])(?:" + _KEYS.pattern + ")", re.VERBOSE)


def scrubbed(value: Any) -> Any:
    """A JSON value with `HIDDEN` under every key that is named like a secret, and for all that looks like one."""
    return _walked(value, scrubbed_text)


def scrubbed_text(text: str) -> str:
    """The text with `HIDDEN` for what looks like a secret, also `password=…`, `Bearer …`, `user:…@`, private keys."""
    text = _PEM.sub(HIDDEN, text)
    text = _IN_ADDRESS.sub(rf"\1:{HIDDEN}@", text)
    text = _BEARER.sub(rf"\1\2{HIDDEN}", text)
    text = _ASSIGNED.sub(_assigned, text)
    text = _KEY_IN_TEXT.sub(HIDDEN, text)
    return _LONG_WORD.sub(_word, text)


# -- words that stream in

MAX_WORD_CHARS: Final = 4_096
"""Characters of one word that may be a key and is held until it ends."""

_MAX_REMEMBERED_CHARS: Final = 32

WORD_END: Final = re.compile(r"[^A-Za-z0-9_.:-]")
_KEY_STARTS: Final = (
    *("sk-", "sk_", "pk_", "rk_", "wk_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "gldt-"),
    *("glrt-", "glptt-", "glcbt-", "glsoat-", "xox", "xapp-", "AKIA", "ASIA", "AGPA", "AIDA", "AROA", "AIza", "ya29."),
    *("GOCSPX-", "hf_", "npm_", "pypi-", "dop_v1_", "eyJ"),
)
_SAYS_SO: Final = ("canary", "secret")


def _begun(starts: tuple[str, ...]) -> str:
    """A pattern of these, and of what the text's end cuts off of them."""
    so_far = sorted({start[:length] for start in starts for length in range(1, len(start))})
    return rf"(?:{'|'.join(map(re.escape, starts))}|(?:{'|'.join(map(re.escape, so_far))})\Z)"


_MAY_START: Final = re.compile(
    rf"(?<![A-Za-z0-9])(?=[{''.join(sorted({*(start[0] for start in _KEY_STARTS), *'cCsS'}))}])"
    rf"(?:{_begun(_KEY_STARTS)}|(?i:{_begun(_SAYS_SO)}))"
)


@lru_cache(maxsize=8_192)
def _plain(text: str) -> bool:
    return _MAY_START.search(text) is None


def surely_plain(text: str) -> bool:
    """Whether no word of this piece may be a key, or become one, whatever stands around it. Pieces of a few words are
    remembered: a model says the same ones over and over.
    """
    return len(text) <= _MAX_REMEMBERED_CHARS and _plain(text)


def key_begins(text: str, at: int, before: str) -> tuple[int, int]:
    """(begin, end) of the first word from `at` on that may be a key, or may become one if the text goes on.
    Both are the text's end when there is none. `before` is the character in front of `text[at]`.
    """
    found = _MAY_START.search(text, at)
    if found is not None and found.start() == 0 and before.isalnum():
        found = _MAY_START.search(text, 1)
    if found is None:
        return len(text), len(text)
    end = WORD_END.search(text, found.start())
    return found.start(), len(text) if end is None else end.start()


def without_key(word: str) -> str:
    """A word as it may be shown in an answer."""
    clean = _KEY_IN_TEXT.sub(HIDDEN, word)
    bare = word.rstrip(".:-")
    return HIDDEN + word[len(bare) :] if clean == word and names_itself(bare) else clean


def _assigned(found: re.Match[str]) -> str:
    name, sign, value = found.groups()
    if not secret_name(name):
        return found[0]
    quoted = value[0] in "\"'"
    told = sign.endswith("=") and " " not in sign
    # “password: yours” and `token = next(tokens)` are prose and code; a value has a digit in it or stands in quotes.
    if not (told or quoted or any(char.isdigit() for char in value)):
        return found[0]
    return f"{name}{sign}{value[0]}{HIDDEN}{value[0]}" if quoted else f"{name}{sign}{HIDDEN}"


def _word(found: re.Match[str]) -> str:
    word = found[0]
    bare = word.rstrip(".:-")
    return HIDDEN + word[len(bare) :] if looks_secret(bare) else word


def _walked(value: Any, clean: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {clean(key): HIDDEN if secret_item(key, item) else _walked(item, clean) for key, item in value.items()}
    if isinstance(value, list):
        return [_walked(item, clean) for item in value]
    return value
