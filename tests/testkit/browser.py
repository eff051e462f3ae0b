"""A page in a real, headless Chromium, told what to do over its debugging socket."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
from websockets.asyncio.client import ClientConnection, connect

from tests.testkit.programs import needed

START_S = 30.0

_OPTIONS = (
    "--headless=new",
    # As root, and in a container, there is no other way; the page is ours.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--no-proxy-server",
    "--remote-debugging-port=0",
)


class Page:
    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._last = 0

    async def go(self, url: str) -> None:
        await self._call("Page.navigate", url=url)
        await self.evaluate("new Promise(done => document.readyState == 'complete' ? done() : (onload = done))")

    async def evaluate(self, script: str) -> Any:
        """The value of an expression, awaited if it is a promise."""
        answer = await self._call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise AssertionError(answer["exceptionDetails"])
        return answer["result"].get("value")

    async def _call(self, method: str, **params: Any) -> Any:
        self._last += 1
        await self._socket.send(json.dumps({"id": self._last, "method": method, "params": params}))
        while True:
            answer = json.loads(await self._socket.recv())
            if answer.get("id") == self._last:
                assert "error" not in answer, answer
                return answer["result"]


@contextlib.asynccontextmanager
async def browser_page(folder: Path) -> AsyncIterator[Page]:
    """`folder` is where the browser keeps its profile."""
    program = await asyncio.create_subprocess_exec(
        needed("chromium", "google-chrome", package="chromium"),
        *_OPTIONS,
        f"--user-data-dir={folder}",
        "about:blank",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(START_S):
            address = await _listening(program)
            async with httpx2.AsyncClient(trust_env=False) as http:
                made = (await http.put(f"http://{address}/json/new?about:blank")).json()
        async with connect(made["webSocketDebuggerUrl"], proxy=None, max_size=None) as socket:
            yield Page(socket)
    finally:
        with contextlib.suppress(ProcessLookupError):
            program.kill()
        await program.communicate()


async def _listening(program: asyncio.subprocess.Process) -> str:
    assert program.stderr is not None
    while line := await program.stderr.readline():
        if found := re.search(rb"DevTools listening on ws://([^/]+)/", line):
            return found[1].decode()
    raise AssertionError("the browser ended before it listened")
