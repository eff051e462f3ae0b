"""A citation of the Messages API as clients are shown it: what is quoted, and where it stands. Pure.

Of the provider's own ids (files, encrypted indices) nothing is kept.
"""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from midstream.agents.providers.json_values import SAFE_INTEGER, well_formed

MAX_QUOTE_CHARS: Final = 1_000
MAX_NAME_CHARS: Final = 500
MAX_URL_CHARS: Final = 2_000

# How the kinds of citations name their place: the unit, and the fields of its first and last.
_PLACES: Final[Mapping[str, tuple[str, str, str]]] = {
    "char_location": ("character", "start_char_index", "end_char_index"),
    "page_location": ("page", "start_page_number", "end_page_number"),
    "content_block_location": ("block", "start_block_index", "end_block_index"),
    "search_result_location": ("block", "start_block_index", "end_block_index"),
}


def citation_in(raw: object) -> dict[str, Any] | None:
    """`cited_text`, `title`, `url` or `source`, and `unit`, `start`, `end`: what there is of them. None: nothing."""
    if not isinstance(raw, dict):
        return None
    found = {
        "cited_text": _text(raw.get("cited_text"), MAX_QUOTE_CHARS),
        "title": _text(raw.get("title") or raw.get("document_title"), MAX_NAME_CHARS),
        "url": _url(raw.get("url")),
        "source": _text(raw.get("source"), MAX_NAME_CHARS),
    }
    data: dict[str, Any] = {name: value for name, value in found.items() if value}
    unit, first, last = _PLACES.get(str(raw.get("type")), ("", "", ""))
    start, end = raw.get(first), raw.get(last)
    if data and _is_place(start) and _is_place(end):
        data |= {"unit": unit, "start": start, "end": end}
    return data or None


def _text(value: object, limit: int) -> str:
    if not isinstance(value, str):
        return ""
    text = well_formed(value).strip()
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _url(value: object) -> str:
    """Only of a page: a client may make a link of it."""
    text = _text(value, MAX_URL_CHARS + 1)
    try:
        scheme = urlsplit(text).scheme
    except ValueError:
        return ""
    return text if scheme in ("http", "https") and len(text) <= MAX_URL_CHARS else ""


def _is_place(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= SAFE_INTEGER
