"""What is private reaches no client, and of a run's contents nothing reaches the server's log."""

import pytest

from midstream import Agent, ToolContext, ToolError, tool
from midstream.agents.tools.shown import MAX_ARG_CHARS
from midstream.serving import configure_logging
from midstream.settings import Settings
from midstream.testing import Refused, calls
from tests.agents.kit import acting, check_log


def canary(what: str) -> str:
    # Put together when it runs: a traceback quotes source lines.
    # What people may see calls itself no secret, or it would be hidden from them too.
    return f"{'word' if what in FOR_PEOPLE_ONLY else 'canary'}-{what}-{len(what)}"


PRIVATE = ["system", "reasoning", "redacted", "deep", "long", "error", "cause", "preview", "when", "schema", "model"]
FOR_PEOPLE_ONLY = ["said", "result", "argument", "answer", "input", "correction"]
"""What people may see, and the log need not know."""


@tool(redact=["secret"], label="Use {secret} {plain}")
async def use(secret: str, plain: str, deep: dict[str, str], ctx: ToolContext) -> dict[str, str]:
    await ctx.progress("Working")
    return {"secret": secret, "plain": canary("result")}


@tool
async def fail(text: str) -> None:
    try:
        raise KeyError(canary("cause"))
    except KeyError as cause:
        raise RuntimeError(canary("error")) from cause


@tool
def fail_in_a_thread(text: str) -> None:
    raise ToolError("Not today.") from ValueError(canary("cause"))


def preview(args):
    raise RuntimeError(canary("preview"))


@tool(approval="always", preview=preview)
async def unseen(text: str) -> None:
    """Nobody can see what it would do."""


@tool
async def pick(number: int) -> int:
    return number


SCRIPT = [
    [
        {"reasoning": canary("reasoning")},
        {"text": canary("said")},
        *calls(
            ("use", {"secret": canary("redacted"), "plain": canary("argument"), "deep": {"secret": canary("deep")}}),
            ("fail", {"text": "x" * MAX_ARG_CHARS + canary("long") + "x" * MAX_ARG_CHARS}),
            ("fail_in_a_thread", {"text": "x"}),
            ("unseen", {"text": "x"}),
            ("pick", {"number": canary("schema")}),
            ("ask_user", {"question": "Well?"}),
        )["steps"],
    ],
    [{"text": canary("said")}, {"error": "model_denied"}],
]


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.asyncio
async def test_canaries(capsys, log_format):
    configure_logging(Settings(log_format=log_format, log_level="debug"))
    tools = [use, fail, fail_in_a_thread, unseen, pick]
    app = Agent("tester", instructions=canary("system"), tools=tools, can_ask=True)
    async with acting(app, SCRIPT, input=canary("input")) as (run, _, _stage):
        await run.until("input.required")
        await run.correct(canary("correction"))
        with pytest.raises(Refused):
            await run.approve(canary("answer"))
        await run.answer(canary("answer"))
        await run.until("run.failed")
        check_log(run)
        view = await run.view()
    seen = " ".join(str(event) for event in run.events) + str(view)
    log = capsys.readouterr().err
    assert "tool failed" in log, "or the log was not looked at"
    assert [name for name in PRIVATE if canary(name) in seen] == []
    # An exception's own text is what a log is for; whoever raises it decides what stands in it.
    own_words = {"error", "cause", "preview"}
    assert [name for name in {*PRIVATE, *FOR_PEOPLE_ONLY} - own_words if canary(name) in log] == []
    assert [name for name in FOR_PEOPLE_ONLY if canary(name) not in seen] == []
