"""Gathered text deltas are decided all at once; what comes of it is what comes of their drafts one by one."""

import copy
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from midstream.runs.beat import Beat, run_beat
from midstream.runs.commands import Door
from midstream.runs.contract import Limits
from midstream.runs.inputs import Drafted, Said
from midstream.runs.mailbox import Posted
from midstream_protocol.codec import decode_event
from midstream_protocol.events import MessageDelta
from tests.runs.ops import OPS
from tests.runs.simple import OpenRules
from tests.runs.test_properties import STORIES
from tests.runs.world import SECRET, World

_HEALTH = [HealthCheck.too_slow, HealthCheck.data_too_large]

# Short stories: a run that is still open, mostly.
_LIVES = STORIES.map(lambda steps: [step for step in steps if step[0] not in {"end", "crash"}][:25])
_TEXTS = st.lists(st.text(alphabet=st.characters(), max_size=5) | st.just("\ud800"), min_size=1, max_size=6)


def door(world: World, **limits: Any) -> Door:
    state = copy.deepcopy(world.state)
    return Door(state=state, rules=OpenRules(), limits=Limits(**limits), now_ms=world.now_ms, secret=SECRET)


def told(beat: Beat) -> Any:
    return beat.events, beat.size, [str(wrong) for wrong in beat.wrong], beat.journal, beat.receipts, beat.defects


@settings(max_examples=300, deadline=None, suppress_health_check=_HEALTH)
@given(life=_LIVES, texts=_TEXTS, message=st.integers(0, 7), step=st.integers(0, 7), bound=st.integers(0, 12))
def test_all_at_once_is_one_by_one(life: Any, texts: list[str], message: int, step: int, bound: int) -> None:
    world = World()
    for name, kind, n, m in life:
        OPS[name](world, kind, n, m)
    # Somebody speaks, unless the run is at its end.
    OPS["say"](world, 0, 24, 0)
    OPS["say"](world, 18, 24, 0)
    world.beat()
    messages, steps = [*world.state.message, "nobody's"], [None, *world.state.steps, "nobody's"]
    message_id, step_id = messages[message % len(messages)], steps[step % len(steps)]
    limits = {"coalesce_ms": 0}
    if bound < 6:
        limits["max_run_events"] = world.state.head + bound + 1
    said = Said(message_id, step_id, texts[0], 0)
    said.texts += texts[1:]
    if 6 <= bound < 10:
        # To the byte where one of them ends, or one byte beyond.
        sizes = [len(data) for data in run_beat(door(world, coalesce_ms=0), [said]).events]
        limits["max_run_bytes"] = world.state.size + (sum(sizes[: bound // 2 - 2]) or 1) + bound % 2
    fast, slow = door(world, **limits), door(world, **limits)
    drafts = [
        Posted(Drafted(payloads=(MessageDelta(message_id=message_id, text=text),), step_id=step_id), None)
        for text in texts
    ]
    at_once, one_by_one = run_beat(fast, [said]), run_beat(slow, drafts)
    assert told(at_once) == told(one_by_one)
    assert fast.state == slow.state


def test_joined_they_are_one_event_with_all_their_text() -> None:
    world = World()
    OPS["say"](world, 0, 1, 0)
    world.beat()
    joining, (message_id,) = door(world), world.state.message
    said = Said(message_id, None, "a", 0)
    said.texts += ["b", "", "c\ud83d"]
    beat = run_beat(joining, [said])
    assert [decode_event(data).payload.text for data in beat.events] == ["abc\ufffd"]
    assert (beat.deltas_said, beat.deltas_written) == (4, 1)
    assert joining.state.head == world.state.head + 1
