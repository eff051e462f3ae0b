"""A server whose agents ask a person for everything there is to ask, and the console over it. What an agent does is
named by the run's input: `play(page, "refund")`.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import date
from typing import Annotated, Any, Final, Literal

from msgspec import Meta
from playwright.async_api import Browser, Locator, Page

from midstream import Agent, Midstream, Preview, Run, ToolCallError, ToolError, agent, tool
from midstream.agents.providers.scripted import ScriptedProvider
from midstream.settings import Settings
from tests.testkit.chromium import Complaints
from tests.testkit.served import Served, served

HOSTILE: Final = "<img src=x onerror=alert(1)> \u202eevil\u202c \x1b[31mred\x1b[0m \u200bzero"
HUGE: Final = 500_000
"""Characters of one argument: nearly all that a call may have."""

PATIENCE_MS: Final = 10_000


@dataclass
class Ledger:
    """What the tools were run with, in order."""

    done: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    began: asyncio.Event = field(default_factory=asyncio.Event)
    """`wait` has begun."""
    go: asyncio.Event = field(default_factory=asyncio.Event)
    """Lets `wait` end."""


class Deciding:
    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def agents(self) -> list[Any]:
        done = self.ledger.done

        @tool(approval="always", label="Refund {amount} on order {order_id}", risk="low")
        async def refund(
            order_id: Annotated[str, Meta(pattern="^[0-9]+$", description="The number on the receipt")],
            amount: Annotated[float, Meta(gt=0, le=500)],
            kind: Literal["full", "partial"] = "full",
            note: str | None = None,
            on: date | None = None,
        ) -> str:
            """Refund an order."""
            done.append(("refund", {"order_id": order_id, "amount": amount, "kind": kind, "note": note, "on": on}))
            return "refunded"

        def shown(args: Any) -> Preview:
            before, after = "rate = 1\nlimit = 2\n", args.text
            lines = "".join(f"-{line}\n" for line in before.splitlines())
            lines += "".join(f"+{line}\n" for line in after.splitlines())
            return Preview(
                kind="diff", data=f"--- a/rates.py\n+++ b/rates.py\n@@ -1,2 +1,{after.count(chr(10))} @@\n{lines}"
            )

        @tool(approval="always", label="Edit {path}", preview=shown)
        async def edit(path: str, text: str) -> str:
            """Edit a file."""
            done.append(("edit", {"path": path, "text": text}))
            return "edited"

        @tool(approval="always", label="Wipe {what}", risk="high", editable=False)
        async def wipe(what: str, password: str = "") -> str:
            """Wipe a disk."""
            done.append(("wipe", {"what": what}))
            return "wiped"

        @tool(approval="always", label="Hurry", expires_s=1.5)
        async def hurry() -> str:
            """Be quick."""
            return "quick"

        @tool(approval="always", label="{text}", risk="medium")
        async def hostile(text: str, huge: str) -> str:
            """Do as it says."""
            done.append(("hostile", {"text": text, "huge": len(huge)}))
            return text

        @tool(label="Wait for {what}")
        async def wait(what: str) -> str:
            """Wait until the test says go."""
            done.append(("wait", {"what": what}))
            self.ledger.began.set()
            await self.ledger.go.wait()
            return "waited"

        @tool(label="Break {what}")
        async def break_it(what: str) -> str:
            """Fail."""
            raise ToolError(f"{what} is broken", retryable=False)

        @tool(label="Stay at it")
        async def stubborn() -> str:
            """Pass over the first wish to stop."""
            while not self.ledger.go.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await self.ledger.go.wait()
            return "at last"

        async def tried(run: Run, name: Any, **args: Any) -> str:
            try:
                return str(await run.call(name, **args))
            except ToolCallError as error:
                return f"{error.code}: {error.text}"

        @agent(
            "desk",
            tools=[refund, edit, wipe, hurry, hostile, wait, break_it, stubborn],
            description="Asks for everything",
        )
        async def desk(run: Run) -> str:
            said: Any
            match run.input:
                case "refund":
                    said = await tried(run, refund, order_id="17", amount=20.0)
                case "refunds":
                    said = [await tried(run, refund, order_id=str(each), amount=10.0 + each) for each in range(2)]
                case "several":
                    calls = (tried(run, refund, order_id=str(each), amount=30.0 + each) for each in range(3))
                    said = await asyncio.gather(*calls)
                case "edit":
                    said = await tried(run, edit, path="rates.py", text="rate = 3\nlimit = 2\nmore = 4\n")
                case "wipe":
                    said = await tried(run, wipe, what="the disk", password="hunter2hunter2")
                case "hurry":
                    said = await tried(run, hurry)
                case "hostile":
                    said = await tried(run, hostile, text=HOSTILE, huge="x" * HUGE)
                case "wait":
                    said = await tried(run, wait, what="the test")
                case "broken":
                    said = await tried(run, break_it, what="something")
                case "stubborn":
                    said = await tried(run, stubborn)
                case "choose later":
                    await tried(run, wait, what="the test")
                    said = await run.ask("Which test do you mean?", choices=["login", "logout"])
                case "choose":
                    said = await run.ask("Which test do you mean?", choices=["login", "logout", HOSTILE])
                case "free":
                    said = await run.ask("What should it be called?")
                case "form":
                    said = await run.ask("Where to?", schema=FORM)
                case other:
                    said = f"nothing to do for {other}"
            await run.say(f"It came to this: {said}")
            return str(said)

        writer = Agent(
            "writer", instructions="Write.", tools=[wait, refund], description="Writes, and takes corrections"
        )
        return [desk, writer]


FORM: Final = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "minLength": 2, "description": "A city, not a country"},
        "nights": {"type": "integer", "minimum": 1, "maximum": 14, "default": 2},
        "breakfast": {"type": "boolean", "default": False},
    },
    "required": ["city", "nights"],
    "additionalProperties": False,
}

SCRIPT: Final = {
    "loop": True,
    "turns": [
        {
            "steps": [
                {"text": "First I look around. "},
                {"call": {"tool": "wait", "args": {"what": "a sign"}}},
            ]
        },
        {
            "steps": [
                {"text": "There is something to refund. "},
                {"call": {"tool": "refund", "args": {"order_id": "17", "amount": 20}}},
            ]
        },
        {"steps": [{"text": "Then I am done."}]},
    ],
}


@dataclass
class Desk:
    server: Served
    ledger: Ledger

    @property
    def url(self) -> str:
        return self.server.url


@asynccontextmanager
async def deciding(**settings: Any) -> AsyncIterator[Desk]:
    ledger = Ledger()
    midstream = Midstream(
        Deciding(ledger).agents(),
        settings=Settings(drain_grace_s=0.1, **{"store": "memory:", **settings}),
        provider=ScriptedProvider(SCRIPT),
    )
    async with midstream.lifespan(), served(midstream, settings=midstream.settings, drain=midstream.drain) as server:
        yield Desk(server, ledger)


async def start(desk: Desk, what: str, *, agent: str = "desk", **more: Any) -> str:
    """Begin a run over HTTP; returns its id."""
    answer = await desk.server.http.post("/v1/runs", json={"input": what, "agent": agent, **more})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["run_id"])


async def view(desk: Desk, run_id: str) -> dict[str, Any]:
    answer = await desk.server.http.get(f"/v1/runs/{run_id}")
    found: dict[str, Any] = answer.json()
    return found


async def ended(desk: Desk, run_id: str) -> dict[str, Any]:
    """The view when the run has ended."""
    answer = await desk.server.http.get(f"/v1/runs/{run_id}", params={"wait_s": 9})
    found: dict[str, Any] = answer.json()
    assert found["status"] in ("completed", "failed", "cancelled"), found["status"]
    return found


@asynccontextmanager
async def looking(
    browser: Browser, desk: Desk, run_id: str | None = None, *, through: int | None = None, **options: Any
) -> AsyncIterator[Page]:
    """A page of its own at the console, or at a run in it, `through` a proxy's port if one is given. It must have
    nothing to complain of at the end.
    """
    context = await browser.new_context(**options)
    try:
        page = await context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        complaints = Complaints(page, network=through is None)
        await look(page, desk, run_id, through=through)
        yield page
        assert not complaints.all, "\n".join(complaints.all)
    finally:
        await context.close()


async def look(page: Page, desk: Desk, run_id: str | None = None, *, through: int | None = None) -> None:
    url = desk.url if through is None else f"http://127.0.0.1:{through}"
    await page.goto(f"{url}/" + (f"#/runs/{run_id}" if run_id is not None else ""))


def dialog(page: Page) -> Locator:
    return page.get_by_role("dialog")


async def says(page: Page, text: str) -> None:
    """The line of news has this text."""
    await page.locator(".news").get_by_text(text).first.wait_for()
