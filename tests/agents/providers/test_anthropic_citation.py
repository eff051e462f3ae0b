"""What of a citation is shown, and what never is."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream.agents.providers.anthropic_citation import MAX_QUOTE_CHARS, citation_in


@pytest.mark.parametrize(
    ("raw", "data"),
    [
        (
            {
                "type": "char_location",
                "cited_text": "It rained.",
                "document_index": 0,
                "document_title": "Weather",
                "start_char_index": 0,
                "end_char_index": 10,
                "file_id": "file_1",
            },
            {"cited_text": "It rained.", "title": "Weather", "unit": "character", "start": 0, "end": 10},
        ),
        (
            {"type": "web_search_result_location", "url": "https://a.example/x", "encrypted_index": "s3cret"},
            {"url": "https://a.example/x"},
        ),
        (
            {"type": "search_result_location", "source": "notes/a.md", "start_block_index": 1, "end_block_index": 2},
            {"source": "notes/a.md", "unit": "block", "start": 1, "end": 2},
        ),
        ({"type": "of_the_future", "title": "New", "start_char_index": 1, "end_char_index": 2}, {"title": "New"}),
        ({"url": "javascript:alert(1)", "title": "x"}, {"title": "x"}),
        ({"url": "http://[", "title": "x"}, {"title": "x"}),
        ({"title": "x", "type": "char_location", "start_char_index": True, "end_char_index": 2}, {"title": "x"}),
        ({"title": None, "document_title": "y"}, {"title": "y"}),
        ({"type": "char_location", "start_char_index": 0, "end_char_index": 10}, None),
        ({"cited_text": " "}, None),
        ([], None),
        (None, None),
    ],
)
def test_the_table(raw: Any, data: dict[str, Any] | None) -> None:
    assert citation_in(raw) == data


def test_a_long_quotation_is_cut() -> None:
    data = citation_in({"cited_text": "x" * 99_999})
    assert data is not None
    assert len(data["cited_text"]) == MAX_QUOTE_CHARS


KEYS = st.sampled_from(["type", "cited_text", "title", "url", "source", "start_char_index", "end_char_index"])
VALUES = st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.sampled_from(["char_location", "\ud800"])


@given(raw=st.dictionaries(KEYS, VALUES | st.lists(VALUES, max_size=2)))
def test_whatever_comes_what_is_shown_is_json(raw: dict[str, Any]) -> None:
    data = citation_in(raw)
    assert data is None or msgspec.json.decode(msgspec.json.encode(data)) == data
