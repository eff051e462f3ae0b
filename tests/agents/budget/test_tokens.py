"""Estimates: not far too low for any script, and better with every report."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream.agents.budget.tokens import LEAST, MOST, Scale, fixed_tokens, message_tokens, part_tokens, text_tokens
from midstream.agents.conversation import AssistantMessage, Call, Media, Opaque, Reasoning, Result, Text
from midstream.agents.providers.contract import ToolSpec

PROSE = "The first of them was found in the cellar, behind a row of bottles that nobody had opened for years. " * 20
CODE = (
    "def keep(value: Any, *, redact: Collection[str] = ()) -> Kept:\n    safe = json_safe(value)\n    return x[1:-1]\n"
    * 20
)
NUMBERS = json.dumps([{"id": number * 7919, "price": number / 7} for number in range(60)])
BASE64 = base64.b64encode(bytes(range(256)) * 8).decode()
CHINESE = "数据必须在写入之前得到确认，否则客户端可能会看到不存在的结果。" * 20
RUSSIAN = "Каждое событие записывается один раз, и только потом становится видимым для клиентов. " * 20


# Characters of one token, as today's tokenizers have it, from the most to the least they may make of such a text.
@pytest.mark.parametrize(
    ("text", "densest", "loosest"),
    [
        (PROSE, 3.4, 5.0),
        (CODE, 2.6, 4.5),
        (NUMBERS, 1.7, 3.2),
        (BASE64, 1.3, 2.8),
        (CHINESE, 0.65, 1.6),
        (RUSSIAN, 1.4, 3.5),
    ],
    ids=["prose", "code", "numbers", "base64", "chinese", "russian"],
)
def test_a_text_is_estimated_within_what_tokenizers_make_of_it(text, densest, loosest):
    # A quarter below what the densest would make of it is what the bounds of a budget leave as room.
    assert len(text) / loosest <= text_tokens(text) <= len(text) / densest * 1.25
    assert text_tokens(text) > 0.75 * len(text) / ((densest + loosest) / 2)


def test_nothing_is_nothing_and_a_lone_surrogate_is_no_error():
    assert text_tokens("") == 0
    assert text_tokens("\ud800") > 0


@given(st.text())
def test_a_character_is_between_a_quarter_of_a_token_and_three(text):
    assert len(text) / 4 <= text_tokens(text) <= len(text) * 3


def test_parts():
    assert part_tokens(Media(kind="image", media_type="image/png", url="https://x.example/y")) == part_tokens(
        Media(kind="image", media_type="image/png", data="QQ==" * 10_000)
    )
    text_file = Media(kind="file", media_type="text/plain", data=base64.b64encode(PROSE.encode()).decode())
    assert part_tokens(text_file) >= text_tokens(PROSE)
    assert part_tokens(Media(kind="file", media_type="application/pdf", data="QQ==")) > 1_000
    thought = Reasoning(raw={"thinking": PROSE, "signature": "A" * 4_000})
    assert part_tokens(thought) == text_tokens(PROSE)
    assert part_tokens(Reasoning(raw={"data": "A" * 400})) > 50
    assert part_tokens(Opaque(raw={"text": PROSE})) > text_tokens(PROSE)
    args = {"text": PROSE}
    assert part_tokens(Call(id="c", provider_id="c", tool="t", args=args)) > text_tokens(PROSE)
    assert part_tokens(Call(id="c", provider_id="c", tool="t", args=None, raw=PROSE)) > text_tokens(PROSE)
    assert part_tokens(Result(call_id="c", provider_id="c", content=PROSE)) > text_tokens(PROSE)
    assert message_tokens(AssistantMessage(parts=(Text(text=PROSE), Text(text=PROSE)))) > 2 * text_tokens(PROSE)


def test_system_text_and_tools():
    tool = ToolSpec(name="look", description=PROSE, input_schema={"type": "object", "properties": {}})
    assert fixed_tokens(PROSE, [tool]) > 2 * text_tokens(PROSE)
    assert fixed_tokens("", []) == 0


def test_a_scale_learns_what_the_model_counts():
    scale = Scale()
    assert scale.tokens(1_000) == 1_000
    scale.learn(1_000, 1_500)
    assert scale.tokens(1_000) == 1_500
    # What is new is counted like the rest, or as it is estimated: never as less.
    assert scale.tokens(1_100) == 1_650
    scale.learn(1_000, 600)
    assert scale.tokens(1_000) == 600
    assert scale.tokens(1_100) == 700


def test_a_report_that_cannot_be_a_count_is_none():
    scale = Scale()
    scale.learn(1_000, 1_500)
    # A server that does not count reports a constant, or nothing.
    scale.learn(1_000, round(1_000 * LEAST) - 1)
    assert scale.tokens(1_000) == 1_000
    scale.learn(1_000, 10**9)
    assert scale.tokens(1_000) == round(1_000 * MOST)
    scale.learn(0, 5)
    assert scale.tokens(10) == 10


_reports = st.lists(st.tuples(st.integers(1, 10**6), st.integers(0, 10**7)), max_size=4)


@given(_reports, st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_scale_only_grows_and_can_be_asked_both_ways(reports, one, other):
    scale = Scale()
    for raw, reported in reports:
        scale.learn(raw, reported)
    low, high = sorted([one, other])
    assert scale.tokens(low) <= scale.tokens(high)
    room = scale.room(high)
    assert scale.tokens(room) <= high or room == 0
    assert scale.tokens(room + 2) > high


@given(st.floats(0.6, 3.0), st.lists(st.integers(200, 2_000), min_size=2, max_size=40))
def test_the_error_shrinks_with_every_report(ratio, growth):
    """A conversation grows under a tokenizer that we do not know: once it reported, only what is new can be off."""
    scale = Scale()
    raw = 0
    for number, new in enumerate(growth):
        raw += new
        true = round(raw * ratio)
        estimated = scale.tokens(raw)
        if number == 0:
            assert estimated == raw
        else:
            assert abs(estimated - true) <= new * max(0.0, 1 - ratio) + raw * 0.01
        scale.learn(raw, true)
        assert abs(scale.tokens(raw) - true) <= 1
