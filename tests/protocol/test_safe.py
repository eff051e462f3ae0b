import datetime as dt
import decimal
import enum
import math

import msgspec
import pydantic
import pytest

from midstream_protocol import MAX_VALUE_DEPTH, json_safe, parse_json


class Colour(enum.IntEnum):
    RED = 1


class Row(msgspec.Struct):
    at: dt.date
    cells: list[float]


class Model(pydantic.BaseModel):
    at: dt.date


class Hostile:
    def __str__(self):
        raise RuntimeError("no")


class HostileDict(dict):
    def items(self):
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("value", "safe"),
    [
        (None, None),
        (True, True),
        (1.5, 1.5),
        ("é😀", "é😀"),
        (math.nan, "NaN"),
        (math.inf, "Infinity"),
        (-math.inf, "-Infinity"),
        (2**53 - 1, 2**53 - 1),
        (2**53, "9007199254740992"),
        (-(2**53), "-9007199254740992"),
        ("a\ud800b", "a\ufffdb"),
        ("\ud83d\ude00", "😀"),
        ({7: "a", None: "b", True: "c", 2.5: "d"}, {"7": "a", "null": "b", "true": "c", "2.5": "d"}),
        ({"\ud800": 1}, {"\ufffd": 1}),
        ((1, [2, {3}], frozenset()), [1, [2, [3]], []]),
        (b"hi", "aGk="),
        (dt.date(2026, 6, 12), "2026-06-12"),
        (decimal.Decimal("1.10"), "1.10"),
        (Colour.RED, 1),
        (Row(at=dt.date(2026, 6, 12), cells=[math.nan]), {"at": "2026-06-12", "cells": ["NaN"]}),
        (Model(at=dt.date(2026, 6, 12)), {"at": "2026-06-12"}),
        ({"a": [Model(at=dt.date(2026, 6, 12))]}, {"a": [{"at": "2026-06-12"}]}),
        (object, "<class 'object'>"),
        (Hostile(), "<Hostile>"),
        (HostileDict(a=1), "<HostileDict>"),
    ],
)
def test_replacements(value, safe):
    assert json_safe(value) == safe


def test_a_number_of_a_million_digits():
    assert json_safe(10**1_000_000).startswith("0x")


def test_what_contains_itself_is_cut():
    knot = []
    knot.extend([knot, knot, 1])
    assert json_safe(knot) == ["…", "…", 1]


def test_what_unfolds_without_end_is_cut():
    tree = []
    for _ in range(MAX_VALUE_DEPTH - 1):
        tree = [tree, tree, tree, tree]
    assert str(json_safe(tree, max_items=1_000)).count("[") <= 1_001


def test_depth_is_cut_where_parsers_refuse():
    deep = "bottom"
    for _ in range(100):
        deep = {"x": deep}
    text = msgspec.json.encode(json_safe(deep))
    parse_json(text, max_depth=MAX_VALUE_DEPTH)
    assert text.count(b"{") == MAX_VALUE_DEPTH
    assert "…".encode() in text
