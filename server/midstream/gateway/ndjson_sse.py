"""`GET /v1/runs/{id}/events`: a run's log over plain HTTP, as server-sent events or as one JSON text a line.

The same bytes as on a WebSocket, the same cursor, the same resets. It ends after the terminal event, and a request
that has that event already is answered 204: an EventSource would otherwise reconnect for ever.
"""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from midstream.gateway.body import path_run_id, query_choice, query_id, query_int
from midstream.gateway.uvicorn_http import EXTENSION
from midstream.log import LogError
from midstream.runs import Principal, Subscription, SubscriptionLost
from midstream.tasks import spawn, stop
from midstream_protocol.codec import frame_bytes
from midstream_protocol.errors import Malformed, QuotaExceeded
from midstream_protocol.events import TERMINAL_STATUSES
from midstream_protocol.frames import RunReset
from midstream_protocol.ids import is_id
from midstream_protocol.limits import MAX_INTEGER

if TYPE_CHECKING:
    from midstream.gateway.gateway import Gateway

RECONNECT_MS: Final = 1000
"""What an EventSource is told to wait before it comes back."""

_NDJSON: Final = "application/x-ndjson"
_HEADERS: Final = {"cache-control": "no-store", "x-accel-buffering": "no"}

_log = structlog.get_logger("midstream.gateway.events")


class _Place(msgspec.Struct):
    seq: int
    type: str


_place = msgspec.json.Decoder(_Place)


async def events(gateway: "Gateway", request: Request, principal: Principal) -> Response:
    """The answer to one request: the stream, or 204. Raises `Malformed`, `NotFound`, `QuotaExceeded`."""
    run_id = path_run_id(request)
    lines = "ndjson" in request.headers.get("accept", "")
    since_seq = query_int(request, "since_seq", default=0, low=0)
    epoch = query_id(request, "epoch")
    replay = query_choice(request, "replay", ("full", "merged", "snapshot")) or "full"
    if (last := request.headers.get("last-event-id")) is not None:
        epoch, since_seq = last_event_id(last, epoch)
        replay = "full" if replay == "snapshot" else replay
    more = asyncio.Event()
    attachment = await gateway.registry.attach(
        principal, run_id, since_seq=since_seq, epoch=epoch, replay=replay, wake=more.set
    )
    frame = attachment.frame("http")
    if attachment.reset is None and frame.status in TERMINAL_STATUSES and since_seq >= frame.head_seq:
        attachment.subscription.close()
        return Response(status_code=204)
    if request.method == "HEAD":
        attachment.subscription.close()
        return Response(headers=_HEADERS, media_type=(_Lines if lines else _ServerSentEvents).media_type)
    form = _Lines() if lines else _ServerSentEvents(frame.epoch)
    stream = EventStream(gateway, form=form, subscription=attachment.subscription, reset=attachment.reset, more=more)
    if not gateway.enter(stream):
        attachment.subscription.close()
        raise QuotaExceeded("this server has as many connections as it takes: try again later")
    return stream


def last_event_id(text: str, epoch: str | None) -> tuple[str | None, int]:
    """`<epoch>.<seq>`, or a plain seq of the asked epoch. Raises `Malformed`."""
    before, dot, seq = text.strip().rpartition(".")
    good = seq.isascii() and seq.isdecimal() and len(seq) <= 16 and int(seq) <= MAX_INTEGER
    if not good or (dot and not is_id(before)):
        raise Malformed("Last-Event-ID: expected <epoch>.<seq> or a seq")
    return (before if dot else epoch), int(seq)


class _ServerSentEvents:
    media_type: Final = "text/event-stream"
    # Something at once: proxies and clients learn that the stream is there before its first event.
    opening: Final = b"retry: %d\n: connected\n\n" % RECONNECT_MS
    keep_alive: Final = b": keep-alive\n\n"

    def __init__(self, epoch: str) -> None:
        self._epoch = epoch.encode()

    def events(self, pulled: Sequence[bytes]) -> bytes:
        # JSON bytes hold no line break, so one `data:` line carries an event whole.
        parts = []
        for event in pulled:
            place = _place.decode(event)
            parts.append(b"id: %b.%d\nevent: %b\ndata: %b\n\n" % (self._epoch, place.seq, place.type.encode(), event))
        return b"".join(parts)

    def reset(self, reset: RunReset) -> bytes:
        if reset.epoch is not None:
            self._epoch = reset.epoch.encode()
        place = b"" if reset.snapshot_seq is None else b"id: %b.%d\n" % (self._epoch, reset.snapshot_seq)
        return b"%bevent: run.reset\ndata: %b\n\n" % (place, frame_bytes(reset))


class _Lines:
    media_type: Final = _NDJSON
    opening: Final = b""
    # A blank line would break a reader that parses every line: an idle stream stays silent.
    keep_alive: Final = b""

    def events(self, pulled: Sequence[bytes]) -> bytes:
        return b"".join(part for event in pulled for part in (event, b"\n"))

    def reset(self, reset: RunReset) -> bytes:
        return frame_bytes(reset) + b"\n"


class EventStream(Response):
    """One stream under way. It holds its subscription until it ends, whichever side ends it."""

    def __init__(
        self,
        gateway: "Gateway",
        *,
        form: _ServerSentEvents | _Lines,
        subscription: Subscription,
        reset: RunReset | None,
        more: asyncio.Event,
    ) -> None:
        super().__init__(status_code=200, headers=_HEADERS, media_type=form.media_type)
        # The body's length is not known.
        del self.headers["content-length"]
        self._gateway = gateway
        self._form = form
        self._subscription = subscription
        self._reset = reset
        self._more = more
        self._closing = False
        self._stalled = False

    def announce_drain(self) -> None:
        """There is no frame for it here: the end of the stream says it."""

    def close_for_drain(self) -> None:
        self._closing = True
        self._more.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        writer = spawn(self._write(send), name=f"events:{self._subscription.run_id}/writer")
        watcher = spawn(_disconnected(receive), name=f"events:{self._subscription.run_id}/watcher")
        try:
            await asyncio.wait({writer, watcher}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._subscription.close()
            self._gateway.leave(self)
            await stop(writer, watcher)
        if self._stalled and (cut := scope.get("extensions", {}).get(EXTENSION)) is not None:
            cut["abort"]()
            await _disconnected(receive)

    async def _write(self, send: Send) -> None:
        try:
            await self._follow(send)
        except TimeoutError:
            # Nothing more can be said to a reader that takes nothing; the connection is cut, which tells it.
            self._stalled = True
            _log.info("an event stream's reader was too slow", run_id=self._subscription.run_id)

    async def _follow(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        opening = self._form.opening + (self._form.reset(self._reset) if self._reset is not None else b"")
        await self._put(send, opening)
        while not (self._closing or self._subscription.ended):
            # Cleared before the pull: what arrives while it reads the log must be seen.
            self._more.clear()
            if (body := await self._pull()) is None:
                break
            if body:
                await self._put(send, body)
                await asyncio.sleep(0)
            elif not self._subscription.ended:
                await self._wait(send)
        await self._put(send, b"", more_body=False)

    async def _pull(self) -> bytes | None:
        """The next piece; empty: nothing now; None: this stream ends here."""
        try:
            return self._form.events(await self._subscription.pull())
        except SubscriptionLost as lost:
            return self._form.reset(lost.reset) if lost.reset.snapshot_seq is not None else None
        except LogError as error:
            _log.warning("an event stream's log cannot be read", error=str(error))
            return None

    async def _wait(self, send: Send) -> None:
        try:
            async with asyncio.timeout(self._gateway.options.heartbeat_s):
                await self._more.wait()
        except TimeoutError:
            if self._form.keep_alive:
                await self._put(send, self._form.keep_alive)

    async def _put(self, send: Send, body: bytes, *, more_body: bool = True) -> None:
        async with asyncio.timeout(self._gateway.options.send_timeout_s):
            await send({"type": "http.response.body", "body": body, "more_body": more_body})


async def _disconnected(receive: Receive) -> None:
    while True:
        message: dict[str, Any] = dict(await receive())
        if message["type"] == "http.disconnect":
            return
