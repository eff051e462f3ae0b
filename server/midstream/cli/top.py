"""`midstream top`: a server at a glance. Reads its metrics, its list of runs and its feed; changes nothing."""

import asyncio
import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from typing import Annotated, Final

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from midstream.cli.dashboard import Dashboard
from midstream.cli.failure import explain
from midstream.cli.invoked import DEFAULT_URL
from midstream.cli.options import Token, Url, run_client
from midstream.cli.readings import NoMetrics, read
from midstream.client import Address, Rest, Unreachable
from midstream.client.backoff import Backoff
from midstream.tasks import spawn, stop
from midstream_protocol.errors import NotFound, ProtocolError, QuotaExceeded, Unavailable

RUNS_EVERY_S: Final = 2.0
"""Between two lists of runs, which cost a server more than its metrics."""

RUNS_ASKED: Final = 20
PLAIN_WIDTH: Final = 100
PLAIN_HEIGHT: Final = 40
"""Of a frame that is no terminal's."""

_PASSING: Final = (Unreachable, NoMetrics, Unavailable, QuotaExceeded)
"""What may be otherwise in a moment."""


def top_command(
    *,
    url: Url = DEFAULT_URL,
    token: Token = None,
    once: Annotated[bool, typer.Option("--once", help="Print one frame and leave.")] = False,
    interval: Annotated[float, typer.Option(min=0.1, max=3600.0, help="Seconds between two frames.")] = 1.0,
) -> None:
    """Watch a server: rates, latencies, connections, runs. q or Ctrl-C leaves.

    Without a terminal it prints one frame.
    """
    run_client(_top(url, token, once=once, interval=interval), url=url)


async def _top(url: str, token: str | None, *, once: bool, interval: float) -> None:
    console = Console(highlight=False, markup=False, emoji=False)
    rest = Rest(Address(url), token=token)
    try:
        watch = Watch(rest, url)
        # The first answer decides: whoever mistyped the address should be told, and not wait.
        await watch.look()
        if once or not console.is_terminal or console.is_dumb_terminal:
            await _one_frame(watch, console, interval)
        else:
            await _live(watch, console, interval)
    finally:
        await rest.aclose()


class Watch:
    """What is asked of the server, and what has become known of it."""

    def __init__(self, rest: Rest, url: str) -> None:
        self.dashboard: Final = Dashboard(url)
        self._rest = rest
        self._url = url
        self._listed_at = -RUNS_EVERY_S

    async def look(self) -> None:
        """Its metrics, and now and then its runs. Raises `Unreachable`, `NoMetrics`, `ProtocolError`."""
        self.dashboard.reading(read(await self._rest.metrics(), at=time.time()))
        if time.monotonic() - self._listed_at >= RUNS_EVERY_S:
            self._listed_at = time.monotonic()
            self.dashboard.listed((await self._rest.runs(limit=RUNS_ASKED)).get("items", []))

    async def look_on(self, interval: float) -> None:
        """Look again and again, whatever becomes of the server; ends by a refusal that will stay."""
        backoff = Backoff()
        wait_s = interval
        while True:
            await asyncio.sleep(wait_s)
            try:
                await self.look()
            except _PASSING as error:
                wait_s = max(interval, backoff.delay_s(told_s=None, fraction=random.random()))  # noqa: S311 - jitter
                self.dashboard.trouble = f"{self._why(error)}; trying again"
            else:
                wait_s, backoff = interval, Backoff()
                self.dashboard.trouble = ""

    async def follow(self) -> None:
        """The feed, taken up again when it breaks. It is a convenience: without it all else goes on."""
        backoff = Backoff()
        while True:
            try:
                async with aclosing(self._rest.feed()) as feed:
                    async for said in feed:
                        backoff, self.dashboard.feed_trouble = Backoff(), ""
                        self.dashboard.event(said, at=time.time())
            except NotFound:
                self.dashboard.feed_trouble = "this server has no feed: the last events of runs are not shown"
                return
            except ProtocolError as error:
                self.dashboard.feed_trouble = f"the last events of runs are not shown: {error.text}"
            except Unreachable:
                # The metrics' trouble says it already.
                pass
            await asyncio.sleep(backoff.delay_s(told_s=None, fraction=random.random()) + 0.5)  # noqa: S311 - jitter

    def lines(self, *, width: int, height: int) -> list[Text]:
        return self.dashboard.lines(width=width, height=height, now=time.time())

    def _why(self, error: Exception) -> str:
        return str(error) if isinstance(error, NoMetrics) else explain(error, url=self._url).partition(";")[0]


async def _one_frame(watch: Watch, console: Console, interval: float) -> None:
    """Rates need two looks: the frame comes after one interval."""
    following = spawn(watch.follow(), name="top/feed")
    try:
        await asyncio.sleep(interval)
        await watch.look()
    finally:
        await stop(following)
    width = console.width if console.is_terminal or "COLUMNS" in os.environ else PLAIN_WIDTH
    for line in watch.lines(width=width, height=PLAIN_HEIGHT):
        console.print(line, soft_wrap=True)


async def _live(watch: Watch, console: Console, interval: float) -> None:
    looking = spawn(watch.look_on(interval), name="top/metrics", expected=(ProtocolError,))
    following = spawn(watch.follow(), name="top/feed")
    leave = asyncio.Event()
    leaving = spawn(leave.wait(), name="top/keys")
    try:
        async with _keys(leave.set):
            with Live(console=console, screen=True, auto_refresh=False) as live:
                while not (leaving.done() or looking.done()):
                    # Measured each time: windows change.
                    width, height = console.size
                    live.update(Group(*watch.lines(width=width, height=height)), refresh=True)
                    await asyncio.wait({leaving, looking}, timeout=interval, return_when=asyncio.FIRST_COMPLETED)
        if looking.done():
            # A refusal that will stay: said as every command says it.
            looking.result()
    finally:
        await stop(looking, following, leaving)


@asynccontextmanager
async def _keys(leave: Callable[[], None]) -> AsyncIterator[None]:
    """Inside, `leave` is called for q, Ctrl-C and the signals that end programs; the terminal is as before after it."""
    loop = asyncio.get_running_loop()
    ends = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    with _key_by_key() as fd:
        for each in ends:
            loop.add_signal_handler(each, leave)
        if fd is not None:
            loop.add_reader(fd, lambda: leave() if _typed(fd) in (b"", b"q", b"Q", b"\x03", b"\x04") else None)
        try:
            yield
        finally:
            if fd is not None:
                loop.remove_reader(fd)
            for each in ends:
                loop.remove_signal_handler(each)


def _typed(fd: int) -> bytes:
    """The next key; empty: the terminal was hung up."""
    try:
        return os.read(fd, 1)
    except OSError:
        return b""


@contextlib.contextmanager
def _key_by_key() -> Iterator[int | None]:
    """Keys come without Enter, and are not echoed. Yields where they come from; None: from nowhere."""
    if not sys.stdin.isatty():
        yield None
        return
    import termios  # noqa: PLC0415 - not on every system, and every command imports this module
    import tty  # noqa: PLC0415

    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    tty.setcbreak(fd)
    try:
        yield fd
    finally:
        with contextlib.suppress(termios.error):
            termios.tcsetattr(fd, termios.TCSADRAIN, before)
