"""Cutting a result to a size, for any text."""

from hypothesis import given
from hypothesis import strategies as st

from midstream.agents.budget.shorten import chars_for, level, shortened
from midstream.agents.budget.tokens import part_tokens
from tests.agents.budget.conversations import result

_texts = st.lists(
    st.builds(lambda word, times: word * times, st.sampled_from(["word ", "数", "🙂", "0", "\n"]), st.integers(0, 400)),
    max_size=4,
).map("".join)


@given(_texts, st.integers(0, 600))
def test_a_result_is_cut_to_a_size_or_to_its_note(content, tokens):
    whole = result("call_1", content)
    cut = shortened(whole, chars_for(whole, tokens))
    assert part_tokens(cut) <= max(tokens, part_tokens(shortened(whole, 0)))


def test_not_much_less_than_there_is_room_for():
    whole = result("call_1", "word " * 4_000)
    assert 490 <= part_tokens(shortened(whole, chars_for(whole, 500))) <= 500


@given(_texts, st.integers(0, 600))
def test_a_cut_has_the_beginning_and_the_end(content, kept):
    cut = shortened(result("call_1", content), kept).content
    if len(content) <= kept:
        assert cut == content
    else:
        head, _, tail = cut.partition('[… left out here; read_result(call_id="call_1") reads the whole result …]')
        assert content.startswith(head.removesuffix("\n"))
        assert content.endswith(tail.removeprefix("\n"))
        assert kept <= len(head) + len(tail) <= kept + 2


@given(st.lists(st.integers(0, 1_000), max_size=8), st.integers(0, 5_000))
def test_cut_to_one_level_they_fit_and_no_higher_level_would(sizes, room):
    cut = level(sizes, room)
    assert sum(min(size, cut) for size in sizes) <= room
    if any(size > cut for size in sizes):
        assert sum(min(size, cut + 1) for size in sizes) > room
