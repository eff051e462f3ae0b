"""`GET /v1/feed`: what goes on in all runs of whoever asks, for dashboards. A sample, not a log: events may be missing,
which is counted and told (`feed.dropped`); nothing is replayed. Whoever must miss nothing follows the run itself.

The events are the log's bytes. A run that publishes hands them to the queues of those who watch it, and waits for
nobody; while nobody watches it costs one truth test.
"""

import asyncio
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from midstream.gateway.body import query_id
from midstream.gateway.ndjson_sse import STREAM_HEADERS, Out, head_of_stream
from midstream.gateway.quotas import address_of
from midstream.gateway.sampling import Sampler, is_chatter
from midstream.gateway.stream_forms import Form, Lines, ServerSentEvents, wants_lines
from midstream.gateway.uvicorn_http import EXTENSION
from midstream.logs import Logger
from midstream.runs import Principal
from midstream.runs.keys import namespace
from midstream.tasks import spawn, stop
from midstream.telemetry import count_feed
from midstream_protocol.codec import iso_ms
from midstream_protocol.errors import Malformed, QuotaExceeded
from midstream_protocol.events import EVENTS
from midstream_protocol.frames import Heartbeat

if TYPE_CHECKING:
    from midstream.gateway.gateway import Gateway

DROPPED_EVERY_S: Final = 1.0
"""Between two times that a reader is told how many events it was not given."""

_TYPE: Final = b'"type":"'

_log = Logger("midstream.gateway.feed")


class Feeds:
    """The feed's readers of one gateway."""

    def __init__(self, gateway: "Gateway") -> None:
        self._gateway = gateway
        self._watchers: dict[str, list[Watcher]] = {}
        """By the namespace of the principal whose runs they watch."""
        self._count = 0

    async def open(self, request: Request, principal: Principal) -> Response:
        """The answer to one request. Raises `Malformed`, `QuotaExceeded`."""
        lines = wants_lines(request.headers.getlist("accept"))
        types = wanted_types(request.query_params.get("types"))
        run_id = query_id(request, "run_id")
        form: Form = Lines() if lines else _WithoutIds()
        if request.method == "HEAD":
            return head_of_stream(form)
        options = self._gateway.options
        if self._count >= options.max_feeds:
            raise QuotaExceeded(f"{options.max_feeds} feeds are open, as many as this server gives: try again later")
        watcher = Watcher(self._gateway, self, principal=principal, form=form, types=types, run_id=run_id)
        self._gateway.enter(watcher, principal=principal, address=address_of(request.scope))
        self._add(watcher)
        return watcher

    def _add(self, watcher: "Watcher") -> None:
        self._count += 1
        self._watchers.setdefault(watcher.space, []).append(watcher)
        self._gateway.registry.taps.add(self, self._published)

    def remove(self, watcher: "Watcher") -> None:
        beside = self._watchers.get(watcher.space, [])
        if watcher in beside:
            beside.remove(watcher)
            self._count -= 1
        if not beside:
            self._watchers.pop(watcher.space, None)
        if not self._watchers:
            self._gateway.registry.taps.remove(self)

    def _published(self, run: str, run_id: str, events: Sequence[bytes]) -> None:
        """A `Tap`."""
        watchers = self._watchers.get(run.partition(".")[0])
        if watchers is not None:
            for event in events:
                kind = _type_of(event)
                for watcher in watchers:
                    watcher.see(run_id, kind, event)


def wanted_types(text: str | None) -> frozenset[str]:
    """The event types that `types` names, one by one or by prefixes that end in a dot. Raises `Malformed`."""
    if text is None:
        return frozenset(EVENTS)
    found: set[str] = set()
    for each in text.split(","):
        named = {kind for kind in EVENTS if kind == each or (each.endswith(".") and kind.startswith(each))}
        if not named:
            raise Malformed(
                f"types: {each[:64]!r} is no event; name types such as run.completed, or prefixes: run.,tool."
            )
        found |= named
    return frozenset(found)


class _WithoutIds(ServerSentEvents):
    """Nothing can be asked for again, so no event has an id."""

    def __init__(self) -> None:
        super().__init__("")

    def events(self, pulled: Sequence[bytes]) -> bytes:
        return b"".join(b"event: %b\ndata: %b\n\n" % (_type_of(event), event) for event in pulled)


class Watcher(Response):
    """One reader's feed under way. It holds its place until either side ends it."""

    def __init__(
        self,
        gateway: "Gateway",
        feeds: Feeds,
        *,
        principal: Principal,
        form: Form,
        types: Collection[str],
        run_id: str | None,
    ) -> None:
        super().__init__(status_code=200, headers=STREAM_HEADERS, media_type=form.media_type)
        # The body's length is not known.
        del self.headers["content-length"]
        self.space: Final = namespace(principal.id)
        self.transport: Final = "feed"
        self._gateway = gateway
        self._feeds = feeds
        self._form = form
        # Whether each wanted type is chatter, by the bytes that events have it in.
        self._wanted = {kind.encode(): is_chatter(kind) for kind in types}
        self._run_id = run_id
        self._clock = gateway.clock
        self._sampler = Sampler(rate=gateway.options.feed_events_s, now=self._clock.monotonic())
        self._some = asyncio.Event()
        self._closing = asyncio.Event()
        self._stalled = False
        self._told = 0
        self._told_at = self._clock.monotonic()
        self._counted = (0, 0)

    def see(self, run_id: str, kind: bytes, event: bytes) -> None:
        """An event of one of the principal's runs."""
        chatter = self._wanted.get(kind)
        if chatter is None or (self._run_id is not None and self._run_id != run_id):
            return
        sampler = self._sampler
        if chatter and sampler.sated:
            # What most events of busy runs come to: they must not cost these runs anything.
            sampler.dropped += 1
            return
        sampler.put(event, chatter=chatter)
        if not self._some.is_set():
            self._some.set()

    def announce_drain(self) -> None:
        """There is no frame for it here: the end of the feed says it."""

    def close_for_drain(self) -> None:
        self._closing.set()
        self._some.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        server = scope.get("extensions", {}).get(EXTENSION, {})
        out = Out(send, server, timeout_s=self._gateway.options.send_timeout_s)
        writer = spawn(self._write(out), name="feed/writer")
        watcher = spawn(_disconnected(receive), name="feed/watcher")
        try:
            await asyncio.wait({writer, watcher}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._feeds.remove(self)
            self._gateway.leave(self)
            self._count()
            await stop(writer, watcher)
        if self._stalled and (cut := server.get("abort")) is not None:
            cut()
            await _disconnected(receive)

    async def _write(self, out: Out) -> None:
        try:
            await self._follow(out)
        except TimeoutError:
            # Nothing more can be said to a reader that takes nothing; the connection is cut, which tells it.
            self._stalled = True
            _log.info("a feed's reader was too slow")

    async def _follow(self, out: Out) -> None:
        await out.begin(self.raw_headers)
        await out.put(self._form.opening)
        while not self._closing.is_set():
            # Cleared before it looks: what comes while it sends must be seen.
            self._some.clear()
            if body := self._due():
                await out.put(body)
            wait_s = self._wait_s()
            if wait_s is not None:
                # What comes meanwhile waits with the rest.
                await self._elapsed(self._closing, wait_s)
            elif not await self._elapsed(self._some, self._gateway.options.heartbeat_s):
                await out.put(self._form.keep_alive(Heartbeat(now=iso_ms(self._clock.now_ms()), runs={})))
        await out.put(b"", last=True)

    def _due(self) -> bytes:
        """What is to be written now."""
        sampler, now = self._sampler, self._clock.monotonic()
        lines = sampler.take(now)
        self._count()
        dropped = sampler.dropped - self._told
        if dropped and now - self._told_at >= DROPPED_EVERY_S:
            self._told, self._told_at = sampler.dropped, now
            lines.append(b'{"v":1,"type":"feed.dropped","payload":{"count":%d}}' % dropped)
        return self._form.events(lines)

    def _count(self) -> None:
        given, dropped = self._counted
        self._counted = (self._sampler.given, self._sampler.dropped)
        count_feed(self._counted[0] - given, self._counted[1] - dropped)

    def _wait_s(self) -> float | None:
        """How long until there may be something to write; None: until something comes."""
        now = self._clock.monotonic()
        waits = []
        if (until_event := self._sampler.wait_s(now)) is not None:
            waits.append(until_event)
        if self._sampler.dropped > self._told:
            waits.append(max(0.0, self._told_at + DROPPED_EVERY_S - now))
        return min(waits, default=None)

    @staticmethod
    async def _elapsed(event: asyncio.Event, seconds: float) -> bool:
        """Wait for `event`, so long at most; whether it came."""
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            return False
        return True


def _type_of(event: bytes) -> bytes:
    start = event.index(_TYPE) + len(_TYPE)
    return event[start : event.index(b'"', start)]


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
