"""Hostile text costs little: the matchers are asked only where something may begin, and that misses nothing."""

import asyncio
import re
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from midstream.agents.outflow import leakage, markup, raw_calls
from midstream.agents.outflow.contract import Outflow
from midstream.agents.outflow.leakage import text_filter_for
from midstream.agents.outflow.signs import MAY_BEGIN
from tests.agents.outflow.test_leakage import FRAGMENTS, HIDDEN, made, played

EVERYWHERE = re.compile(r"[<＜◁\[{`]")
"""Each character that anything begins with."""

SIGNS = st.sampled_from([*"<＜◁[{`/|｜>'\"=:, \n\u200bа", "tool", "TOOL_CALL", "]", "SYS>>", "think▷", "json", "name"])


def asked_everywhere(pieces: list[str]) -> str:
    """What is shown when the matchers are asked at each such character."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leakage, "MAY_BEGIN", EVERYWHERE)
        return played(made(), pieces)


@given(st.lists(FRAGMENTS | SIGNS, max_size=30), st.data())
@example(["<", "＜tool>x</tool>"], None)
def test_nothing_is_missed(fragments, data):
    text = "".join(fragments)
    cuts = [] if data is None else sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=4)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert played(made(), pieces) == asked_everywhere(pieces)


@pytest.mark.parametrize(("text", "shown"), HIDDEN)
def test_nor_of_what_is_known(text, shown):
    for size in (1, 3, len(text)):
        pieces = [text[at : at + size] for at in range(0, len(text), size)]
        assert played(made(), pieces) == asked_everywhere(pieces) == shown


@pytest.mark.parametrize("words", [markup.TAGS, markup.MARKS, markup.FENCES, raw_calls.FIRST_KEYS])
def test_each_word_and_each_beginning_of_it_may_begin(words):
    before = {markup.TAGS: "<", markup.MARKS: "", markup.FENCES: "```", raw_calls.FIRST_KEYS: '{"'}[words]
    after = {markup.TAGS: ">", markup.MARKS: " ", markup.FENCES: "\n", raw_calls.FIRST_KEYS: '":'}[words]
    for word in words:
        assert MAY_BEGIN.match(before + word + after), word
        for length in range(0 if before else 1, len(word) + 1):
            assert MAY_BEGIN.match(before + word[:length]), word[:length]


@pytest.mark.parametrize(
    "text", ["a < b", "<table>", "x[0]", "{'a': 1}", "`code`", "```python\n", "<b>", "[1, 2]", "\x1b[31m"]
)
def test_ordinary_text_is_passed_by(text):
    assert not MAY_BEGIN.search(text + " ")


# -- what hostile text costs

HOSTILE = ["<", "<a", "<<", "</", "<|", "＜", "&#", "`", "[", "{", '{"', "\x1b[31m", "\u202e\u2066", "<\u200bt\u200bo"]
BUDGET_S = 0.3
"""Processor seconds for a million characters. It takes a third of that at most; a look in Python at each would take ten
times as long.
"""


@pytest.mark.parametrize("sign", HOSTILE)
def test_a_line_of_signs_takes_no_time(sign):
    text = (sign * 1_000_000)[:1_000_000]
    it, began = made(), time.process_time()
    shown = it.feed(text) + it.end()
    assert time.process_time() - began < BUDGET_S
    assert len(shown) > len(text) - 10


@pytest.mark.parametrize(
    "unit",
    [
        "{'type':'function',\\\"",
        '{"type":"function", ',
        '"thought":"x",',
        '{"input":',
        "<tool " + "x" * 990 + " ",
    ],
)
@pytest.mark.parametrize("size", [100, 8_000, 400_000])
def test_what_begins_again_and_again_is_looked_at_a_few_times(unit, size):
    text = ("{" + unit * 400_000)[:400_000]
    it, began = made(), time.process_time()
    for at in range(0, len(text), size):
        it.feed(text[at : at + size])
    it.end()
    assert time.process_time() - began < 3


def test_objects_inside_of_each_other_that_are_no_calls_are_shown():
    text = '{"input": ' * 6 + "1" + "}" * 6
    assert played(made(), [text * 3_000]) == text * 3_000


def test_an_endless_beginning_of_calls_is_left_out():
    text = "so: " + "{'type':'function',\\\"" * 50_000
    shown = played(made(), [text])
    assert shown.startswith("so: {")
    assert len(shown) < len(text) / 4
    for size in (999, 16_001):
        assert played(made(), [text[at : at + size] for at in range(0, len(text), size)]) == shown


@pytest.mark.asyncio
async def test_a_whole_text_lets_others_have_their_turn():
    it = text_filter_for(Outflow())()
    turns = 0

    async def other():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    assert await it.whole("<" * 100_000) == "<" * 100_000
    assert turns > 10
    task.cancel()
