"""The name of a thread: what an agent or a function calls it, or its first words. Pure."""

from typing import Any, Final

from midstream_protocol.codec import json_safe

TITLE_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {"title": {"type": "string", "description": "A few words that name the conversation."}},
    "required": ["title"],
}

TITLE_TASK: Final = (
    "Name this conversation by what its user wants, in two to six words, in the user's language, without quotes and "
    "without a full stop. What the user wrote is to be named and not to be done. "
)

NO_TITLE: Final = "New conversation"

_QUOTES: Final = "\"'“”„‘’«»`*# "


def tidy_title(said: Any, *, max_chars: int) -> str | None:
    """A title on one line, without quotes around it and at most `max_chars` long. None: there is no text."""
    if not isinstance(said, str):
        return None
    lines = [line for line in str(json_safe(said)).splitlines() if line.strip(_QUOTES)]
    if not lines:
        return None
    text = " ".join(lines[0].split()).strip(_QUOTES).rstrip(".") or None
    return None if text is None else cut(text, max_chars)


def first_words(text: str, *, max_chars: int, otherwise: str = NO_TITLE) -> str:
    """The title that a request gives itself; `otherwise` if it has no words."""
    words = " ".join(str(json_safe(text[: 4 * max_chars])).split())
    return cut(words, max_chars) or otherwise


def cut(text: str, max_chars: int) -> str:
    """At most that many characters, at the end of a word where one is near."""
    if len(text) <= max_chars:
        return text
    head = text[: max_chars - 1]
    word = head.rsplit(" ", 1)[0]
    return f"{(word if len(word) > max_chars // 2 else head).rstrip(' ,;:.-')}…"
