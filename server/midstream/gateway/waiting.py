"""Callers who do not stream: they wait for a run's end, or look at it now and then.

Who waits is attached, so the run counts somebody as being there; who leaves takes nothing away from it.
"""

import asyncio
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from midstream.gateway.answers import Json
from midstream.gateway.body import query_choice, query_seconds
from midstream.gateway.quotas import address_of
from midstream.runs import Place, Principal
from midstream.tasks import spawn, stop
from midstream_protocol.errors import Malformed
from midstream_protocol.events import TERMINAL_STATUSES
from midstream_protocol.view import View, view_to_builtins

if TYPE_CHECKING:
    from midstream.gateway.gateway import Gateway


class Patience(Struct, kw_only=True, frozen=True):
    """How a start wants to be answered: at once, at the run's end (`wait_s` at most), or to be looked at later."""

    wait_s: float | None = None
    background: bool = False


def patience_of(request: Request, fields: dict[str, Any], *, max_wait_s: float) -> Patience:
    """Takes `wait_s` and `background` out of a start's body, or out of its query. Raises `Malformed`."""
    wait_s, background = fields.pop("wait_s", None), fields.pop("background", None)
    asked_s = query_seconds(request, "wait_s", high=max_wait_s)
    if wait_s is None:
        wait_s = asked_s
    elif asked_s is not None and asked_s != wait_s:
        raise Malformed("wait_s: said in the body and in the query, and not the same; say it once")
    # `True` is a number to Python, and nan passes neither comparison.
    if wait_s is not None and (isinstance(wait_s, bool) or not isinstance(wait_s, int | float)):
        raise Malformed(f"$.wait_s: expected seconds, a number from 0 to {max_wait_s:g}")
    if wait_s is not None and not 0 <= wait_s <= max_wait_s:
        raise Malformed(f"$.wait_s: expected seconds from 0 to {max_wait_s:g}; for longer, poll or follow links.events")
    said = query_choice(request, "background", ("true", "false"))
    if background is None:
        background = said == "true"
    if not isinstance(background, bool):
        raise Malformed("$.background: expected true or false")
    if background and wait_s is not None:
        raise Malformed("wait_s holds the answer back, background gives it at once: send one of the two")
    return Patience(wait_s=wait_s, background=background)


class Waiting:
    """One caller who waits. A client of the gateway, so that a shutdown does not wait for it."""

    transport: Final = "wait"

    def __init__(self, gateway: "Gateway") -> None:
        self._gateway = gateway
        self._look: Callable[[], bool] = lambda: True
        self._done = asyncio.Event()

    def announce_drain(self) -> None:
        """It is answered when the server closes, and comes back."""

    def close_for_drain(self) -> None:
        self._done.set()

    async def for_end(self, request: Request, principal: Principal, run_id: str, *, wait_s: float) -> None:
        """Until the run has ended, the time is up, or the caller has gone. Raises `NotFound`, `QuotaExceeded`."""
        await self._wait(request, principal, run_id, wait_s=wait_s, known=None)

    async def for_change(
        self, request: Request, principal: Principal, run_id: str, *, wait_s: float, known: Place
    ) -> None:
        """The same, or until the run is not where it is known to be any more."""
        await self._wait(request, principal, run_id, wait_s=wait_s, known=known)

    async def _wait(
        self, request: Request, principal: Principal, run_id: str, *, wait_s: float, known: Place | None
    ) -> None:
        watch = await self._gateway.registry.watch(principal, run_id, wake=self._woken)
        try:
            self._gateway.enter(self, principal=principal, address=address_of(request.scope))
            self._look = lambda: watch.ended or (known is not None and watch.head_seq != known.head_seq)
            self._woken()
            gone = spawn(_left(request, self._done), name=f"waiting:{run_id}")
            try:
                async with asyncio.timeout(wait_s):
                    await self._done.wait()
            except TimeoutError:
                pass
            finally:
                self._gateway.leave(self)
                await stop(gone)
        finally:
            watch.close()

    def _woken(self) -> None:
        if self._look():
            self._done.set()


async def _left(request: Request, done: asyncio.Event) -> None:
    """The body was read: what comes now can only be the end of the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    done.set()


def etag_of(place: Place) -> str:
    # Weak: the same view may be encoded in another way by another version of the server.
    return f'W/"{place.epoch}.{place.head_seq}.{place.status}"'


def looked_at(view: View, *, poll_after_s: float, status_code: int = 200, **more: Any) -> Response:
    """The view as an answer, and when to look again."""
    place = Place(epoch=view.cursor.epoch or "", head_seq=view.cursor.seq, status=view.status)
    headers = {"etag": etag_of(place)} | come_again(place.status, poll_after_s=poll_after_s)
    return Json({**view_to_builtins(view), **more}, status_code=status_code, headers=headers)


def come_again(status: str, *, poll_after_s: float) -> dict[str, str]:
    """Whole seconds, as HTTP has it; nothing for a run that will not change any more."""
    return {} if status in TERMINAL_STATUSES else {"retry-after": str(max(1, math.ceil(poll_after_s)))}
