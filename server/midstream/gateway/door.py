"""The outermost door of every route: Host and Origin before anything else, one error shape after everything else."""

from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from midstream.gateway.answers import COMMON_HEADERS, HttpError, error_answer
from midstream.gateway.errors import as_refusal
from midstream.gateway.origin import DoorRules, crosses, refusal
from midstream.logs import Logger
from midstream_protocol.errors import Forbidden, NotFound

_PREFLIGHT: Final = {
    "access-control-allow-methods": "GET, POST, DELETE",
    "access-control-allow-headers": "authorization, content-type, idempotency-key, if-none-match, last-event-id",
    "access-control-max-age": "600",
}
_EXPOSED: Final = "etag, idempotency-replayed, location, retry-after"


MAX_LOGGED: Final = 100
"""Different refusals that are logged, each once: who sets a server up must find them, strangers must not fill it."""

_SHOWN: Final = 200
"""Characters of a header in the log."""

_log = Logger("midstream.door")


class Door:
    """An ASGI application around the routes."""

    def __init__(self, routes: ASGIApp, *, rules: DoorRules) -> None:
        self._routes = routes
        self._rules = rules
        self._logged: set[tuple[str | None, str | None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        host, origin = headers.get("host"), headers.get("origin")
        scheme = str(scope.get("scheme", "http"))
        refused = refusal(self._rules, scheme=scheme, host=host, origin=origin)
        if refused is not None:
            self._note(refused, host=host, origin=origin)
        if scope["type"] == "websocket":
            if refused is not None:
                await _deny(refused, scope, receive, send)
            else:
                # `app`: by it Starlette's router raises what it would otherwise answer in a form of its own.
                await self._routes({**scope, "app": self}, receive, send)
            return
        cross = origin if origin is not None and crosses(scheme=scheme, host=host, origin=origin) else None
        answer = _Answer(send, cross=cross if refused is None else None)
        if refused is not None:
            await error_answer(Forbidden(refused))(scope, receive, answer.send)
        elif cross is not None and scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            await Response(status_code=204, headers=_PREFLIGHT)(scope, receive, answer.send)
        else:
            await self._route({**scope, "app": self}, receive, answer)

    def _note(self, refused: str, *, host: str | None, origin: str | None) -> None:
        seen = (host and host[:_SHOWN], origin and origin[:_SHOWN])
        if seen not in self._logged and len(self._logged) < MAX_LOGGED:
            self._logged.add(seen)
            _log.warning("refused at the door", host=seen[0], origin=seen[1], text=refused[: 2 * _SHOWN])

    async def _route(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        try:
            await self._routes(scope, receive, answer.send)
        except ClientDisconnect:
            return
        except HTTPException as error:
            await error_answer(_http_error(error, scope))(scope, receive, answer.send)
        except Exception as error:  # noqa: BLE001 - the boundary: whatever it is, it has one form
            refusal_ = as_refusal(error, doing=f"{scope['method']} {scope['path']}")
            if not answer.started:
                await error_answer(refusal_)(scope, receive, answer.send)


class _Answer:
    """Adds the common headers, and remembers whether the answer has begun."""

    def __init__(self, send: Send, *, cross: str | None) -> None:
        self._send = send
        self._cross = cross
        self.started = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            headers = MutableHeaders(scope=message)
            for name, value in COMMON_HEADERS.items():
                headers.setdefault(name, value)
            if self._cross is not None:
                headers["access-control-allow-origin"] = self._cross
                headers["access-control-expose-headers"] = _EXPOSED
                headers.add_vary_header("origin")
        await self._send(message)


async def _deny(text: str, scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse an upgrade: an HTTP 403, with the reason where the server can carry it."""
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008, "reason": ""})
        return
    # Starlette's responses speak `websocket.http.response.*` for a websocket scope by themselves.
    await error_answer(Forbidden(text))(scope, receive, send)


def _http_error(error: HTTPException, scope: Scope) -> HttpError | NotFound:
    headers = dict(error.headers or {})
    match error.status_code:
        case 404:
            return NotFound("there is no such endpoint; GET /v1/schema describes the protocol")
        case 405:
            allowed = headers.get("Allow", "another method")
            return HttpError(
                405, "method_not_allowed", f"{scope['method']} is not for this path: {allowed}", headers=headers
            )
        case status:
            return HttpError(status, "invalid", str(error.detail), headers=headers)
