"""A disk that fills while a run streams, and is freed: nothing seen is lost, and no restart is needed.

The disk is filled by lowering the size that the server's process may give to a file (EFBIG instead of ENOSPC: to the
store both are a write that fails).
"""

import asyncio
import resource

import pytest

from tests.scenarios.world import World, same_history, whole

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(90)]

LONG_TEXT = {"steps": [{"text": " ".join(f"word{i}" for i in range(400)), "by": "word", "delay_s": 0.01}]}


def fill(it: World) -> None:
    assert it.process is not None
    size = max(path.stat().st_size for path in it.folder.glob("runs.db*"))
    resource.prlimit(it.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def free(it: World) -> None:
    assert it.process is not None
    resource.prlimit(it.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


async def test_a_disk_that_fills_and_is_freed(world):
    it = world([LONG_TEXT])
    await it.up()
    async with it.client() as client:
        run = (await client.command("run.start", "s1", input="go"))["run_id"]
        for _ in range(10):
            await client.until("message.delta")
        fill(it)
        refused = await client.command("run.start", "s2", input="another")
        assert (refused["status"], refused["code"], refused["retryable"]) == ("rejected", "unavailable", True)
        refused = await client.command("run.correct", "k1", run, text="in blue")
        assert (refused["status"], refused["retryable"]) == ("rejected", True)
        free(it)
        async with asyncio.timeout(30):
            while (again := await client.command("run.correct", "k1", run, text="in blue"))["status"] == "rejected":
                assert again["retryable"]
                await asyncio.sleep(0.1)
        end = await client.to_end()
        assert end["type"] == "run.completed"
    after = await whole(it, run)
    same_history(client.raw, after.raw)
    assert [e["payload"]["text"] for e in after.events if e["type"] == "correction.applied"] == ["in blue"]
    assert "Traceback" not in it.log.read_text()
