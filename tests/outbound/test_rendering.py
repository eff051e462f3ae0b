"""A run as the text of a chat message."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream.outbound.rendering import rendered, shortened
from midstream_protocol import events as ev
from midstream_protocol.events import Event, Payload
from midstream_protocol.view import View, fold_all
from tests.outbound.rig import approval, end

USAGE = ev.Usage(input_tokens=1, output_tokens=1, cached_input_tokens=0, total_tokens=2, by_model={})
CANCELLED = ev.RunCancelled(by="me", mode="now", last_seq=1, effects=[], usage=USAGE, digest="d")
FAILED = ev.RunFailed(
    code="internal", text="The model is gone.", retryable=False, error_id="e", completed=[], effects=[], usage=USAGE,
    digest="d",
)  # fmt: skip


def view(*payloads: Payload) -> View:
    events = [
        Event(v=1, seq=n, run_id="run_1", type=each.TYPE, ts="2026-01-01T00:00:00.000Z", payload=each)
        for n, each in enumerate([ev.RunStarted(agent="a", thread_id="t"), *payloads], 1)
    ]
    folded = fold_all(events)
    assert folded is not None
    return folded


def said(text: str, message_id: str = "m") -> list[Payload]:
    return [
        ev.MessageStarted(message_id=message_id, role="assistant", agent="a"),
        ev.MessageDelta(message_id=message_id, text=text),
    ]


def todos(*statuses: str) -> list[Any]:
    return [ev.Todo(id=f"t{n}", title=f"Step {n}", agent="a", status=each) for n, each in enumerate(statuses)]  # type: ignore[arg-type]


def test_a_run_that_has_said_nothing_works() -> None:
    assert rendered(view(), 1000) == "Working"


def test_what_it_does_its_plan_and_its_answer_so_far() -> None:
    plan = ev.PlanCreated(todos=todos("completed", "in_progress", "pending", "failed", "skipped"))
    call = ev.ToolStarted(
        tool_call_id="c", tool="search", label="Search for “sky”", args_preview={}, args_digest="d", attempt=1
    )
    text = rendered(view(plan, *said("An earlier one"), *said("It is", "m2"), call), 1000)
    plan_lines = "Plan: 1 of 5\n✓ Step 0\n▸ Step 1\n· Step 2\n✗ Step 3\n– Step 4"
    assert text == f"Search for “sky”\n\n{plan_lines}\n\nIt is"


@pytest.mark.parametrize(
    ("payloads", "first"),
    [
        ([ev.RunStatusChanged(status="queued", phase="waiting", text="Waiting for the run before")], "Waiting for"),
        ([ev.RunStatusChanged(status="running", phase="working", text="Thinking")], "Thinking"),
        (
            [approval(), ev.RunStatusChanged(status="waiting", phase="x", text="x")],
            "Waiting for approval: Pay. it costs",
        ),
        ([CANCELLED], "Cancelled"),
        ([FAILED], "Failed: The model is gone."),
    ],
)
def test_how_it_stands_is_the_first_line(payloads: list[Payload], first: str) -> None:
    assert rendered(view(*payloads), 1000).startswith(first)


@pytest.mark.parametrize(("result", "text"), [("All is well.", "All is well."), ({"n": 1}, '{\n  "n": 1\n}')])
def test_at_the_end_there_is_the_result(result: Any, text: str) -> None:
    assert rendered(view(*said("On the way"), end(result)), 1000) == f"Done\n\n{text}"


def test_the_run_s_own_input_is_not_its_answer() -> None:
    asked = ev.MessageCompleted(message_id="u", role="user", text="my question", state="complete")
    assert "my question" not in rendered(view(asked), 1000)


def test_a_long_answer_says_how_much_is_missing() -> None:
    text = rendered(view(*said("word " * 2000)), 200)
    assert len(text) <= 200
    assert text.startswith("Working\n\nword word")
    assert text.endswith(" more characters]")


@given(st.text(alphabet=st.sampled_from("ab😀é\n"), max_size=300), st.integers(40, 200))
def test_a_text_is_never_longer_than_it_may_be_and_nothing_is_lost_from_the_count(text: str, room: int) -> None:
    def units(each: str) -> int:
        return len(each.encode("utf-16-le")) // 2

    short = shortened(text, room)
    assert units(short) <= room
    if units(text) <= room:
        assert short == text
    else:
        kept, _, note = short.rpartition("\n[… ")
        assert text.startswith(kept)
        assert int(note.split(" ")[0]) == units(text) - units(kept)
