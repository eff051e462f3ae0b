"""`GET /v1/runs/{id}/events`: a run's log over plain HTTP, as server-sent events or as one JSON text a line.

The same bytes as on a WebSocket, the same cursor, the same resets; with `frames=1` also the other frames that a
WebSocket has about a run. It ends after the terminal event, and a request that has that event already is answered 204:
an EventSource would otherwise reconnect for ever.
"""

import asyncio
from collections.abc import Callable, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from midstream.gateway.body import path_run_id, query_choice, query_id, query_int
from midstream.gateway.quotas import address_of
from midstream.gateway.stream_forms import Form, Lines, ServerSentEvents, wants_lines
from midstream.gateway.uvicorn_http import EXTENSION
from midstream.gateway.ws import reconnect_in_s
from midstream.log import LogError
from midstream.logs import Logger
from midstream.runs import Principal, Subscription, SubscriptionLost
from midstream.tasks import spawn, stop
from midstream.telemetry import count_abandoned, count_attach, observe_delivery
from midstream_protocol.codec import iso_ms
from midstream_protocol.errors import Malformed, QuotaExceeded
from midstream_protocol.events import TERMINAL_STATUSES
from midstream_protocol.frames import Heartbeat, RunAttached, RunCaughtUp, RunReset
from midstream_protocol.ids import is_id
from midstream_protocol.limits import MAX_INTEGER

if TYPE_CHECKING:
    from midstream.gateway.gateway import Gateway

# `no-transform`: whoever compresses on the way would hold events back. `x-accel-buffering`: nginx's own word for it.
STREAM_HEADERS: Final = {"cache-control": "no-store, no-transform", "x-accel-buffering": "no"}

LAST_WORDS_S: Final = 1.0
"""How long a reader may take for the rest of a stream that the server ends. It comes back with its cursor anyway."""

_log = Logger("midstream.gateway.events")


async def events(gateway: "Gateway", request: Request, principal: Principal) -> Response:
    """The answer to one request: the stream, or 204. Raises `Malformed`, `NotFound`, `QuotaExceeded`."""
    run_id = path_run_id(request)
    lines = wants_lines(request.headers.getlist("accept"))
    since_seq = query_int(request, "since_seq", default=0, low=0)
    epoch = query_id(request, "epoch")
    replay = query_choice(request, "replay", ("full", "merged", "snapshot")) or "full"
    frames = query_choice(request, "frames", ("0", "1")) == "1"
    # An empty one is that of a client that has seen none.
    last = request.headers.get("last-event-id")
    if last:
        epoch, since_seq = last_event_id(last, epoch)
        replay = "full" if replay == "snapshot" else replay
    bell = _Bell()
    attachment = await gateway.registry.attach(
        principal, run_id, since_seq=since_seq, epoch=epoch, replay=replay, wake=bell.ring
    )
    frame, subscription = attachment.frame("http"), attachment.subscription
    nothing = attachment.reset is None and frame.status in TERMINAL_STATUSES and since_seq >= frame.head_seq
    # Who asks for frames is told the end by them; an EventSource that comes back must not come back again.
    if nothing and (last or not frames):
        subscription.close()
        return Response(status_code=204)
    form: Form = Lines(frames=frames) if lines else ServerSentEvents(frame.epoch, frames=frames)
    if request.method == "HEAD":
        subscription.close()
        return head_of_stream(form)
    stream = EventStream(
        gateway,
        form=form,
        subscription=subscription,
        attached=frame if frames else None,
        reset=attachment.reset,
        bell=bell,
    )
    try:
        gateway.enter(stream, principal=principal, address=address_of(request.scope))
    except QuotaExceeded:
        subscription.close()
        raise
    count_attach(form.transport, resumed=since_seq > 0 and attachment.reset is None)
    return stream


def head_of_stream(form: Form) -> Response:
    """The answer to a HEAD."""
    answer = Response(headers=STREAM_HEADERS, media_type=form.media_type)
    # What a GET would send has no length.
    del answer.headers["content-length"]
    return answer


def last_event_id(text: str, epoch: str | None) -> tuple[str | None, int]:
    """`<epoch>.<seq>`, or a plain seq of the asked epoch. Raises `Malformed`."""
    before, dot, seq = text.strip().rpartition(".")
    good = seq.isascii() and seq.isdecimal() and len(seq) <= 16 and int(seq) <= MAX_INTEGER
    if not good or (dot and not is_id(before)):
        raise Malformed("Last-Event-ID: expected <epoch>.<seq> or a seq")
    return (before if dot else epoch), int(seq)


class _Bell:
    """An `asyncio.Event` for the one that waits here: rung for every batch of events of a run."""

    def __init__(self) -> None:
        self._rung = False
        self._rung_at: float | None = None
        self._waiter: asyncio.Future[None] | None = None

    def ring(self) -> None:
        if not self._rung:
            self._rung, self._rung_at = True, monotonic()
        if (waiter := self._waiter) is not None and not waiter.done():
            waiter.set_result(None)

    def silence(self) -> float | None:
        """Since when it has been ringing; None: it has not."""
        since, self._rung, self._rung_at = self._rung_at, False, None
        return since

    async def wait(self) -> None:
        """Until it is rung, or was since it was silenced."""
        if not self._rung:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None


class EventStream(Response):
    """One stream under way. It holds its subscription until it ends, whichever side ends it."""

    def __init__(
        self,
        gateway: "Gateway",
        *,
        form: Form,
        subscription: Subscription,
        attached: RunAttached | None,
        reset: RunReset | None,
        bell: _Bell,
    ) -> None:
        """`attached`: said first, and then also when it has caught up."""
        super().__init__(status_code=200, headers=STREAM_HEADERS, media_type=form.media_type)
        # The body's length is not known.
        del self.headers["content-length"]
        self.transport: Final = form.transport
        self._gateway = gateway
        self._form = form
        self._subscription = subscription
        self._attached = attached
        self._reset = reset
        self._target = attached.head_seq if attached is not None else None
        """The seq with which it has caught up; None: it has, or nobody wants to know."""
        self._bell = bell
        self._closing = False
        self._gone = False
        self._stalled = False
        self._told = False
        """It was ended by us, with all that was to be said."""
        self._over = False
        """Nothing more can be told here, although the run goes on or is gone."""
        self._silent = False
        """Nothing was written since the heart beat last."""
        self._beat_due = False
        self._cancel_beat: Callable[[], None] = lambda: None
        self._cancel_cut: Callable[[], None] = lambda: None
        self._writer: asyncio.Task[None] | None = None

    def announce_drain(self) -> None:
        """There is no frame for it here: the end of the stream says it."""

    def close_for_drain(self) -> None:
        if not self._closing:
            self._closing = True
            self._bell.ring()
            self._cancel_cut = self._gateway.clock.call_later(LAST_WORDS_S, self._cut)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        server = scope.get("extensions", {}).get(EXTENSION, {})
        out = Out(send, server, timeout_s=self._gateway.options.send_timeout_s)
        name = f"events:{self._subscription.run_id}"
        # A task of its own although this one does nothing meanwhile: waking it does not go through all the layers
        # between the server and here.
        writer = self._writer = spawn(self._write(out), name=f"{name}/writer")
        watcher = spawn(self._watch(receive), name=f"{name}/watcher")
        self._schedule_beat()
        try:
            await asyncio.wait({writer, watcher}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._cancel_beat()
            self._cancel_cut()
            self._subscription.close()
            self._gateway.leave(self)
            if not self._told:
                count_abandoned(self._form.transport)
            await stop(writer, watcher)
        if self._stalled and (cut := server.get("abort")) is not None:
            cut()
            await _disconnected(receive)

    def _cut(self) -> None:
        """It is to end, and its reader takes nothing: nothing can be said any more."""
        if self._writer is not None and not self._writer.done():
            self._stalled = True
            self._writer.cancel()

    async def _watch(self, receive: Receive) -> None:
        await _disconnected(receive)
        self._gone = True

    async def _write(self, out: "Out") -> None:
        try:
            await self._follow(out)
            self._told = not self._gone
        except TimeoutError:
            # Nothing more can be said to a reader that takes nothing; the connection is cut, which tells it.
            self._stalled = True
            _log.info("an event stream's reader was too slow", run_id=self._subscription.run_id)
        except OSError:
            self._gone = True

    async def _follow(self, out: "Out") -> None:
        subscription, form, bell = self._subscription, self._form, self._bell
        await out.begin(self.raw_headers)
        opening = form.opening
        if self._attached is not None:
            opening += form.frame(self._attached)
        if self._reset is not None:
            opening += form.reset(self._reset)
        await out.put(opening)
        self._reset = None
        while not (self._closing or self._gone):
            # Before the pull: what arrives while it reads the log must be seen.
            since = bell.silence()
            body = await self._pull() + self._caught_up()
            last = self._over or subscription.ended
            if body or last:
                self._silent = False
                await out.put(body, last=last)
                if body and since is not None:
                    observe_delivery(monotonic() - since)
                if last:
                    return
                if not subscription.at_head:
                    # Sending waits only when a buffer is full: without this, one busy reader starves the others.
                    await asyncio.sleep(0)
                    continue
            await bell.wait()
            if self._beat_due:
                self._beat_due = False
                runs = {subscription.run_id: subscription.cursor}
                await out.put(form.keep_alive(Heartbeat(now=iso_ms(self._gateway.clock.now_ms()), runs=runs)))
        if not self._gone:
            await out.put(form.come_back(reconnect_in_s()) if self._closing else b"", last=True)

    async def _pull(self) -> bytes:
        """The next piece; empty: nothing now."""
        subscription = self._subscription
        try:
            pulled = subscription.take()
            return self._form.events(pulled if pulled is not None else await subscription.pull())
        except SubscriptionLost as lost:
            self._over = lost.reset.snapshot_seq is None
            if self._attached is not None:
                self._target = lost.reset.snapshot_seq
            return self._form.reset(lost.reset)
        except LogError as error:
            # The log has the events; the client comes back for them with its cursor.
            self._over = True
            _log.warning("an event stream's log cannot be read", error=str(error))
            return b""

    def _caught_up(self) -> bytes:
        subscription = self._subscription
        if self._target is None or self._over or not (subscription.cursor >= self._target or subscription.at_head):
            return b""
        self._target = None
        return self._form.frame(RunCaughtUp(run_id=subscription.run_id, seq=subscription.cursor))

    def _schedule_beat(self) -> None:
        self._cancel_beat = self._gateway.clock.call_later(self._gateway.options.heartbeat_s, self._beat)

    def _beat(self) -> None:
        # A sign of life is due when there was none for a whole interval.
        self._beat_due = self._silent
        if self._silent:
            self._bell.ring()
        self._silent = True
        self._schedule_beat()


class Out:
    """Where a stream's bytes go. Raises `TimeoutError` when nothing of them is taken for `timeout_s`."""

    def __init__(self, send: Send, server: Mapping[str, Any], *, timeout_s: float) -> None:
        """`server`: what uvicorn_http.py gives, or nothing."""
        self._send = send
        self._ready: Callable[[], bool] = server.get("ready", lambda: False)
        self._held: Callable[[], int] | None = server.get("held")
        self._timeout_s = timeout_s

    async def begin(self, headers: list[tuple[bytes, bytes]]) -> None:
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def put(self, body: bytes, *, last: bool = False) -> None:
        message = {"type": "http.response.body", "body": body, "more_body": not last}
        if self._ready():
            # It will not wait, so it needs no timeout: setting one costs a third of a send.
            await self._send(message)
            return
        while True:
            held = self._held() if self._held is not None else 0
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self._send(message)
                    return
            except TimeoutError:
                # Our server waits before it writes, so the message can be sent again: its reader is slow, not stuck.
                if self._held is None or self._held() >= held:
                    raise


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
