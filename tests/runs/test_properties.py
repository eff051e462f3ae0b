"""Whatever agents, clients, time and crashes do to a run, in whatever order, its log keeps the promises."""

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.runs.ops import OPS, Op, finish
from tests.runs.world import LIMITS, World

# Mostly what a run is made of; ends and crashes end the story, so they are rarer.
_WEIGHTS = (
    ["say"] * 9 + ["say_two"] + ["command"] * 5 + ["beat"] * 9 + ["take", "time", "repeat", "crash", "end", "offer"]
)

_STEP = st.tuples(st.sampled_from(_WEIGHTS), st.integers(0, 24), st.integers(0, 7), st.integers(0, 7))

# Short lists are what is drawn by default; a life has to be long to go wrong. The cut lets a failing one shrink.
STORIES = st.builds(lambda steps, cut: steps[:cut], st.lists(_STEP, min_size=40, max_size=80), st.integers(0, 80))


@settings(max_examples=800, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(story=STORIES, ending=st.integers(0, 3), bound=st.sampled_from([LIMITS.max_run_events, 30, 12]))
def test_a_run_keeps_its_promises(story: list[Op], ending: int, bound: int) -> None:
    world = World(msgspec.structs.replace(LIMITS, max_run_events=bound))
    for name, kind, n, m in story:
        OPS[name](world, kind, n, m)
    finish(world, ending)
    world.agree()
    world.check()
    assert not world.waiting
