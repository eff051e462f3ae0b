"""Streams and requests as a link, for where WebSockets do not get through: the core hears the same frames.

A run that is attached is one stream of its log (NDJSON); a command is one request. What the server says of a
connection on a WebSocket is said here: a stream knows its own place, and a request now and then that it is there.
"""

import asyncio
import json
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import quote

import httpx2
import msgspec

from midstream.client.address import Address
from midstream.client.errors import Unreachable
from midstream.client.link import LinkClosed
from midstream.clock import Clock
from midstream.tasks import spawn, stop
from midstream_protocol.codec import frame_bytes, iso_ms
from midstream_protocol.codes import Close
from midstream_protocol.commands import Ping, RunAttach, RunDetach, RunStart, ToolsOffer
from midstream_protocol.errors import FieldError, ProtocolError, TooLarge
from midstream_protocol.events import TERMINAL_STATUSES, TERMINAL_TYPES
from midstream_protocol.frames import (
    ConnectionLimits,
    ConnectionReady,
    ErrorFrame,
    FramePayload,
    Heartbeat,
    Pong,
    PrincipalInfo,
    Receipt,
    RunAttached,
    RunCaughtUp,
    RunReset,
)
from midstream_protocol.ids import new_id
from midstream_protocol.limits import COMMANDS_IN_FLIGHT, MAX_FRAME_BYTES, MAX_INPUT_BYTES, MAX_TOOL_RESULT_BYTES

TIMEOUT_S: Final = 15.0
"""Longer than the 10 s after which the server answers a command with `pending`."""
SILENCE_S: Final = 60.0
"""A stream says something at every heartbeat of its server: one that is silent for so long is broken."""
HEARTBEAT_S: Final = 15.0
"""Between two requests that ask whether the server is there."""
PENDING_S: Final = 1.0
"""Before a command that is not decided yet is sent again, with its id."""
MAX_WAITING: Final = 1024
"""Frames that came and are not read yet: beyond it the streams wait, and so does the server."""

_LOST: Final = 1006
_ENTITLED: Final = ["correct", "cancel", "approve", "input"]
_LIMITS: Final = ConnectionLimits(
    max_frame_bytes=MAX_FRAME_BYTES,
    max_input_bytes=MAX_INPUT_BYTES,
    max_tool_result_bytes=MAX_TOOL_RESULT_BYTES,
    max_runs=32,
    commands_in_flight=COMMANDS_IN_FLIGHT,
    command_memory_s=86_400,
)
"""The server's own are only said on a WebSocket; these are what every server takes."""


class _Sent(msgspec.Struct):
    """A command, as far as it matters here."""

    type: str
    payload: msgspec.Raw
    command_id: str = ""
    run_id: str = ""


class _Head(msgspec.Struct):
    type: str
    seq: int | None = None


_sent = msgspec.json.Decoder(_Sent).decode
_head = msgspec.json.Decoder(_Head).decode


async def open_http(address: Address, *, client_id: str, token: str | None, clock: Clock) -> "HttpLink":
    """Raises `Unreachable`, and `LinkClosed` when the server refuses who asks."""
    http = httpx2.AsyncClient(
        timeout=TIMEOUT_S,
        trust_env=not address.loopback,
        # A stream a run, and the commands beside them.
        limits=httpx2.Limits(max_connections=None),
    )
    link = HttpLink(address, http, client_id=client_id, token=token, clock=clock)
    try:
        await link.open()
    except BaseException:
        await link.close(None)
        raise
    return link


class HttpLink:
    def __init__(
        self, address: Address, http: httpx2.AsyncClient, *, client_id: str, token: str | None, clock: Clock
    ) -> None:
        self._address = address
        self._http = http
        self._client_id = client_id
        self._clock = clock
        self._frames: asyncio.Queue[bytes | None] = asyncio.Queue(MAX_WAITING)
        self._end: LinkClosed | None = None
        self._streams: dict[str, asyncio.Task[None]] = {}
        self._places: dict[str, int] = {}
        self._turns: dict[str, asyncio.Lock] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._use(token)

    # -- the link

    async def open(self) -> None:
        try:
            answer = await self._http.get(self._address.web("/v1/runs"), params={"limit": 1})
        except httpx2.TransportError as broken:
            raise Unreachable(str(broken) or type(broken).__name__) from broken
        self._refuse(answer)
        if answer.status_code >= httpx2.codes.BAD_REQUEST or "items" not in _object(answer):
            text = f"it answered {answer.status_code}: is it the address of a Midstream server?"
            raise Unreachable(text, status=answer.status_code)
        ready = ConnectionReady(
            connection_id=new_id("http"),
            client_id=self._client_id,
            server=answer.headers.get("server", ""),
            now=self._now(),
            heartbeat_s=HEARTBEAT_S,
            principal=PrincipalInfo(id="", name=""),
            limits=_LIMITS,
        )
        await self._say(ready)
        self._task(self._beat(), "beat")

    async def receive(self) -> bytes:
        # What came before the end is read before it, or a way that breaks often would never get anywhere.
        if self._end is not None and self._frames.empty():
            raise self._end
        frame = await self._frames.get()
        if frame is None:
            raise self._end or LinkClosed(_LOST)
        return frame

    async def send(self, data: bytes) -> None:
        if self._end is not None:
            raise self._end
        sent = _sent(data)
        match sent.type:
            case RunAttach.TYPE:
                self._follow(sent.run_id, sent.command_id, msgspec.json.decode(sent.payload, type=RunAttach))
            case RunDetach.TYPE:
                self._leave(sent.run_id)
                await self._say(Receipt(command_id=sent.command_id, status="accepted", run_id=sent.run_id))
            case ToolsOffer.TYPE:
                await self._reject(sent.command_id, ProtocolError.code, _NO_OFFER)
            case Ping.TYPE:
                await self._say(Pong())
            case "auth.refresh":
                self._use(str(msgspec.json.decode(sent.payload)["token"]))
                await self._say(Receipt(command_id=sent.command_id, status="accepted"))
            case _:
                self._task(self._command(sent, data), "command")

    async def close(self, code: int | None) -> None:
        self._finish(LinkClosed(_LOST if code is None else code))
        await stop(*self._tasks, *self._streams.values())
        await self._http.aclose()

    def _finish(self, end: LinkClosed) -> None:
        if self._end is not None:
            return
        self._end = end
        if not self._frames.full():
            # For a reader that waits; of a full queue none does.
            self._frames.put_nowait(None)

    async def _say(self, payload: FramePayload) -> None:
        await self._put(frame_bytes(payload))

    async def _put(self, frame: bytes) -> None:
        if self._end is None:
            await self._frames.put(frame)

    async def _reject(self, command_id: str, code: str, text: str) -> None:
        await self._say(Receipt(command_id=command_id, status="rejected", code=code, text=text))

    def _task(self, work: Any, name: str) -> asyncio.Task[None]:
        task = spawn(self._guarded(work), name=f"client:{self._client_id}/http/{name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _guarded(self, work: Any) -> None:
        """Whatever breaks one exchange breaks the link: what it carried is asked for again on the next one."""
        try:
            await work
        except httpx2.TransportError as broken:
            self._finish(LinkClosed(_LOST, str(broken) or type(broken).__name__))
        except LinkClosed as closed:
            self._finish(closed)

    def _use(self, token: str | None) -> None:
        if token:
            self._http.headers["Authorization"] = f"Bearer {token}"

    def _now(self) -> str:
        return iso_ms(self._clock.now_ms())

    async def _beat(self) -> None:
        while True:
            await self._clock.sleep(HEARTBEAT_S)
            answer = await self._http.get(self._address.web("/healthz"))
            if answer.status_code >= httpx2.codes.INTERNAL_SERVER_ERROR:
                raise LinkClosed(_LOST, f"the server answered {answer.status_code}")
            await self._say(Heartbeat(now=self._now(), runs=dict(self._places)))

    def _refuse(self, answer: httpx2.Response) -> None:
        """Raises `LinkClosed` for an answer that says who asks may not."""
        if answer.status_code == httpx2.codes.UNAUTHORIZED:
            raise LinkClosed(Close.BAD_CREDENTIALS, _text(answer))

    # -- commands

    async def _command(self, sent: _Sent, data: bytes) -> None:
        # Commands to one run take effect in the order in which they were sent.
        turn = self._turns.setdefault(sent.run_id or sent.command_id, asyncio.Lock())
        async with turn:
            while (receipt := await self._post(sent, data)) is None:
                await self._clock.sleep(PENDING_S)
        if not sent.run_id:
            self._turns.pop(sent.command_id, None)
        await self._say(receipt)
        # One that made or found another run than it named attaches.
        if receipt.status == "accepted" and receipt.run_id is not None and receipt.run_id != sent.run_id:
            self._follow(receipt.run_id, sent.command_id, None)

    async def _post(self, sent: _Sent, data: bytes) -> Receipt | None:
        """The receipt; None: not decided yet."""
        who = {"client_id": self._client_id}
        headers = {"Content-Type": "application/json"}
        if sent.type == RunStart.TYPE and not sent.run_id:
            headers["Idempotency-Key"] = sent.command_id
            path, body = "/v1/runs", bytes(sent.payload)
        else:
            path, body = f"/v1/runs/{quote(sent.run_id, safe='')}/commands", data
        answer = await self._http.post(self._address.web(path), params=who, headers=headers, content=body)
        self._refuse(answer)
        if answer.status_code == httpx2.codes.ACCEPTED:
            return None
        return _receipt(answer, sent.command_id)

    # -- streams

    def _follow(self, run_id: str, command_id: str, asked: RunAttach | None) -> None:
        """`asked` None: a command attaches, and had its receipt."""
        self._leave(run_id)
        self._streams[run_id] = self._task(self._stream(run_id, command_id, asked), f"stream/{run_id}")

    def _leave(self, run_id: str) -> None:
        self._places.pop(run_id, None)
        stream = self._streams.pop(run_id, None)
        if stream is not None:
            stream.cancel()

    async def _stream(self, run_id: str, command_id: str, asked: RunAttach | None) -> None:
        path = f"/v1/runs/{quote(run_id, safe='')}"
        answer = await self._http.get(self._address.web(path))
        self._refuse(answer)
        if answer.status_code != httpx2.codes.OK:
            await self._say(_receipt(answer, command_id))
            return
        view = _object(answer)
        if asked is not None:
            await self._say(Receipt(command_id=command_id, status="accepted", run_id=run_id))
        head, epoch = int(view["cursor"]["seq"]), str(view["cursor"].get("epoch", ""))
        # Before it is said: a beat in between must not leave the run out.
        self._places[run_id] = asked.since_seq or 0 if asked is not None else 0
        await self._say(_attached(view, command_id, run_id, answer))
        params: dict[str, Any] = {"since_seq": 0}
        if asked is not None:
            if asked.client_tools and not asked.since_seq:
                await self._say(ErrorFrame(code=ProtocolError.code, text=_NO_OFFER))
            params = {"since_seq": asked.since_seq, "epoch": asked.epoch, "replay": asked.replay}
            if asked.replay == "snapshot":
                snapshot = RunReset(run_id=run_id, reason="requested", epoch=epoch, snapshot=view, snapshot_seq=head)
                await self._say(snapshot)
                params = {"since_seq": head, "epoch": epoch}
                self._places[run_id] = head
        await self._events(run_id, path, {name: value for name, value in params.items() if value is not None}, head)

    async def _events(self, run_id: str, path: str, params: dict[str, Any], head: int) -> None:
        since = int(params["since_seq"])
        async with self._http.stream(
            "GET",
            self._address.web(path + "/events"),
            params=params,
            headers={"Accept": "application/x-ndjson"},
            timeout=httpx2.Timeout(TIMEOUT_S, read=SILENCE_S),
        ) as response:
            if response.status_code == httpx2.codes.NO_CONTENT:
                await self._say(RunCaughtUp(run_id=run_id, seq=since))
                return
            if response.status_code != httpx2.codes.OK:
                raise LinkClosed(_LOST, f"the stream of run {run_id} was refused: {response.status_code}")
            caught_up = since == head
            if caught_up:
                await self._say(RunCaughtUp(run_id=run_id, seq=since))
            async for line in _lines(response):
                said = _head(line)
                seq = said.seq if said.seq is not None else _snapshot_seq(said.type, line)
                await self._put(line)
                if seq is not None:
                    self._places[run_id] = seq
                if not caught_up and seq is not None and seq >= head:
                    caught_up = True
                    await self._say(RunCaughtUp(run_id=run_id, seq=seq))
                if said.type in TERMINAL_TYPES:
                    self._places.pop(run_id, None)
                    return
                if said.type == RunReset.TYPE and seq is None:
                    # The run is gone.
                    return
        # The server goes down, or this reader was too slow for it: come back with the cursor.
        raise LinkClosed(_LOST, f"the stream of run {run_id} ended")


_NO_OFFER: Final = "over HTTP tools are offered with the start of a run only; where a WebSocket works, use it"


async def _lines(response: httpx2.Response) -> Any:
    rest = b""
    async for chunk in response.aiter_bytes():
        if b"\n" not in chunk:
            rest += chunk
            continue
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            if line:
                yield line


def _snapshot_seq(type_: str, line: bytes) -> int | None:
    if type_ != RunReset.TYPE:
        return None
    seq = json.loads(line)["payload"].get("snapshot_seq")
    return seq if isinstance(seq, int) else None


def _attached(view: dict[str, Any], command_id: str, run_id: str, answer: httpx2.Response) -> RunAttached:
    return RunAttached(
        command_id=command_id,
        run_id=run_id,
        thread_id=str(view.get("thread_id", "")),
        epoch=str(view["cursor"].get("epoch", "")),
        head_seq=int(view["cursor"]["seq"]),
        first_seq=1,
        status=str(view.get("status", "running")),
        can=[] if view.get("status") in TERMINAL_STATUSES else list(_ENTITLED),
        pending=[_fresh(item, answer) for item in view.get("pending", [])],
    )


def _fresh(item: dict[str, Any], answer: httpx2.Response) -> dict[str, Any]:
    """With the seconds left by the server's own clock."""
    try:
        now = parsedate_to_datetime(answer.headers["date"])
        expires = datetime.fromisoformat(item["expires_at"]).astimezone(UTC)
    except (KeyError, ValueError, TypeError):
        return item
    return {**item, "expires_in_s": max(0.0, (expires - now).total_seconds())}


def _receipt(answer: httpx2.Response, command_id: str) -> Receipt:
    """What an answer says of a command. Raises `LinkClosed` for one that is not the server's."""
    said = _object(answer)
    if "command_id" in said:
        return msgspec.convert(said, Receipt)
    if answer.status_code < httpx2.codes.BAD_REQUEST and "run_id" in said:
        return Receipt(
            command_id=command_id,
            status="accepted",
            run_id=str(said["run_id"]),
            thread_id=said.get("thread_id"),
            as_=said.get("as"),
            at_seq=(said.get("cursor") or {}).get("seq"),
        )
    error = said.get("error")
    if isinstance(error, dict):
        return Receipt(
            command_id=command_id,
            status="rejected",
            code=str(error.get("code")),
            text=error.get("text"),
            errors=msgspec.convert(error.get("errors", []), list[FieldError]),
            resolution=error.get("resolution"),
            retryable=error.get("retryable"),
        )
    if httpx2.codes.BAD_REQUEST <= answer.status_code < httpx2.codes.INTERNAL_SERVER_ERROR:
        code = TooLarge.code if answer.status_code == TooLarge.status else ProtocolError.code
        return Receipt(command_id=command_id, status="rejected", code=code, text=_text(answer))
    raise LinkClosed(_LOST, _text(answer))


def _object(answer: httpx2.Response) -> dict[str, Any]:
    try:
        said = json.loads(answer.content)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _text(answer: httpx2.Response) -> str:
    error = _object(answer).get("error")
    text = error.get("text") if isinstance(error, dict) else None
    return str(text) if text else f"it answered {answer.status_code}: is it the address of a Midstream server?"
