"""Checking values: every mistake with its place, no value in a text, nothing fetched, nothing slow."""

import time
from datetime import date

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream import tool
from midstream.agents.rules import AgentRules
from midstream.agents.tools.shown import MAX_RESULT_CHARS, REDACTED, bounded, keep, redacted
from midstream.agents.tools.validate import BadSchema, check_arguments, check_value, in_words
from midstream_protocol.codec import json_safe


class Point(msgspec.Struct, forbid_unknown_fields=True):
    x: int
    y: int = 0


@tool(redact=["key"])
async def draw(at: list[Point], when: date | None = None, key: str = "") -> None: ...


def errors(args):
    return [(e.path, e.code) for e in check_arguments(draw.arguments, draw.input_schema, args)]


@pytest.mark.parametrize(
    ("args", "found"),
    [
        ({"at": []}, []),
        ({"at": [{"x": 1}], "when": "2026-01-31"}, []),
        ({}, [("/at", "missing")]),
        ({"at": [{"x": "1"}]}, [("/at/0/x", "type")]),
        ({"at": [{"x": 1}, {}], "a~/b": 1}, [("/at/1/x", "missing"), ("/a~0~1b", "unknown")]),
        ({"at": [{"x": 1, "z": 1}]}, [("/at/0/z", "unknown")]),
    ],
)
def test_each_mistake_has_its_place(args, found):
    assert sorted(errors(args)) == sorted(found)


def test_rules_that_a_schema_cannot_say_are_checked_too():
    assert errors({"at": [], "when": "tomorrow"}) in ([("/when", "invalid")], [("/when", "anyOf")])


def test_no_value_is_in_a_text():
    said = in_words(check_arguments(draw.arguments, draw.input_schema, {"at": "s3cret", "key": 424242}))
    assert "s3cret" not in said
    assert "424242" not in said


def test_nothing_is_fetched():
    for where in ("http://127.0.0.1:9/x.json", "file:///etc/hostname"):
        with pytest.raises(BadSchema):
            check_value({"$ref": where}, 1)


def test_a_pattern_cannot_hold_up_the_loop():
    began = time.monotonic()
    assert check_value({"type": "string", "pattern": r"^(a|a|aa)+(?<!b)$\1"}, "a" * 200 + "!")
    assert time.monotonic() - began < 1


def test_at_most_some_mistakes_are_told():
    assert len(check_value({"items": {"type": "string"}}, [1] * 100)) == 20


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-9, 9) | st.text(),
        lambda c: st.lists(c) | st.dictionaries(st.text(), c),
        max_leaves=8,
    )
)
def test_checked_arguments_can_always_be_given_to_the_function(value):
    if isinstance(value, dict) and not check_arguments(draw.arguments, draw.input_schema, value):
        assert msgspec.convert(value, draw.arguments)


class TestRules:
    rules = AgentRules(tools={"draw": draw}, steerable=True)

    def test_a_hidden_value_must_not_come_back(self):
        assert [e.code for e in self.rules.check_args("draw", {"at": [], "key": REDACTED})] == ["hidden"]
        assert self.rules.shown_args("draw", {"at": [], "key": "k"}) == {"at": [], "key": REDACTED}

    def test_a_tool_it_does_not_know(self):
        assert [e.code for e in self.rules.check_args("gone", {})] == ["unknown_tool"]
        assert not self.rules.is_server_tool("gone")
        assert self.rules.is_server_tool("draw")

    def test_a_schema_that_is_none_does_not_hold_up_an_answer(self):
        assert self.rules.check_value({"type": "nonsense"}, 1) == []


@given(st.text(max_size=300), st.integers(60, 200))
def test_bounded_keeps_both_ends(text, limit):
    short = bounded(text, limit)
    assert len(short) <= limit
    if len(text) <= limit:
        assert short == text
    else:
        assert short.startswith(text[:5])
        assert short.endswith(text[-5:])


def test_a_huge_result_is_kept_in_a_size_that_can_be_stored():
    kept = keep({"rows": ["x" * 1000] * 2000})
    assert len(msgspec.json.encode(kept.record)) < 512 * 1024
    assert kept.truncated
    assert MAX_RESULT_CHARS < 512 * 1024


@given(
    st.dictionaries(st.sampled_from(["a", "key"]), st.lists(st.dictionaries(st.sampled_from(["key", "b"]), st.text())))
)
def test_what_is_hidden_is_hidden_at_every_depth(value):
    hidden = redacted(json_safe(value), {"key"})

    def look(part):
        if isinstance(part, dict):
            for name, item in part.items():
                assert name != "key" or item == REDACTED
                look(item)
        elif isinstance(part, list):
            for item in part:
                look(item)

    look(hidden)
