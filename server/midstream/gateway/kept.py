"""What is kept beside a principal's runs, over HTTP: the grants they gave, and what was tried and given up."""

from typing import TYPE_CHECKING, Any, Final

from starlette.requests import Request
from starlette.responses import Response

from midstream.gateway.answers import Json
from midstream.gateway.body import query_cursor, query_int
from midstream.runs import Principal
from midstream.runs.keys import namespace
from midstream_protocol.errors import Malformed, NotFound
from midstream_protocol.ids import is_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from midstream.gateway.gateway import Gateway

MAX_PAGE: Final = 200
DEFAULT_PAGE: Final = 50


class Kept:
    def __init__(self, gateway: "Gateway") -> None:
        self._gateway = gateway

    async def grants(self, request: Request, principal: Principal) -> Response:
        items, following = await self._gateway.registry.grants.page(
            namespace(principal.id),
            after=query_cursor(request, "cursor"),
            limit=query_int(request, "limit", default=DEFAULT_PAGE, low=1, high=MAX_PAGE),
        )
        return _page(items, following)

    async def revoke(self, request: Request, principal: Principal) -> Response:
        grant_id = _path_id(request, "grant_id", "there is no such grant, or it is not yours")
        await self._gateway.registry.grants.revoke(namespace(principal.id), grant_id)
        return Response(status_code=204)

    async def dead_letters(self, request: Request, principal: Principal) -> Response:
        # One route for both methods, or the router's 405 would name only the first.
        letters, space = self._gateway.registry.dead_letters, namespace(principal.id)
        kind = request.query_params.get("kind")
        if kind is not None and not is_id(kind):
            raise Malformed("kind: expected one that letters have, such as tool or webhook")
        if request.method == "DELETE":
            await letters.dismiss_all(space, kind=kind)
            return Response(status_code=204)
        items, following = await letters.page(
            space,
            kind=kind,
            after=query_cursor(request, "cursor"),
            limit=query_int(request, "limit", default=DEFAULT_PAGE, low=1, high=MAX_PAGE),
        )
        return _page(items, following)

    async def dismiss(self, request: Request, principal: Principal) -> Response:
        letter = _path_id(request, "letter_id", "there is no such dead letter, or it is not yours")
        await self._gateway.registry.dead_letters.dismiss(namespace(principal.id), letter)
        return Response(status_code=204)


def _page(items: "Sequence[Any]", following: str | None) -> Response:
    return Json({"items": items} | ({"next_cursor": following} if following is not None else {}))


def _path_id(request: Request, name: str, missing: str) -> str:
    """Raises `NotFound` for what cannot be an id."""
    found = request.path_params[name]
    if not is_id(found):
        raise NotFound(missing)
    return str(found)
