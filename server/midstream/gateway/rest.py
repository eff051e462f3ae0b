"""The same door for those who do not hold a socket: start, command, look, list; and what operators ask."""

import asyncio
import base64
import hashlib
from collections.abc import Awaitable, Callable
from functools import cache
from typing import TYPE_CHECKING, Any, Final, get_args

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router, WebSocketRoute
from starlette.types import ASGIApp

from midstream.gateway.answers import RETRY_AFTER_S, HttpError, Json, matches
from midstream.gateway.auth import credentials_of
from midstream.gateway.body import (
    json_object,
    path_run_id,
    path_thread_id,
    query_choice,
    query_cursor,
    query_id,
    query_int,
    query_seconds,
)
from midstream.gateway.errors import error_body, refusal_receipt
from midstream.gateway.feed import Feeds
from midstream.gateway.kept import Kept
from midstream.gateway.ndjson_sse import events
from midstream.gateway.pages import Pages
from midstream.gateway.waiting import Waiting, come_again, etag_of, looked_at, patience_of
from midstream.runs import Listed, Principal
from midstream.tasks import spawn
from midstream.telemetry import METRICS_TYPE, exposed
from midstream_protocol.asyncapi import text as asyncapi_text
from midstream_protocol.codec import decode_command
from midstream_protocol.commands import CONNECTION_COMMANDS, Command, RunCancel, RunStart, ToolsOffer
from midstream_protocol.errors import (
    ERRORS,
    Malformed,
    ProtocolError,
    Unauthorized,
    Unavailable,
    UnknownCommand,
    http_status,
)
from midstream_protocol.events import TERMINAL_STATUSES, RunStatus
from midstream_protocol.frames import ConnectionReady, PrincipalInfo, Receipt
from midstream_protocol.ids import is_id, new_id
from midstream_protocol.schema import text as schema_text
from midstream_protocol.times import iso_ms
from midstream_protocol.version import PROTOCOL_VERSION
from midstream_protocol.view import view_to_builtins

if TYPE_CHECKING:
    from midstream.gateway.gateway import Gateway

MAX_PAGE: Final = 200
MAX_KEY_CHARS: Final = 255

_LEFT_OUT: Final = frozenset({"v", "run_id", "command_id"})
"""What a command's body need not say: the path, the Idempotency-Key or the server does."""

_STATUSES: Final[tuple[str, ...]] = get_args(RunStatus)

_Endpoint = Callable[[Request, Principal], Awaitable[Response]]
_Send = Callable[..., Awaitable[Receipt]]


class Rest:
    def __init__(self, gateway: "Gateway") -> None:
        self._gateway = gateway

    def routes(self, websocket: ASGIApp) -> Router:
        run, kept = "/v1/runs/{run_id}", Kept(self._gateway)
        return Router(
            [
                WebSocketRoute("/v1/ws", websocket),
                Route("/v1/ws", _upgrade_required, methods=["GET"]),
                Route("/v1/runs", self._known(self._runs), methods=["GET", "POST"]),
                Route(run, self._known(self._run), methods=["GET", "DELETE"]),
                Route(f"{run}/events", self._known(self._events), methods=["GET"]),
                Route(f"{run}/commands", self._known(self._command), methods=["POST"]),
                Route(f"{run}/cancel", self._known(self._cancel), methods=["POST"]),
                Route("/v1/threads/{thread_id}", self._known(self._thread), methods=["GET"]),
                Route("/v1/agents", self._known(self._agents), methods=["GET"]),
                Route("/v1/connection", self._known(self._connection), methods=["GET"]),
                Route("/v1/grants", self._known(kept.grants), methods=["GET"]),
                Route("/v1/grants/{grant_id}", self._known(kept.revoke), methods=["DELETE"]),
                Route("/v1/dead-letters", self._known(kept.dead_letters), methods=["GET", "DELETE"]),
                Route("/v1/dead-letters/{letter_id}", self._known(kept.dismiss), methods=["DELETE"]),
                Route("/v1/feed", self._known(Feeds(self._gateway).open), methods=["GET"]),
                Route("/metrics", self._known(_metrics), methods=["GET"]),
                Route("/v1/schema", _schema, methods=["GET"]),
                Route("/v1/asyncapi", _asyncapi, methods=["GET"]),
                Route("/healthz", _healthy, methods=["GET"]),
                Route("/readyz", self._ready, methods=["GET"]),
                *(Pages(server=self._gateway.options.server).routes() if self._gateway.options.console else ()),
            ],
            # A redirect would leave the one error shape, and loses a POST's body.
            redirect_slashes=False,
        )

    def _known(self, endpoint: _Endpoint) -> Callable[[Request], Awaitable[Response]]:
        """Only for whom the authenticator knows."""

        async def answer(request: Request) -> Response:
            principal = await self._gateway.authenticator.authenticate(credentials_of(dict(request.headers)))
            if principal is None:
                raise Unauthorized("send a valid token: Authorization: Bearer <token>")
            return await endpoint(request, principal)

        return answer

    async def _runs(self, request: Request, principal: Principal) -> Response:
        # One route for both methods, or the router's 405 would name only the first.
        return await (self._start if request.method == "POST" else self._list)(request, principal)

    # -- starting and commanding

    async def _start(self, request: Request, principal: Principal) -> Response:
        options = self._gateway.options
        fields = await json_object(request, max_bytes=options.max_frame_bytes)
        patience = patience_of(request, fields, max_wait_s=options.max_wait_s)
        command = self._decode({"type": RunStart.TYPE, "command_id": _command_id(request), "payload": fields})
        receipt = await self._settle(self._gateway.registry.start, principal, command, request)
        if receipt is None:
            return self._pending(command)
        if receipt.status != "accepted" or receipt.run_id is None:
            raise _refusal(receipt)
        links = _links(request, receipt.run_id)
        if patience.wait_s is not None:
            answer = await self._waited(request, principal, receipt.run_id, links, wait_s=patience.wait_s)
            answer.headers["location"] = links["self"]
            return answer
        place = await self._gateway.registry.place(principal, receipt.run_id)
        body = {
            "run_id": receipt.run_id,
            "thread_id": receipt.thread_id,
            "status": "queued" if receipt.as_ == "queued" else "running",
            # What became of it in a busy thread: as "corrected", the run is the one that was there.
            **({"as": receipt.as_} if receipt.as_ is not None else {}),
            # Nothing of the log was told yet: following from here brings all of it.
            "cursor": {"epoch": place.epoch, "seq": 0},
            "links": links,
        }
        headers = {"location": links["self"]}
        if not patience.background:
            return Json(body, status_code=201, headers=headers)
        return Json(body, status_code=202, headers=headers | come_again("running", poll_after_s=options.poll_after_s))

    async def _waited(
        self, request: Request, principal: Principal, run_id: str, links: dict[str, str], *, wait_s: float
    ) -> Response:
        """The final view, or the view so far."""
        await Waiting(self._gateway).for_end(request, principal, run_id, wait_s=wait_s)
        view = await self._gateway.registry.view(principal, run_id)
        poll_after_s = self._gateway.options.poll_after_s
        if view.status in TERMINAL_STATUSES:
            return looked_at(view, poll_after_s=poll_after_s)
        return looked_at(view, poll_after_s=poll_after_s, status_code=202, links=links)

    async def _command(self, request: Request, principal: Principal) -> Response:
        run_id = path_run_id(request)
        fields = await json_object(request, max_bytes=self._gateway.options.max_frame_bytes)
        # Null is absent, as in every command.
        fields = {name: value for name, value in fields.items() if value is not None or name not in _LEFT_OUT}
        if fields.setdefault("run_id", run_id) != run_id:
            raise Malformed("$.run_id: another run than the path's; leave it out")
        fields.setdefault("v", PROTOCOL_VERSION)
        if "command_id" not in fields:
            fields["command_id"] = _command_id(request)
        if fields.get("type") == RunStart.TYPE:
            return await self._answer(request, principal, _resuming(fields), send=self._gateway.registry.start)
        return await self._answer(request, principal, fields)

    async def _cancel(self, request: Request, principal: Principal) -> Response:
        run_id = path_run_id(request)
        payload = await json_object(request, max_bytes=self._gateway.options.max_frame_bytes)
        command_id = _command_id(request)
        fields = {"type": RunCancel.TYPE, "command_id": command_id, "run_id": run_id, "payload": payload}
        return await self._answer(request, principal, fields)

    async def _answer(
        self, request: Request, principal: Principal, fields: dict[str, Any], *, send: _Send | None = None
    ) -> Response:
        try:
            command = self._decode(fields)
            if command.type == ToolsOffer.TYPE:
                send = self._offer
                if query_id(request, "client_id") is None:
                    raise Malformed("client_id: say who runs these tools, as in ?client_id=editor_1")
            elif command.type in CONNECTION_COMMANDS:
                raise UnknownCommand(f"{command.type} belongs to a connection: send it over /v1/ws")
        except ProtocolError as error:
            if error.command_id is None and not is_id(fields.get("command_id")):
                raise
            refused = refusal_receipt(error, command_id=fields["command_id"], run_id=fields.get("run_id"))
            return Json(refused, status_code=error.status)
        receipt = await self._settle(send or self._gateway.registry.submit, principal, command, request)
        if receipt is None:
            return self._pending(command)
        status = 200 if receipt.status == "accepted" else http_status(receipt.code or "")
        headers = {"retry-after": RETRY_AFTER_S} if status in (429, 503) else None
        return Json(receipt, status_code=status, headers=headers)

    async def _offer(self, principal: Principal, command: Command, *, client_id: str) -> Receipt:
        """A `tools.offer`, executed each time. A receipt, whatever comes of it."""
        payload = command.payload
        assert isinstance(payload, ToolsOffer)
        command_id, run_id = command.command_id, payload.run_id
        try:
            await self._gateway.registry.offer(principal, run_id, client_id=client_id, tools=payload.client_tools)
        except ProtocolError as refusal:
            return refusal_receipt(refusal, command_id=command_id, run_id=run_id)
        return Receipt(command_id=command_id, run_id=run_id, status="accepted")

    def _decode(self, fields: dict[str, Any]) -> Command:
        options = self._gateway.options
        # The body was within the limit; what the envelope adds to it is the server's own.
        return decode_command(
            msgspec.json.encode({"v": PROTOCOL_VERSION, **fields}),
            max_bytes=2 * options.max_frame_bytes,
            max_input_bytes=options.max_input_bytes,
            max_tool_result_bytes=options.max_tool_result_bytes,
        )

    def _pending(self, command: Command) -> Response:
        headers = come_again("running", poll_after_s=self._gateway.options.poll_after_s)
        body = {"status": "pending", "command_id": command.command_id}
        return Json(body, status_code=202, headers=headers)

    async def _settle(self, send: _Send, principal: Principal, command: Command, request: Request) -> Receipt | None:
        """The receipt; None: it is taking long, and the command goes on without its caller."""
        client_id = query_id(request, "client_id")

        async def settle() -> Receipt:
            return await send(principal, command, client_id=client_id)

        task = spawn(settle(), name=f"http/{command.type}:{command.command_id}")
        self._gateway.tasks.add(task)
        task.add_done_callback(self._gateway.tasks.discard)
        done, _ = await asyncio.wait({task}, timeout=self._gateway.options.receipt_wait_s)
        return task.result() if done else None

    # -- looking

    async def _run(self, request: Request, principal: Principal) -> Response:
        if request.method == "DELETE":
            await self._gateway.registry.delete(principal, path_run_id(request))
            return Response(status_code=204)
        return await self._view(request, principal)

    async def _view(self, request: Request, principal: Principal) -> Response:
        run_id, options = path_run_id(request), self._gateway.options
        wait_s = query_seconds(request, "wait_s", high=options.max_wait_s)
        known = request.headers.get("if-none-match")
        # Where it is costs less than the view: who polls and finds nothing new pays for no fold.
        place = await self._gateway.registry.place(principal, run_id)
        if wait_s and known is None:
            await Waiting(self._gateway).for_end(request, principal, run_id, wait_s=wait_s)
        elif wait_s and matches(known, etag_of(place)) and place.status not in TERMINAL_STATUSES:
            await Waiting(self._gateway).for_change(request, principal, run_id, wait_s=wait_s, known=place)
            place = await self._gateway.registry.place(principal, run_id)
        if matches(known, etag := etag_of(place)):
            again = come_again(place.status, poll_after_s=options.poll_after_s)
            return Response(status_code=304, headers={"etag": etag} | again)
        view = await self._gateway.registry.view(principal, run_id)
        return looked_at(view, poll_after_s=options.poll_after_s)

    async def _list(self, request: Request, principal: Principal) -> Response:
        items, following = await self._gateway.registry.list_runs(
            principal,
            status=query_choice(request, "status", _STATUSES),
            thread_id=query_id(request, "thread_id"),
            limit=query_int(request, "limit", default=50, low=1, high=MAX_PAGE),
            cursor=query_cursor(request, "cursor"),
        )
        body: dict[str, Any] = {"items": [_summary(item) for item in items]}
        if following is not None:
            body["next_cursor"] = following
        return Json(body)

    async def _thread(self, request: Request, principal: Principal) -> Response:
        thread_id = path_thread_id(request)
        thread = await self._gateway.registry.thread(principal, thread_id)
        body: dict[str, Any] = {"thread_id": thread_id, "queue": thread.queue, "runs": thread.runs}
        body |= {"title": thread.title.text} if thread.title is not None else {}
        body |= {"active": thread.active} if thread.active is not None else {}
        return Json(body)

    async def _events(self, request: Request, principal: Principal) -> Response:
        return await events(self._gateway, request, principal)

    async def _agents(self, _request: Request, _principal: Principal) -> Response:
        return Json({"items": self._gateway.agents()})

    async def _connection(self, request: Request, principal: Principal) -> Response:
        """What a WebSocket says first."""
        options = self._gateway.options
        ready = ConnectionReady(
            connection_id=new_id("http"),
            client_id=query_id(request, "client_id") or new_id("client"),
            server=options.server,
            now=iso_ms(self._gateway.clock.now_ms()),
            heartbeat_s=options.heartbeat_s,
            principal=PrincipalInfo(id=principal.id, name=principal.name),
            limits=options.connection_limits,
        )
        return Json(ready)

    async def _ready(self, _request: Request) -> Response:
        ready = await self._gateway.readiness()
        body: dict[str, Any] = {"status": "not_ready" if ready.reasons else "ready"}
        body |= {"reasons": ready.reasons} if ready.reasons else {}
        body |= {"notes": ready.notes} if ready.notes else {}
        if not ready.reasons:
            return Json(body)
        body |= error_body(Unavailable("; ".join(ready.reasons)))
        return Json(body, status_code=503, headers={"retry-after": RETRY_AFTER_S})


async def _healthy(_request: Request) -> Response:
    return Json({"status": "ok"})


async def _metrics(_request: Request, _principal: Principal) -> Response:
    # Behind the token like all that tells of what goes on here; whoever scrapes can send one.
    return Response(exposed(), media_type=METRICS_TYPE)


async def _schema(_request: Request) -> Response:
    return Response(_schema_bytes(), media_type="application/schema+json")


async def _asyncapi(_request: Request) -> Response:
    return Response(_asyncapi_bytes(), media_type="application/json")


async def _upgrade_required(_request: Request) -> Response:
    raise HttpError(
        426,
        "upgrade_required",
        "this is a WebSocket endpoint",
        headers={"upgrade": "websocket", "connection": "upgrade"},
    )


@cache
def _asyncapi_bytes() -> bytes:
    return asyncapi_text().encode()


@cache
def _schema_bytes() -> bytes:
    return schema_text().encode()


def _links(request: Request, run_id: str) -> dict[str, str]:
    base = f"{request.scope.get('root_path', '')}/v1/runs/{run_id}"
    return {"self": base, "events": f"{base}/events", "commands": f"{base}/commands", "cancel": f"{base}/cancel"}


def _resuming(fields: dict[str, Any]) -> dict[str, Any]:
    """A `run.start` at the run that it goes on with. Raises `Malformed` for any other."""
    run_id, payload = fields.pop("run_id"), fields.get("payload")
    payload = payload if isinstance(payload, dict) else {}
    resume = payload.get("resume")
    if resume is None:
        raise Malformed("run.start makes a new run: POST it to /v1/runs, or say resume to go on with this one")
    if isinstance(resume, dict):
        named = resume.get("run_id")
        if named not in (None, run_id):
            raise Malformed("$.payload.resume.run_id: another run than the path's; leave it out")
        fields["payload"] = {**payload, "resume": {**resume, "run_id": run_id}}
    return fields


def _summary(item: Listed) -> dict[str, Any]:
    view = view_to_builtins(item.view)
    told = {name: value for name, value in view.items() if name not in ("messages", "calls", "steps")}
    return told | {"started_at": iso_ms(item.started_ms), "input": item.input}


def _command_id(request: Request) -> str:
    """The Idempotency-Key as a command_id. A key of another form is hashed into one: equal keys, equal ids."""
    key = request.headers.get("idempotency-key")
    if key is None:
        return new_id("cmd")
    if is_id(key):
        return key
    if not key.isascii() or not key.isprintable() or not 1 <= len(key) <= MAX_KEY_CHARS:
        raise Malformed(f"Idempotency-Key: expected 1 to {MAX_KEY_CHARS} printable ASCII characters")
    return "key_" + base64.urlsafe_b64encode(hashlib.sha256(key.encode()).digest()).decode().rstrip("=")


def _refusal(receipt: Receipt) -> ProtocolError:
    """A rejected receipt as the error it reports."""
    kind = ERRORS.get(receipt.code or "", ProtocolError)
    return kind(receipt.text or "refused", errors=tuple(receipt.errors or ()), resolution=receipt.resolution)
