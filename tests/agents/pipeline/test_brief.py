"""What a stage is told."""

from hypothesis import given
from hypothesis import strategies as st

from midstream.agents.pipeline.brief import brief, status_text, titled
from midstream.agents.pipeline.contract import StageResult
from midstream.agents.planning.plan import Plan
from midstream_protocol.events import Todo


def todo(name, status="pending", *depends_on):
    return Todo(id=name, title=f"Do {name}", agent=f"{name}-er", status=status, depends_on=list(depends_on))


PLAN = Plan(todos=(todo("a", "completed"), todo("b", "failed"), todo("c", "in_progress", "a", "b"), todo("d")))
A = StageResult(todo=PLAN.todos[0], ok=True, text="Found X.")
B = StageResult(todo=PLAN.todos[1], ok=False, text="Half of it.", code="overloaded", error="The model is overloaded.")


def test_the_whole_brief():
    text = brief(
        PLAN,
        PLAN.todo("c"),
        results=[A, B],
        notes=["Prices are in euro."],
        corrections=["Only shops in Bonn."],
        why="no sources",
        max_chars=1000,
    )
    assert text == (
        "This is done in 4 steps:\n"
        "1. Do a (a-er; done)\n"
        "2. Do b (b-er; failed)\n"
        "3. Do c (c-er; yours, now)\n"
        "4. Do d (d-er; to come)\n\n"
        "You are on step 3 of 4: Do c\n"
        "Do this step only; your answer is for the user.\n\n"
        "What the steps before it came to:\n\n"
        "## Do a\n\nFound X.\n\n"
        "## Do b\n\n[This step failed: The model is overloaded.]\n\nHalf of it.\n\n"
        "To be kept in mind:\n- Prices are in euro.\n\n"
        "What the user has said since the request, which goes before it:\n- Only shops in Bonn.\n\n"
        "This step was done before, and has to be done again:\nno sources"
    )


def test_only_what_there_is():
    text = brief(PLAN, PLAN.todo("a"), max_chars=1000)
    assert text.endswith("You are on step 1 of 4: Do a\nDo this step only; your answer is given to the steps after it.")
    assert status_text(PLAN, PLAN.todo("d")) == "Step 4 of 4: Do d"


def test_what_was_joined_stands_for_the_results():
    text = brief(PLAN, PLAN.todo("c"), results=[A, B], joined="Both.", max_chars=1000)
    assert text.endswith("What the steps before it came to:\n\nBoth.")
    assert titled([A, B]) == "## Do a\n\nFound X.\n\n## Do b\n\nHalf of it."


@given(st.text(max_size=5000), st.integers(200, 1000), st.lists(st.text(max_size=4000), max_size=3))
def test_a_brief_is_bounded(text, max_chars, said):
    long = StageResult(todo=PLAN.todos[0], ok=True, text=text)
    made = brief(PLAN, PLAN.todo("c"), results=[long, long], notes=said, corrections=said, max_chars=max_chars)
    assert len(made) <= 2 * max_chars + 6 * 2_010 + 600
