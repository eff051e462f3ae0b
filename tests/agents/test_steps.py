"""Which open steps are inside which."""

from midstream.agents.steps import steps_in
from midstream_protocol.events import RunStep


def step(name: str, parent: str | None = None) -> RunStep:
    return RunStep(step_id=name, state="started", kind="turn", title=name, agent="a", parent_step_id=parent)


OPEN = [step("a"), step("b"), step("a1", "a"), step("b1", "b"), step("a11", "a1"), step("other", "gone")]


def test_the_innermost_first():
    assert [each.step_id for each in steps_in(OPEN, {"a"})] == ["a11", "a1"]
    assert [each.step_id for each in steps_in(OPEN, {"a", "b"})] == ["a11", "b1", "a1"]
    assert steps_in(OPEN, {"a11"}) == []
    assert steps_in(OPEN, set()) == []
