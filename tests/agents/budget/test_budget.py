"""A budget over many calls: hysteresis, what providers report, and models that refuse."""

from itertools import pairwise

import pytest

from midstream.agents.budget.budget import HIGH, LOW, Budget
from midstream.runs.contract import RunFailure
from tests.agents.budget.conversations import check_valid, model, results, size, turn, user

WORD = "word "
WINDOW = 4_000
USABLE = 3_000


def budget(window=WINDOW):
    return Budget(window, 1_000)


def test_it_is_trimmed_far_enough_that_it_does_not_oscillate():
    """85 % down to 60 %: a conversation that grows by some 2 % of its window is trimmed once in a dozen turns."""
    one, entries, trims = budget(), [user("request", "Go.")], []
    for number in range(120):
        entries += turn(str(number), WORD * 40)
        out = one.fit(entries, fixed_tokens=200)
        assert out.after_tokens <= USABLE * HIGH
        if out.trimmed:
            trims.append(number)
            assert out.after_tokens <= USABLE * LOW
    gaps = [after - before for before, after in pairwise(trims)]
    assert len(trims) >= 3
    assert min(gaps) >= 5


def test_the_model_may_count_more_than_we_do():
    one, entries = budget(), [user("request", "Go."), *turn("a", WORD * 1_000), *turn("b", "x")]
    out = one.fit(entries, fixed_tokens=0)
    assert not out.trimmed
    one.reported(out.after_tokens * 2)
    out = one.fit(entries, fixed_tokens=0)
    assert out.trimmed
    assert out.before_tokens > USABLE * HIGH >= out.after_tokens


def test_the_model_may_count_less_than_we_do():
    one, entries = budget(), [user("request", "Go."), *turn("a", WORD * 1_700), *turn("b", "x")]
    out = one.fit(entries, fixed_tokens=0)
    one.reported(out.after_tokens * 6 // 10)
    entries += turn("c", WORD * 600)
    assert not one.fit(entries, fixed_tokens=0).trimmed
    fresh = budget().fit(entries, fixed_tokens=0)
    assert fresh.trimmed


def test_a_server_that_does_not_count_changes_nothing():
    one, entries = budget(), [user("request", "Go.")]
    for number in range(60):
        entries += turn(str(number), WORD * 100)
        out = one.fit(entries, fixed_tokens=0)
        assert size(out.messages) <= USABLE * HIGH
        one.reported(10)


def test_a_model_that_refuses_is_given_less_each_time_until_nothing_more_can_go():
    one, entries = budget(200_000), [user("request", "Go.")]
    for number in range(30):
        entries += turn(str(number), WORD * 200)
    sizes = [one.fit(entries, fixed_tokens=100).after_tokens]
    while one.too_long():
        out = one.fit(entries, fixed_tokens=100)
        check_valid(out.messages)
        assert out.trimmed
        assert out.after_tokens <= sizes[-1] * 0.75 or not one.too_long()
        sizes.append(out.after_tokens)
        assert len(sizes) < 40
    assert sizes[-1] < 0.2 * sizes[0]
    # The bound stays down: growing again does not bring back what was refused.
    for number in range(30):
        entries += turn(f"more{number}", WORD * 200)
        assert one.fit(entries, fixed_tokens=100).after_tokens < sizes[0]


def test_a_model_that_refuses_what_must_stay_cannot_be_helped():
    one = budget()
    assert not one.too_long()
    one.fit([user("request", WORD * 500), user("correction", "more")], fixed_tokens=0)
    assert not one.too_long()


def test_less_is_tried_even_where_the_lower_bound_cannot_be_kept():
    one, entries = budget(), [user("request", WORD * 1_200), *turn("a", WORD * 200), *turn("b", "x")]
    before = one.fit(entries, fixed_tokens=0)
    assert one.too_long()
    after = one.fit(entries, fixed_tokens=0)
    assert after.after_tokens < before.after_tokens
    assert not one.too_long()


def test_a_result_may_become_shorter_twice():
    one, entries = budget(), [user("request", "Go."), *turn("a", WORD * 5_000)]
    first = one.fit(entries, fixed_tokens=0)
    long = results(first.messages)["a_0"]
    for number in range(20):
        entries += turn(str(number), WORD * 50)
        out = one.fit(entries, fixed_tokens=0)
        if out.trimmed:
            break
    short = results(out.messages)["a_0"]
    assert (out.truncated, out.dropped) == (1, 0)
    assert 0 < len(short) < len(long) / 2
    assert short.count("left out here") == 1


def test_a_slice_of_a_whole_result_fits_its_window():
    assert Budget(200_000, 4_096).slice_chars == 8_000
    for window in (300, 1_000, 4_000, 20_000):
        one = Budget(window, 4_096)
        content = WORD * (one.slice_chars // len(WORD))
        out = one.fit([user("request", "Go."), *turn("a", content)], fixed_tokens=0)
        assert not out.shortened


def test_a_growing_answer_cannot_break_the_next_call():
    """The longest answer that the budget allows still fits when it is part of the conversation."""
    one, entries = Budget(2_000, 4_096), [user("request", WORD * 100)]
    for number in range(10):
        out = one.fit(entries, fixed_tokens=100)
        check_valid(out.messages)
        # Prose of as many tokens as it may have, estimated rather too high.
        entries += [model(f"{number} " + WORD * (out.answer_tokens * 3 // 4)), user("correction", "Again.")]


def test_too_much_of_the_users_own_words_is_a_clear_failure():
    one, entries = budget(), [user("request", "Go.")]
    for number in range(20):
        entries.append(user("correction", f"{number} " + WORD * 100))
        if number < 15:
            assert not one.fit(entries, fixed_tokens=0).trimmed
    with pytest.raises(RunFailure) as raised:
        one.fit(entries, fixed_tokens=0)
    assert raised.value.code == "context_too_long"
    assert "4,000" in raised.value.text
