"""How many tokens something will be, without asking anybody: by its characters, corrected by what providers report.

Asking a provider to count costs a request for every request, so the count it reports anyway is used: it is exact for
what was sent, and only what came after is estimated.
"""

import math
import string
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from midstream.agents.conversation import AssistantPart, Call, Media, Message, Opaque, Reasoning, Result, Text, UserPart
from midstream.agents.providers.contract import ToolSpec

# Tokens of one character, by what it is. Rather too many: one request that is refused costs more than some room.
_LETTER: Final = 0.25
_LETTER_OF_LONG_WORD: Final = 0.5
_MARK: Final = 0.55  # digits and punctuation: numbers, JSON and code are denser than prose
_TWO_BYTES: Final = 0.7  # Greek, Cyrillic, Arabic …
_THREE_BYTES: Final = 1.3  # Chinese, Japanese, Korean, Thai …
_FOUR_BYTES: Final = 2.5  # emoji, rare scripts

_LONG_WORD: Final = 14
"""Characters of a word on average from which text is no prose: keys, hashes, base64."""
_SHORT_TEXT: Final = 60
"""Characters below which such an average says nothing."""

MESSAGE_TOKENS: Final = 4
CALL_TOKENS: Final = 12
RESULT_TOKENS: Final = 10
TOOL_TOKENS: Final = 12
"""What a message, call, result or tool costs beside its texts."""

IMAGE_TOKENS: Final = 1_600
FILE_TOKENS: Final = 5_000
"""A picture at the size that models reduce it to; a document of some pages. A text file is read instead."""

MOST: Final = 4.0
LEAST: Final = 0.5
"""How far off the estimate may be. A report of more is believed so far only; one of less is no count at all."""

_PROSE: Final = (string.ascii_letters + string.whitespace).encode()
_ASCII: Final = bytes(range(0x80))
_LEADS_2: Final = bytes(range(0xC0, 0xE0))
_LEADS_3: Final = bytes(range(0xE0, 0xF0))
_LEADS_4: Final = bytes(range(0xF0, 0xF8))


def text_tokens(text: str) -> int:
    """An estimate that is rarely too low, for any script."""
    data = text.encode("utf-8", "surrogatepass")
    rest = data.translate(None, _PROSE)
    prose = len(data) - len(rest)
    other = rest.translate(None, _ASCII)
    white = data.count(b" ") + data.count(b"\n")
    dense = prose > _SHORT_TEXT and (white + 1) * _LONG_WORD < prose
    tokens = prose * (_LETTER_OF_LONG_WORD if dense else _LETTER) + (len(rest) - len(other)) * _MARK
    if other:
        tokens += _TWO_BYTES * _count(other, _LEADS_2)
        tokens += _THREE_BYTES * _count(other, _LEADS_3)
        tokens += _FOUR_BYTES * _count(other, _LEADS_4)
    return math.ceil(tokens)


def _count(data: bytes, kinds: bytes) -> int:
    return len(data) - len(data.translate(None, kinds))


def message_tokens(message: Message) -> int:
    return MESSAGE_TOKENS + sum(map(part_tokens, message.parts))


def part_tokens(part: UserPart | AssistantPart) -> int:
    match part:
        case Text(text=text):
            return text_tokens(text)
        case Result(content=content):
            return RESULT_TOKENS + text_tokens(content)
        case Call(tool=tool, args=args, raw=raw):
            return CALL_TOKENS + text_tokens(tool) + (text_tokens(raw or "") if args is None else _json_tokens(args))
        case Media():
            return _media_tokens(part)
        case Reasoning(raw=raw):
            # Its signature is long and costs nothing.
            thinking = raw.get("thinking")
            return text_tokens(thinking) if isinstance(thinking, str) else _json_tokens(raw)
        case Opaque(raw=raw):
            return _json_tokens(raw)


def fixed_tokens(system: str, tools: Iterable[ToolSpec]) -> int:
    """What goes with every request beside its messages."""
    return text_tokens(system) + sum(
        TOOL_TOKENS + text_tokens(f"{tool.name} {tool.description}") + _json_tokens(tool.input_schema) for tool in tools
    )


def _json_tokens(value: Any) -> int:
    return text_tokens(msgspec.json.encode(value).decode())


def _media_tokens(part: Media) -> int:
    if part.kind == "image":
        return IMAGE_TOKENS
    if part.media_type.startswith("text/") and part.data is not None:
        # Base64: three bytes in four characters. What script they are is not looked at: the densest one byte can be.
        return math.ceil(len(part.data) * 3 / 4 * _MARK)
    return FILE_TOKENS


class Scale:
    """From our estimates to the model's tokens. Until something was reported they are taken as they are.

    Up to what was last reported the scale is the reported one; beyond it, an estimate is never made smaller: what is
    new may be of another kind than what made the rest cheap. So the scale only grows with what is estimated.
    """

    def __init__(self) -> None:
        self._raw = 0
        self._ratio = 1.0

    def learn(self, raw: int, reported: int) -> None:
        """A request that was estimated at `raw` had `reported` tokens."""
        if raw <= 0 or reported < raw * LEAST:
            # Servers that do not count report a constant, or nothing.
            self._raw, self._ratio = 0, 1.0
        else:
            self._raw, self._ratio = raw, min(reported / raw, MOST)

    def tokens(self, raw: int) -> int:
        known = min(raw, self._raw)
        return math.ceil(known * self._ratio + (raw - known) * max(self._ratio, 1.0))

    def room(self, tokens: int) -> int:
        """The largest estimate that comes to at most so many tokens."""
        within = math.floor(tokens / self._ratio)
        if within > self._raw:
            within = self._raw + math.floor((tokens - self._raw * self._ratio) / max(self._ratio, 1.0))
        while within > 0 and self.tokens(within) > tokens:
            within -= 1
        return max(0, within)
