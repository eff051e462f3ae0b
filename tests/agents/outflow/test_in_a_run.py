"""An app's outflow in whole runs: what is changed stays a valid log, live, after a crash and in the view."""

import asyncio

import msgspec
import pytest

from midstream import Agent, Audience, Midstream, Outflow, Settings, ToolInfo, tool
from midstream.testing import call, staged
from midstream_protocol import events as ev
from tests.agents.kit import check_log


@tool(label="Look for {q}")
async def look(q: str) -> str:
    return f"found {q}"


def app(outflow: Outflow, *tools, **options) -> Midstream:
    it = Agent("tester", instructions="Be brief.", tools=list(tools) or [look], **options)
    return Midstream([it], outflow=outflow, settings=Settings(token="a-token-of-the-server"))


async def played(outflow: Outflow, script):
    async with staged(app(outflow), script) as stage:
        run = await stage.start("Go.")
        await run.ended()
        check_log(run)
        return run, await run.view()


def louder(payload):
    if isinstance(payload, ev.MessageDelta):
        return msgspec.structs.replace(payload, text=payload.text.upper())
    return payload


def no_status(payload, audience):
    return None if isinstance(payload, ev.RunStatusChanged) else payload


async def catalogue(name):
    return ToolInfo(label="Archive", description="Looks into the archive", icon="box")


SCRIPT = [
    [{"chunks": ["Look", "ing <think>hm</think>"]}, *[{"call": {"tool": "look", "args": {"q": "x"}}}]],
    "Found a-token-of-the-server.",
]


@pytest.mark.asyncio
async def test_each_phase_has_its_part():
    run, view = await played(Outflow(transform=(louder,), enrich=(catalogue,), process=(no_status,)), SCRIPT)
    assert run.text == "LOOKING FOUND [HIDDEN]."
    assert [m.text for m in view.messages if m.role == "assistant"] == ["LOOKING ", "FOUND [HIDDEN]."]
    assert await run.result() == "FOUND [HIDDEN]."
    [started] = run.of_type("tool.started")
    assert (started.label, started.description, started.icon) == ("Archive", "Looks into the archive", "box")
    assert [p for p in run.of_type("run.status") if p.phase == "working"] == []


def boom(*_args):
    raise RuntimeError("velvet otter")


@pytest.mark.parametrize("outflow", [Outflow(transform=(boom,)), Outflow(process=(boom,)), Outflow(hidden_tools=boom)])
@pytest.mark.asyncio
async def test_a_function_that_always_fails_leaves_a_run_that_completes_and_shows_nothing(outflow):
    run, _ = await played(outflow, SCRIPT)
    assert run.events[-1].type == "run.completed"
    assert "found x" not in str(run.events)
    assert "Look for" not in str(run.events)
    assert "velvet otter" not in str(run.events)


@pytest.mark.asyncio
async def test_a_hidden_tool_is_a_step_and_is_asked_about_all_the_same_when_its_outcome_is_unknown():
    begun = asyncio.Event()

    @tool(timeout=5)
    async def pay(amount: int) -> str:
        begun.set()
        await asyncio.Event().wait()
        return "paid"

    def hidden(audience: Audience) -> frozenset[str]:
        return frozenset({"pay"})

    async with staged(
        app(Outflow(hidden_tools=hidden), pay), [call("pay", amount=7), call("pay", amount=7), "Done."]
    ) as stage:
        run = await stage.start("Go.")
        await run.until("tool.started")
        await begun.wait()
        await run.crash()
        # The first call's outcome is unknown, so the same call again is asked about, by its name.
        asked = (await run.until("approval.required")).payload
        assert (asked.tool, asked.reason, asked.args) == ("pay", "unknown_outcome", {"amount": 7})
        await run.deny()
        await run.result()
        check_log(run)
        [started] = run.of_type("tool.started")
        assert (started.tool, started.label, started.args_preview) == ("tool", "A step of the agent", {})
        assert {p.text for p in run.of_type("tool.failed")} == {"The step failed."}


@tool(redact=["pin"])
async def enter(pin: str) -> str:
    return "entered"


@pytest.mark.parametrize("interrupted", [False, True])
@pytest.mark.asyncio
async def test_what_a_call_hid_stays_hidden_after_a_crash_and_in_the_threads_next_run(interrupted):
    script = [call("enter", pin="nine-times-green"), "It was nine-times-green.", "Still nine-times-green."]
    if interrupted:
        script.insert(1, {"steps": [{"delay_s": 5}, {"text": "It was nine-times-green."}]})
        script.pop(2)
    async with staged(app(Outflow(), enter), script) as stage:
        run = await stage.start("Go.")
        if interrupted:
            await run.until("tool.completed")
            await run.crash()
            await stage.clock.advance(10)
        assert await run.result() == "It was [hidden]."
        following = await stage.start("And now?", thread_id=(await run.view()).thread_id)
        assert await following.result() == "Still [hidden]."
