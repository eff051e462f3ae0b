"""Nothing that a server sends makes a terminal do anything."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream.client.safe_text import safe_line, safe_text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, ünïcode, 日本語, 👩‍👩‍👧", "plain text, ünïcode, 日本語, 👩‍👩‍👧"),
        ("tab\tand\nnewline", "tab\tand\nnewline"),
        ("\x1b[2J\x1b]0;owned\x07", "␛[2J␛]0;owned␇"),
        ("windows\r\nline", "windows\nline"),
        ("approve rm -rf\rapprove ls    ", "approve rm -rf␍approve ls    "),
        ("\x9b31m", "<U+009B>31m"),
        ("\x7f\x08", "␡␈"),
        ("a\u202eb\u2066c", "a<U+202E>b<U+2066>c"),
        ("\u2028\ufeff\U000e0041", "<U+2028><U+FEFF><U+E0041>"),
    ],
)
def test_what_acts_is_shown(text, shown):
    assert safe_text(text) == shown


@given(st.text(alphabet=st.characters(exclude_categories=())))
def test_no_control_character_is_left(text):
    safe = safe_text(text)
    assert all(char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cs", "Zl", "Zp") for char in safe)
    assert safe_text(safe) == safe
    safe.encode()


def test_a_line_is_one_line_of_bounded_length():
    assert safe_line("a\nb\t c\x1b") == "a b c␛"
    assert safe_line("x" * 300, limit=10) == "x" * 9 + "…"
