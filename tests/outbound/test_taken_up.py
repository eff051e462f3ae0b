"""Whoever looks at all runs is told when one is taken up: what is durable may be more than it was shown."""

from collections.abc import Sequence

import pytest

from midstream import Run, agent
from midstream.testing import staged

pytestmark = pytest.mark.asyncio


@agent("asker")
async def asker(run: Run) -> str:
    return str(await run.ask("Really?"))


async def test_a_run_that_is_taken_up_is_published_without_events_and_a_new_one_with_them() -> None:
    seen: list[tuple[str, int]] = []

    def tap(run: str, run_id: str, events: Sequence[bytes]) -> None:
        seen.append((run_id, len(events)))

    async with staged(asker) as stage:
        stage.registry.taps.add("test", tap)
        run = await stage.start("Go.")
        await run.until("input.required")
        assert seen
        assert all(count for _, count in seen)
        await stage.restart()
        seen.clear()
        stage.registry.taps.add("test", tap)
        await run.answer("yes")
        await run.until("run.completed")
        assert seen[0] == (run.run_id, 0)
        assert all(count for _, count in seen[1:])
