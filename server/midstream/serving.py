"""Running the app: a uvicorn server whose shutdown starts with the app's drain, at the signal.

uvicorn itself closes every socket first and tells the application afterwards; then no run could reach a safe point,
and no client be told when to come back.
"""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from importlib.util import find_spec
from types import FrameType
from typing import Any, Final

import structlog
import uvicorn
from starlette.types import ASGIApp

from midstream.agents.tools.signature import BadTool
from midstream.app import Midstream
from midstream.gateway.options import OVERSIZE_FACTOR
from midstream.gateway.origin import is_loopback
from midstream.gateway.pages import is_built
from midstream.gateway.uvicorn_http import MidstreamHttpProtocol
from midstream.gateway.uvicorn_ws import MidstreamProtocol
from midstream.log import LogError
from midstream.logs import Logger
from midstream.settings import DEFAULT_PORT, BadSettings, Settings, unknown_variables
from midstream.tasks import spawn

EXIT_OK: Final = 0
EXIT_CANNOT_START: Final = 1
EXIT_FORCED: Final = 130

REQUEST_GRACE_S: Final = 5
"""How long requests that are still answered after the drain may take."""

FORCED_EXIT_S: Final = 3.0
"""How long a second signal leaves for killing what runs before the process ends regardless."""

BACKLOG: Final = 2048

COLLECTOR: Final = (20_000, 20, 20)
"""Thresholds of Python's cycle collector. With the usual ones it walks all live runs again and again: of 6000 runs a
start cost three times as much, and the loop stood still for a quarter of a second.
"""

DEFAULT_URL: Final = f"http://127.0.0.1:{DEFAULT_PORT}"
"""Where the client looks when it is told nothing."""

_JSON_TRACEBACKS: Final = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)
"""Without the local variables of each frame: arguments and keys are among them."""

_log = Logger("midstream.serving")


class CannotStart(Exception):
    """What stands in the way, for the person at the terminal."""


def serve(
    app: Midstream | ASGIApp,
    *,
    settings: Settings,
    say: Callable[[str], Any] = sys.stderr.write,
    program: str = "midstream",
) -> int:
    """Serve until a signal; returns the exit code. `say` gets what a person should read, in whole lines; `program` is
    how the client is called from here.
    """
    configure_logging(settings)
    if not is_loopback(settings.host) and settings.token is None:
        text = f"on {settings.host} and without a token, whoever reaches this port can start and approve anything"
        say(f"warning: {text}; set MIDSTREAM_TOKEN (--token)\n")
    for sentence in unknown_variables():
        say(f"warning: {sentence}\n")
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(_serve(app, settings, say, program))
    except (CannotStart, BadSettings, BadTool, LogError) as error:
        say(f"midstream: cannot start: {error}\n")
        return EXIT_CANNOT_START
    except KeyboardInterrupt:
        # Before the server listened there is nothing to drain.
        return EXIT_FORCED


class DrainingServer(uvicorn.Server):
    """First signal: `drain`, then exit. Second: `hurry`, which cuts the drain short, and exit whatever comes of it."""

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        drain: Callable[[], Awaitable[None]] | None = None,
        hurry: Callable[[], Coroutine[Any, Any, None]] | None = None,
        on_listening: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self.forced = False
        self._drain = drain
        self._hurry = hurry
        self._hurrying: asyncio.Task[None] | None = None
        self._on_listening = on_listening
        self._draining: asyncio.Task[None] | None = None
        self._exit = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def begin_exit(self) -> None:
        """Drain, then exit. May be called again."""
        if self._draining is None:
            self._draining = spawn(self._drain_then_exit(), name="server/drain")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        del frame
        # Called between any two instructions of the main thread: everything happens on the loop.
        self._loop.call_soon_threadsafe(self._signalled, sig)

    def _signalled(self, sig: int) -> None:
        if self._draining is None:
            _log.info("stopping: runs are brought to a safe point; once more to stop at once", signal=sig)
            self.begin_exit()
        elif not self.forced:
            self.forced = self.force_exit = True
            # What was acknowledged is durable; leaving like this loses nothing of it.
            self._loop.call_later(FORCED_EXIT_S, os._exit, EXIT_FORCED)
            if self._hurry is not None:
                self._hurrying = spawn(self._hurry(), name="server/hurry")

    async def _drain_then_exit(self) -> None:
        try:
            if self._drain is not None:
                await self._drain()
        finally:
            self._leave()

    def _leave(self) -> None:
        self.should_exit = True
        self._exit.set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        # What is there by now stays: it need not be walked again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*COLLECTOR)
        self._on_listening()

    async def main_loop(self) -> None:
        """As uvicorn's, which updates the Date header, without its wait of 0.1 s for an exit."""
        counter = 0
        while not await self.on_tick(counter):
            counter += 10
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._exit.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, without raising the signals again at the end: a drained exit is no failure."""
        try:
            before = {each: signal.signal(each, self.handle_exit) for each in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:
            # Not the main thread: whoever runs this stops it with `begin_exit`.
            yield
            return
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)


def server_config(app: ASGIApp, settings: Settings, *, lifespan: str = "off") -> uvicorn.Config:
    """uvicorn, set up for this app: its WebSocket protocol, its limits, and nothing of a request in any log."""
    return uvicorn.Config(
        app,
        lifespan="on" if lifespan == "on" else "off",
        http=MidstreamHttpProtocol,
        ws=MidstreamProtocol,
        ws_max_size=OVERSIZE_FACTOR * settings.max_frame_bytes,
        ws_per_message_deflate=False,
        ws_ping_interval=settings.ping_interval_s,
        ws_ping_timeout=settings.ping_timeout_s,
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=REQUEST_GRACE_S,
        backlog=BACKLOG,
    )


def bind(host: str, port: int) -> list[socket.socket]:
    """Listening sockets on every address of `host`, all on one port. Raises `CannotStart`."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise CannotStart(f"MIDSTREAM_HOST (--host): {host!r} is no address of this machine ({error})") from error
    bound: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            listener = socket.socket(family, kind, protocol)
            bound.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # With port 0 the first address chooses for all.
            chosen = bound[0].getsockname()[1] if len(bound) > 1 else port
            listener.bind((address[0], chosen, *address[2:]))
            listener.setblocking(False)
    except OSError as error:
        for listener in bound:
            listener.close()
        raise CannotStart(
            f"port {port} on {host} cannot be used ({error.strerror}): is a server running there already? "
            "Choose another with --port or MIDSTREAM_PORT"
        ) from error
    return bound


def configure_logging(settings: Settings) -> None:
    """Structured logs on stderr. uvicorn is heard only when something is wrong: its other lines carry queries."""
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if settings.log_format == "json"
        # Plain: the default prints the local variables of every frame, arguments and keys among them.
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([_JSON_TRACEBACKS] if settings.log_format == "json" else []),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")


async def _serve(app: Midstream | ASGIApp, settings: Settings, say: Callable[[str], Any], program: str) -> int:
    # The port first: two servers started by mistake should stumble over it, not over the store's lock.
    sockets = bind(settings.host, settings.port)
    async with contextlib.AsyncExitStack() as stack:
        for listener in sockets:
            stack.callback(listener.close)
        drain = hurry = None
        if isinstance(app, Midstream):
            await stack.enter_async_context(app.lifespan())
            drain, hurry = app.drain, app.hurry
            # Its own limits, if it was given settings of its own.
            settings = app.settings
        config = server_config(app, settings, lifespan="on" if drain is None else "off")
        server = DrainingServer(
            config, drain=drain, hurry=hurry, on_listening=lambda: _greet(app, settings, sockets[0], say, program)
        )
        await server.serve(sockets)
        return EXIT_FORCED if server.forced else EXIT_OK


def _greet(
    app: Midstream | ASGIApp, settings: Settings, listener: socket.socket, say: Callable[[str], Any], program: str
) -> None:
    address = url_of(listener)
    kept = f" · keeps runs in {app.store_name} · {app.model_note}" if isinstance(app, Midstream) else ""
    say(f"midstream listens on {address}{kept}\n")
    where = "" if address == DEFAULT_URL else f" --url {address}"
    command = f'{program} chat{where} "What can you do?"'
    if not isinstance(app, Midstream) or not settings.console:
        say(f"Try it in another terminal: {command}\n")
    elif is_built():
        say(f"Open {address}/ in a browser, or try it in another terminal: {command}\n")
    else:
        say(f"Try it in another terminal: {command}\n(There is no console at {address}/: it is not built.)\n")


def url_of(listener: socket.socket) -> str:
    """The address to use for what listens there; a wildcard is reached over loopback."""
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared with, not bound
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if find_spec("uvloop") is None:
        return None
    import uvloop  # noqa: PLC0415 - an extra

    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
