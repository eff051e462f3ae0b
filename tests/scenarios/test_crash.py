"""`kill -9` at the worst moments, on a real server process, seen by a client that knows only the protocol."""

import asyncio
import json
import signal
from collections import Counter

import pytest

from tests.scenarios.world import World, same_history, whole

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(120)]

SLOW_TEXT = {"steps": [{"text": " ".join(f"word{i}" for i in range(60)), "by": "word", "delay_s": 0.05}]}
DONE = {"steps": [{"text": "Done."}]}


def calling(tool: str, **args: object) -> dict[str, object]:
    return {"steps": [{"text": "I will."}, {"call": {"tool": tool, "args": args}}]}


async def wait_for(world: World, line: str) -> None:
    async with asyncio.timeout(20):
        while not any(each.startswith(line) for each in world.did()):
            await asyncio.sleep(0.02)


async def test_killed_while_tokens_stream(world):
    it = world([SLOW_TEXT])
    await it.up()
    async with it.client() as client:
        run = (await client.command("run.start", "s1", input="go"))["run_id"]
        for _ in range(10):
            await client.until("message.delta")
        await it.kill()
    await it.up()
    after = await whole(it, run)
    same_history(client.raw, after.raw)
    types = Counter(event["type"] for event in after.events)
    assert types["recovery.started"] == 1
    assert types["message.superseded"] == 1
    assert after.events[-1]["type"] == "run.completed"
    assert after.events[-1]["payload"]["result"].endswith("word59")


async def test_an_idempotent_tool_is_continued(world):
    it = world([calling("look", seconds=1.0), DONE])
    await it.up()
    async with it.client() as client:
        run = (await client.command("run.start", "s1", input="go"))["run_id"]
        await wait_for(it, "look begin")
        await it.kill()
    await it.up()
    after = await whole(it, run)
    same_history(client.raw, after.raw)
    assert after.events[-1]["type"] == "run.completed"
    keys = {line.split()[2] for line in it.did()}
    assert [line.split()[1] for line in it.did()] == ["begin", "begin", "end"]
    assert len(keys) == 1


async def test_another_tool_is_never_silently_run_twice(world):
    it = world([calling("pay", seconds=5.0), DONE])
    await it.up()
    async with it.client() as client:
        run = (await client.command("run.start", "s1", input="go"))["run_id"]
        await wait_for(it, "pay begin")
        await it.kill()
    await it.up()
    after = await whole(it, run)
    same_history(client.raw, after.raw)
    assert [line.split()[1] for line in it.did()] == ["begin"]
    failed = [e["payload"] for e in after.events if e["type"] == "tool.failed"]
    assert [(f["code"], f["outcome"]) for f in failed] == [("unknown_outcome", "unknown")]
    assert after.events[-1]["type"] == "run.completed"


async def test_a_person_decides_about_an_unknown_outcome(world):
    it = world([calling("ship", seconds=0.7), DONE])
    await it.up()
    async with it.client() as client:
        run = (await client.command("run.start", "s1", input="go"))["run_id"]
        await wait_for(it, "ship begin")
        await it.kill()
    await it.up()
    async with it.client() as client:
        await client.command("run.attach", "a1", run, since_seq=0)
        asked = (await client.until("approval.required"))["payload"]
        assert asked["reason"] == "unknown_outcome"
        receipt = await client.command(
            "approval.respond", "r1", run, approval_id=asked["approval_id"], decision="approve"
        )
        assert receipt["status"] == "accepted", receipt
        end = await client.to_end()
    assert end["type"] == "run.completed"
    assert [line.split()[1] for line in it.did()] == ["begin", "begin", "end"]


async def test_an_approval_survives_and_works(world):
    it = world([calling("delete", what="x"), DONE])
    await it.up()
    async with it.client() as client:
        run = (await client.command("run.start", "s1", input="go"))["run_id"]
        asked = (await client.until("approval.required"))["payload"]
        await client.until("run.status", status="waiting")
        await it.kill()
    await it.up()
    async with it.client("two") as other:
        await other.command("run.attach", "a1", run, since_seq=0)
        attached = (
            next(f for f in other.others if f["type"] == "run.attached")
            if any(f["type"] == "run.attached" for f in other.others)
            else await other.until("run.attached")
        )
        assert [p["approval_id"] for p in attached["payload"]["pending"]] == [asked["approval_id"]]
        receipt = await other.command(
            "approval.respond", "r1", run,
            approval_id=asked["approval_id"], decision="approve", args_digest=asked["args_digest"],
        )  # fmt: skip
        assert receipt["status"] == "accepted", receipt
        await other.to_end()
    same_history(client.raw, other.raw)
    assert [line.split()[:2] for line in it.did()] == [["delete", "x"]]


async def test_an_approval_expires_while_the_server_is_down(world):
    it = world([calling("delete", what="x"), DONE])
    await it.up(EXPIRES_S="0.5")
    async with it.client() as client:
        run = (await client.command("run.start", "s1", input="go"))["run_id"]
        asked = (await client.until("approval.required"))["payload"]
        await it.kill()
    await asyncio.sleep(0.6)
    await it.up(EXPIRES_S="0.5")
    after = await whole(it, run)
    same_history(client.raw, after.raw)
    resolved = next(e["payload"] for e in after.events if e["type"] == "approval.resolved")
    assert (resolved["approval_id"], resolved["decision"]) == (asked["approval_id"], "expired")
    assert it.did() == []


@pytest.mark.parametrize("mode", ["now", "after_step"])
async def test_a_cancel_whose_receipt_was_given_is_kept(world, mode):
    it = world([calling("pay", seconds=30), DONE])
    await it.up()
    async with it.client() as client:
        run = (await client.command("run.start", "s1", input="go"))["run_id"]
        await wait_for(it, "pay begin")
        receipt = await client.command("run.cancel", "c1", run, mode=mode)
        await it.kill()
    assert receipt["status"] == "accepted"
    await it.up()
    after = await whole(it, run)
    same_history(client.raw, after.raw)
    end = after.events[-1]
    assert end["type"] == "run.cancelled"
    assert [e["outcome"] for e in end["payload"]["effects"]] == ["unknown"]
    async with it.client() as client:
        assert await client.command("run.cancel", "c1", run, mode=mode) == receipt


async def test_a_correction_whose_receipt_was_given_is_kept(world):
    it = world([calling("look", seconds=0.7), DONE])
    await it.up()
    async with it.client() as client:
        run = (await client.command("run.start", "s1", input="go"))["run_id"]
        await wait_for(it, "look begin")
        receipt = await client.command("run.correct", "k1", run, text="in blue")
        await it.kill()
    assert receipt["status"] == "accepted"
    await it.up()
    after = await whole(it, run)
    assert [e["payload"]["text"] for e in after.events if e["type"] == "correction.applied"] == ["in blue"]


async def test_twenty_kills_in_a_row(world):
    it = world([calling("look", seconds=0.05), *([calling("look", seconds=0.05)] * 18), SLOW_TEXT])
    await it.up(MIDSTREAM_MAX_RECOVERIES="50")
    seen: dict[int, str] = {}
    async with it.client() as client:
        run = (await client.command("run.start", "s1", input="go"))["run_id"]
    for kill in range(20):
        async with it.client() as client:
            await client.command("run.attach", "a", run, since_seq=0)
            while len(client.raw) < len(seen) + 1 + kill % 3:
                frame = await client.read()
                if frame["type"] == "run.completed":
                    break
            await it.kill()
        for seq, text in client.raw.items():
            assert seen.setdefault(seq, text) == text
        await it.up(MIDSTREAM_MAX_RECOVERIES="50")
    after = await whole(it, run)
    same_history(seen, after.raw)
    assert after.events[-1]["type"] == "run.completed"


async def test_every_receipt_survives(world):
    """Kill right after each kind of receipt; the resend gets the very same answer."""
    it = world([calling("delete", what="x"), calling("delete", what="y"), DONE])
    await it.up()
    receipts = {}
    async with it.client() as client:
        start = await client.command("run.start", "s1", input="go")
        run = start["run_id"]
        asked = (await client.until("approval.required"))["payload"]["approval_id"]
        commands = {
            "k1": ("run.correct", {"text": "quickly", "mode": "when_idle"}),
            "k2": ("correction.revoke", {"correction_id": "k1"}),
            "bad": ("correction.revoke", {"correction_id": "nothing"}),
            "r1": ("approval.respond", {"approval_id": asked, "decision": "deny", "reason": "no"}),
            "r2": ("approval.respond", {"approval_id": asked, "decision": "approve"}),
        }
    for command_id, (type_, payload) in commands.items():
        async with it.client() as client:
            receipts[command_id] = await client.command(type_, command_id, run, **payload)
        await it.kill()
        await it.up()
    assert [receipts[c]["status"] for c in commands] == ["accepted", "accepted", "rejected", "accepted", "rejected"]
    assert receipts["r2"]["resolution"]["decision"] == "denied"
    async with it.client() as client:
        assert await client.command("run.start", "s1", input="go") == start
        for command_id, (type_, payload) in commands.items():
            assert await client.command(type_, command_id, run, **payload) == receipts[command_id]
        assert (await client.command("run.start", "s1", input="other"))["code"] == "conflict"
        await client.command("run.cancel", "c1", run)
    assert (await whole(it, run)).events[-1]["type"] == "run.cancelled"
    assert it.did() == []


async def test_a_restart_without_the_tool(world):
    it = world([calling("look", seconds=5), DONE])
    await it.up()
    async with it.client() as client:
        run = (await client.command("run.start", "s1", input="go"))["run_id"]
        await wait_for(it, "look begin")
        await it.kill()
    await it.up(WITHOUT="look")
    after = await whole(it, run)
    same_history(client.raw, after.raw)
    assert after.events[-1]["type"] == "run.completed"


async def test_a_restart_without_the_agent(world):
    it = world([calling("look", seconds=5), DONE])
    await it.up()
    async with it.client() as client:
        run = (await client.command("run.start", "s1", input="go"))["run_id"]
        await wait_for(it, "look begin")
        await it.kill()
    await it.up(AGENT="b")
    after = await whole(it, run)
    same_history(client.raw, after.raw)
    assert (after.events[-1]["type"], after.events[-1]["payload"]["code"]) == ("run.failed", "app_changed")


async def test_sigterm_in_the_middle_of_a_run(world):
    it = world([calling("look", seconds=0.3), SLOW_TEXT, DONE])
    await it.up(MIDSTREAM_DRAIN_GRACE_S="0.5")
    async with it.client() as client:
        run = (await client.command("run.start", "s1", input="go"))["run_id"]
        await client.until("message.delta", text="word3 ")
        closed = asyncio.ensure_future(it.kill(signal.SIGTERM))
        with pytest.raises(Exception, match="4001") as gone:
            while True:
                await client.read()
        assert gone.value.rcvd.code == 4001
        assert await closed == 0
    assert any(f["type"] == "connection.draining" for f in client.others)
    await it.up()
    after = await whole(it, run)
    same_history(client.raw, after.raw)
    assert after.events[-1]["type"] == "run.completed"
    assert "Traceback" not in it.log.read_text()
    assert json.loads(after.raw[1])["type"] == "run.started"
