"""A server whose agents do everything there is to watch, and the console over it. What an agent does is said by the
run's input: `start(watched, "story")`.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import httpx2
from playwright.async_api import Browser, Page

from examples.research_desk.desk import SHIPPED
from examples.research_desk.desk import desk as research_desk
from midstream import Agent, Midstream, Run, ToolCallError, ToolContext, ToolError, agent, tool
from midstream.agents.providers.scripted import ScriptedProvider
from midstream.settings import Settings
from tests.testkit.chromium import ROOT, Complaints
from tests.testkit.served import Served, served

PATIENCE_MS: Final = 15_000

HOSTILE: Final = (
    "<script>window.owned=1</script><img src=x onerror='window.owned=1'> [click](javascript:window.owned=1) "
    "![track](http://127.0.0.1:9/t.png) \u202eevil\u202c \x1b[31mred\x1b[0m \x00 \u200b <svg onload=window.owned=1> "
    '<a href="javascript:window.owned=1">x</a> <style>*{display:none}</style> `</code><b>`'
)

PARAGRAPH: Final = "The **second** track at Weir Bridge is built first, as `plan-2030` says, and it carries the rest. "

ANSWER: Final = "\n\n".join(
    [
        "## What was found",
        PARAGRAPH * 3,
        "- Harbour: 3,960,000\n- Hill: 1,620,000\n- Mill: 2,940,000",
        "```python\ndef cost(line):\n    return line.price / line.boardings\n```",
        "| Line | Crowns |\n|---|---:|\n| Mill | 31.17 |\n| Hill | 90.00 |",
        *[PARAGRAPH * 4] * 6,
        "The end of the answer.",
    ]
)


@dataclass
class Stage:
    """What the tests let happen, and when."""

    go: asyncio.Event = field(default_factory=asyncio.Event)


def _agents(stage: Stage) -> list[Any]:
    @tool(label="Read {name}")
    async def read(name: str) -> str:
        """Read a file."""
        return f"{name} has been read"

    @tool(label="Count to {n}")
    async def count(n: int, ctx: ToolContext) -> str:
        """Count, and say how far."""
        for at in range(n):
            await ctx.progress(f"{at + 1} of {n}", fraction=(at + 1) / n)
        return "\n".join(str(at + 1) for at in range(n))

    @tool(label="Fail at {what}")
    async def fail(what: str) -> str:
        """Fail."""
        raise ToolError(what)

    @tool(label="{text}")
    async def echo(text: str) -> str:
        """Say it again."""
        return text

    async def slowly(text: str, piece: int, pause_s: float) -> AsyncIterator[str]:
        for at in range(0, len(text), piece):
            yield text[at : at + piece]
            await asyncio.sleep(pause_s)

    async def halves() -> AsyncIterator[str]:
        async for piece in slowly(ANSWER, 12, 0.002):
            yield piece
        await stage.go.wait()
        async for piece in slowly(ANSWER, 12, 0.002):
            yield piece

    @agent("shows", tools=[read, count, fail, echo], description="Shows what there is to see")
    async def shows(run: Run) -> Any:
        what, _, number = run.input.partition(" ")
        match what:
            case "story":
                await run.status("Looking around")
                await run.call(read, name="notes.txt")
                await run.call(count, n=12)
                try:
                    await run.call(fail, what="the bridge")
                except ToolCallError:
                    await run.say("That did not work, so I go on without it.")
                await run.object(
                    "citation", {"title": "Plan 2030", "url": "https://example.com/plan", "cited_text": "Mill"}
                )
                await run.object("diff", "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n")
                await run.object("chart", {"bars": [1, 2, 3]})
                return {"cost": 31.17}
            case "stream":
                await run.say(slowly(ANSWER, 12, 0.004))
                await stage.go.wait()
            case "halves":
                await run.say(halves())
            case "wait":
                await run.say("Before the wait.")
                await stage.go.wait()
                await run.say("After the wait.")
            case "many":
                for at in range(int(number)):
                    # A call is five times the work of a message, for the server.
                    await (run.call(read, name=f"file-{at}.txt") if at < 100 else run.say(f"Looked at file-{at}.txt"))
                await run.status("All are there")
                await stage.go.wait()
                await run.say("All files are read.")
            case "hostile":
                await run.status(HOSTILE)
                await run.say(HOSTILE)
                await run.call(echo, text=HOSTILE)
                await run.object(
                    "citation", {"title": HOSTILE, "url": "javascript:window.owned=1", "cited_text": HOSTILE}
                )
                await run.object(HOSTILE[:40], {"<b>": HOSTILE})
            case "huge":
                await run.say("x" * int(number))
                await run.say("Still here.")
        return "done"

    return [shows, research_desk, Agent("writer", instructions="Write.", description="Writes")]


@dataclass
class Watched:
    server: Served
    stage: Stage

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def http(self) -> httpx2.AsyncClient:
        return self.server.http


@asynccontextmanager
async def watched(**settings: Any) -> AsyncIterator[Watched]:
    stage = Stage()
    midstream = Midstream(
        _agents(stage),
        resources=[lambda: SHIPPED],
        settings=Settings(drain_grace_s=0.1, **{"store": "memory:", **settings}),
        provider=ScriptedProvider(str(ROOT / "examples" / "research_desk" / "script.yaml")),
    )
    async with midstream.lifespan(), served(midstream, settings=midstream.settings, drain=midstream.drain) as server:
        yield Watched(server, stage)


async def start(watched: Watched, what: str, *, agent: str = "shows", **more: Any) -> str:
    """Begin a run over HTTP; returns its id."""
    answer = await watched.http.post("/v1/runs", json={"input": what, "agent": agent, **more})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["run_id"])


async def ended(watched: Watched, run_id: str) -> dict[str, Any]:
    """The view when the run has ended."""
    answer = await watched.http.get(f"/v1/runs/{run_id}", params={"wait_s": 9})
    found: dict[str, Any] = answer.json()
    assert found["status"] in ("completed", "failed", "cancelled"), found["status"]
    return found


@asynccontextmanager
async def looking(
    browser: Browser, url: str, run_id: str | None = None, *, network: bool = True, script: str = "", **options: Any
) -> AsyncIterator[Page]:
    """A page of its own at the console, or at a run in it; `script` runs in it first. It must have nothing to complain
    of at the end (`network=False`: but of connections that failed).
    """
    context = await browser.new_context(**options)
    try:
        page = await context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        complaints = Complaints(page, network=network)
        if script:
            await page.add_init_script(script)
        await page.goto(f"{url}/" + (f"#/runs/{run_id}" if run_id is not None else ""))
        yield page
        assert not complaints.all, "\n".join(complaints.all)
    finally:
        await context.close()


MEASURED: Final = """
window.shifts = []; window.longest = 0;
new PerformanceObserver(list => {
  for (const entry of list.getEntries()) if (!entry.hadRecentInput) {
    const moved = entry.sources.map(each => `${each.node?.className ?? each.node?.nodeName ?? "?"} `
      + `${each.previousRect.y}+${each.previousRect.height} to ${each.currentRect.y}+${each.currentRect.height}`);
    window.shifts.push({value: entry.value, moved});
  }
}).observe({type: 'layout-shift', buffered: true});
new PerformanceObserver(list => {
  for (const entry of list.getEntries()) window.longest = Math.max(window.longest, entry.duration);
}).observe({type: 'longtask', buffered: true});
"""
"""Has a page measure by how much its parts moved by themselves, and its longest task in milliseconds."""
