"""Whole runs, event for event as they were when somebody read them and found them right.

`python -m tests.golden.record` writes them anew.
"""

import pytest

from midstream_protocol.order import verify
from tests.golden.stories import STORIES
from tests.golden.transcript import FOLDER, lines


@pytest.mark.parametrize("story", STORIES)
@pytest.mark.asyncio
async def test_a_run_is_told_as_it_was(story: str):
    events = await STORIES[story]()
    for run_id in {event.run_id for event in events}:
        assert verify(event for event in events if event.run_id == run_id) == []
    assert lines(events).splitlines() == (FOLDER / f"{story}.jsonl").read_text(encoding="utf-8").splitlines()


def test_no_transcript_is_of_nothing():
    assert {path.stem for path in FOLDER.iterdir()} == set(STORIES)
