"""The workspace copilot on a server process, with an independent `/v1/messages` server as its model."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.scenarios.world import PATIENCE_S, World, whole
from tests.testkit.model_server import (
    HANG_UP,
    STALL,
    ModelServer,
    Reply,
    error_event,
    error_reply,
    interleaved,
    message,
    message_start,
    model_server,
    split,
    text_block,
    text_message,
    tool_block,
)

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(90)]

DONE = Reply(text_message("All ", "done."))


class CopilotWorld(World):
    async def up(self, **environment: str) -> None:
        self.files = self.folder / "files"
        self.files.mkdir(exist_ok=True)
        variables = {
            **{k: v for k, v in os.environ.items() if not k.startswith("ANTHROPIC")},
            "MIDSTREAM_STORE": f"sqlite:///{self.folder / 'runs.db'}",
            **environment,
        }
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "midstream.cli", "serve", "--port", str(self.port), "--workspace", str(self.files),
                cwd=self.folder, env=variables, stdout=log, stderr=log,
            )  # fmt: skip
        await self.listening()


@contextlib.asynccontextmanager
async def copilot(folder: Path, *replies: Reply, **settings: str) -> AsyncIterator[tuple[CopilotWorld, ModelServer]]:
    async with model_server(*replies) as model:
        it = CopilotWorld(folder, [])
        await it.up(ANTHROPIC_BASE_URL=model.base_url, MIDSTREAM_MODEL="any-model", **settings)
        try:
            yield it, model
        finally:
            await it.kill()


def two_reads(*, a: str = "a.txt", b: str = "b.txt") -> list[bytes]:
    calls = interleaved(
        tool_block(1, "toolu_1", "read_file", '{"pa', f'th": "{a}', '"}'),
        tool_block(2, "toolu_2", "read_file", f'{{"path": "{b}"}}'),
    )
    return message(text_block(0, "Reading."), calls, stop_reason="tool_use")


async def test_text_and_several_calls_split_anywhere(tmp_path):
    raw = b"".join(two_reads())
    odd = Reply(split(raw, range(7, len(raw), 13)))
    async with copilot(tmp_path, odd, DONE) as (it, model):
        (it.files / "a.txt").write_text("alpha")
        (it.files / "b.txt").write_text("beta")
        async with it.client() as client:
            await client.command("run.start", "s1", input="go")
            end = await client.to_end()
        assert (end["type"], end["payload"]["result"]) == ("run.completed", "All done.")
        results = model.requests[1].body["messages"][-1]["content"]
        assert [(r["type"], r["tool_use_id"]) for r in results] == [
            ("tool_result", "toolu_1"),
            ("tool_result", "toolu_2"),
        ]
        assert "alpha" in str(results[0])
        assert "beta" in str(results[1])
        assert model.requests[0].body["model"] == "any-model"


async def test_nothing_of_a_truncated_answer_executes(tmp_path):
    cut = message(
        text_block(0, "Writing."),
        tool_block(1, "toolu_1", "read_file", '{"path": "a.txt"}'),
        tool_block(2, "toolu_2", "edit_file", '{"path": "a.txt", "old": "al'),
        stop_reason="max_tokens",
    )
    async with copilot(tmp_path, Reply(cut), DONE) as (it, _):
        (it.files / "a.txt").write_text("alpha")
        async with it.client() as client:
            await client.command("run.start", "s1", input="go")
            end = await client.to_end()
        assert end["type"] == "run.completed"
        types = [e["type"] for e in client.events]
        assert "tool.started" not in types
        assert "approval.required" not in types
        failed = [e["payload"] for e in client.events if e["type"] == "tool.failed"]
        assert [(f["code"], f["outcome"]) for f in failed] == [("truncated", "not_started")] * 2


@pytest.mark.parametrize(
    "bad",
    [
        Reply([message_start(), *text_block(0, "Half an ans"), error_event("overloaded_error")]),
        Reply([message_start(), *text_block(0, "Half an ans"), HANG_UP]),
        Reply([message_start(), *text_block(0, "Half an ans")]),
        error_reply(529, "overloaded_error"),
        error_reply(429, "rate_limit_error", headers={"retry-after": "1"}),
        error_reply(500, "api_error"),
    ],
    ids=["error event", "hang up", "no end", "529", "429", "500"],
)
async def test_a_failing_model_is_tried_again_in_sight(tmp_path, bad):
    async with copilot(tmp_path, bad, DONE) as (it, _):
        async with it.client() as client:
            await client.command("run.start", "s1", input="go")
            end = await client.to_end()
        assert (end["type"], end["payload"]["result"]) == ("run.completed", "All done.")
        types = [e["type"] for e in client.events]
        assert types.count("recovery.started") == 1
        assert types.count("message.superseded") == types.count("message.started") - 1
        assert "Half" not in str(end)


async def test_a_model_that_stalls_is_given_up(tmp_path):
    stalling = Reply([message_start(), *text_block(0, "Hm")[:2], STALL])
    async with copilot(tmp_path, stalling, DONE, MIDSTREAM_MODEL_IDLE_TIMEOUT_S="0.3") as (it, model):
        async with it.client() as client:
            await client.command("run.start", "s1", input="go")
            end = await client.to_end()
        assert end["type"] == "run.completed"
        await model.disconnected()


async def test_a_model_that_refuses_the_key_ends_the_run(tmp_path):
    async with copilot(tmp_path, error_reply(401, "authentication_error")) as (it, _):
        async with it.client() as client:
            await client.command("run.start", "s1", input="go")
            end = await client.to_end()
        assert (end["type"], end["payload"]["code"], end["payload"]["retryable"]) == (
            "run.failed",
            "model_denied",
            False,
        )


async def test_cancel_closes_the_models_connection_at_once(tmp_path):
    endless = Reply([message_start(), *text_block(0, "Once upon a time")[:2], STALL])
    async with copilot(tmp_path, endless) as (it, model):
        async with it.client() as client:
            run = (await client.command("run.start", "s1", input="go"))["run_id"]
            await client.until("message.delta")
            loop = asyncio.get_running_loop()
            began = loop.time()
            await client.send("run.cancel", "c1", run)
            await model.disconnected()
            assert loop.time() - began < 0.25
            end = await client.to_end()
        assert end["type"] == "run.cancelled"
        said = [e["payload"] for e in client.events if e["type"] == "message.completed"]
        assert [(m["role"], m["state"]) for m in said] == [("user", "complete"), ("assistant", "interrupted")]


async def test_cancel_kills_what_a_command_started(tmp_path):
    command = tool_block(0, "toolu_1", "run_command", '{"command": "sleep 600 & echo $! > pid; sleep 600"}')
    async with copilot(tmp_path, Reply(message(command, stop_reason="tool_use")), DONE) as (it, _):
        async with it.client() as client:
            run = (await client.command("run.start", "s1", input="go"))["run_id"]
            asked = (await client.until("approval.required"))["payload"]
            await client.command("approval.respond", "r1", run, approval_id=asked["approval_id"], decision="approve")
            pid_file = it.files / "pid"
            async with asyncio.timeout(PATIENCE_S):
                while not pid_file.exists() or not pid_file.read_text().strip():
                    await asyncio.sleep(0.02)
            pid = int(pid_file.read_text())
            assert Path(f"/proc/{pid}").exists()
            await client.command("run.cancel", "c1", run)
            async with asyncio.timeout(1.0):
                while _runs(pid):
                    await asyncio.sleep(0.02)
            end = await client.to_end()
        assert end["type"] == "run.cancelled"
        assert [e["tool"] for e in end["payload"]["effects"]] == ["run_command"]
        after = await whole(it, run)
        assert after.raw == client.raw


async def test_a_now_correction_interrupts_and_keeps_what_was_said(tmp_path):
    talking = Reply([message_start(), *text_block(0, "In red, I think")[:2], STALL])
    async with copilot(tmp_path, talking, Reply(text_message("In blue."))) as (it, model):
        async with it.client() as client:
            run = (await client.command("run.start", "s1", input="paint"))["run_id"]
            await client.until("message.delta")
            receipt = await client.command("run.correct", "k1", run, text="in blue", mode="now")
            assert receipt["status"] == "accepted"
            end = await client.to_end()
        assert end["payload"]["result"] == "In blue."
        applied = next(e["payload"] for e in client.events if e["type"] == "correction.applied")
        assert applied["preempted"] is True
        states = [e["payload"]["state"] for e in client.events if e["type"] == "message.completed"]
        assert states == ["complete", "interrupted", "complete", "complete"]
        asked = model.requests[1].body["messages"]
        assert [m["role"] for m in asked] == ["user", "assistant", "user"]
        assert "In red, I think" in str(asked[1])
        assert "in blue" in str(asked[2])


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"
