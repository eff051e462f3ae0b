"""What needs no socket: lists, views, whole logs, and single commands, over HTTP."""

import json
import random
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Final

import httpx2
import msgspec

from midstream.client.address import Address, segment
from midstream.client.backoff import Backoff
from midstream.client.credentials import Credentials
from midstream.client.errors import Pending, Unreachable, refusal
from midstream.clock import Clock, SystemClock
from midstream_protocol.commands import CommandPayload
from midstream_protocol.errors import ERRORS, FieldError, NotFound, ProtocolError
from midstream_protocol.events import TERMINAL_TYPES
from midstream_protocol.frames import Receipt, RunReset
from midstream_protocol.ids import new_id
from midstream_protocol.version import PROTOCOL_VERSION
from midstream_protocol.view import View, view_from_builtins

TIMEOUT_S: Final = 15.0
"""Longer than the 10 s after which the server answers a command with `pending`."""
FEED_SILENCE_S: Final = 60.0
"""A feed says something at every heartbeat of its server: one that is silent for so long is broken."""
MAX_EXPORT_RETRIES: Final = 5
"""Broken connections in a row, without one new event between them, before an export gives up."""


class _Nothing(Exception):
    """The run is over, and nothing of it is after that event."""


class _Head(msgspec.Struct):
    """As much of a log's line as an export looks at."""

    type: str
    seq: int | None = None


_head_of = msgspec.json.Decoder(_Head).decode
_PENDING: Final = 202


class Rest:
    """Raises refusals of `midstream_protocol.errors` and `Unreachable`."""

    def __init__(
        self,
        address: Address,
        *,
        token: str | None = None,
        credentials: Credentials | None = None,
        clock: Clock | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._address = address
        self._http = httpx2.AsyncClient(
            auth=credentials or Credentials(token),
            timeout=TIMEOUT_S,
            trust_env=not address.loopback,
            transport=transport,
        )

    async def aclose(self) -> None:
        await self._http.aclose()

    async def runs(
        self,
        *,
        status: str | None = None,
        thread_id: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> dict[str, Any]:
        """`{items, next_cursor?}`, newest first; items are views without messages, calls and steps, with
        `started_at` and the beginning of the `input`.
        """
        asked = {"status": status, "thread_id": thread_id, "limit": limit, "cursor": cursor}
        return await self._get("/v1/runs", params={name: value for name, value in asked.items() if value is not None})

    async def agents(self) -> dict[str, Any]:
        return await self._get("/v1/agents")

    async def metrics(self) -> str:
        """What operators count, in the text format of Prometheus."""
        answer = await self._request("GET", "/metrics")
        if answer.status_code >= httpx2.codes.BAD_REQUEST:
            raise _error(answer)
        return answer.text

    async def feed(self, *, types: str | None = None) -> AsyncGenerator[dict[str, Any]]:
        """What goes on in all runs, as a sample (`GET /v1/feed`), until the server ends it: events, and between them
        frames, which have no `run_id`. Raises `Unreachable` when it breaks.
        """
        request = self._http.build_request(
            "GET",
            self._address.web("/v1/feed"),
            params={} if types is None else {"types": types},
            headers={"Accept": "application/x-ndjson"},
            timeout=httpx2.Timeout(TIMEOUT_S, read=FEED_SILENCE_S),
        )
        try:
            response = await self._http.send(request, stream=True)
            try:
                if response.status_code >= httpx2.codes.BAD_REQUEST:
                    await response.aread()
                    raise _error(response)
                async for line in response.aiter_lines():
                    said = json.loads(line)
                    if isinstance(said, dict):
                        yield said
            finally:
                await response.aclose()
        except (httpx2.TransportError, ValueError) as broken:
            raise Unreachable(str(broken) or type(broken).__name__) from broken

    async def thread(self, thread_id: str) -> dict[str, Any]:
        """`{thread_id, title?, active?, queue, runs}`. Raises `NotFound`."""
        return await self._get(f"/v1/threads/{segment(thread_id)}")

    async def delete(self, run_id: str) -> None:
        """Erase a run that has ended, for good. Raises `NotFound`, `RunActive`."""
        await self._delete(_path(run_id))

    async def grants(self, *, limit: int | None = None, cursor: str | None = None) -> dict[str, Any]:
        """`{items, next_cursor?}`: what you approved for threads and for all of your runs, newest first."""
        asked = {"limit": limit, "cursor": cursor}
        return await self._get("/v1/grants", params={name: value for name, value in asked.items() if value is not None})

    async def revoke_grant(self, grant_id: str) -> None:
        """It holds for no call from here on, also of running runs. Raises `NotFound`."""
        await self._delete(f"/v1/grants/{segment(grant_id)}")

    async def dead_letters(
        self, *, kind: str | None = None, limit: int | None = None, cursor: str | None = None
    ) -> dict[str, Any]:
        """`{items, next_cursor?}`: what was tried and given up (`kind`: `tool`, `webhook`), newest first."""
        asked = {"kind": kind, "limit": limit, "cursor": cursor}
        params = {name: value for name, value in asked.items() if value is not None}
        return await self._get("/v1/dead-letters", params=params)

    async def dismiss(self, letter_id: str) -> None:
        """Drop one dead letter. Raises `NotFound`."""
        await self._delete(f"/v1/dead-letters/{segment(letter_id)}")

    async def dismiss_all(self, *, kind: str | None = None) -> None:
        """Drop all dead letters that are there now, or those of one kind."""
        await self._delete("/v1/dead-letters", params={} if kind is None else {"kind": kind})

    async def view(self, run_id: str) -> View:
        return view_from_builtins(await self._get(_path(run_id)))

    async def command(self, run_id: str, payload: CommandPayload, *, command_id: str | None = None) -> Receipt:
        """One command to a run; its receipt. The same `command_id` again gets the same answer. Raises `Pending` too."""
        body = {
            "v": PROTOCOL_VERSION,
            "type": payload.TYPE,
            "command_id": command_id or new_id("cmd"),
            "run_id": run_id,
            "payload": payload,
        }
        answer = await self._request("POST", _path(run_id) + "/commands", content=msgspec.json.encode(body))
        said = _object(answer)
        if answer.status_code == _PENDING:
            raise Pending("the run has not decided this yet; send it again")
        if "command_id" not in said:
            raise _error(answer)
        receipt = msgspec.convert(said, Receipt)
        if receipt.status == "rejected":
            raise refusal(receipt)
        return receipt

    async def export(self, run_id: str, *, since_seq: int = 0, until_seq: int | None = None) -> AsyncIterator[bytes]:
        """The log's lines after `since_seq`, byte for byte, each with its newline, up to the end of the run.

        `until_seq` stops there instead of following a run that goes on. A broken connection is taken up again where
        it broke. Raises `NotFound` also when the log's beginning is no longer kept.
        """
        seq = since_seq
        failures = 0
        backoff = Backoff()
        while until_seq is None or seq < until_seq:
            why = "the server ended the answer before the end of the run"
            try:
                async for line in self._lines(run_id, since_seq=seq):
                    head = _head_of(line)
                    if head.seq is None and head.type != RunReset.TYPE:
                        # A sign of life.
                        continue
                    if head.seq is None:
                        raise NotFound(f"the log after event {seq} is not whole any more ({line.decode().strip()})")
                    seq, failures = head.seq, 0
                    yield line
                    if seq == until_seq or head.type in TERMINAL_TYPES:
                        return
            except _Nothing:
                return
            except httpx2.TransportError as broken:
                why = str(broken) or type(broken).__name__
            failures += 1
            if failures > MAX_EXPORT_RETRIES:
                raise Unreachable(why)
            await self._clock.sleep(backoff.delay_s(told_s=None, fraction=random.random()))  # noqa: S311 - jitter

    async def _lines(self, run_id: str, *, since_seq: int) -> AsyncIterator[bytes]:
        request = self._http.build_request(
            "GET",
            self._address.web(_path(run_id) + "/events"),
            params={"since_seq": since_seq},
            headers={"Accept": "application/x-ndjson"},
            # A live run may be silent for as long as a person takes to answer.
            timeout=httpx2.Timeout(TIMEOUT_S, read=None),
        )
        response = await self._http.send(request, stream=True)
        try:
            if response.status_code >= httpx2.codes.BAD_REQUEST:
                await response.aread()
                raise _error(response)
            if response.status_code == httpx2.codes.NO_CONTENT:
                raise _Nothing
            rest = b""
            async for chunk in response.aiter_bytes():
                *whole, rest = (rest + chunk).split(b"\n")
                for line in whole:
                    if line:
                        yield line + b"\n"
        finally:
            await response.aclose()

    async def _get(self, path: str, *, params: dict[str, Any] | None = None) -> dict[str, Any]:
        answer = await self._request("GET", path, params=params)
        if answer.status_code >= httpx2.codes.BAD_REQUEST:
            raise _error(answer)
        return _object(answer)

    async def _delete(self, path: str, **options: Any) -> None:
        answer = await self._request("DELETE", path, **options)
        if answer.status_code >= httpx2.codes.BAD_REQUEST:
            raise _error(answer)

    async def _request(self, method: str, path: str, **options: Any) -> httpx2.Response:
        try:
            return await self._http.request(method, self._address.web(path), **options)
        except httpx2.TransportError as broken:
            raise Unreachable(str(broken) or type(broken).__name__) from broken


def _path(run_id: str) -> str:
    return f"/v1/runs/{segment(run_id)}"


def _object(answer: httpx2.Response) -> dict[str, Any]:
    try:
        said = json.loads(answer.content)
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise Unreachable(f"{answer.url.host} answered {answer.status_code} with something that is no Midstream answer")
    return said


def _error(answer: httpx2.Response) -> ProtocolError:
    """The refusal that an HTTP error says."""
    said = _object(answer).get("error")
    if not isinstance(said, dict):
        raise Unreachable(f"{answer.url.host} answered {answer.status_code}: is it a Midstream server?")
    kind = ERRORS.get(str(said.get("code")), ProtocolError)
    return kind(
        str(said.get("text") or said.get("code")),
        errors=tuple(msgspec.convert(said.get("errors", []), list[FieldError])),
        resolution=said.get("resolution"),
    )
