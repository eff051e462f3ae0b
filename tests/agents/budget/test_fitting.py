"""What goes to the model: whatever comes in, a valid conversation under the bound goes out, and it goes on as it began."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream.agents.budget.blocks import LEFT_OUT, blocks_of, joined
from midstream.agents.budget.budget import HIGH, Budget
from midstream.agents.budget.contract import Entry
from midstream.agents.budget.fitting import Bounds, Trimming, trimmed
from midstream.agents.conversation import AssistantMessage, Text, UserMessage, calls_of, repaired
from midstream.runs.contract import RunFailure
from tests.agents.budget.conversations import (
    call,
    check_valid,
    conversations,
    is_part,
    model,
    result,
    results,
    said,
    size,
    turn,
    user,
)

FIXED = 50
WORD = "word "


def usable(window):
    """What a conversation may have of a window whose answers are bounded by a quarter of it."""
    return int((window - window // 4) * HIGH)


def fitted(entries, window, fixed=FIXED):
    return Budget(window, window // 4).fit(entries, fixed_tokens=fixed)


# -- examples


def test_a_conversation_with_room_goes_as_it_is():
    entries = [user("request", "Go."), *turn("a", "short"), user("note", "Go on.")]
    out = fitted(entries, 10_000)
    assert out.messages == tuple(repaired([entry.message for entry in entries]))
    assert (out.trimmed, out.dropped, out.truncated, out.shortened) == (False, 0, 0, False)
    assert out.before_tokens == out.after_tokens >= size(out.messages) + FIXED


def test_long_results_are_shortened_first_and_the_oldest_of_them():
    entries = [user("request", "Go."), *turn("a", WORD * 1_500), *turn("b", WORD * 900), *turn("c", "done")]
    out = fitted(entries, 4_000)
    kept = results(out.messages)
    assert (out.trimmed, out.dropped, out.truncated, out.shortened) == (True, 0, 1, True)
    assert len(kept["a_0"]) < 1_000
    assert kept["b_0"] == WORD * 900
    assert out.after_tokens < usable(4_000) < out.before_tokens


def test_a_shortened_result_keeps_head_and_tail_and_says_where_the_whole_is():
    content = "HEAD " + WORD * 3_000 + "TAIL"
    out = fitted([user("request", "Go."), *turn("a", content), *turn("b", "done")], 4_000)
    short = results(out.messages)["a_0"]
    assert short.startswith("HEAD word")
    assert short.endswith("word TAIL")
    assert 'read_result(call_id="a_0")' in short


def test_then_the_oldest_messages_go_calls_and_results_together():
    entries = [user("request", "Go.")]
    for number in range(40):
        entries += turn(str(number), WORD * 60, WORD * 60)
    out = fitted(entries, 4_000)
    left = [entry.message for entry in entries if isinstance(entry.message, AssistantMessage)]
    shown = [message for message in out.messages if isinstance(message, AssistantMessage)]
    assert shown == left[-len(shown) :]
    assert out.dropped == 3 * (len(left) - len(shown)) > 0
    assert said(out.messages) == [Text(text="Go."), *LEFT_OUT.parts]
    check_valid(out.messages)


def test_what_is_critical_stays_where_it_was_and_in_order():
    entries = [user("history", "long ago " * 400), model("yes " * 400, kind="history"), user("request", "THE REQUEST")]
    entries += [user("brief", "THE PLAN"), *turn("a", WORD * 400), user("correction", "FIRST"), *turn("b", WORD * 400)]
    entries += [user("correction", "SECOND"), *turn("c", WORD * 400), user("note", "NOW")]
    out = fitted(entries, 2_400)
    words = [part.text for part in said(out.messages)]
    assert words == ["[Earlier messages were left out.]", "THE REQUEST", "THE PLAN", "FIRST", "SECOND", "NOW"]
    check_valid(out.messages)


def test_history_goes_before_the_turns_of_this_run():
    entries = [user("history", WORD * 500), model(WORD * 500, kind="history"), user("request", "Go.")]
    entries += [*turn("a", WORD * 100), *turn("b", WORD * 100)]
    out = fitted(entries, 2_000)
    assert out.dropped == 2
    assert len(results(out.messages)) == 2


def test_the_newest_turn_stays_and_its_results_share_the_room():
    entries = [user("request", "Go."), *turn("old", WORD * 80), *turn("new", WORD * 4_000, "small", WORD * 4_000)]
    out = fitted(entries, 4_000)
    kept = results(out.messages)
    assert kept["new_1"] == "small"
    assert 500 < len(kept["new_0"]) < 4_000
    assert abs(len(kept["new_0"]) - len(kept["new_2"])) <= 100
    # What is older has a part of the room, if it needs no more.
    assert kept["old_0"] == WORD * 80
    assert out.after_tokens <= usable(4_000)


def test_results_that_are_a_little_too_long_become_a_little_shorter():
    out = fitted([user("request", "Go."), *turn("new", *[WORD * 112] * 16)], 4_000)
    assert out.truncated == 16
    assert all(len(content) > 300 for content in results(out.messages).values())


def test_results_that_are_short_each_but_too_many_are_shortened_at_last():
    entries = [user("request", "Go."), *turn("new", *[WORD * 200] * 20)]
    out = fitted(entries, 2_600)
    assert all("left out here; read_result" in content for content in results(out.messages).values())
    assert out.truncated == 20
    check_valid(out.messages)


def test_what_must_stay_and_is_too_long_is_a_failure_that_says_so():
    with pytest.raises(RunFailure, match="cannot be left out") as raised:
        fitted([user("request", WORD * 4_000)], 4_000)
    assert (raised.value.code, raised.value.retryable) == ("context_too_long", False)
    with pytest.raises(RunFailure, match="cannot be left out"):
        fitted([user("request", "Go.")], 4_000, fixed=4_000)


def test_a_conversation_of_a_window_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="at least 1 token"):
        Budget(0, 100)
    with pytest.raises(ValueError, match="at least 1 token"):
        Budget(100, 0)


def test_the_answer_has_at_most_a_quarter_of_a_small_window():
    entries = [user("request", "Go.")]
    assert Budget(200_000, 4_096).fit(entries, fixed_tokens=0).answer_tokens == 4_096
    assert Budget(4_000, 4_096).fit(entries, fixed_tokens=0).answer_tokens == 1_000


# -- blocks


def test_a_late_word_between_a_call_and_its_result_comes_after_it():
    entries = [
        user("request", "Go."),
        model(call("1"), call("2")),
        user("correction", "Stop."),
        user("result", result("2")),
    ]
    blocks = blocks_of(entries)
    assert [block.kind for block in blocks] == ["request", "turn", "correction"]
    assert [one.call_id for one in blocks[1].results] == ["1", "2"]
    assert blocks[1].entries == 2
    assert joined(blocks) == tuple(repaired([entry.message for entry in entries]))


@given(conversations())
def test_blocks_are_the_repaired_conversation(entries):
    wanted = repaired([entry.message for entry in entries])
    out = joined(blocks_of(entries))
    check_valid(out)
    # Beside what a model needs: a beginning by the user, and no two messages of its own side by side.
    begun = wanted and isinstance(wanted[0], UserMessage)
    assert said(out) == ([] if begun else [*LEFT_OUT.parts]) + said(wanted)
    assert results(out) == results(wanted)
    parts = [part for message in out if isinstance(message, AssistantMessage) for part in message.parts]
    assert parts == [part for message in wanted if isinstance(message, AssistantMessage) for part in message.parts]


# -- any conversation

_windows = st.integers(300, 12_000)


def must_stay(entries: list[Entry]) -> list[Entry]:
    """What is critical, and the newest turn with what came after it; its results as short as they can be."""
    answers = [
        (index, entry.kind)
        for index, entry in enumerate(entries)
        if isinstance(entry.message, AssistantMessage) and entry.message.parts
    ]
    turns = [index for index, kind in answers if kind == "turn"]
    newest = turns[-1] if turns else len(entries)
    last = answers[-1][0] if answers else -1
    return [
        entry
        for index, entry in enumerate(entries)
        if entry.critical or index >= newest or (not turns and index > last and entry.kind != "history")
    ]


@given(conversations(), _windows)
def test_whatever_comes_in_a_valid_conversation_under_budget_goes_out(entries, window):
    high = usable(window)
    try:
        out = fitted(entries, window)
    except RunFailure:
        # Only when what must stay is too long even with every long result as a note (some 40 tokens each).
        stay = must_stay(entries)
        words = size(_without_results(entry.message) for entry in stay)
        notes = 60 * sum(len(calls_of(entry.message)) for entry in stay)
        assert FIXED + words + notes + 60 > high
        return
    check_valid(out.messages)
    assert size(out.messages) + FIXED <= out.after_tokens <= high
    critical = [part for entry in entries if entry.critical for part in said([entry.message])]
    assert is_part(critical, said(out.messages))
    heard = [part for part in said(out.messages) if part not in LEFT_OUT.parts]
    assert is_part(heard, said(entry.message for entry in entries))
    for entry in must_stay(entries):
        if isinstance(entry.message, AssistantMessage):
            assert any(is_part(entry.message.parts, message.parts) for message in out.messages)
    if not out.trimmed:
        assert (out.dropped, out.truncated, out.shortened) == (0, 0, False)
        assert out.messages == joined(blocks_of(entries))


def _without_results(message):
    if isinstance(message, AssistantMessage):
        return message
    return UserMessage(parts=tuple(said([message])))


@given(conversations(), _windows)
def test_the_same_again_is_the_same_and_nothing_more_is_done(entries, window):
    budget = Budget(window, window // 4)
    try:
        first = budget.fit(entries, fixed_tokens=FIXED)
    except RunFailure:
        return
    again = budget.fit(entries, fixed_tokens=FIXED)
    assert again.messages == first.messages
    assert not again.trimmed
    assert again.before_tokens == again.after_tokens == first.after_tokens


@given(conversations(), _windows, st.lists(st.integers(0, 300), min_size=1, max_size=8))
def test_what_was_trimmed_stays_so_until_there_is_too_much_again(entries, window, more):
    """Prompt caches live on it: what was sent is the beginning of what is sent next."""
    budget = Budget(window, window // 4)
    entries = [*entries, *turn("t", "x")]
    try:
        before = budget.fit(entries, fixed_tokens=FIXED)
        for number, words in enumerate(more):
            entries = [*entries, *turn(f"t{number}", WORD * words)]
            after = budget.fit(entries, fixed_tokens=FIXED)
            if not after.trimmed:
                assert after.messages[: len(before.messages)] == before.messages
                assert after.after_tokens <= usable(window)
            else:
                assert after.before_tokens > usable(window)
            before = after
    except RunFailure:
        return


@given(conversations(), st.integers(0, 30), st.integers(100, 8_000), st.integers(0, 4_000))
def test_a_trimming_only_grows(entries, dropped, high, low):
    blocks = blocks_of(entries)
    bounds = Bounds(fixed=FIXED, high=high, low=min(low, high), result=120)
    first = trimmed(blocks, Trimming(dropped=dropped), bounds)
    second = trimmed(blocks, first.trimming, Bounds(fixed=FIXED, high=high // 2, low=min(low, high // 2), result=120))
    assert second.trimming.dropped >= first.trimming.dropped
    assert all(second.trimming.kept[key] <= chars for key, chars in first.trimming.kept.items())
    assert second.size <= first.size
    assert second.before == first.size
